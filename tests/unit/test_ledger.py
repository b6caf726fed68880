"""The ledger of a batch: what it saves and when, how small it is, and what it refuses to overwrite or to misread."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable.entry import Entry, Fault, LandedFile
from airflow_provider_nanobanana.durable.ledger import NAME, Ledger, LedgerJournal
from airflow_provider_nanobanana.durable.record import Record, RecordState
from airflow_provider_nanobanana.durable.shelf import MemoryShelf
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.unit.ledger_samples import NOW, BrittleShelf, failed, key, landed, record, stored_size, submitted

UNTIL = NOW + 60
INTENT = record(0, RecordState.INTENT)

texts = st.text(max_size=30)
hashes = st.one_of(st.binary(min_size=32, max_size=32).map(bytes.hex), texts)
ids = st.none() | texts | st.binary(min_size=20, max_size=20).map(lambda raw: f"nb-{raw.hex()}")
moments = st.floats(0, 4e9)
records = st.builds(
    Record, st.sampled_from(RecordState), hashes, st.integers(0, 9), st.integers(0, 25), ids, st.none() | texts,
    moments, st.integers(0, 99), st.just(""), st.booleans(),
)  # fmt: skip
numbers = st.integers(0, 2**40)
faults = st.builds(Fault, st.text("ab", max_size=9), st.text("cd", max_size=9), st.just("unknown"), st.booleans())
entries = st.builds(
    Entry,
    st.none() | records,
    st.sampled_from(["open", "landed", "failed", "reused"]),
    st.none() | st.builds(LandedFile, texts, hashes, numbers, texts, numbers, numbers),
    st.none() | st.floats(0, 1e6),
    st.booleans(),
    st.none() | faults,
    st.none() | moments,
)


def filled(shelf: MemoryShelf, count: int, entry: Callable[[int], Entry] = landed) -> Ledger:
    """Return a ledger of so many orders that was saved."""
    ledger = Ledger.load(shelf)
    for number in range(count):
        ledger.put(key(number), entry(number))
    ledger.save()
    return ledger


def reserved(shelf: MemoryShelf, entry: Entry | None = None, intent: Record = INTENT) -> Ledger:
    """Return a whole ledger with a reservation for order 0 that was saved."""
    ledger = Ledger.load(shelf, first=True)
    if entry is not None:
        ledger.put(key(0), entry)
    ledger.reserve({key(0): intent}, UNTIL)
    ledger.save()
    return ledger


# --- what was saved comes back ----------------------------------------------------------------------------------------


@given(st.dictionaries(texts, entries, max_size=5))
def test_whatever_was_saved_comes_back(kept: dict[str, Entry]) -> None:
    shelf = MemoryShelf()
    ledger = Ledger.load(shelf)
    for name, entry in kept.items():
        ledger.put(name, entry)
    ledger.save()
    assert dict(Ledger.load(shelf).items()) == kept


def test_an_order_that_nobody_knows_is_blank() -> None:
    ledger = Ledger.load(MemoryShelf())
    assert (ledger.get("x"), "x" in ledger, len(ledger)) == (Entry(), False, 0)


def test_what_was_not_saved_is_not_there() -> None:
    shelf = MemoryShelf()
    ledger = filled(shelf, 2)
    ledger.put(key(2), landed(2))
    ledger.put(key(1), failed(1))
    again = Ledger.load(shelf)
    assert (len(again), again.get(key(1))) == (2, landed(1))


def test_an_update_changes_fields_and_keeps_the_others() -> None:
    ledger = filled(MemoryShelf(), 1, submitted)
    assert ledger.update(key(0), cost=0.5) == ledger.get(key(0)) == replace(submitted(0), cost=0.5)


# --- sizes and writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "most"), [(submitted, 230), (landed, 320), (failed, 270)])
def test_ten_thousand_orders_fit_into_small_values(form: Callable[[int], Entry], most: int) -> None:
    shelf = MemoryShelf()
    filled(shelf, 10_000, form)
    sizes = [stored_size(text) for text in shelf.texts.values()]
    print(f"10,000 {form.__name__}: {len(sizes) - 1} chunks, {sum(sizes):,} bytes, {sum(sizes) / 1e4:.0f} an order")
    assert max(sizes) < 48_000
    assert sum(sizes) / 10_000 < most


@pytest.mark.parametrize(
    "worst",
    [
        lambda number: failed(number, message='"' * 500),
        lambda number: failed(number, message="不" * 500),
        lambda number: failed(number, message="\x00" * 500),
        lambda number: landed(number, name=f"{number:0100d}.webp"),
    ],
)
def test_the_longest_names_and_messages_fit_into_airflows_limit(worst: Callable[[int], Entry]) -> None:
    shelf = MemoryShelf()
    filled(shelf, 100, worst)
    assert len(shelf.texts) == 2
    assert max(map(stored_size, shelf.texts.values())) < 65_535


def test_a_long_message_is_cut_in_the_stored_form() -> None:
    shelf = MemoryShelf()
    ledger = filled(shelf, 1, lambda number: failed(number, message="不" * 500))
    error, whole = Ledger.load(shelf).get(key(0)).error, ledger.get(key(0)).error
    assert error is not None and whole is not None
    assert whole.message.startswith(error.message) and 100 < len(json.dumps(error.message)) <= 162


def test_only_what_changed_is_written() -> None:
    shelf = BrittleShelf()
    ledger = filled(shelf, 450)
    assert shelf.written == [NAME, *(f"{NAME}_{number}" for number in range(5)), NAME]
    shelf.written.clear()
    ledger.put(key(120), failed(120))
    ledger.put(key(7), landed(7))
    assert (ledger.save(), shelf.written) == (1, [f"{NAME}_1"])
    assert (ledger.save(), shelf.written) == (0, [f"{NAME}_1"])


def test_a_new_order_of_things_moves_nothing() -> None:
    """An upstream that reorders, and adds: the old keys stay in their chunks."""
    shelf = BrittleShelf()
    filled(shelf, 250)
    before, again = dict(shelf.texts), Ledger.load(shelf)
    shelf.written.clear()
    for number in reversed(range(260)):
        again.put(key(number), landed(number))
    again.save()
    assert shelf.written == [f"{NAME}_2"]
    assert all(shelf.texts[f"{NAME}_{chunk}"] == before[f"{NAME}_{chunk}"] for chunk in (0, 1))
    assert dict(Ledger.load(shelf).items()) == {key(number): landed(number) for number in range(260)}


def test_a_save_for_one_order_writes_its_chunk_and_those_not_yet_there() -> None:
    shelf = BrittleShelf()
    ledger = filled(shelf, 250)
    shelf.written.clear()
    for number in (0, 120, *range(300, 520)):
        ledger.put(key(number), failed(number))
    ledger.save(key(519))
    assert shelf.written == [*(f"{NAME}_{number}" for number in (2, 3, 4)), NAME]
    again = Ledger.load(shelf)
    assert key(519) in again and again.get(key(0)) == landed(0)
    ledger.save()
    assert Ledger.load(shelf).get(key(120)) == failed(120)


def test_new_orders_come_to_the_shelf_in_their_order() -> None:
    """Two attempts that put the same order into different chunks would miss each other's intent."""
    shelf = MemoryShelf()
    filled(shelf, 50)
    one, other = Ledger.load(shelf), Ledger.load(shelf)
    for number in range(50, 110):
        one.put(key(number), Entry())
    LedgerJournal(one, key(109)).write(record(109, RecordState.INTENT))
    with pytest.raises(TransientFailure, match="nother attempt"):
        LedgerJournal(other, key(109)).write(record(109, RecordState.INTENT))


