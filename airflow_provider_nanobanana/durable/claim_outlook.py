"""``outlook``: what a retry and what a clear of a task would do about an open claim, in words.

The words follow from :func:`~.claims.decide_claim`, which is asked with each answer that the service might give:
nothing is sent, and nothing is known better than by the task itself. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claims import (
    BookEntry,
    Buyer,
    Claim,
    ClaimAction,
    ClaimFacts,
    Damaged,
    decide_claim,
    settle_seconds,
)
from airflow_provider_nanobanana.durable.reconcile import MIN_LOOKUPS, Lookup, SubmissionPolicy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS, ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

#: What generate does unless its arguments say otherwise.
DEFAULT_POLICY: Final = SubmissionPolicy(clear_rebuys=True)
_STOPS: Final[tuple[tuple[type[errors.ToApisError], str], ...]] = (
    (errors.ContentRefused, "fails: the service has refused the content"),
    (errors.ResultExpired, "fails: it is paid, and its link has expired"),
    (errors.ImageTaskNotFound, "fails: this account does not know what was bought"),
    (errors.SubmissionUnfindable, "fails: whether it was bought cannot be found out"),
)


@dataclass(frozen=True)
class Outlook:
    """What each would do, as the predicate of a sentence, such as ``buys it``."""

    retry: str
    clear: str


def outlook(
    claim: Claim | Damaged,
    book: BookEntry | None,
    *,
    age: float | None,
    now: float,
    policy: SubmissionPolicy = DEFAULT_POLICY,
) -> Outlook:
    """Return what a retry and what a clear of the task that made a claim would do about the image.

    :param claim: The newest generation on a file that is not in place.
    :param book: What the claim's book says; None where it says nothing.
    :param age: Seconds for which the claim has been there; None where that is unknown.
    :param now: Epoch seconds.
    """

    def facts(*, clear: bool) -> ClaimFacts:
        buyer = claim.by if isinstance(claim, Claim) else Buyer()
        tries = max(1, buyer.try_number)
        attempt = TaskAttempt(
            started_at=now,
            max_tries=tries,
            retry=not clear,
            tries_before_clear=tries if clear else 0,
            try_number=tries + 1,
        )
        return ClaimFacts(claim, buyer, attempt, policy, book=book, age=age or 0.0)

    return Outlook(retry=_words(facts(clear=False), now), clear=_words(facts(clear=True), now))


def _words(facts: ClaimFacts, now: float) -> str:
    decision = decide_claim(facts, now)
    if decision.action is not ClaimAction.LOOK_UP:
        return _does(facts, now)
    answers = [
        f"{condition}, {_does(replace(facts, lookup=lookup), now)}"
        for condition, lookup in _answers(facts, decision.target, now).items()
    ]
    return f"asks the service: {'; '.join(answers)}"


def _answers(facts: ClaimFacts, target: str, now: float) -> dict[str, Lookup]:
    """Return the answers that the service might give, by their conditions in words."""
    submitted_at = facts.top.at if isinstance(facts.top, Claim) else now
    known = ImageTask(id="-", status=ImageTaskStatus.RUNNING, created_at=submitted_at)
    there = known
    if facts.age > LINK_LIFETIME_SECONDS:
        completed = {"status": ImageTaskStatus.COMPLETED, "completed_at": now - facts.age}
        there = known.model_copy(update=completed)
    failed = known.model_copy(update={"status": ImageTaskStatus.FAILED})
    return {
        "if it is there": Lookup(target, there),
        "if it failed": Lookup(target, failed),
        "if it is not there": Lookup(target),
    }


def _does(facts: ClaimFacts, now: float) -> str:
    """Return what is done when all of this is known."""
    decision = decide_claim(facts, now)
    match decision.action:
        case ClaimAction.SHARE:
            return "uses it and buys nothing"
        case ClaimAction.CREATE:
            return "buys it again" if facts.lookup is not None and facts.lookup.image_task is not None else "buys it"
        case ClaimAction.FAIL:
            return next((words for kind, words in _STOPS if isinstance(decision.error, kind)), "fails")
        case ClaimAction.HOLD:
            return _does_after_a_wait(facts, now)
        case ClaimAction.LOOK_UP:
            return "asks the service"


def _does_after_a_wait(facts: ClaimFacts, now: float) -> str:
    """Return how long is waited, if nothing changes, and what follows."""
    assert facts.top is not None
    seconds = settle_seconds(facts.top, facts.policy)
    settled = replace(facts, age=max(seconds, facts.age), looks=MIN_LOOKUPS)
    if decide_claim(settled, now).action is not ClaimAction.HOLD:
        waits = "looks a few times more" if facts.age >= seconds else f"waits for up to {seconds - facts.age:.0f} s"
        return f"{waits}, then {_does(settled, now)}{_unless_strict(settled, now)}"
    return f"waits for the file until its timeout, then {_does(replace(settled, waited_out=True), now)}"


def _unless_strict(facts: ClaimFacts, now: float) -> str:
    """Say where the argument ``on_unknown_submission`` makes the difference."""
    strict = replace(facts, policy=replace(facts.policy, on_unknown_submission="fail"))
    differs = decide_claim(facts, now).action is not decide_claim(strict, now).action
    return ' (with on_unknown_submission="fail" it fails)' if differs else ""
