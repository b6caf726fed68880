"""The ledger of a batch: what it keeps, how small it is, what it writes, and what it refuses to misread."""

from __future__ import annotations

import base64
import json
import random
import string
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable.ledger import NAME, Ledger, LedgerRecordStore
from airflow_provider_nanobanana.durable.ledger_entry import (
    ItemError,
    LedgerEntry,
    Lost,
    LostRace,
    StoredFile,
    decode_entries,
    encode_entries,
)
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, decode, encode
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.ledger import (
    INTENT,
    BrittleStateStore,
    failed,
    filled,
    key,
    landed,
    record,
    stored_size,
    submitted,
)

texts = st.text(max_size=30)
file_names = texts.map(lambda text: text.replace("/", "-"))
hashes = st.one_of(st.binary(min_size=32, max_size=32).map(bytes.hex), texts)
ids = st.none() | texts | st.binary(min_size=20, max_size=20).map(lambda raw: f"nb-{raw.hex()}")
moments = st.floats(0, 4e9)
records = st.builds(
    SubmissionRecord, st.sampled_from(RecordState), hashes, st.integers(0, 9), st.integers(0, 25), ids,
    st.none() | texts, moments, st.integers(0, 99), st.just(""), st.integers(0, 9),
)  # fmt: skip
numbers = st.integers(0, 2**40)
faults = st.builds(
    ItemError, st.text("ab", max_size=9), st.text("cd", max_size=9), st.just("unknown"), st.booleans(), st.booleans(),
    st.none(), st.none(),
)  # fmt: skip
entries = st.builds(
    LedgerEntry,
    st.none() | records,
    st.sampled_from(["open", "landed", "failed", "reused"]),
    st.none() | st.builds(StoredFile, file_names, hashes, numbers, texts, numbers, numbers, st.just(0)),
    st.none() | st.floats(0, 1e6),
    st.booleans(),
    st.none() | faults,
    st.none() | moments,
    shared=st.booleans(),
    lost_races=st.lists(st.builds(LostRace, texts, st.none() | st.floats(0, 1e6), st.booleans()), max_size=2).map(
        tuple
    ),
)


# --- what was saved comes back ----------------------------------------------------------------------------------------


@given(st.dictionaries(texts, entries, max_size=5))
def test_whatever_was_saved_comes_back(kept: dict[str, LedgerEntry]) -> None:
    store = InMemoryStateStore()
    ledger = Ledger.load(store)
    for name, entry in kept.items():
        ledger.put(name, entry)
    ledger.save()
    assert dict(Ledger.load(store).items()) == kept


def test_an_item_that_nobody_knows_is_blank() -> None:
    ledger = Ledger.load(InMemoryStateStore())
    assert (ledger.get("x"), dict(ledger.items())) == (LedgerEntry(), {})


def test_what_was_not_saved_is_not_there() -> None:
    store = InMemoryStateStore()
    ledger = filled(store, 2)
    ledger.put(key(2), landed(2))
    ledger.put(key(1), failed(1))
    again = Ledger.load(store)
    assert (len(dict(again.items())), again.get(key(1))) == (2, landed(1))


def test_an_update_changes_fields_and_keeps_the_others() -> None:
    ledger = filled(InMemoryStateStore(), 1, submitted)
    assert ledger.update(key(0), cost=0.5) == ledger.get(key(0)) == replace(submitted(0), cost=0.5)


# --- sizes and writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "most"), [(submitted, 120), (landed, 180), (failed, 120)])
def test_ten_thousand_items_fit_into_small_values(form: Callable[[int], LedgerEntry], most: int) -> None:
    store = InMemoryStateStore()
    filled(store, 10_000, form)
    sizes = [stored_size(text) for text in store.texts.values()]
    print(f"10,000 {form.__name__}: {len(sizes) - 1} chunks, {sum(sizes):,} bytes, {sum(sizes) / 1e4:.0f} an item")
    assert max(sizes) < 18_000
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
def test_the_longest_names_and_messages_fit_into_airflows_limit(worst: Callable[[int], LedgerEntry]) -> None:
    store = InMemoryStateStore()
    filled(store, 100, worst)
    assert len(store.texts) == 2
    assert max(map(stored_size, store.texts.values())) < 65_535


def noise(seed: int) -> str:
    """Return letters that no compression makes small."""
    return "".join(random.Random(seed).choices(string.ascii_letters, k=200))


