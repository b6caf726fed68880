"""The decision core, case by case: (record, what the service answers, request, attempt) -> one step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.reconcile import (
    MAX_GENERATIONS,
    MIN_LOOKUPS,
    MOST_GENERATIONS,
    Action,
    Decision,
    Lookup,
    ReconcileInput,
    SubmissionPolicy,
    reconcile,
)
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity, SubmissionRecord
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageRequest
from tests.support.durable import PostOutcome, SimulatedAttempt, Simulation
from tests.support.responses import COMPLETED, FAILED, ID, NOW, RUNNING, image_task

IDENTITY = SubmissionIdentity(scope=("dag", "run", "task", "-1"), fingerprint="f" * 64)
CLIENT_ID = IDENTITY.client_business_id(0)
FIRST = TaskAttempt.of(try_number=1, max_tries=2, retries=2, started_at=NOW)
RETRY = TaskAttempt.of(try_number=2, max_tries=2, retries=2, started_at=NOW)
CLEARED = TaskAttempt.of(try_number=3, max_tries=4, retries=2, started_at=NOW)
REFUSED = {"code": "content_policy_violation", "message": "no"}
#: As the samples say it; ``image_task`` starts from the completed one.
LIVING: list[dict[str, Any]] = [COMPLETED, {**COMPLETED, "result": None}]
BELIEVED = NOW + SubmissionPolicy().visibility_delay


def record(state: RecordState, **changes: Any) -> SubmissionRecord:
    known = state in (RecordState.SUBMITTED, RecordState.DONE)
    fields: dict[str, Any] = {
        "fingerprint": IDENTITY.fingerprint, "clear_number": 0, "generation": 0, "client_business_id": CLIENT_ID,
        "image_task_id": ID if known else None, "may_have_left_at": NOW, "max_tries": 2, "writer": "w",
    }  # fmt: skip
    return SubmissionRecord(state=state, **{**fields, **changes})


def step(attempt: TaskAttempt, now: float = NOW, policy: SubmissionPolicy | None = None, **facts: Any) -> Decision:
    return reconcile(ReconcileInput(IDENTITY, attempt, policy or SubmissionPolicy(), **facts), now)


def absent(target: str = CLIENT_ID, attempts: int = MIN_LOOKUPS) -> Lookup:
    return Lookup(target, attempts=attempts)


def found(target: str = ID, **changes: Any) -> Lookup:
    return Lookup(target, image_task(**changes))


def test_a_first_attempt_submits_without_a_look() -> None:
    decision = step(FIRST)
    assert (decision.action, decision.generation) == (Action.SUBMIT, 0)


@pytest.mark.parametrize("attempt", [RETRY, CLEARED])
def test_a_later_attempt_without_a_record_looks_up_the_derived_id(attempt: TaskAttempt) -> None:
    decision = step(attempt)
    assert (decision.action, decision.target) == (Action.LOOK_UP, CLIENT_ID)


@pytest.mark.parametrize(
    ("kept", "target"),
    [
        (record(RecordState.INTENT), CLIENT_ID),
        (record(RecordState.SUBMITTED), ID),
        (record(RecordState.DONE), ID),
        (record(RecordState.SUBMITTED, client_business_id=None), ID),
    ],
)
def test_a_record_says_what_to_look_up(kept: SubmissionRecord, target: str) -> None:
    for seen in (None, absent("another")):
        decision = step(RETRY, record=kept, lookup=seen)
        assert (decision.action, decision.target) == (Action.LOOK_UP, target)


@pytest.mark.parametrize("attempt", [RETRY, CLEARED])
@pytest.mark.parametrize("kept", [record(RecordState.INTENT), record(RecordState.DONE), None])
def test_what_lives_is_used(attempt: TaskAttempt, kept: SubmissionRecord | None) -> None:
    target = kept.image_task_id or CLIENT_ID if kept else CLIENT_ID
    action = Action.USE if kept and kept.image_task_id else Action.RECOVER
    for body in LIVING:
        decision = step(attempt, record=kept, lookup=found(target, **body))
        assert (decision.action, decision.target) == (action, ID)


def test_what_runs_is_attached_to() -> None:
    running = found(**{**RUNNING, "completed_at": None, "result": None})
    assert step(RETRY, record=record(RecordState.SUBMITTED), lookup=running).action is Action.REATTACH


@pytest.mark.parametrize(
    ("attempts", "now", "believed"),
    [(1, BELIEVED, False), (MIN_LOOKUPS, BELIEVED - 1, False), (MIN_LOOKUPS, BELIEVED, True)],
)
@pytest.mark.parametrize("kept", [record(RecordState.INTENT), None])
def test_not_there_is_believed_when_old_and_repeated(
    kept: SubmissionRecord | None, attempts: int, now: float, believed: bool
) -> None:
    decision = step(RETRY, now, record=kept, lookup=absent(attempts=attempts))
    assert decision.action is (Action.SUBMIT if believed else Action.WAIT)
    assert believed or 0 < decision.seconds <= 16


@pytest.mark.parametrize(
    ("behind", "seconds"),
    [(-6 * 3600.0, 150.0), (-100.0, 150.0), (-45.0, 135.0), (0.0, 90.0), (100.0, 90.0), (299.0, 90.0), (300.0, 0.0)],
)
def test_moments_of_another_clock_are_believed_when_long_past(behind: float, seconds: float) -> None:
    """Seconds from the first reading until "not there" is believed, by how far back the record's moment lies."""
    kept = record(RecordState.INTENT, may_have_left_at=NOW - behind)

    def action(after: float) -> Action:
        return step(RETRY, NOW + after, record=kept, lookup=absent(), read_at=NOW).action

    assert action(seconds) is Action.SUBMIT
    assert not seconds or action(seconds - 1) is Action.WAIT


