"""Whether the service really resolves the client ids that make a submit findable: asked once per process, for free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.retry import NO_RETRY

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession

log = LineLogger(__name__)

#: Seconds between the look-ups; an accepted submit may stay invisible for half a minute.
_PAUSES: Final = (0.0, 5.0, 10.0, 20.0)
_checked: dict[str, bool] = {}


def known_to_resolve(base_url: str) -> bool | None:
    """Return whether the service was seen by this process to resolve client ids; None before it was asked."""
    return _checked.get(base_url)


def mark_supported(session: ToApisSession) -> None:
    """Take note that an image task was found by its client id."""
    _checked[session.settings.base_url] = True


def policy_for(session: ToApisSession, **choices: Any) -> SubmissionPolicy:
    """Return what a submission through a connection may do.

    :param choices: What the user chose, as fields of :class:`SubmissionPolicy`.
    """
    settings = session.settings
    return SubmissionPolicy(client_ids=settings.client_ids, http_timeout=settings.timeout, **choices)


def verify_support(session: ToApisSession, client_business_id: str, image_task: ImageTask) -> None:
    """Look for the image task just bought by its client id; warn loudly when the service does not know it by that.

    An answer that repeats the id has shown that the field is understood; then one look-up suffices.
    """
    base_url = session.settings.base_url
    if base_url in _checked:
        return
    resolves = _resolves(session, client_business_id, image_task)
    if resolves is None:
        return  # could not ask: the next submit of this process asks again
    _checked[base_url] = resolves
    if not resolves:
        log.warning(
            "The service does not find image task %s by its client_business_id. A submit whose answer is lost cannot "
            "be found again. This process no longer resubmits on its own; set the extra client_ids to false.",
            image_task.id,
        )


def _resolves(session: ToApisSession, client_business_id: str, image_task: ImageTask) -> bool | None:
    """Return whether the service finds an image task by its client id; None where it could not be asked."""
    echoed = image_task.client_business_id == client_business_id
    for pause in _PAUSES[:1] if echoed else _PAUSES:
        if pause:
            session.sleep(pause)
        try:
            found = session.get_task(client_business_id, by_client_id=True, retry=NO_RETRY)
        except errors.ImageTaskNotFound:
            continue
        except errors.ToApisError:
            return None
        if found.id in (image_task.id, client_business_id):
            return True
        if found.client_business_id == client_business_id:
            log.warning(
                "Image task %s was bought just now, and %s answers to the same client_business_id: another Airflow "
                "on this account sends the same ids. Give the connection of each the extra 'namespace'.",
                *(image_task.id, found.id),
            )
            return True
        return False
    return echoed
