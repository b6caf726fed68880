"""One look at what an earlier submit may have bought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.protocol import status_call

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageTask


def look(hook: NanoBananaHook, target: str, *, by_client_id: bool | None = None) -> ImageTask | None:
    """Ask for an image task by its own or its client id; None when the service does not know it.

    :param by_client_id: As for :func:`~.protocol.status_call`: a client id that a user chose looks like any other.
    :raises ToApisError: It could not be asked, which is never "not there"; nothing was sent.
    """
    try:
        return hook.client.call(status_call(target, by_client_id=by_client_id))
    except errors.ImageTaskNotFound:
        return None
    except errors.ToApisError as unasked:
        # Not as it is: a rate-limited look-up must never pass for a submit that was not accepted.
        permanent = not unasked.retryable
        raise (type(unasked) if permanent else errors.TransientFailure)(
            f"An earlier submit may have bought this image, and it could not be looked up under {target}: "
            f"{unasked.message} Nothing was sent now; "
            f"{'mend this and clear the task' if permanent else 'a retry asks again'}.",
            http_status=unasked.http_status,
            code=unasked.code,
            retry_after=unasked.retry_after,
            charged="unknown",
        ) from unasked
