"""Why an attempt must not submit: what became of the money, and what a person can do."""

from __future__ import annotations

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask


def _unfindable(key: str, *, sent_ids: bool) -> errors.ToApisError:
    """An earlier submit can neither be found nor ruled out.

    :param key: The derived id of the submission; the key of a mapping that adopts an image task by hand.
    :param sent_ids: Whether submits carry that id.
    """
    how = (
        f"No image task answers to client_business_id {key}, and on_unknown_submission='fail'."
        if sent_ids
        else "This connection sends no client ids (client_ids: false), so it cannot be asked for."
    )
    return errors.SubmissionUnfindable(
        f"An earlier submit may have bought this image. {how} Nothing was sent now. Look at the account's task list in "
        "the ToAPIs console. If the image is there, clear this task with "
        f"adopt={{{key!r}: '<image task id>'}} (or that mapping as 'nanobanana_adopt' in the run's conf); if it is not "
        "there, clear this task to submit."
    )


def _unknown_id(image_task_id: str) -> errors.ToApisError:
    """The recorded image task is not this account's."""
    return errors.ImageTaskNotFound(
        f"Image task {image_task_id} was bought by an earlier attempt, but this account does not know it. Nothing was "
        "sent now: check that the connection still leads to the same host and account. To give the image up and buy "
        "anew, clear this task with reuse_existing=False.",
        image_task_id=image_task_id,
    )


def _expired(found: ImageTask, *, clear_rebuys: bool) -> errors.ToApisError:
    """The image is paid, and can no longer be fetched.

    :param clear_rebuys: Whether a clear by itself buys it anew.
    """
    how = "" if clear_rebuys else " with on_expired='resubmit' (or with reuse_existing=False)"
    return errors.ResultExpired(
        f"Image task {found.id} of this request is paid and its link has expired: the service no longer gives the "
        f"image out. Nothing was sent now. Clear the task{how} to buy it anew.",
        image_task_id=found.id,
    )


def _refused(found: ImageTask) -> errors.ToApisError:
    """The prompt was refused, and would be again."""
    code, message = (found.error.code, found.error.message) if found.error else ("", "")
    return errors.ContentRefused(
        f"Image task {found.id} of this request was refused by content policy ({code}: {message}) and refunded; it "
        "would be refused again. Change the prompt and clear the task.",
        image_task_id=found.id,
        code=code,
    )


def _too_many_failures(generations: int, *, clear_goes_on: bool) -> errors.ToApisError:
    """The service fails it every time.

    :param clear_goes_on: Whether a clear submits it again.
    """
    how = "clear this task" if clear_goes_on else "change the prompt or the variant and clear this task"
    return errors.ImageTaskFailed(
        f"{generations} image tasks of this request failed; all were refunded. Nothing was sent now. Look at the "
        f"prompt and at the service, then {how} to submit it again."
    )
