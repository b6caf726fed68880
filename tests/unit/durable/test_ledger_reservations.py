"""Writing ahead: what may be POSTed without a write, on a shelf that breaks and beside another attempt."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.ledger import NAME, Ledger, LedgerRecordStore
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.ledger import (
    INTENT,
    NOW,
    UNTIL,
    BrittleShelf,
    failed,
    filled,
    key,
    landed,
    record,
    reserved,
    submitted,
)

# --- reservations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", [None, LedgerEntry(record(0, RecordState.QUEUED)), LedgerEntry(replace(INTENT, may_have_left_at=NOW - 50))]
)
def test_a_reserved_order_is_saved_as_an_intent_and_remembered_as_it_is(entry: LedgerEntry | None) -> None:
    shelf = InMemoryStateStore()
    ledger = reserved(shelf, entry)
    entry = entry or LedgerEntry(record(0, RecordState.QUEUED))
    assert ledger.get(key(0)) == entry
    assert Ledger.load(shelf).get(key(0)).record == replace(INTENT, may_have_left_at=UNTIL)
    ledger.release([key(0), "unknown"])
    ledger.save()
    assert Ledger.load(shelf).get(key(0)) == entry


def test_a_confirmed_failure_may_be_reserved_for_its_next_generation() -> None:
    shelf, following = InMemoryStateStore(), record(0, RecordState.INTENT, 1)
    reserved(shelf, failed(0), following)
    again = Ledger.load(shelf).get(key(0))
    assert (again.record, again.status, again.error) == (replace(following, may_have_left_at=UNTIL), "open", None)


@pytest.mark.parametrize(
    "entry",
    [
        submitted(0),
        landed(0),
        failed(0, charged="yes"),
        failed(0, charged="unknown"),
        LedgerEntry(replace(INTENT, generation=3)),
        LedgerEntry(replace(INTENT, client_business_id="nb-other")),
        LedgerEntry(record(0, RecordState.QUEUED)),
        LedgerEntry(record(0, RecordState.QUEUED, 1, regeneration=2)),
        replace(failed(0), record=record(0, RecordState.SUBMITTED, 1)),
        replace(landed(0), status="reused", record=None),
    ],
)
def test_a_reservation_hides_nothing_that_may_be_under_way(entry: LedgerEntry) -> None:
    shelf = InMemoryStateStore()
    reserved(shelf, entry, record(0, RecordState.INTENT, 1))
    assert Ledger.load(shelf).get(key(0)) == entry


def test_what_was_bought_under_a_reservation_is_saved() -> None:
    shelf = InMemoryStateStore()
    ledger = reserved(shelf)
    LedgerRecordStore(ledger, key(0)).write(record(0, RecordState.SUBMITTED))
    ledger.save()
    assert Ledger.load(shelf).get(key(0)).record == record(0, RecordState.SUBMITTED)


def test_whether_a_ledger_is_whole_outlives_its_attempt() -> None:
    shelf = BrittleShelf()
    filled(shelf, 1)
    assert not Ledger.load(shelf, first=True).complete
    shelf.texts.clear()
    first = Ledger.load(shelf, first=True)
    first.put(key(0), LedgerEntry())
    for shelf.breaks in ("refused", "kept"):
        with pytest.raises(TransientFailure):
            first.save()
    shelf.breaks = ""
    assert Ledger.load(shelf).complete, "a kill right after the first write"
    first.save()
    assert Ledger.load(shelf).complete


def test_a_blank_order_of_a_ledger_that_is_not_whole_cannot_be_reserved() -> None:
    """Its generations may exist: an intent for the first would hide the second from the next attempt."""
    shelf = InMemoryStateStore()
    ledger = Ledger.load(shelf)
    ledger.reserve({key(0): INTENT}, UNTIL)
    ledger.put(key(1), landed(1))
    ledger.save()
    assert (ledger.get(key(0)), key(0) in Ledger.load(shelf)) == (LedgerEntry(), False)
    LedgerRecordStore(ledger, key(0)).write(INTENT)
    assert Ledger.load(shelf).get(key(0)).record == INTENT


# --- the journal of one order -----------------------------------------------------------------------------------------


def test_a_reserved_post_costs_no_write() -> None:
    shelf = BrittleShelf()
    journal = LedgerRecordStore(reserved(shelf), key(0))
    shelf.written.clear()
    for moment in (NOW, UNTIL):
        journal.write(record(0, RecordState.QUEUED, may_have_left_at=moment))
        journal.write(replace(INTENT, may_have_left_at=moment, writer="w"))
    assert shelf.written == []
    assert journal.read() == replace(INTENT, may_have_left_at=UNTIL, writer="w")


@pytest.mark.parametrize(
    "intent",
    [
        replace(INTENT, may_have_left_at=UNTIL + 0.001),
        replace(INTENT, generation=1),
        replace(INTENT, client_business_id=None),
        replace(INTENT, regeneration=1),
        replace(INTENT, max_tries=3),
    ],
)
def test_a_post_that_was_not_foreseen_is_saved_first(intent: SubmissionRecord) -> None:
    shelf = BrittleShelf()
    ledger = reserved(shelf)
    LedgerRecordStore(ledger, key(0)).write(intent)
    assert Ledger.load(shelf).get(key(0)).record == (
        replace(intent, may_have_left_at=max(intent.may_have_left_at, UNTIL))
        if intent.may_have_left_at > UNTIL
        else intent
    )
    assert ledger.covers(key(0), intent)


def test_an_intent_is_saved_before_it_is_acted_on_and_an_id_when_it_suits() -> None:
    shelf = InMemoryStateStore()
    ledger = Ledger.load(shelf)
    journal = LedgerRecordStore(ledger, key(0))
    journal.write(record(0, RecordState.QUEUED))
    assert key(0) not in Ledger.load(shelf)
    journal.write(INTENT)
    assert Ledger.load(shelf).get(key(0)).record == INTENT
    journal.write(record(0, RecordState.SUBMITTED))
    assert Ledger.load(shelf).get(key(0)).record == INTENT
    assert journal.read() == record(0, RecordState.SUBMITTED)


@pytest.mark.parametrize("state", RecordState)
def test_a_strict_journal_saves_everything_at_once(state: RecordState) -> None:
    shelf = InMemoryStateStore()
    LedgerRecordStore(Ledger.load(shelf), key(0), strict=True).write(record(0, state))
    assert Ledger.load(shelf).get(key(0)).record == record(0, state)


def test_a_new_submit_reopens_the_order() -> None:
    ledger = filled(InMemoryStateStore(), 1, failed)
    LedgerRecordStore(ledger, key(0)).write(record(0, RecordState.INTENT, 1))
    assert (ledger.get(key(0)).status, ledger.get(key(0)).error) == ("open", None)
    ledger.update(key(0), status="landed")
    LedgerRecordStore(ledger, key(0)).write(record(0, RecordState.DONE, 1))
    assert ledger.get(key(0)).status == "landed"


# --- a shelf that breaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", ["read", "refused", "kept"])
def test_an_intent_that_is_not_known_to_be_kept_stops_the_post(breaks: Any) -> None:
    shelf = BrittleShelf()
    ledger = filled(shelf, 1, lambda number: LedgerEntry())
    shelf.breaks = breaks
    with pytest.raises(TransientFailure, match="no api server") as caught:
        LedgerRecordStore(ledger, key(0)).write(INTENT)
    assert caught.value.charged == "unknown"
    shelf.breaks = ""
    assert not ledger.covers(key(0), INTENT)
    ledger.save()
    assert ledger.covers(key(0), INTENT)


def test_after_a_write_of_unknown_outcome_no_reservation_is_relied_on() -> None:
    """The write that failed may have taken the intent back on the shelf."""
    shelf = BrittleShelf()
    ledger = reserved(shelf, LedgerEntry(record(0, RecordState.QUEUED)))
    ledger.release([key(0)])
    shelf.breaks = "kept"
    with pytest.raises(TransientFailure):
        ledger.save()
    shelf.breaks = ""
    LedgerRecordStore(ledger, key(0)).write(INTENT)
    assert Ledger.load(shelf).get(key(0)).record == INTENT


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_kill_between_chunk_and_index_loses_nothing(chunks: int) -> None:
    shelf = InMemoryStateStore()
    filled(shelf, 100 * chunks)
    del shelf.texts[NAME]
    again = Ledger.load(shelf)
    assert len(again) == 100 * chunks
    again.save()
    assert json.loads(shelf.texts[NAME]) == {"version": 1, "chunks": chunks, "whole": False}


# --- another attempt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_two_attempts_do_not_write_over_each_other(count: int) -> None:
    shelf = InMemoryStateStore()
    filled(shelf, count, lambda number: LedgerEntry())
    one, other = Ledger.load(shelf), Ledger.load(shelf)
    LedgerRecordStore(one, key(0)).write(INTENT)
    for _ in range(2):
        with pytest.raises(TransientFailure, match=r"[Aa]nother attempt") as caught:
            LedgerRecordStore(other, key(0)).write(INTENT)
    assert caught.value.charged == "unknown"
    one.put(key(0), submitted(0))
    one.save()
    assert Ledger.load(shelf).get(key(0)) == submitted(0)


def test_an_attempt_whose_chunk_was_taken_over_relies_on_no_reservation_of_it() -> None:
    shelf = InMemoryStateStore()
    late = reserved(shelf)
    Ledger.load(shelf).save()
    assert late.covers(key(0), INTENT)
    following = Ledger.load(shelf)
    following.put(key(1), landed(1))
    following.save()
    late.put(key(2), landed(2))
    with pytest.raises(TransientFailure):
        late.save()
    assert not late.covers(key(0), INTENT)


def test_a_wiped_shelf_is_not_filled_again_by_the_attempt_before() -> None:
    shelf = InMemoryStateStore()
    ledger = filled(shelf, 1)
    shelf.texts.clear()
    ledger.put(key(0), failed(0))
    with pytest.raises(TransientFailure, match="nother attempt"):
        ledger.save()


@pytest.mark.parametrize("breaks", ["refused", "kept"])
def test_our_own_write_of_unknown_outcome_is_not_another_attempts(breaks: Any) -> None:
    shelf = BrittleShelf()
    ledger = filled(shelf, 1)
    for form in (failed, submitted):
        ledger.put(key(0), form(0))
        shelf.breaks = breaks
        with pytest.raises(TransientFailure, match="no api server"):
            ledger.save()
    shelf.breaks = ""
    ledger.save()
    assert Ledger.load(shelf).get(key(0)) == submitted(0)
