"""Which image task belongs to which request: the identity under which a submit can be found again, and what to do then.

Pure: no I/O, no clock, no Airflow. An identity is derived, never stored, so that every Airflow version and an attempt
on another machine come to the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from airflow_provider_nanobanana.toapis.classify import content_refused
from airflow_provider_nanobanana.toapis.errors import ContentRefused, ResultExpired, ToApisError
from airflow_provider_nanobanana.toapis.models import ImageTask, ImageTaskStatus

OnUnknownSubmission = Literal["resubmit", "fail"]

#: Seconds between look-ups of an id that the service does not show: an accepted submit may stay invisible for half a
#: minute, so "not there" is believed only after a minute of asking.
LOOKUP_DELAYS: Final = (2.0, 4.0, 8.0, 16.0, 30.0)
#: Nothing sane fails this often; a bound against an endless loop.
MAX_GENERATIONS: Final = 25


@dataclass(frozen=True)
class SubmissionIdentity:
    """What makes a submission this one: the task instance and the request.

    :param scope: dag id, run id, task id, map index.
    :param fingerprint: Hash of the request (:meth:`ImageRequest.fingerprint`).
    :param occurrence: Tells identical requests of one task instance apart.
    :param regeneration: Rises when the user wants the same request made anew.
    """

    scope: tuple[str, ...]
    fingerprint: str
    occurrence: int = 0
    regeneration: int = 0

    def client_business_id(self, generation: int) -> str:
        """Return the id sent with generation ``generation``: 43 characters of ``A-Za-z0-9-`` at most.

        NUL joins the parts, so that no two scopes read alike.
        """
        parts = (*self.scope, self.fingerprint, str(self.occurrence), str(self.regeneration), str(generation))
        return f"nb-{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


@dataclass(frozen=True)
class Attempt:
    """Where a task instance stands: Airflow counts tries on, and raises ``max_tries`` at every clear.

    :param cleared: Whether the user cleared the task since its first run.
    :param retry: Whether an earlier try since the last clear may have submitted.
    :param tries_before_clear: Tries spent before the last clear; names the wish behind it.
    """

    cleared: bool
    retry: bool
    tries_before_clear: int

    @classmethod
    def of(cls, *, try_number: int, max_tries: int, retries: int) -> Attempt:
        """Return the standing: at first ``max_tries`` is ``retries``; a clear sets it to the tries so far plus that."""
        before = max(0, max_tries - retries)
        return cls(cleared=before > 0, retry=try_number > before + 1, tries_before_clear=before)

    @property
    def must_look(self) -> bool:
        """Whether an image task of ours may already exist."""
        return self.cleared or self.retry


class Verdict(StrEnum):
    """What to do about a generation that was looked up."""

    USE = "use"
    SUBMIT = "submit"
    NEXT_GENERATION = "next generation"


@dataclass(frozen=True)
class Decision:
    """A verdict and its reason, in words for the log."""

    verdict: Verdict
    reason: str


def decide(found: ImageTask | None, attempt: Attempt, now: float) -> Decision:
    """Decide about one generation from what the service shows of it; ``now`` is epoch seconds.

    :raises ContentRefused: on a retry of what was refused; only a clear sends it again.
    :raises ResultExpired: on a retry of what is paid and dead; only a clear buys it again.
    """
    if found is None:
        return Decision(Verdict.SUBMIT, "the service knows no image task of this request")
    if found.status is ImageTaskStatus.FAILED:
        return _decide_failed(found, attempt)
    if found.status is ImageTaskStatus.COMPLETED and now >= found.expires(now):
        if attempt.cleared:
            return Decision(Verdict.NEXT_GENERATION, f"image task {found.id} has expired and the task was cleared")
        raise ResultExpired(
            f"Image task {found.id} of this request is paid and its link has expired. Clear the task to buy it anew.",
            image_task_id=found.id,
        )
    return Decision(
        Verdict.USE,
        f"image task {found.id} of an earlier attempt is {found.wire_status or found.status}; nothing is bought",
    )


def _decide_failed(found: ImageTask, attempt: Attempt) -> Decision:
    error = found.error
    if error and content_refused(error.code, error.message) and not attempt.cleared:
        raise ContentRefused(
            f"Image task {found.id} of this request was refused by content policy ({error.code}: {error.message}) and "
            "refunded; it would be refused again. Change the prompt and clear the task.",
            image_task_id=found.id,
            code=error.code,
        )
    return Decision(Verdict.NEXT_GENERATION, f"image task {found.id} failed at the service and was refunded")


def blind_retry_error(client_business_id: str | None) -> ToApisError:
    """Return the error that stops a retry which cannot know whether an earlier attempt bought the image."""
    from airflow_provider_nanobanana.toapis.errors import SubmissionUnknown

    how = (
        f"No image task answers to client_business_id {client_business_id}, and on_unknown_submission='fail'."
        if client_business_id
        else "This connection sends no client ids (client_ids: false), so it cannot be asked for."
    )
    return SubmissionUnknown(
        f"An earlier attempt may have bought this image. {how} Nothing was sent now. Look at the account's task "
        "list in the ToAPIs console: if the image is there, pass its id to the sensor; if not, clear this task to "
        "submit."
    )