def test_an_attempt_that_began_under_another_clock_does_not_wait_for_ever() -> None:
    late = replace(RETRY, started_at=NOW + 6 * 3600.0)
    assert step(late, NOW + 149, lookup=absent(), read_at=NOW).action is Action.WAIT
    assert step(late, NOW + 150, lookup=absent(), read_at=NOW).action is Action.SUBMIT


@pytest.mark.parametrize("attempts", [1, 5, 1025, 10**6])
def test_pauses_are_bounded_however_often_it_was_asked(attempts: int) -> None:
    assert 0 < step(RETRY, NOW, record=record(RecordState.INTENT), lookup=absent(attempts=attempts)).seconds <= 16


def test_fail_stops_a_retry_and_lets_a_clear_go_on() -> None:
    policy = SubmissionPolicy(on_unknown_submission="fail")
    stopped = step(RETRY, BELIEVED, policy, record=record(RecordState.INTENT), lookup=absent())
    assert isinstance(stopped.error, errors.SubmissionUnfindable)
    assert CLIENT_ID in stopped.reason
    cleared = step(CLEARED, BELIEVED, policy, record=record(RecordState.INTENT), lookup=absent())
    assert cleared.action is Action.SUBMIT


@pytest.mark.parametrize("kept", [record(RecordState.INTENT, client_business_id=None), None])
def test_without_client_ids_a_retry_stops_and_a_clear_submits(kept: SubmissionRecord | None) -> None:
    policy = SubmissionPolicy(client_ids=False)
    stopped = step(RETRY, policy=policy, record=kept)
    assert (stopped.action, stopped.error is not None and stopped.error.charged) == (Action.FAIL, "unknown")
    assert step(CLEARED, policy=policy, record=kept).action is Action.SUBMIT


def test_a_failed_one_is_followed_by_the_next_generation() -> None:
    for attempt in (RETRY, CLEARED):
        recorded = step(attempt, record=record(RecordState.DONE, generation=3), lookup=found(**FAILED))
        assert (recorded.action, recorded.generation) == (Action.NEXT_GENERATION, 4)
        derived = step(attempt, lookup=found(CLIENT_ID, **FAILED))
        assert (derived.action, derived.generation) == (Action.NEXT_GENERATION, 1)


