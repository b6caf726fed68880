"""What a batch keeps beside its ledger: it comes back whole, or something says that it does not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable import checkpoint
from airflow_provider_nanobanana.durable.checkpoint import (
    AttemptCheckpoint,
    CheckpointStore,
    InputSnapshot,
    load_checkpoint,
    load_earlier_input,
    load_input,
)
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore, decode, encode
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.ledger import BrittleStateStore, stored_size

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
#: Random letters, which no compression makes small.
BULKY = ["".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=100)) for number in range(4000)]


@given(content=plain, first=st.booleans(), max_tries=st.integers(0, 1000))
def test_what_is_kept_comes_back(content: Any, first: bool, max_tries: int) -> None:
    store = InMemoryStateStore()
    snapshot = InputSnapshot(max_tries, first, content, retries=2, try_number=3, given="digest")
    checkpoint.save_input(store, snapshot)
    assert load_input(store, max_tries, 2) == snapshot


@pytest.mark.parametrize(("max_tries", "retries"), [(4, 2), (2, 1), (3, 3)])
def test_a_clear_begins_another_round(max_tries: int, retries: int) -> None:
    """Airflow sets ``max_tries`` to the tries so far plus ``retries``: after these were lowered it may not change."""
    store = InMemoryStateStore()
    assert load_input(store, 2, 2) is None and load_earlier_input(store, 2, 2) is None
    old, new = InputSnapshot(2, True, ["old"], 2, 1), InputSnapshot(max_tries, False, ["new"], retries, 3)
    checkpoint.save_input(store, old)
    assert load_input(store, max_tries, retries) is None
    assert load_earlier_input(store, max_tries, retries) == old
    checkpoint.save_input(store, new)
    assert load_input(store, max_tries, retries) == new and load_earlier_input(store, max_tries, retries) is None


@pytest.mark.parametrize("late", [0, 1, 2])
def test_two_attempts_that_keep_different_lists_at_once_damage_neither(late: int) -> None:
    """The other one writes between any two of our writes; the list that is found is the one of the last index."""
    store, ours, theirs = (
        InMemoryStateStore(),
        InputSnapshot(2, True, BULKY[:1500], 2, 1),
        InputSnapshot(2, True, BULKY[1500:], 2, 1),
    )
    write, written = store.write, [0]

    def interleaved(name: str, text: str) -> None:
        written[0] += 1
        if written[0] == late + 1:
            checkpoint.save_input(other, theirs)
        write(name, text)

    other = InMemoryStateStore(store.texts)
    store.write = interleaved  # type: ignore[method-assign]
    checkpoint.save_input(store, ours)
    assert written[0] > late and load_input(store, 2, 2) == ours


def test_an_earlier_list_that_is_damaged_stops_no_clear() -> None:
    store = InMemoryStateStore()
    checkpoint.save_input(store, InputSnapshot(2, True, ["old"], 2, 1))
    store.texts = {name: text if name == checkpoint.INPUT_NAME else "damaged" for name, text in store.texts.items()}
    assert load_earlier_input(store, 4, 2) is None and load_input(store, 4, 2) is None


@pytest.mark.parametrize("given", [["a", {"prompt": "b"}], "text", {"prompt": "ü", "size": None}])
def test_lists_are_told_apart_without_being_kept(given: Any) -> None:
    assert checkpoint.input_digest([given, {}]) == checkpoint.input_digest(json.loads(json.dumps([given, {}])))
    assert checkpoint.input_digest([given, {}]) != checkpoint.input_digest([given, {"size": "1:1"}])


@pytest.mark.parametrize("given", [object(), [{1, 2}], {("a", "b"): 1}, b"bytes"])
def test_what_is_no_json_is_not_compared(given: Any) -> None:
    assert checkpoint.input_digest(given) is None


def test_every_value_fits_into_airflows_store() -> None:
    store = BrittleStateStore()
    written = checkpoint.save_input(store, InputSnapshot(2, True, BULKY, 2, 1))
    assert written == len(store.written) > 4
    assert store.written[-1] == checkpoint.INPUT_NAME, "whoever finds the index finds all of it"
    assert max(stored_size(text) for text in store.texts.values()) < 65_535
    assert load_input(store, 2, 2) == InputSnapshot(2, True, BULKY, 2, 1)


@pytest.mark.parametrize("damage", ["missing", "cut", "swapped", "foreign", "none", "no round", "other version"])
def test_what_is_damaged_is_not_taken_for_nothing(damage: str) -> None:
    store = InMemoryStateStore()
    checkpoint.save_input(store, InputSnapshot(2, True, BULKY, 2, 1))
    index = decode(checkpoint.INPUT_NAME, store.texts[checkpoint.INPUT_NAME])
    first, second = (f"{checkpoint.INPUT_NAME}_{index['stamp']}_{number}" for number in (0, 1))
    if damage == "missing":
        del store.texts[second]
    elif damage == "cut":
        store.texts[second] = store.texts[second][:-1]
    elif damage == "swapped":
        store.texts[first], store.texts[second] = store.texts[second], store.texts[first]
    elif damage == "foreign":
        store.texts[checkpoint.INPUT_NAME] = "[1]"
    elif damage == "none":
        store.texts[checkpoint.INPUT_NAME] = encode(None)
    elif damage == "no round":
        store.texts[checkpoint.INPUT_NAME] = encode({**index, "max_tries": None})
    else:
        store.texts[checkpoint.INPUT_NAME] = encode({**index, "version": 2})
    with pytest.raises(TransientFailure, match="nothing was sent"):
        load_input(store, 2, 2)


def test_a_kill_while_it_is_kept_leaves_the_old_round() -> None:
    store = BrittleStateStore()
    checkpoint.save_input(store, InputSnapshot(2, True, BULKY, 2, 1))
    store.breaks = "refused"
    with pytest.raises(TransientFailure):
        checkpoint.save_input(store, InputSnapshot(4, False, ["new"], 2, 3))
    store.breaks = ""
    assert load_input(store, 4, 2) is None


# --- beside it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"client_ids_resolve": True}, {"client_ids_resolve": False, "storage_blocked": True, "stop_reason": "why"}],
)
def test_a_checkpoint_comes_back_and_is_written_when_it_changes(changes: dict[str, Any]) -> None:
    store = BrittleStateStore()
    assert load_checkpoint(store) is None
    checkpoints = CheckpointStore(store, AttemptCheckpoint(3, 1_790_000_000.25))
    for _ in range(2):
        checkpoints.update(**changes)
    assert load_checkpoint(store) == checkpoints.current == replace(AttemptCheckpoint(3, 1_790_000_000.25), **changes)
    assert len(store.written) == 1


def test_a_checkpoint_that_may_not_be_kept_is_written_again() -> None:
    store = BrittleStateStore()
    checkpoints = CheckpointStore(store, AttemptCheckpoint(1, 1.5))
    store.breaks = "refused"
    with pytest.raises(TransientFailure):
        checkpoints.update(stop_reason="too little")
    store.breaks = ""
    checkpoints.update()
    assert load_checkpoint(store) == AttemptCheckpoint(1, 1.5, stop_reason="too little")


def test_a_try_is_the_last_until_another_saves() -> None:
    store = InMemoryStateStore()
    first, retry = (CheckpointStore(store, AttemptCheckpoint(number, 1.5)) for number in (1, 2))
    assert first.is_last() and retry.is_last()
    first.update()
    assert first.is_last()
    retry.update()
    assert retry.is_last() and not first.is_last()


@pytest.mark.parametrize("text", ["", "{}", *map(encode, ([], {}, {"version": 2}, {"version": 1, "try_number": "x"}))])
def test_a_note_that_cannot_be_read_stops_the_attempt(text: str) -> None:
    with pytest.raises(TransientFailure, match="nothing was sent"):
        load_checkpoint(InMemoryStateStore({checkpoint.CHECKPOINT_NAME: text}))