# --- reservations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [None, Entry(record(0, RecordState.QUEUED)), Entry(replace(INTENT, at=NOW - 50))])
def test_a_reserved_order_is_saved_as_an_intent_and_remembered_as_it_is(entry: Entry | None) -> None:
    shelf = MemoryShelf()
    ledger = reserved(shelf, entry)
    entry = entry or Entry(record(0, RecordState.QUEUED))
    assert ledger.get(key(0)) == entry
    assert Ledger.load(shelf).get(key(0)).record == replace(INTENT, at=UNTIL)
    ledger.release([key(0), "unknown"])
    ledger.save()
    assert Ledger.load(shelf).get(key(0)) == entry


def test_a_confirmed_failure_may_be_reserved_for_its_next_generation() -> None:
    shelf, following = MemoryShelf(), record(0, RecordState.INTENT, 1)
    reserved(shelf, failed(0), following)
    again = Ledger.load(shelf).get(key(0))
    assert (again.record, again.status, again.error) == (replace(following, at=UNTIL), "open", None)


@pytest.mark.parametrize(
    "entry",
    [
        submitted(0),
        landed(0),
        failed(0, charged="yes"),
        failed(0, charged="unknown"),
        Entry(replace(INTENT, generation=3)),
        Entry(replace(INTENT, client_business_id="nb-other")),
        Entry(record(0, RecordState.QUEUED)),
        Entry(record(0, RecordState.QUEUED, 1, regeneration=2)),
        replace(failed(0), record=record(0, RecordState.SUBMITTED, 1)),
        replace(landed(0), status="reused", record=None),
    ],
)
def test_a_reservation_hides_nothing_that_may_be_under_way(entry: Entry) -> None:
    shelf = MemoryShelf()
    reserved(shelf, entry, record(0, RecordState.INTENT, 1))
    assert Ledger.load(shelf).get(key(0)) == entry


