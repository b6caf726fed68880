"""The decision core, case by case: (record, what the service answers, request, attempt) -> one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import Attempt
from airflow_provider_nanobanana.durable.reconcile import (
    LOOKS_TO_BELIEVE,
    MAX_GENERATIONS,
    MOST_GENERATIONS,
    Decision,
    Rules,
    Seen,
    Situation,
    Verb,
    decide,
)
from airflow_provider_nanobanana.durable.record import Record, RecordState, SubmissionIdentity
from airflow_provider_nanobanana.toapis import errors
from tests.support.responses import COMPLETED, FAILED, ID, NOW, RUNNING, image_task

IDENTITY = SubmissionIdentity(scope=("dag", "run", "task", "-1"), fingerprint="f" * 64)
CLIENT_ID = IDENTITY.client_business_id(0)
FIRST = Attempt.of(try_number=1, max_tries=2, retries=2, started_at=NOW)
RETRY = Attempt.of(try_number=2, max_tries=2, retries=2, started_at=NOW)
CLEARED = Attempt.of(try_number=3, max_tries=4, retries=2, started_at=NOW)
REFUSED = {"code": "content_policy_violation", "message": "no"}
#: As the samples say it; ``image_task`` starts from the completed one.
LIVING: list[dict[str, Any]] = [COMPLETED, {**COMPLETED, "result": None}]
BELIEVED = NOW + Rules().unseen_for


def record(state: RecordState, **changes: Any) -> Record:
    known = state in (RecordState.SUBMITTED, RecordState.DONE)
    fields: dict[str, Any] = {
        "fingerprint": IDENTITY.fingerprint, "regeneration": 0, "generation": 0, "client_business_id": CLIENT_ID,
        "image_task_id": ID if known else None, "at": NOW, "max_tries": 2, "writer": "w",
    }  # fmt: skip
    return Record(state=state, **{**fields, **changes})


def step(attempt: Attempt, now: float = NOW, rules: Rules | None = None, **situation: Any) -> Decision:
    return decide(Situation(IDENTITY, attempt, rules or Rules(), **situation), now)


def absent(target: str = CLIENT_ID, looks: int = LOOKS_TO_BELIEVE) -> Seen:
    return Seen(target, looks=looks)


def found(target: str = ID, **changes: Any) -> Seen:
    return Seen(target, image_task(**changes))


def test_a_first_attempt_submits_without_a_look() -> None:
    decision = step(FIRST)
    assert (decision.verb, decision.generation) == (Verb.SUBMIT, 0)


@pytest.mark.parametrize("attempt", [RETRY, CLEARED])
def test_a_later_attempt_without_a_record_looks_under_the_derived_id(attempt: Attempt) -> None:
    decision = step(attempt)
    assert (decision.verb, decision.target) == (Verb.LOOK, CLIENT_ID)


@pytest.mark.parametrize(
    ("kept", "target"),
    [
        (record(RecordState.INTENT), CLIENT_ID),
        (record(RecordState.SUBMITTED), ID),
        (record(RecordState.DONE), ID),
        (record(RecordState.SUBMITTED, client_business_id=None), ID),
    ],
)
def test_a_record_says_what_to_look_at(kept: Record, target: str) -> None:
    for seen in (None, absent("another")):
        decision = step(RETRY, record=kept, seen=seen)
        assert (decision.verb, decision.target) == (Verb.LOOK, target)


@pytest.mark.parametrize("attempt", [RETRY, CLEARED])
@pytest.mark.parametrize("kept", [record(RecordState.INTENT), record(RecordState.DONE), None])
def test_what_lives_is_used(attempt: Attempt, kept: Record | None) -> None:
    target = kept.image_task_id or CLIENT_ID if kept else CLIENT_ID
    verb = Verb.USE if kept and kept.image_task_id else Verb.ADOPT
    for body in LIVING:
        decision = step(attempt, record=kept, seen=found(target, **body))
        assert (decision.verb, decision.target) == (verb, ID)


def test_what_runs_is_attached_to() -> None:
    running = found(**{**RUNNING, "completed_at": None, "result": None})
    assert step(RETRY, record=record(RecordState.SUBMITTED), seen=running).verb is Verb.REATTACH


@pytest.mark.parametrize(
    ("looks", "now", "believed"),
    [(1, BELIEVED, False), (LOOKS_TO_BELIEVE, BELIEVED - 1, False), (LOOKS_TO_BELIEVE, BELIEVED, True)],
)
@pytest.mark.parametrize("kept", [record(RecordState.INTENT), None])
def test_not_there_is_believed_when_old_and_repeated(
    kept: Record | None, looks: int, now: float, believed: bool
) -> None:
    decision = step(RETRY, now, record=kept, seen=absent(looks=looks))
    assert decision.verb is (Verb.SUBMIT if believed else Verb.WAIT)
    assert believed or 0 < decision.seconds <= 16


@pytest.mark.parametrize(
    ("behind", "seconds"),
    [(-6 * 3600.0, 150.0), (-100.0, 150.0), (-45.0, 135.0), (0.0, 90.0), (100.0, 90.0), (299.0, 90.0), (300.0, 0.0)],
)
def test_moments_of_another_clock_are_believed_when_long_past(behind: float, seconds: float) -> None:
    """Seconds from the first reading until "not there" is believed, by how far back the record's moment lies."""
    kept = record(RecordState.INTENT, at=NOW - behind)

    def verb(after: float) -> Verb:
        return step(RETRY, NOW + after, record=kept, seen=absent(), read_at=NOW).verb

    assert verb(seconds) is Verb.SUBMIT
    assert not seconds or verb(seconds - 1) is Verb.WAIT


