"""The decision core, case by case: (record, what the service answers, request, attempt) -> one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import Attempt
from airflow_provider_nanobanana.durable.decision import (
    LOOKS_TO_BELIEVE,
    MAX_GENERATIONS,
    Decision,
    Rules,
    Seen,
    Situation,
    Verb,
    decide,
)
from airflow_provider_nanobanana.durable.record import Record, RecordState, SubmissionIdentity
from airflow_provider_nanobanana.toapis import errors
from tests.unit.samples import COMPLETED, FAILED, ID, NOW, RUNNING, image_task

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


def test_generations_end() -> None:
    last = record(RecordState.DONE, generation=MAX_GENERATIONS - 1)
    assert isinstance(step(RETRY, record=last, seen=found(**FAILED)).error, errors.ImageTaskFailed)


def test_refused_content_is_final_for_a_retry_only() -> None:
    refused = found(**{**FAILED, "error": REFUSED})
    stopped = step(RETRY, record=record(RecordState.DONE), seen=refused)
    assert isinstance(stopped.error, errors.ContentRefused)
    assert step(CLEARED, record=record(RecordState.DONE), seen=refused).verb is Verb.SUBMIT


def test_an_expired_result_is_replaced_by_a_clear_or_on_request_only() -> None:
    dead, kept = COMPLETED["expires_at"], record(RecordState.DONE)
    assert step(RETRY, dead - 1, record=kept, seen=found()).verb is Verb.USE
    stopped = step(RETRY, dead, record=kept, seen=found())
    assert stopped.error is not None
    assert (type(stopped.error), stopped.error.charged) == (errors.ResultExpired, "yes")
    assert step(CLEARED, dead, record=kept, seen=found()).verb is Verb.SUBMIT
    assert step(RETRY, dead, Rules(on_expired="resubmit"), record=kept, seen=found()).verb is Verb.SUBMIT


def test_a_changed_request_is_another_wish_after_a_clear_only() -> None:
    kept = record(RecordState.DONE, fingerprint="e" * 64)
    assert step(RETRY, record=kept, seen=found()).verb is Verb.USE
    cleared = step(CLEARED, record=kept, seen=found())
    assert (cleared.verb, cleared.generation) == (Verb.WALK, 0)
    assert ID in cleared.reason


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
