"""``Course``: what an attempt does about one image, as the predicate of a sentence, and what that means for the money.

The words follow from a decision that is asked with each answer that the service might give: nothing is sent, and
nothing is known better than by the task itself. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from airflow_provider_nanobanana.durable.reconcile import Lookup, SubmissionPolicy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS, ImageTask, ImageTaskError
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

Likely = Literal["no", "perhaps", "yes"]
#: How an image task ended.
Ended = Literal["completed", "expired", "failed", "refused"]

#: What may be so of an image task: the service does not show it.
ABSENT: Final = "is not there"


@dataclass(frozen=True)
class Course:
    """What an attempt does about an image.

    :param words: The predicate of a sentence, such as ``buys it``.
    :param buys: Whether it buys an image task; ``perhaps`` where that follows from an answer of the service.
    :param fails: Whether it ends without the image, as far as that is decided before the image is made.
    """

    words: str
    buys: Likely = "no"
    fails: Likely = "no"


USES: Final = Course("uses it and buys nothing")
BUYS: Final = Course("buys it", buys="yes")
BUYS_AGAIN: Final = Course("buys it again", buys="yes")

#: What generate does unless its arguments say otherwise.
DEFAULT_POLICY: Final = SubmissionPolicy(clear_rebuys=True)

_STOPS: Final[tuple[tuple[type[errors.ToApisError], str], ...]] = (
    (errors.ContentRefused, "fails: the service has refused the content"),
    (errors.ResultExpired, "fails: it is paid, and its link has expired"),
    (errors.ImageTaskNotFound, "fails: this account does not know what was bought"),
    (errors.SubmissionUnfindable, "fails: whether it was bought cannot be found out"),
    (errors.ImageTaskFailed, "fails: too many image tasks of it came to nothing"),
)
#: Arguments of a task that change what it does, and that are not known outside of it.
_CHOICES: Final = {
    'on_unknown_submission="fail"': {"on_unknown_submission": "fail"},
    'on_expired="resubmit"': {"on_expired": "resubmit"},
}


def fails_with(error: errors.ToApisError | None) -> Course:
    """Return the course that ends in an error."""
    words = next((words for kind, words in _STOPS if isinstance(error, kind)), "fails")
    return Course(words, fails="yes")


def after(words: str, course: Course) -> Course:
    """Return a course that follows after something else."""
    return replace(course, words=f"{words}, then {course.words}")


def asks(courses: Mapping[str, Course], of_whom: str = "") -> Course:
    """Return the course that hangs on what the service answers.

    :param courses: By what may be so of the image task, as the predicate of a condition, such as ``failed``.
    :param of_whom: Whose image task is asked for, where that is not the one that the sentence is about.
    """
    conditions: dict[Course, list[str]] = {}
    for condition, course in courses.items():
        conditions.setdefault(course, []).append(condition)
    parts = "; ".join(f"if it {' or '.join(those)}, {course.words}" for course, those in conditions.items())
    words = f"asks the service for what {of_whom} claimed ({parts})" if of_whom else f"asks the service: {parts}"
    return Course(
        words,
        buys=_all_of([course.buys for course in conditions]),
        fails=_all_of([course.fails for course in conditions]),
    )


def with_choices(policy: SubmissionPolicy, decide: Callable[[SubmissionPolicy], Course]) -> Course:
    """Return what is done under a policy, with what arguments of the task would change of it."""
    course = decide(policy)
    notes = [
        f" (with {argument} it {other.words.partition(':')[0]})"
        for argument, change in _CHOICES.items()
        if (other := decide(replace(policy, **change))) != course  # type: ignore[arg-type]
    ]
    return replace(course, words="".join([course.words, *notes]))


def answers(target: str, submitted_at: float, now: float, ended: Ended | None = None) -> dict[str, Lookup]:
    """Return the answers that the service might give about an image task, by what is so of it then.

    :param target: The id that is asked for.
    :param submitted_at: Epoch seconds; its link lives for a day from its completion.
    :param ended: How it ended, where that is known.
    """
    there = ImageTask(id="-", status=ImageTaskStatus.RUNNING, created_at=submitted_at)
    failed = there.model_copy(update={"status": ImageTaskStatus.FAILED})
    refusal = ImageTaskError(code=CONTENT_REFUSED.code, message="")
    completed = {"status": ImageTaskStatus.COMPLETED, "completed_at": now - LINK_LIFETIME_SECONDS}
    old = now - submitted_at > LINK_LIFETIME_SECONDS or ended == "expired"
    every: dict[str, tuple[ImageTask, bool]] = {
        "has expired": (there.model_copy(update=completed), old and ended in (None, "completed", "expired")),
        "is there": (there, ended in (None, "completed")),
        "failed": (failed, ended in (None, "failed")),
        "was refused": (failed.model_copy(update={"error": refusal}), ended in (None, "refused")),
    }
    found = {condition: Lookup(target, image_task) for condition, (image_task, possible) in every.items() if possible}
    return {**found, ABSENT: Lookup(target)}


def _all_of(likely: list[Likely]) -> Likely:
    """Return how likely something is that is as likely as one of these."""
    return likely[0] if len(set(likely)) == 1 else "perhaps"