def test_an_attempt_that_began_under_another_clock_does_not_wait_for_ever() -> None:
    late = replace(RETRY, started_at=NOW + 6 * 3600.0)
    assert step(late, NOW + 149, seen=absent(), read_at=NOW).verb is Verb.WAIT
    assert step(late, NOW + 150, seen=absent(), read_at=NOW).verb is Verb.SUBMIT


@pytest.mark.parametrize("looks", [1, 5, 1025, 10**6])
def test_pauses_are_bounded_however_often_it_was_asked(looks: int) -> None:
    assert 0 < step(RETRY, NOW, record=record(RecordState.INTENT), seen=absent(looks=looks)).seconds <= 16


def test_fail_stops_a_retry_and_lets_a_clear_go_on() -> None:
    rules = Rules(on_unknown_submission="fail")
    stopped = step(RETRY, BELIEVED, rules, record=record(RecordState.INTENT), seen=absent())
    assert isinstance(stopped.error, errors.SubmissionUnfindable)
    assert CLIENT_ID in stopped.reason
    cleared = step(CLEARED, BELIEVED, rules, record=record(RecordState.INTENT), seen=absent())
    assert cleared.verb is Verb.SUBMIT


@pytest.mark.parametrize("kept", [record(RecordState.INTENT, client_business_id=None), None])
def test_without_client_ids_a_retry_stops_and_a_clear_submits(kept: Record | None) -> None:
    rules = Rules(client_ids=False)
    stopped = step(RETRY, rules=rules, record=kept)
    assert (stopped.verb, stopped.error is not None and stopped.error.charged) == (Verb.FAIL, "unknown")
    assert step(CLEARED, rules=rules, record=kept).verb is Verb.SUBMIT


def test_a_failed_one_is_followed_by_the_next_generation() -> None:
    for attempt in (RETRY, CLEARED):
        recorded = step(attempt, record=record(RecordState.DONE, generation=3), seen=found(**FAILED))
        assert (recorded.verb, recorded.generation) == (Verb.SUBMIT, 4)
        derived = step(attempt, seen=found(CLIENT_ID, **FAILED))
        assert (derived.verb, derived.generation) == (Verb.WALK, 1)


@pytest.mark.parametrize(
    ("failed", "attempt", "goes_on"),
    [
        (MAX_GENERATIONS, RETRY, False),
        (MAX_GENERATIONS, CLEARED, True),
        (MAX_GENERATIONS + 1, RETRY, True),
        (2 * MAX_GENERATIONS, RETRY, False),
        (MOST_GENERATIONS, CLEARED, False),
    ],
)
def test_failures_end_and_a_clear_begins_their_count_anew(failed: int, attempt: Attempt, goes_on: bool) -> None:
    last = record(RecordState.DONE, generation=failed - 1)
    recorded = step(attempt, record=last, seen=found(**FAILED))
    derived = step(attempt, generation=failed - 1, seen=found(IDENTITY.client_business_id(failed - 1), **FAILED))
    for decision in (recorded, derived):
        assert isinstance(decision.error, errors.ImageTaskFailed) is not goes_on
    assert goes_on or ("variant" in recorded.reason) is (failed == MOST_GENERATIONS)


def test_refused_content_is_final_for_a_retry_only() -> None:
    refused = found(**{**FAILED, "error": REFUSED})
    stopped = step(RETRY, record=record(RecordState.DONE), seen=refused)
    assert isinstance(stopped.error, errors.ContentRefused)
    assert step(CLEARED, record=record(RecordState.DONE), seen=refused).verb is Verb.SUBMIT