def test_what_was_bought_under_a_reservation_is_saved() -> None:
    shelf = MemoryShelf()
    ledger = reserved(shelf)
    LedgerJournal(ledger, key(0)).write(record(0, RecordState.SUBMITTED))
    ledger.save()
    assert Ledger.load(shelf).get(key(0)).record == record(0, RecordState.SUBMITTED)


def test_whether_a_ledger_is_whole_outlives_its_attempt() -> None:
    shelf = BrittleShelf()
    filled(shelf, 1)
    assert not Ledger.load(shelf, first=True).whole
    shelf.texts.clear()
    first = Ledger.load(shelf, first=True)
    first.put(key(0), Entry())
    for shelf.breaks in ("refused", "kept"):
        with pytest.raises(TransientFailure):
            first.save()
    shelf.breaks = ""
    assert Ledger.load(shelf).whole, "a kill right after the first write"
    first.save()
    assert Ledger.load(shelf).whole


def test_a_blank_order_of_a_ledger_that_is_not_whole_cannot_be_reserved() -> None:
    """Its generations may exist: an intent for the first would hide the second from the next attempt."""
    shelf = MemoryShelf()
    ledger = Ledger.load(shelf)
    ledger.reserve({key(0): INTENT}, UNTIL)
    ledger.put(key(1), landed(1))
    ledger.save()
    assert (ledger.get(key(0)), key(0) in Ledger.load(shelf)) == (Entry(), False)
    LedgerJournal(ledger, key(0)).write(INTENT)
    assert Ledger.load(shelf).get(key(0)).record == INTENT


# --- the journal of one order -----------------------------------------------------------------------------------------


def test_a_reserved_post_costs_no_write() -> None:
    shelf = BrittleShelf()
    journal = LedgerJournal(reserved(shelf), key(0))
    shelf.written.clear()
    for moment in (NOW, UNTIL):
        journal.write(record(0, RecordState.QUEUED, at=moment))
        journal.write(replace(INTENT, at=moment, writer="w"))
    assert shelf.written == []
    assert journal.read() == replace(INTENT, at=UNTIL, writer="w")


@pytest.mark.parametrize(
    "intent",
    [
        replace(INTENT, at=UNTIL + 0.001),
        replace(INTENT, generation=1),
        replace(INTENT, client_business_id=None),
        replace(INTENT, regeneration=1),
        replace(INTENT, max_tries=3),
        replace(INTENT, replaced=True),
    ],
)
def test_a_post_that_was_not_foreseen_is_saved_first(intent: Record) -> None:
    shelf = BrittleShelf()
    ledger = reserved(shelf)
    LedgerJournal(ledger, key(0)).write(intent)
    assert Ledger.load(shelf).get(key(0)).record == (
        replace(intent, at=max(intent.at, UNTIL)) if intent.replaced or intent.at > UNTIL else intent
    )
    assert ledger.covers(key(0), intent)


def test_an_intent_is_saved_before_it_is_acted_on_and_an_id_when_it_suits() -> None:
    shelf = MemoryShelf()
    ledger = Ledger.load(shelf)
    journal = LedgerJournal(ledger, key(0))
    journal.write(record(0, RecordState.QUEUED))
    assert key(0) not in Ledger.load(shelf)
    journal.write(INTENT)
    assert Ledger.load(shelf).get(key(0)).record == INTENT
    journal.write(record(0, RecordState.SUBMITTED))
    assert Ledger.load(shelf).get(key(0)).record == INTENT
    assert journal.read() == record(0, RecordState.SUBMITTED)


@pytest.mark.parametrize("state", RecordState)
def test_a_strict_journal_saves_everything_at_once(state: RecordState) -> None:
    shelf = MemoryShelf()
    LedgerJournal(Ledger.load(shelf), key(0), strict=True).write(record(0, state))
    assert Ledger.load(shelf).get(key(0)).record == record(0, state)


