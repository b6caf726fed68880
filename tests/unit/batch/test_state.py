"""BatchState: whose an image task is, and what of its cost this task instance paid."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.batch.cost_tracker import BudgetExceeded, Unbilled
from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.batch.outcome import FailedItem, StoredItem
from airflow_provider_nanobanana.batch.report import BatchReport
from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.toapis import errors
from tests.support.batch import bought_by, in_place, items, make_state, note_image_task
from tests.support.responses import COMPLETED, FAILED, NOW

WANTED = items(["first", "second", "third"])
FIRST, SECOND, THIRD = WANTED


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is counted, by the metric's name."""
    sums: Counter[str] = Counter()

    def count(name: str, amount: int = 1, **tags: Any) -> None:
        assert tags["conn_id"] == "nanobanana_default" and tags["model"]
        sums[name] += amount

    monkeypatch.setattr(metrics, "count", count)
    return sums


def money(state: BatchState) -> tuple[float, float, float]:
    totals = state.costs.totals()
    return totals["cost_usd"], totals["paid_usd"], totals["lost_race"]


def first(state: BatchState) -> StoredItem:
    outcome = state.outcomes()[0]
    assert isinstance(outcome, StoredItem)
    return outcome


def next_process(state: BatchState, store: InMemoryStateStore) -> BatchState:
    state.save()
    return make_state(state.items, store)


# --- shared ---------------------------------------------------------------------------------------------------------


def test_a_shared_image_task_costs_and_is_not_paid_here(counted: Counter[str]) -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    assert money(state) == (0.025, 0.0, 0.0) and state.entry(FIRST).shared
    state.costs.observe(FIRST, "theirs", bought_by("theirs", COMPLETED, billing={"status": "settled", "cost_usd": "1"}))
    state.mark_stored(FIRST, in_place("first"))
    state = next_process(state, store)
    assert money(state) == (1.0, 0.0, 0.0)
    image = first(state)
    assert image.shared and not image.reused and image.image["id"] == "theirs"
    assert (image.record()["cost_usd"], image.record()["paid_usd"]) == (1.0, 0.0)
    assert counted == {"shared": 1, "completed": 1, "cost_micro_usd": 1_000_000}


def test_what_was_shared_stays_so_and_is_counted_once(counted: Counter[str]) -> None:
    """A retry finds the image task in its ledger, and need not say again whose it is."""
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    for shared in (True, False):
        state = next_process(state, store)
        note_image_task(state, FIRST, bought_by("theirs"), shared=shared)
        assert money(state) == (0.025, 0.0, 0.0) and state.entry(FIRST).shared
    assert counted == {"shared": 1}


def test_what_others_pay_does_not_count_against_the_limit() -> None:
    state = make_state(WANTED, max_cost_usd=0.025)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    assert not state.costs.waits_for_bills, "what others are billed for is no reason to wait"
    state.costs.reserve(SECOND)
    with pytest.raises(BudgetExceeded):
        state.costs.reserve(THIRD)


def test_the_bill_of_others_tells_what_ours_will_be() -> None:
    state = make_state(WANTED, max_cost_usd=0.5)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    dear = bought_by("theirs", COMPLETED, billing={"status": "settled", "cost_usd": "0.4"})
    state.costs.observe(FIRST, "theirs", dear)
    state.costs.reserve(SECOND)
    with pytest.raises(BudgetExceeded):
        state.costs.reserve(THIRD)


def test_a_shared_image_task_that_ends_badly_vouches_for_no_price(caplog: pytest.LogCaptureFixture) -> None:
    state = make_state(WANTED, max_cost_usd=0.1)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    state.mark_failed(FailedItem.from_error(FIRST, errors.ResultExpired("late", charged="yes")))
    assert "(paid by another run)" in caplog.text
    state.costs.reserve(SECOND)
    assert state.costs.waits_for_bills


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("ended", ["failed", "expired"])
def test_one_s_own_takes_the_place_of_a_shared_one(ended: str, restarted: bool) -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    if ended == "failed":
        state.costs.observe(FIRST, "theirs", bought_by("theirs", FAILED))
    record = state.entry(FIRST).record
    assert record is not None
    state.reopen(FIRST, rebuy=True)
    state.costs.reserve(FIRST)
    # Written ahead as submitters do, without the fields of money.
    state.ledger.put_record(FIRST.key, record.with_state(RecordState.INTENT, image_task_id=None))
    assert not state.entry(FIRST).shared and state.entry(FIRST).cost is None
    if restarted:
        state = next_process(state, store)
    note_image_task(state, FIRST, bought_by("ours"))
    assert money(state) == (0.025, 0.025, 0.0)
    entry = state.entry(FIRST)
    assert (entry.shared, entry.cost, entry.sunk_cost) == (False, 0.025, 0.0)


