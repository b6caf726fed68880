"""Whether the service really resolves the client ids that make a submit findable: asked once per process, for free."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.protocol import NO_RETRY, status_call

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

#: Seconds between the looks; an accepted submit may stay invisible for half a minute.
_PAUSES: Final = (0.0, 5.0, 10.0, 20.0)
_checked: dict[str, bool] = {}


def known_unsupported(base_url: str) -> bool:
    """Whether this process has seen that the service does not resolve client ids."""
    return _checked.get(base_url) is False


def known_supported(base_url: str) -> bool:
    """Whether this process has seen that the service resolves client ids."""
    return _checked.get(base_url) is True


def mark_supported(hook: NanoBananaHook) -> None:
    """Take note that an image task was found by its client id."""
    _checked[hook.settings.base_url] = True


def verify_support(hook: NanoBananaHook, client_business_id: str, image_task: ImageTask) -> None:
    """Look for the image task just bought by its client id; warn loudly when the service does not know it by that.

    An answer that repeats the id has shown that the field is understood; then one look suffices.
    """
    base_url = hook.settings.base_url
    if base_url in _checked:
        return
    for pause in _PAUSES[:1] if image_task.client_business_id == client_business_id else _PAUSES:
        if pause:
            hook.sleep(pause)
        try:
            found = hook.client.call(status_call(client_business_id, by_client_id=True), NO_RETRY)
        except errors.ImageTaskNotFound:
            continue
        except errors.ToApisError:
            return  # could not ask: the next submit of this process asks again
        _checked[base_url] = found.id in (image_task.id, client_business_id)
        return
    if image_task.client_business_id == client_business_id:
        _checked[base_url] = True
        return
    _checked[base_url] = False
    log.warning(
        "The service does not find image task %s by its client_business_id. A submit whose answer is lost cannot "
        "be found again. This process no longer resubmits on its own; set the extra client_ids to false.",
        image_task.id,
    )