def test_a_store_that_is_a_few_seconds_behind_is_asked_about_once() -> None:
    """Whatever the record of an earlier try calls unsent has one look before it is POSTed, and no wait."""
    for attempt in (RETRY, CLEARED):
        queued = record(RecordState.QUEUED, generation=2, client_business_id=IDENTITY.client_business_id(2))
        looks = step(attempt, record=queued)
        assert (looks.action, looks.target) == (Action.LOOK_UP, IDENTITY.client_business_id(2))
        absent_once = absent(IDENTITY.client_business_id(2), attempts=1)
        assert step(attempt, record=queued, lookup=absent_once).action is Action.SUBMIT
        assert step(attempt, record=queued, lookup=found(IDENTITY.client_business_id(2))).action is Action.RECOVER
        failed = step(attempt, record=queued, lookup=found(IDENTITY.client_business_id(2), **FAILED))
        assert (failed.action, failed.generation) == (Action.NEXT_GENERATION, 3)
        # What follows the record's own generation: settled, so that only the next one is looked for.
        following: dict[str, Any] = {"former": queued, "generation": 3, "read_at": NOW}
        assert step(attempt, **following).target == IDENTITY.client_business_id(3)
        unseen = step(attempt, **following, lookup=absent(IDENTITY.client_business_id(3), attempts=1))
        assert (unseen.action, unseen.generation) == (Action.SUBMIT, 3)


def test_what_this_try_has_written_needs_no_look() -> None:
    """A resumed wait for the account's rate, and what failed while this attempt waited."""
    mine = record(RecordState.QUEUED, try_number=RETRY.try_number)
    assert step(RETRY, record=mine).action is Action.SUBMIT
    failed = step(RETRY, record=replace(mine, state=RecordState.SUBMITTED, image_task_id=ID), lookup=found(**FAILED))
    assert (failed.action, failed.generation) == (Action.SUBMIT, 1)


def test_without_client_ids_there_is_no_look() -> None:
    policy = SubmissionPolicy(client_ids=False)
    assert step(RETRY, policy=policy, record=record(RecordState.QUEUED)).action is Action.SUBMIT
    assert step(RETRY, policy=policy, record=record(RecordState.DONE), lookup=found(**FAILED)).action is Action.SUBMIT


NAMED = replace(IDENTITY, name="kite")


def named_step(
    attempt: TaskAttempt, now: float = NOW, policy: SubmissionPolicy | None = None, **facts: Any
) -> Decision:
    return reconcile(ReconcileInput(NAMED, attempt, policy or SubmissionPolicy(), **facts), now)


def test_what_has_a_name_is_looked_up_once_by_a_first_attempt() -> None:
    """Another map index may have bought it before the upstream reordered."""
    target = NAMED.client_business_id(0)
    looks = named_step(FIRST)
    assert (looks.action, looks.target) == (Action.LOOK_UP, target)
    assert named_step(FIRST, lookup=absent(target, attempts=1)).action is Action.SUBMIT
    assert named_step(FIRST, lookup=found(target)).action is Action.RECOVER
    assert named_step(FIRST, lookup=found(target, **FAILED)).action is Action.NEXT_GENERATION
    assert named_step(FIRST, policy=SubmissionPolicy(reuse_existing=False)).action is Action.SUBMIT
    assert named_step(FIRST, policy=SubmissionPolicy(client_ids=False)).action is Action.SUBMIT


def test_what_another_name_left_behind_says_nothing_of_when_this_one_was_sent() -> None:
    former = record(RecordState.DONE, name="boat", may_have_left_at=NOW - 9999.0)
    named: dict[str, Any] = {"former": former, "read_at": NOW, "lookup": absent(NAMED.client_business_id(0))}
    assert named_step(CLEARED, NOW + 89, **named).action is Action.WAIT
    assert named_step(CLEARED, NOW + 90, **named).action is Action.SUBMIT
    assert step(CLEARED, **{**named, "lookup": absent()}).action is Action.SUBMIT, "without names it does"