@pytest.mark.parametrize("kept", [record(RecordState.DONE), record(RecordState.SUBMITTED), None])
@pytest.mark.parametrize(
    ("attempt", "rules", "bought"),
    [
        (RETRY, Rules(), False),
        (CLEARED, Rules(), False),
        (RETRY, Rules(reuse_existing=False), False),
        (RETRY, Rules(clear_rebuys=True), False),
        (CLEARED, Rules(clear_rebuys=True), True),
        (RETRY, Rules(on_expired="resubmit"), True),
        (CLEARED, Rules(on_expired="resubmit"), True),
    ],
)
def test_what_expired_is_bought_anew_only_when_told_to(
    kept: Record | None, attempt: Attempt, rules: Rules, bought: bool
) -> None:
    decision = step(attempt, COMPLETED["expires_at"], rules, record=kept, seen=found(ID if kept else CLIENT_ID))
    verb = Verb.SUBMIT if kept else Verb.WALK
    assert (decision.verb, decision.generation) == ((verb, 1) if bought else (Verb.FAIL, 0))


def test_a_clear_without_reuse_replaces_what_expired_before_it() -> None:
    rules, dead = Rules(reuse_existing=False), COMPLETED["expires_at"]
    for state in (RecordState.DONE, RecordState.SUBMITTED):
        assert step(CLEARED, dead, rules, record=record(state), seen=found()).verb is Verb.SUBMIT
    # Without a record the id is one of this clear's own: what it finds was bought since.
    assert step(CLEARED, dead, rules, seen=found(CLIENT_ID)).verb is Verb.FAIL


def test_an_expired_result_stops_a_retry() -> None:
    dead, kept = COMPLETED["expires_at"], record(RecordState.DONE)
    assert step(RETRY, dead - 1, record=kept, seen=found()).verb is Verb.USE
    stopped = step(RETRY, dead, record=kept, seen=found())
    assert stopped.error is not None
    assert (type(stopped.error), stopped.error.charged) == (errors.ResultExpired, "yes")
    assert ID in stopped.reason


def test_a_changed_request_is_another_wish_after_a_clear_only() -> None:
    kept = record(RecordState.DONE, fingerprint="e" * 64)
    went_on = step(RETRY, record=replace(kept, try_number=1), seen=found())
    assert went_on.verb is Verb.USE
    assert "the request of try 1" in went_on.reason
    assert "clear the task once more" in went_on.reason
    cleared = step(CLEARED, record=kept, seen=found())
    assert (cleared.verb, cleared.generation) == (Verb.WALK, 0)
    assert ID in cleared.reason


def test_a_clear_that_may_have_been_none_asks_for_what_is_new_and_risks_nothing_unseen() -> None:
    """``retries`` lowered from 2 to 1 after the first try: a clear and a retry look the same."""
    perhaps = Attempt.of(try_number=2, max_tries=2, retries=1, started_at=NOW)
    done = record(RecordState.DONE, fingerprint="e" * 64, try_number=1)
    assert step(perhaps, record=done, seen=found()).verb is Verb.WALK
    sent = record(RecordState.INTENT, try_number=1)
    unsure = step(perhaps, BELIEVED, Rules(on_unknown_submission="fail"), record=sent, seen=absent())
    assert isinstance(unsure.error, errors.SubmissionUnfindable)
    blind = step(perhaps, rules=Rules(client_ids=False), record=replace(sent, client_business_id=None))
    assert isinstance(blind.error, errors.SubmissionUnfindable)


@pytest.mark.parametrize(("state", "verb"), [(RecordState.DONE, Verb.SUBMIT), (RecordState.SUBMITTED, Verb.USE)])
def test_without_reuse_only_what_was_handed_on_is_bought_anew(state: RecordState, verb: Verb) -> None:
    rules = Rules(reuse_existing=False)
    assert step(CLEARED, rules=rules, record=record(state), seen=found()).verb is verb
    assert step(RETRY, rules=rules, record=record(state), seen=found()).verb is Verb.USE


def test_a_queued_record_vouches_that_nothing_was_sent() -> None:
    decision = step(RETRY, record=record(RecordState.QUEUED, generation=2))
    assert (decision.verb, decision.generation) == (Verb.SUBMIT, 2)
    changed = step(RETRY, record=record(RecordState.QUEUED, fingerprint="e" * 64))
    assert (changed.verb, changed.generation) == (Verb.WALK, 0)


def test_an_id_of_another_account_is_not_given_up_without_being_told() -> None:
    kept = record(RecordState.DONE)
    stopped = step(CLEARED, BELIEVED, record=kept, seen=absent(ID))
    assert isinstance(stopped.error, errors.ImageTaskNotFound)
    anew = replace(kept, max_tries=CLEARED.max_tries - 1)
    told = step(CLEARED, BELIEVED, Rules(reuse_existing=False), record=anew, seen=absent(ID))
    assert told.verb is Verb.SUBMIT