def with_extras(number: int, extras: int, lost: int = 0, name: str = "") -> LedgerEntry:
    entry = landed(number, name)
    assert entry.stored is not None
    files = [
        replace(entry.stored, name=f"{entry.stored.stem}.{index}.jpg", format="jpeg", index=index)
        for index in range(1, extras + 1)
    ]
    fault = ItemError("download_failed", "不" * 50, "yes", kept={"uri": "s3://" + "b" * 300})
    return replace(entry, extras=tuple(files), lost=tuple(Lost(index + 20, fault) for index in range(lost)))


def test_what_few_faults_have_comes_back() -> None:
    store, kept = InMemoryStateStore(), {"uri": "s3://b/.nanobanana/quarantine/a.bin", "index": 0, "bytes": 9}

    def entry(number: int) -> LedgerEntry:
        return failed(number, charged="yes", billed=number == 1, kept=kept, answer='{"output": "x"}')

    filled(store, 3, entry)
    assert [again for _, again in Ledger.load(store).items()] == [entry(number) for number in range(3)]
    assert [entry(number).refunded for number in range(2)] == [False, True]


def lost_race(number: int, races: int) -> LedgerEntry:
    ids = [noise(number * 100 + race)[:36] for race in range(races)]
    return replace(landed(number), status="reused", lost_races=tuple(LostRace(each, 0.134, True) for each in ids))


def test_what_is_the_usual_case_is_not_stored() -> None:
    store = InMemoryStateStore()
    filled(store, 1, landed)
    text = json.dumps(decode(NAME, store.texts[f"{NAME}_0"]))
    assert "shared" not in text and "lost_races" not in text


@pytest.mark.parametrize("races", [1, 5])
def test_a_batch_that_lost_every_race_fits_into_airflows_limit(races: int) -> None:
    store = InMemoryStateStore()
    filled(store, 100, lambda number: lost_race(number, races))
    (size,) = (stored_size(text) for name, text in store.texts.items() if name != NAME)
    assert size <= 60_000, size
    assert Ledger.load(store).get(key(7)) == lost_race(7, races)


@pytest.mark.parametrize("state", [RecordState.QUEUED, RecordState.INTENT])
def test_what_others_paid_goes_with_their_image_task(state: RecordState) -> None:
    """What is sent now is one's own; what was paid before by this task instance stays."""
    ledger = Ledger.load(InMemoryStateStore())
    ledger.put("theirs", replace(submitted(0), shared=True, sunk_cost=0.03))
    ledger.put("ours", submitted(1))
    for name in ("theirs", "ours"):
        ledger.put_record(name, record(0, state))
    theirs, ours = ledger.get("theirs"), ledger.get("ours")
    assert (theirs.shared, theirs.cost, theirs.is_list_price, theirs.sunk_cost) == (False, None, False, 0.03)
    assert (ours.cost, ours.is_list_price) == (0.025, True)


def test_further_images_come_back() -> None:
    store = InMemoryStateStore()
    filled(store, 3, lambda number: with_extras(number, 2))
    assert Ledger.load(store).get(key(1)) == with_extras(1, 2)


@pytest.mark.parametrize(
    "worst",
    [
        lambda number: with_extras(number, 15),
        lambda number: with_extras(number, 15, name=f"{number:0100d}.webp"),
        lambda number: with_extras(number, 8, lost=7),
        lambda number: with_extras(number, 0, lost=15, name=f"{number:0100d}.webp"),
        lambda number: failed(number, message="不" * 500, answer='"' * 2000),
        lambda number: replace(
            with_extras(number, 8, lost=7, name=f"{noise(number)}.webp"),
            error=ItemError("other", noise(-number), "yes", kept={"uri": noise(number + 1000)}, answer=noise(-number)),
        ),
        lambda number: failed(number, message='"' * 500, kept={"uri": "s3://" + "b" * 400, "reason": "不" * 300}),
    ],
)
def test_what_many_further_images_and_long_answers_take_fits_into_airflows_limit(
    worst: Callable[[int], LedgerEntry],
) -> None:
    store = InMemoryStateStore()
    kept = filled(store, 100, worst)
    assert max(map(stored_size, store.texts.values())) < 65_535
    again = Ledger.load(store).get(key(7))
    names = [file.name for file in again.extras]
    assert names == [file.name for file in kept.get(key(7)).extras], "what is in place is never forgotten"


def test_a_long_message_is_cut_in_the_stored_form() -> None:
    store = InMemoryStateStore()
    ledger = filled(store, 1, lambda number: failed(number, message="不" * 500))
    error, whole = Ledger.load(store).get(key(0)).error, ledger.get(key(0)).error
    assert error is not None and whole is not None
    assert whole.message.startswith(error.message.removesuffix("...")) and 100 < len(json.dumps(error.message)) <= 162