@pytest.mark.parametrize(("recorded", "same"), [("kite", True), ("boat", False), ("", True)])
def test_a_record_of_another_name_is_one_of_another_image(recorded: str, same: bool) -> None:
    kept = record(RecordState.DONE, name=recorded)
    decision = named_step(CLEARED, record=kept, lookup=found())
    assert decision.action is (Action.USE if same else Action.NEXT_GENERATION)
    assert same or "found again by its name 'boat'" in decision.reason
    assert named_step(RETRY, record=kept, lookup=found()).action is Action.USE, "a retry keeps what is paid"
    assert step(CLEARED, record=kept, lookup=found()).action is Action.USE, "a name that was left out"


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
def test_failures_end_and_a_clear_begins_their_count_again(failed: int, attempt: TaskAttempt, goes_on: bool) -> None:
    last = record(RecordState.DONE, generation=failed - 1)
    recorded = step(attempt, record=last, lookup=found(**FAILED))
    derived = step(attempt, generation=failed - 1, lookup=found(IDENTITY.client_business_id(failed - 1), **FAILED))
    for decision in (recorded, derived):
        assert isinstance(decision.error, errors.ImageTaskFailed) is not goes_on
    assert goes_on or ("variant" in recorded.reason) is (failed == MOST_GENERATIONS)


def test_refused_content_is_final_for_a_retry_only() -> None:
    refused = found(**{**FAILED, "error": REFUSED})
    stopped = step(RETRY, record=record(RecordState.DONE), lookup=refused)
    assert isinstance(stopped.error, errors.ContentRefused)
    assert step(CLEARED, record=record(RecordState.DONE), lookup=refused).action is Action.NEXT_GENERATION


@pytest.mark.parametrize("kept", [record(RecordState.DONE), record(RecordState.SUBMITTED), None])
@pytest.mark.parametrize(
    ("attempt", "policy", "bought"),
    [
        (RETRY, SubmissionPolicy(), False),
        (CLEARED, SubmissionPolicy(), False),
        (RETRY, SubmissionPolicy(reuse_existing=False), False),
        (RETRY, SubmissionPolicy(clear_rebuys=True), False),
        (CLEARED, SubmissionPolicy(clear_rebuys=True), True),
        (RETRY, SubmissionPolicy(on_expired="resubmit"), True),
        (CLEARED, SubmissionPolicy(on_expired="resubmit"), True),
    ],
)
def test_what_expired_is_bought_again_only_when_told_to(
    kept: SubmissionRecord | None, attempt: TaskAttempt, policy: SubmissionPolicy, bought: bool
) -> None:
    decision = step(attempt, COMPLETED["expires_at"], policy, record=kept, lookup=found(ID if kept else CLIENT_ID))
    assert (decision.action, decision.generation) == ((Action.NEXT_GENERATION, 1) if bought else (Action.FAIL, 0))


def test_a_clear_without_reuse_replaces_what_expired_before_it() -> None:
    policy, dead = SubmissionPolicy(reuse_existing=False), COMPLETED["expires_at"]
    for state in (RecordState.DONE, RecordState.SUBMITTED):
        assert step(CLEARED, dead, policy, record=record(state), lookup=found()).action is Action.NEXT_GENERATION
    # Without a record the id is one of this clear's own: what it finds was bought since.
    assert step(CLEARED, dead, policy, lookup=found(CLIENT_ID)).action is Action.FAIL


def test_an_expired_result_stops_a_retry() -> None:
    dead, kept = COMPLETED["expires_at"], record(RecordState.DONE)
    assert step(RETRY, dead - 1, record=kept, lookup=found()).action is Action.USE
    stopped = step(RETRY, dead, record=kept, lookup=found())
    assert stopped.error is not None
    assert (type(stopped.error), stopped.error.charged) == (errors.ResultExpired, "yes")
    assert ID in stopped.reason


def test_a_changed_request_counts_after_a_clear_only() -> None:
    kept = record(RecordState.DONE, fingerprint="e" * 64)
    went_on = step(RETRY, record=replace(kept, try_number=1), lookup=found())
    assert went_on.action is Action.USE
    assert "the request of try 1" in went_on.reason
    assert "clear the task once more" in went_on.reason
    cleared = step(CLEARED, record=kept, lookup=found())
    assert (cleared.action, cleared.generation) == (Action.NEXT_GENERATION, 0)
    assert ID in cleared.reason


