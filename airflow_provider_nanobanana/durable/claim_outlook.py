"""``outlook``: what a retry and what a clear of a task would do about an open claim, in words.

The words follow from :func:`~.claims.decide_claim`, which is asked with each answer that the service might give:
nothing is sent, and nothing is known better than by the task itself. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.claims import (
    BookEntry,
    Buyer,
    Claim,
    ClaimAction,
    ClaimDecision,
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
    (errors.ImageTaskNotFound, "fails: it was bought with another account"),
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
    written_at: float | None,
    now: float,
    policy: SubmissionPolicy = DEFAULT_POLICY,
) -> Outlook:
    """Return what a retry and what a clear of the task that made a claim would do about the image.

    :param claim: The newest generation on a file that is not in place.
    :param book: What the claim's book says; None where it says nothing.
    :param written_at: Epoch seconds at which the claim was written, by the store's clock; None where that is unknown.
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
        return ClaimFacts(claim, buyer, attempt, policy, book=book, written_at=written_at)

    return Outlook(retry=_words(facts(clear=False), now), clear=_words(facts(clear=True), now))


def _words(facts: ClaimFacts, now: float) -> str:
    decision = decide_claim(facts, now)
    if decision.action is not ClaimAction.LOOK_UP:
        return _does(facts, decision, now)
    answers = {
        words: _does(answered, decide_claim(answered, now), now)
        for words, lookup in _answers(facts, decision.target, now).items()
        if (answered := replace(facts, lookup=lookup))
    }
    return "asks the service; " + "; ".join(f"{words}, it {does}" for words, does in answers.items())


def _answers(facts: ClaimFacts, target: str, now: float) -> dict[str, Lookup]:
    """Return the answers that the service might give, by their conditions in words."""
    submitted_at = facts.top.at if isinstance(facts.top, Claim) else now
    known = ImageTask(id="-", status=ImageTaskStatus.RUNNING, created_at=submitted_at)
    there = known
    if facts.written_at is not None and now > facts.written_at + LINK_LIFETIME_SECONDS:
        completed = {"status": ImageTaskStatus.COMPLETED, "completed_at": min(submitted_at, facts.written_at)}
        there = known.model_copy(update=completed)
    failed = known.model_copy(update={"status": ImageTaskStatus.FAILED})
    return {
        "if the image is there": Lookup(target, there),
        "if it failed": Lookup(target, failed),
        "if it is not there": Lookup(target),
    }


def _does(facts: ClaimFacts, decision: ClaimDecision, now: float) -> str:
    match decision.action:
        case ClaimAction.SHARE:
            return "uses it and buys nothing"
        case ClaimAction.CREATE:
            return "buys it again" if facts.lookup is not None and facts.lookup.image_task is not None else "buys it"
        case ClaimAction.FAIL:
            return next((words for kind, words in _STOPS if isinstance(decision.error, kind)), "fails")
        case ClaimAction.HOLD:
            return f"{_waits(facts)}, then {_after_the_wait(facts, now)}"
        case ClaimAction.LOOK_UP:
            return "asks the service"


def _waits(facts: ClaimFacts) -> str:
    """Return how long is waited."""
    by_age = facts.book is None and facts.lookup is not None and isinstance(facts.top, Claim)
    if not by_age or not isinstance(facts.top, Claim):
        return "waits for the file until its timeout"
    return f"looks for {settle_seconds(facts.top, facts.policy):.0f} s"


def _after_the_wait(facts: ClaimFacts, now: float) -> str:
    """Return what follows when the wait is over and nothing has changed."""
    over = replace(facts, age=math.inf, looks=MIN_LOOKUPS, waited_out=True)
    decision = decide_claim(over, now)
    strict = replace(over, policy=replace(facts.policy, on_unknown_submission="fail"))
    stops = decision.action is ClaimAction.CREATE and decide_claim(strict, now).action is ClaimAction.FAIL
    return _does(over, decision, now) + (' (with on_unknown_submission="fail": stops)' if stops else "")