def test_only_what_changed_is_written() -> None:
    store = BrittleStateStore()
    ledger = filled(store, 450)
    assert store.written == [NAME, *(f"{NAME}_{number}" for number in range(5)), NAME]
    store.written.clear()
    ledger.put(key(120), failed(120))
    ledger.put(key(7), landed(7))
    assert (ledger.save(), store.written) == (1, [f"{NAME}_1"])
    assert (ledger.save(), store.written) == (0, [f"{NAME}_1"])


def test_a_new_order_of_things_moves_nothing() -> None:
    """An upstream that reorders, and adds: the old keys stay in their chunks."""
    store = BrittleStateStore()
    filled(store, 250)
    before, again = dict(store.texts), Ledger.load(store)
    store.written.clear()
    for number in reversed(range(260)):
        again.put(key(number), landed(number))
    again.save()
    assert store.written == [f"{NAME}_2"]
    assert all(store.texts[f"{NAME}_{chunk}"] == before[f"{NAME}_{chunk}"] for chunk in (0, 1))
    assert dict(Ledger.load(store).items()) == {key(number): landed(number) for number in range(260)}


def test_a_save_for_one_item_writes_its_chunk_and_those_not_yet_there() -> None:
    store = BrittleStateStore()
    ledger = filled(store, 250)
    store.written.clear()
    for number in (0, 120, *range(300, 520)):
        ledger.put(key(number), failed(number))
    ledger.save(key(519))
    assert store.written == [*(f"{NAME}_{number}" for number in (2, 3, 4)), NAME]
    again = Ledger.load(store)
    assert key(519) in dict(again.items()) and again.get(key(0)) == landed(0)
    ledger.save()
    assert Ledger.load(store).get(key(120)) == failed(120)


def test_new_items_come_to_the_store_in_their_order() -> None:
    """Two attempts that put the same item into different chunks would miss each other's intent."""
    store = InMemoryStateStore()
    filled(store, 50)
    one, other = Ledger.load(store), Ledger.load(store)
    for number in range(50, 110):
        one.put(key(number), LedgerEntry())
    LedgerRecordStore(one, key(109)).write(record(109, RecordState.INTENT))
    with pytest.raises(TransientFailure, match="nother attempt"):
        LedgerRecordStore(other, key(109)).write(record(109, RecordState.INTENT))


# --- what cannot be understood is never "no ledger" -------------------------------------------------------------------


FOREIGN: list[Any] = [
    [], {"k": ["x"]}, {"k": 7}, {"k": {"status": "lost"}}, {"k": {"record": {"state": "intent"}}},
    {"k": {"record": None}}, {"k": {"stored": {"name": "n"}}}, {"k": {"lost": [{}]}},
]  # fmt: skip


@pytest.mark.parametrize("name", [NAME, f"{NAME}_1"])
@pytest.mark.parametrize(
    "content",
    [[], {}, 7, {"version": 2, "chunks": 3, "complete": True, "writer": "w", "entries": {}},
     {"version": 1, "chunks": -1, "complete": True}, {"version": 1, "chunks": 3}, {"version": 1, "writer": "w"},
     *({"version": 1, "writer": "w", "entries": kept} for kept in FOREIGN)],
)  # fmt: skip
def test_what_cannot_be_understood_is_an_error(name: str, content: Any) -> None:
    refuse(name, encode(content))


def test_what_only_a_later_release_knows_of_an_item_is_left_out() -> None:
    """And what it says beside that counts: an image task that is forgotten is bought twice."""
    store = InMemoryStateStore()
    record_ = {**asdict(record(0, RecordState.SUBMITTED)), "state": "submitted", "priority": 1}
    stored = {"name": "a.png", "sha256": None, "bytes": 1, "format": "png", "width": 1, "height": 1, "hue": 3}
    entry = {
        "record": record_, "stored": stored, "mood": [], "extras": [stored],
        "error": {"code": "c", "message": "m", "charged": "no", "hint": "h"},
        "sighting": {"claim": "c", "place": "p"}, "lost_races": [{"image_task_id": "t", "usd": 0.1, "by": "x"}],
    }  # fmt: skip
    store.texts[f"{NAME}_0"] = encode({"version": 1, "writer": "w", "entries": {"k": entry}, "shard": 7})
    store.texts[NAME] = encode({"version": 1, "chunks": 1, "complete": True, "shards": 7})
    ledger = Ledger.load(store)
    read = ledger.get("k")
    assert ledger.complete and read.record == record(0, RecordState.SUBMITTED)
    assert read.stored is not None and read.stored.name == "a.png" and len(read.extras) == 1
    assert read.error is not None and read.lost_race_usd == 0.1