def test_a_clear_that_may_have_been_none_asks_for_what_is_new_and_risks_nothing_unseen() -> None:
    """``retries`` lowered from 2 to 1 after the first try: a clear and a retry look the same."""
    perhaps = TaskAttempt.of(try_number=2, max_tries=2, retries=1, started_at=NOW)
    done = record(RecordState.DONE, fingerprint="e" * 64, try_number=1)
    assert step(perhaps, record=done, lookup=found()).action is Action.NEXT_GENERATION
    sent = record(RecordState.INTENT, try_number=1)
    unsure = step(perhaps, BELIEVED, SubmissionPolicy(on_unknown_submission="fail"), record=sent, lookup=absent())
    assert isinstance(unsure.error, errors.SubmissionUnfindable)
    blind = step(perhaps, policy=SubmissionPolicy(client_ids=False), record=replace(sent, client_business_id=None))
    assert isinstance(blind.error, errors.SubmissionUnfindable)


@pytest.mark.parametrize(
    ("state", "action"), [(RecordState.DONE, Action.NEXT_GENERATION), (RecordState.SUBMITTED, Action.USE)]
)
def test_without_reuse_only_what_was_handed_on_is_bought_again(state: RecordState, action: Action) -> None:
    policy = SubmissionPolicy(reuse_existing=False)
    assert step(CLEARED, policy=policy, record=record(state), lookup=found()).action is action
    assert step(RETRY, policy=policy, record=record(state), lookup=found()).action is Action.USE


@pytest.mark.parametrize("attempt", [FIRST, RETRY, CLEARED])
@pytest.mark.parametrize("choice", ["resubmit", "fail"])
@pytest.mark.parametrize(("age", "seconds"), [(0.0, 90.0), (299.0, 90.0), (300.0, 0.0)])
def test_another_request_is_looked_up_once_what_was_sent_before_must_show(
    attempt: TaskAttempt, choice: Any, age: float, seconds: float
) -> None:
    """The record of the former request bounds when one of this may have left, by clocks that differ."""
    former = record(RecordState.DONE, fingerprint="e" * 64, may_have_left_at=NOW - age)
    policy = SubmissionPolicy(on_unknown_submission=choice)

    def action(after: float, seen: Lookup | None) -> Action:
        return step(attempt, NOW + after, policy, former=former, lookup=seen, read_at=NOW).action

    assert action(seconds, None) is Action.LOOK_UP
    assert action(seconds, absent(attempts=1)) is Action.SUBMIT
    assert not seconds or action(seconds - 1, absent(attempts=9)) is Action.WAIT


def test_where_nothing_can_have_left_one_look_up_suffices() -> None:
    never = replace(RETRY, started_at=-math.inf)
    assert step(never, policy=SubmissionPolicy(on_unknown_submission="fail"), lookup=absent(attempts=1)).action is (
        Action.SUBMIT
    )


def test_a_queued_record_says_that_nothing_was_sent() -> None:
    decision = step(RETRY, record=record(RecordState.QUEUED, generation=2), lookup=absent(attempts=1))
    assert (decision.action, decision.generation) == (Action.SUBMIT, 2)
    other = record(RecordState.QUEUED, fingerprint="e" * 64)
    for attempt in (RETRY, CLEARED):
        changed = step(attempt, record=other, lookup=absent(attempts=1))
        assert (changed.action, changed.generation) == (Action.NEXT_GENERATION, 0)
    # It was sent after all: a retry takes what is paid, a clear names it.
    assert step(RETRY, record=other, lookup=found(CLIENT_ID)).action is Action.RECOVER
    named = step(CLEARED, record=other, lookup=found(CLIENT_ID))
    assert named.action is Action.NEXT_GENERATION and ID in named.reason


def test_an_id_of_another_account_is_not_given_up_without_being_told() -> None:
    kept = record(RecordState.DONE)
    stopped = step(CLEARED, BELIEVED, record=kept, lookup=absent(ID))
    assert isinstance(stopped.error, errors.ImageTaskNotFound)
    again = replace(kept, max_tries=CLEARED.max_tries - 1)
    told = step(CLEARED, BELIEVED, SubmissionPolicy(reuse_existing=False), record=again, lookup=absent(ID))
    assert told.action is Action.NEXT_GENERATION


# --- two attempts of one task instance alive at once -----------------------------------------------------------------


RETRIES = 3


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    monkeypatch.setattr("airflow_provider_nanobanana.submission.workflow.verify_support", lambda *_: None)
    return Simulation()


