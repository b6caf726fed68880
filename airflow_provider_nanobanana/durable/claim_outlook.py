"""``outlook``: what a retry and what a clear of a task would do about an open claim, in words.

The words follow from :func:`~.claims.decide_claim`, which is asked with each answer that the service might give:
nothing is sent, and nothing is known better than by the task itself. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from airflow_provider_nanobanana.durable.course import (
    BUYS,
    BUYS_AGAIN,
    DEFAULT_POLICY,
    USES,
    Course,
    after,
    answers,
    asks,
    fails_with,
    with_choices,
)
from airflow_provider_nanobanana.durable.reconcile import MIN_LOOKUPS, SubmissionPolicy


@dataclass(frozen=True)
class Outlook:
    """What each would do."""

    retry: Course
    clear: Course


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

    return Outlook(retry=claim_course(facts(clear=False), now), clear=claim_course(facts(clear=True), now))


def claim_course(facts: ClaimFacts, now: float, whose: str = "") -> Course:
    """Return what an attempt does about an image whose claims it goes by; what has to be asked is not known yet.

    :param facts: As the attempt finds them when it begins.
    :param now: Epoch seconds.
    :param whose: Who made the claim, in words, where that is somebody else.
    """
    decision = decide_claim(facts, now)
    if decision.action is not ClaimAction.LOOK_UP:
        return _ends(facts, now)
    top = facts.top
    submitted_at = min(top.at or now, now - facts.age) if isinstance(top, Claim) else now
    courses = {
        condition: _ends(replace(facts, lookup=lookup), now)
        for condition, lookup in answers(decision.target, submitted_at, now).items()
    }
    return asks(courses, whose)


def _ends(facts: ClaimFacts, now: float) -> Course:
    """Return what is done when all of this is known."""
    if decide_claim(facts, now).action is ClaimAction.HOLD:
        return _ends_after_a_wait(facts, now)
    return with_choices(facts.policy, lambda policy: _does(replace(facts, policy=policy), now))


def _does(facts: ClaimFacts, now: float) -> Course:
    decision = decide_claim(facts, now)
    if decision.action is ClaimAction.SHARE:
        return USES
    if decision.action is ClaimAction.CREATE:
        lost = facts.settled is not None or (facts.lookup is not None and facts.lookup.image_task is not None)
        return BUYS_AGAIN if lost and decision.because != "released" else BUYS
    return fails_with(decision.error)


def _ends_after_a_wait(facts: ClaimFacts, now: float) -> Course:
    """Return how long is waited, if nothing changes, and what follows."""
    assert facts.top is not None
    seconds = settle_seconds(facts.top, facts.policy)
    settled = replace(facts, age=max(seconds, facts.age), looks=MIN_LOOKUPS)
    if decide_claim(settled, now).action is not ClaimAction.HOLD:
        waits = "looks a few times more" if facts.age >= seconds else f"waits for up to {seconds - facts.age:.0f} s"
        return after(waits, _ends(settled, now))
    return after("waits for the file until its timeout", _ends(replace(settled, waited_out=True), now))