def test_a_newer_ledger_is_refused_with_what_to_do_and_left_as_it_is() -> None:
    store = InMemoryStateStore()
    filled(store, 1)
    store.texts[NAME] = newer = encode({"version": 2, "pages": 1})
    with pytest.raises(TransientFailure, match=r"newer version .*\(ledger, form 2; this one knows 1\)") as caught:
        Ledger.load(store)
    assert caught.value.charged == "unknown" and caught.value.retryable and "nothing was sent" in caught.value.message
    assert store.texts[NAME] == newer


@pytest.mark.parametrize("name", [NAME, f"{NAME}_1"])
def test_what_is_damaged_or_somebody_elses_is_an_error(name: str) -> None:
    store = InMemoryStateStore()
    filled(store, 250)
    text = store.texts[name]
    half = len(text) // 2
    damaged = f"{text[:half]}{'0' if text[half] != '0' else '1'}{text[half + 1 :]}"
    for foreign in ("", "?", "§", "{}", '{"version": 1}', text[:half], text[half:], damaged):
        refuse(name, foreign)


def refuse(name: str, text: str) -> None:
    store = InMemoryStateStore()
    filled(store, 250)
    store.texts[name] = text
    with pytest.raises(TransientFailure, match="nothing was sent") as caught:
        Ledger.load(store)
    assert caught.value.charged == "unknown" and name in caught.value.message


@pytest.mark.parametrize("missing", [0, 2])
def test_a_chunk_that_is_gone_is_an_error(missing: int) -> None:
    store = InMemoryStateStore()
    filled(store, 250)
    del store.texts[f"{NAME}_{missing}"]
    with pytest.raises(TransientFailure, match="missing"):
        Ledger.load(store)


def test_a_store_that_cannot_be_read_is_an_error() -> None:
    store = BrittleStateStore()
    filled(store, 1)
    store.breaks = "read"
    with pytest.raises(TransientFailure, match="no api server"):
        Ledger.load(store)


# --- LedgerRecordStore: what is saved when, in a store that breaks and beside another attempt ------------------------


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


# --- the record store of one item ------------------------------------------------------------------------------------


def test_an_intent_is_saved_before_it_is_acted_on_and_an_id_when_it_suits() -> None:
    store = InMemoryStateStore()
    ledger = Ledger.load(store)
    record_store = LedgerRecordStore(ledger, key(0))
    record_store.write(record(0, RecordState.QUEUED))
    assert key(0) not in dict(Ledger.load(store).items())
    record_store.write(INTENT)
    assert Ledger.load(store).get(key(0)).record == INTENT
    record_store.write(record(0, RecordState.SUBMITTED))
    assert Ledger.load(store).get(key(0)).record == INTENT
    assert record_store.read() == record(0, RecordState.SUBMITTED)


@pytest.mark.parametrize("state", RecordState)
def test_a_strict_record_store_saves_everything_at_once(state: RecordState) -> None:
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
    assert len(dict(again.items())) == 100 * chunks
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


def test_a_wiped_store_is_not_filled_again_by_the_attempt_before() -> None:
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


@pytest.mark.parametrize(
    "changes",
    [
        {"stored": StoredFile("../b/x.png", None, 1, "png", 8, 8)},
        {"stored": StoredFile("/data/b/x.png", None, 1, "png", 8, 8)},
        {"extras": (StoredFile("b/x.png", None, 1, "png", 8, 8),)},
        {"cost": "1"},
        {"sunk_cost": True},
        {"lost_races": (LostRace("tsk_1", "1"),)},  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_was_edited_to_lead_elsewhere_or_to_no_sum_is_not_understood(changes: dict[str, Any]) -> None:
    """Before Airflow 3.3 the records are XComs, which people may edit."""
    text = encode_entries("w", {"a": replace(submitted(0), **changes)})
    with pytest.raises(TransientFailure):
        decode_entries("x", text)


def test_an_amount_beyond_all_numbers_is_not_understood() -> None:
    plain = decode("x", encode_entries("w", {"a": replace(submitted(0), cost=0.5)}))
    text = json.dumps(plain).replace('"cost": 0.5', '"cost": 1e999')
    assert "1e999" in text
    with pytest.raises(TransientFailure):
        decode_entries("x", base64.b64encode(zlib.compress(text.encode())).decode())