def live(
    simulation: Simulation, try_number: int, max_tries: int = RETRIES, prompt: str = "a kite", **policy: Any
) -> SimulatedAttempt:
    attempt = TaskAttempt.of(try_number=try_number, max_tries=max_tries, retries=RETRIES, started_at=simulation.now)
    request = ImageRequest.parse({"prompt": prompt})
    clear_number = 0 if policy.get("reuse_existing", True) else attempt.tries_before_clear
    return SimulatedAttempt(
        simulation, 0, request, attempt, SubmissionPolicy(**policy), shared=True, clear_number=clear_number
    )


def until(attempt: SimulatedAttempt, at: str) -> None:
    """Go on until the attempt stands before such a side effect, or has ended."""
    attempt.step()
    while attempt.at != at and not attempt.ended:
        attempt.step()


def finish(attempt: SimulatedAttempt, fate: PostOutcome | None = None) -> SimulatedAttempt:
    attempt.finish(lambda: fate or PostOutcome(), most=500)
    return attempt


def test_a_late_starter_does_not_overwrite_what_another_bought_meanwhile(simulation: Simulation) -> None:
    sleeper = live(simulation, 1)
    until(sleeper, "read")
    searcher = live(simulation, 2)
    started = simulation.now
    while simulation.now < started + 75:
        until(searcher, "sleep")
    finish(sleeper, PostOutcome(shown_in=30.0))
    finish(searcher)
    assert len(simulation.charges) == 1
    assert searcher.bought == sleeper.bought


def test_a_refusal_that_is_noted_late_does_not_hide_what_another_bought(simulation: Simulation) -> None:
    refused = live(simulation, 1)
    until(refused, "post")
    refused.post_outcome = PostOutcome("limited")
    until(refused, "answer")
    finish(live(simulation, 2))
    finish(refused)
    finish(live(simulation, 3))
    assert len(simulation.charges) == 1


def test_a_lost_answer_that_is_noted_late_does_not_forget_the_id(simulation: Simulation) -> None:
    loser = live(simulation, 1)
    until(loser, "post")
    loser.post_outcome = PostOutcome("lost")
    until(loser, "answer")
    finder = finish(live(simulation, 2))
    assert finder.bought is not None
    finish(loser)
    assert simulation.row is not None
    assert simulation.row.image_task_id == finder.bought.id
    assert len(simulation.charges) == 1


def test_handing_on_an_abandoned_image_does_not_hide_the_one_bought_after_the_clear(simulation: Simulation) -> None:
    old = live(simulation, 1)
    until(old, "post")
    until(old, "answer")
    until(old, "write")
    old.step()  # it has its image and is about to hand it on
    new = live(simulation, 2, max_tries=1 + RETRIES, prompt="another kite")
    until(new, "post")
    new.post_outcome = PostOutcome(shown_in=30.0)
    until(new, "answer")
    new.kill()
    finish(old)
    finish(live(simulation, 3, max_tries=1 + RETRIES, prompt="another kite"))
    assert len(simulation.charges) == 2, "one for each prompt"


def test_an_attempt_from_before_the_clear_does_not_undo_the_clear(simulation: Simulation) -> None:
    """Its lower ``max_tries`` in the record would make the next retry pass for a second clear."""
    finish(live(simulation, 1, reuse_existing=False))
    old = live(simulation, 2, reuse_existing=False)
    until(old, "look up")
    cleared = finish(live(simulation, 3, max_tries=2 + RETRIES, reuse_existing=False), PostOutcome(shown_in=30.0))
    finish(old)
    retried = finish(live(simulation, 4, max_tries=2 + RETRIES, reuse_existing=False))
    assert retried.bought == cleared.bought
    assert len(simulation.charges) == 2, "the first run's, and the one that the clear asked for"


def test_an_image_bought_a_moment_ago_is_found_when_the_request_changes_back(simulation: Simulation) -> None:
    first = finish(live(simulation, 1), PostOutcome(shown_in=30.0))
    finish(live(simulation, 2, max_tries=1 + RETRIES, prompt="another kite"))
    back = finish(live(simulation, 3, max_tries=2 + RETRIES))
    assert back.bought is not None and first.bought is not None
    assert back.bought.id == first.bought.id
    assert len(simulation.charges) == 2
