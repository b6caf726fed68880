"""The ledger as a record store: what is saved when, in a store that breaks and beside another attempt."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.durable.ledger import NAME, Ledger, LedgerRecordStore
from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, decode
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.ledger import (
    INTENT,
    BrittleStateStore,
    failed,
    filled,
    key,
    record,
    submitted,
)


def test_whether_a_ledger_is_whole_outlives_its_attempt() -> None:
    store = BrittleStateStore()
    filled(store, 1)
    assert not Ledger.load(store, first=True).complete
    store.texts.clear()
    first = Ledger.load(store, first=True)
    first.put(key(0), LedgerEntry())
    for store.breaks in ("refused", "kept"):
        with pytest.raises(TransientFailure):
            first.save()
    store.breaks = ""
    assert Ledger.load(store).complete, "a kill right after the first write"
    first.save()
    assert Ledger.load(store).complete


# --- the journal of one order -----------------------------------------------------------------------------------------


def test_an_intent_is_saved_before_it_is_acted_on_and_an_id_when_it_suits() -> None:
    store = InMemoryStateStore()
    ledger = Ledger.load(store)
    journal = LedgerRecordStore(ledger, key(0))
    journal.write(record(0, RecordState.QUEUED))
    assert key(0) not in Ledger.load(store)
    journal.write(INTENT)
    assert Ledger.load(store).get(key(0)).record == INTENT
    journal.write(record(0, RecordState.SUBMITTED))
    assert Ledger.load(store).get(key(0)).record == INTENT
    assert journal.read() == record(0, RecordState.SUBMITTED)


@pytest.mark.parametrize("state", RecordState)
def test_a_strict_journal_saves_everything_at_once(state: RecordState) -> None:
    store = InMemoryStateStore()
    LedgerRecordStore(Ledger.load(store), key(0), strict=True).write(record(0, state))
    assert Ledger.load(store).get(key(0)).record == record(0, state)


def test_a_new_submit_reopens_the_order() -> None:
    ledger = filled(InMemoryStateStore(), 1, failed)
    LedgerRecordStore(ledger, key(0)).write(record(0, RecordState.INTENT, 1))
    assert (ledger.get(key(0)).status, ledger.get(key(0)).error) == ("open", None)
    ledger.update(key(0), status="landed")
    LedgerRecordStore(ledger, key(0)).write(record(0, RecordState.DONE, 1))
    assert ledger.get(key(0)).status == "landed"


# --- a store that breaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", ["read", "refused", "kept"])
def test_an_intent_that_is_not_known_to_be_kept_stops_the_post(breaks: Any) -> None:
    store = BrittleStateStore()
    ledger = filled(store, 1, lambda number: LedgerEntry())
    store.breaks = breaks
    with pytest.raises(TransientFailure, match="no api server") as caught:
        LedgerRecordStore(ledger, key(0)).write(INTENT)
    assert caught.value.charged == "unknown"
    store.breaks = ""
    ledger.save()
    assert Ledger.load(store).get(key(0)).record == INTENT


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_kill_between_chunk_and_index_loses_nothing(chunks: int) -> None:
    store = InMemoryStateStore()
    filled(store, 100 * chunks)
    del store.texts[NAME]
    again = Ledger.load(store)
    assert len(again) == 100 * chunks
    again.save()
    assert decode(NAME, store.texts[NAME]) == {"version": 1, "chunks": chunks, "complete": False}


# --- another attempt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_two_attempts_do_not_write_over_each_other(count: int) -> None:
    store = InMemoryStateStore()
    filled(store, count, lambda number: LedgerEntry())
    one, other = Ledger.load(store), Ledger.load(store)
    LedgerRecordStore(one, key(0)).write(INTENT)
    for _ in range(2):
        with pytest.raises(TransientFailure, match=r"[Aa]nother attempt") as caught:
            LedgerRecordStore(other, key(0)).write(INTENT)
    assert caught.value.charged == "unknown"
    one.put(key(0), submitted(0))
    one.save()
    assert Ledger.load(store).get(key(0)) == submitted(0)


def test_a_wiped_shelf_is_not_filled_again_by_the_attempt_before() -> None:
    store = InMemoryStateStore()
    ledger = filled(store, 1)
    store.texts.clear()
    ledger.put(key(0), failed(0))
    with pytest.raises(TransientFailure, match="nother attempt"):
        ledger.save()


@pytest.mark.parametrize("breaks", ["refused", "kept"])
def test_our_own_write_of_unknown_outcome_is_not_another_attempts(breaks: Any) -> None:
    store = BrittleStateStore()
    ledger = filled(store, 1)
    for form in (failed, submitted):
        ledger.put(key(0), form(0))
        store.breaks = breaks
        with pytest.raises(TransientFailure, match="no api server"):
            ledger.save()
    store.breaks = ""
    ledger.save()
    assert Ledger.load(store).get(key(0)) == submitted(0)