def test_one_shared_image_task_takes_the_place_of_another() -> None:
    """The first buyer's failed, and a third run was quicker to buy again."""
    state = make_state(WANTED)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    note_image_task(state, FIRST, bought_by("another's"), shared=True)
    assert money(state) == (0.025, 0.0, 0.0)


def test_what_was_lost_before_something_was_shared_stays_paid() -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    note_image_task(state, FIRST, bought_by("ours"))
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    for current in (state, next_process(state, store)):
        assert money(current) == (0.05, 0.025, 0.0)


# --- lost races -----------------------------------------------------------------------------------------------------


def test_a_lost_race_is_paid_and_said_with_both_ids(counted: Counter[str], caplog: pytest.LogCaptureFixture) -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    note_image_task(state, FIRST, bought_by("ours"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            state.mark_lost_race(FIRST, "ours", in_place("first"), in_place_of="nb-theirs")
    (line,) = caplog.messages
    assert all(word in line for word in ("ours", "nb-theirs", "$0.025", "s3://bucket/first.png"))
    for current in (state, next_process(state, store)):
        assert money(current) == (0.0, 0.025, 0.025)
        entry = current.entry(FIRST)
        assert entry.lost_race_usd == 0.025 and entry.record and entry.record.state is RecordState.DONE
        image = first(current)
        assert image.reused and image.image["id"] is None, "the picture is not of our image task"
        assert image.image["sha256"] == "a" * 64
    assert counted == {"paid_micro_usd": 25_000, "lost_race_micro_usd": 25_000}


def test_a_lost_race_counts_against_the_limit_and_holds_nobody_up() -> None:
    state = make_state(WANTED, max_cost_usd=0.05)
    note_image_task(state, FIRST, bought_by("ours"))
    before = state.costs.waits_for_bills
    state.mark_lost_race(FIRST, "ours", in_place("first"), in_place_of="another run")
    assert before and not state.costs.waits_for_bills
    state.costs.reserve(SECOND)
    with pytest.raises(BudgetExceeded):
        state.costs.reserve(THIRD)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_lost_image_that_is_landed_after_all_is_lost_no_more(restarted: bool) -> None:
    """Somebody deleted the other's file while our link lives."""
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    for number in range(2):
        note_image_task(state, FIRST, bought_by(f"ours {number}"))
        state.mark_lost_race(FIRST, f"ours {number}", in_place("first"), in_place_of="another run")
        state.reopen(FIRST)
    assert money(state) == (0.0, 0.05, 0.05)
    if restarted:
        state = next_process(state, store)
    note_image_task(state, FIRST, bought_by("ours 1"))
    state.mark_stored(FIRST, in_place("first"))
    for current in (state, next_process(state, store)):
        assert money(current) == (0.025, 0.05, 0.025) and first(current).image["id"] == "ours 1"


def test_a_refunded_image_task_loses_no_race(caplog: pytest.LogCaptureFixture) -> None:
    state = make_state(WANTED)
    note_image_task(state, FIRST, bought_by("ours"))
    state.costs.observe(FIRST, "ours", bought_by("ours", FAILED))
    state.mark_lost_race(FIRST, "ours", in_place("first"), in_place_of="another run")
    assert money(state) == (0.0, 0.0, 0.0) and not caplog.messages


# --- found in place -------------------------------------------------------------------------------------------------


def test_what_an_earlier_attempt_paid_counts_as_landed(counted: Counter[str]) -> None:
    """Before Airflow 3.3 only the claims know of it."""
    store = InMemoryStateStore()
    state = make_state(WANTED, store, max_cost_usd=0.06)
    state.mark_reused(FIRST, in_place("first"), paid=Cost(0.025, listed=True))
    assert state.costs.counted_usd == 0.025
    assert not counted, "the attempt that landed it counted it"
    for current in (state, next_process(state, store)):
        assert money(current) == (0.025, 0.025, 0.0)
        assert not first(current).reused and first(current).spent.listed
        assert current.costs.totals()["of_which_listed_usd"] == 0.025


@pytest.mark.parametrize("restarted", [False, True])
def test_what_an_earlier_attempt_paid_tells_nothing_of_bills_and_holds_nobody_up(restarted: bool) -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store, max_cost_usd=0.2)
    state.mark_reused(FIRST, in_place("first"), paid=Cost(0.025, listed=True))
    if restarted:
        state.save()
        state = make_state(WANTED, store, max_cost_usd=0.2)
    assert not state.costs.waits_for_bills
    state.costs.reserve(SECOND)
    with pytest.raises(Unbilled):
        state.costs.reserve(THIRD)


def test_what_was_reused_before_hides_nothing_that_was_paid() -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    state.mark_reused(FIRST, in_place("first"))
    state = next_process(state, store)
    state.reopen(FIRST)
    state.mark_reused(FIRST, in_place("first"), paid=Cost(0.025, listed=True))
    assert money(state) == (0.025, 0.025, 0.0)
    state.mark_reused(FIRST, in_place("first"), paid=Cost(0.025, listed=True))
    assert money(state) == (0.025, 0.025, 0.0), "said twice, paid once"


def test_an_image_in_place_costs_nothing(counted: Counter[str]) -> None:
    state = make_state(WANTED)
    state.costs.reserve(FIRST)
    state.mark_reused(FIRST, in_place("first"))
    assert money(state) == (0.0, 0.0, 0.0) and first(state).reused and counted == {"reused": 1}


def test_an_image_that_its_buyer_put_in_place_costs_nothing() -> None:
    store = InMemoryStateStore()
    state = make_state(WANTED, store)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    state.mark_reused(FIRST, in_place("first"))
    for current in (state, next_process(state, store)):
        assert money(current) == (0.0, 0.0, 0.0) and first(current).reused and not first(current).shared
    state = next_process(state, store)
    state.reopen(FIRST)
    note_image_task(state, FIRST, bought_by("theirs"))
    assert money(state) == (0.025, 0.0, 0.0), "it is known whose the image task is"


# --- what is said of it ---------------------------------------------------------------------------------------------


def test_a_shared_image_task_without_image_is_not_called_ours() -> None:
    state = make_state(WANTED[:1])
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    report = BatchReport(state.outcomes(), state.costs.totals())
    (failure,) = report.failed
    assert failure.shared and failure.charged_text == "paid by another run" and failure.spent.paid == Cost()
    error = report.error(allow_partial=False, manifest_uri=None)
    assert error is not None and "This task has paid $0.00; the images cost $0.025" in error.message


def test_the_last_line_says_who_paid() -> None:
    state = make_state(WANTED)
    note_image_task(state, FIRST, bought_by("theirs"), shared=True)
    state.mark_stored(FIRST, in_place("first"))
    note_image_task(state, SECOND, bought_by("ours"))
    state.mark_lost_race(SECOND, "ours", in_place("second"), in_place_of="another run")
    note_image_task(state, THIRD, bought_by("ours too"))
    state.mark_stored(THIRD, in_place("third"))
    report = BatchReport(state.outcomes(), state.costs.totals())
    assert report.last_line() == (
        "Images in place: 3 (shared with other runs: 1, reused: 1), missing: 0; this task has paid $0.05, $0.025 of it "
        "lost in a race; the images cost $0.05"
    )
    whole = report.manifest(run={}, destination="s3://bucket", now=NOW)
    assert [image["paid_usd"] for image in whole["images"]] == [0.0, 0.025, 0.025]
    assert [image["cost_usd"] for image in whole["images"]] == [0.025, 0.0, 0.025]
    assert [image["lost_race"] for image in whole["images"]] == [0.0, 0.025, 0.0]
    assert [image["shared"] for image in whole["images"]] == [True, False, False]
    small = report.result(None)
    for name in ("cost_usd", "paid_usd", "shared", "reused", "lost_race"):
        assert whole[name] == small[name]
    assert (small["shared"], small["reused"]) == (1, 1)