def test_a_new_submit_reopens_the_order() -> None:
    ledger = filled(MemoryShelf(), 1, failed)
    LedgerJournal(ledger, key(0)).write(record(0, RecordState.INTENT, 1))
    assert (ledger.get(key(0)).status, ledger.get(key(0)).error) == ("open", None)
    ledger.update(key(0), status="landed")
    LedgerJournal(ledger, key(0)).write(record(0, RecordState.DONE, 1))
    assert ledger.get(key(0)).status == "landed"


# --- a shelf that breaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", ["read", "refused", "kept"])
def test_an_intent_that_is_not_known_to_be_kept_stops_the_post(breaks: Any) -> None:
    shelf = BrittleShelf()
    ledger = filled(shelf, 1, lambda number: Entry())
    shelf.breaks = breaks
    with pytest.raises(TransientFailure, match="no api server") as caught:
        LedgerJournal(ledger, key(0)).write(INTENT)
    assert caught.value.charged == "unknown"
    shelf.breaks = ""
    assert not ledger.covers(key(0), INTENT)
    ledger.save()
    assert ledger.covers(key(0), INTENT)


def test_after_a_write_of_unknown_outcome_no_reservation_is_relied_on() -> None:
    """The write that failed may have taken the intent back on the shelf."""
    shelf = BrittleShelf()
    ledger = reserved(shelf, Entry(record(0, RecordState.QUEUED)))
    ledger.release([key(0)])
    shelf.breaks = "kept"
    with pytest.raises(TransientFailure):
        ledger.save()
    shelf.breaks = ""
    LedgerJournal(ledger, key(0)).write(INTENT)
    assert Ledger.load(shelf).get(key(0)).record == INTENT


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_kill_between_chunk_and_index_loses_nothing(chunks: int) -> None:
    shelf = MemoryShelf()
    filled(shelf, 100 * chunks)
    del shelf.texts[NAME]
    again = Ledger.load(shelf)
    assert len(again) == 100 * chunks
    again.save()
    assert json.loads(shelf.texts[NAME]) == {"version": 1, "chunks": chunks, "whole": False}


# --- another attempt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_two_attempts_do_not_write_over_each_other(count: int) -> None:
    shelf = MemoryShelf()
    filled(shelf, count, lambda number: Entry())
    one, other = Ledger.load(shelf), Ledger.load(shelf)
    LedgerJournal(one, key(0)).write(INTENT)
    for _ in range(2):
        with pytest.raises(TransientFailure, match=r"[Aa]nother attempt") as caught:
            LedgerJournal(other, key(0)).write(INTENT)
    assert caught.value.charged == "unknown"
    one.put(key(0), submitted(0))
    one.save()
    assert Ledger.load(shelf).get(key(0)) == submitted(0)


def test_an_attempt_whose_chunk_was_taken_over_relies_on_no_reservation_of_it() -> None:
    shelf = MemoryShelf()
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
    shelf = MemoryShelf()
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


# --- what cannot be understood is never "no ledger" -------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, f"{NAME}_1"])
@pytest.mark.parametrize(
    "content",
    ["", "?", "7", "[]", "{}", '"chunks":-1,"whole":true', '"chunks":3', '"entries":{"k":["x"]}', '"entries":[]',
     '"entries":{"k":[0,[1]]}', '"entries":{"k":[9]}', '"entries":{"k":[0,null,["n","§"]]}',
     '"entries":{"k":[0,1,2,3,4,5,6,7]}', '"version":2,"chunks":3,"whole":true,"entries":{}'],
)  # fmt: skip
def test_what_cannot_be_understood_is_an_error(name: str, content: str) -> None:
    text = f'{{"version":1,{content}}}' if content.startswith('"') else content
    shelf = MemoryShelf()
    filled(shelf, 250)
    shelf.texts[name] = text
    with pytest.raises(TransientFailure, match="nothing was sent") as caught:
        Ledger.load(shelf)
    assert caught.value.charged == "unknown" and name in caught.value.message


@pytest.mark.parametrize("missing", [0, 2])
def test_a_chunk_that_is_gone_is_an_error(missing: int) -> None:
    shelf = MemoryShelf()
    filled(shelf, 250)
    del shelf.texts[f"{NAME}_{missing}"]
    with pytest.raises(TransientFailure, match="missing"):
        Ledger.load(shelf)


def test_a_shelf_that_cannot_be_read_is_an_error() -> None:
    shelf = BrittleShelf()
    filled(shelf, 1)
    shelf.breaks = "read"
    with pytest.raises(TransientFailure, match="no api server"):
        Ledger.load(shelf)
