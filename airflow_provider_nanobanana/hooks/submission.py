"""One submit: references first, then the paid call, then, if its answer was lost, the search for what it bought."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.durable import LOOKUP_DELAYS
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.protocol import status_call, submit_call, upload_call

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask

log = logging.getLogger(__name__)

#: The newer docs' limit (2026-10); the older ones say 14. The service decides.
_DOCUMENTED_REFERENCES: Final = 6


def submit(hook: NanoBananaHook, request: ImageRequest, client_business_id: str | None) -> ImageTask:
    """Buy the image of a parsed request and return its image task.

    :raises ToApisError: ``SubmissionUnknown`` only after a minute of look-ups, or at once without a client id.
    """
    if len(request.reference_images) > _DOCUMENTED_REFERENCES:
        log.warning("%d reference images; newer docs speak of at most 6 for this model.", len(request.reference_images))
    call = submit_call(_with_uploads(hook, request), client_business_id)
    try:
        return hook.client.call(call)
    except errors.SubmissionUnknown as lost:
        if client_business_id is None:
            raise
        log.warning("%s Looking it up by client_business_id %s.", lost.message, client_business_id)
        found = look_up(hook, client_business_id, patient=True)
        if found is not None:
            log.warning("The lost submit had been accepted: adopting image task %s. Nothing is bought twice.", found.id)
            return found
        raise errors.SubmissionUnknown(
            f"{lost.message} A minute of look-ups by client_business_id {client_business_id} did not show it. The next "
            "attempt looks again before it submits.",
            http_status=lost.http_status,
            code=lost.code,
        ) from lost


def look_up(hook: NanoBananaHook, client_business_id: str, *, patient: bool) -> ImageTask | None:
    """Return the image task that carries a client id, or None when the service knows none; free.

    :param patient: Believe "none" only after :data:`LOOKUP_DELAYS`; an accepted submit may show up late.
    :raises ToApisError: when it could not be asked, which is never the same as "none".
    """
    for delay in (*LOOKUP_DELAYS, None) if patient else (None,):
        try:
            return hook.client.call(status_call(client_business_id))
        except errors.ImageTaskNotFound:
            if delay is not None:
                hook.sleep(delay)
    return None


def _with_uploads(hook: NanoBananaHook, request: ImageRequest) -> ImageRequest:
    """Return the request with every storage reference read, checked and replaced by its public URL."""
    from airflow_provider_nanobanana.hooks.reference import is_remote, read_reference

    # All are checked before the first is sent: one bad reference costs nothing, not even an upload.
    uploads = {uri: read_reference(uri) for uri in request.reference_images if not is_remote(uri)}
    urls = {uri: hook.client.call(upload_call(upload)) for uri, upload in uploads.items()}
    return request.model_copy(
        update={"reference_images": tuple(urls.get(uri, uri) for uri in request.reference_images)}
    )
