"""What a batch was asked for: it comes back whole, or something says that it does not."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable import orderbook
from airflow_provider_nanobanana.durable.orderbook import Book, Note
from airflow_provider_nanobanana.durable.shelf import MemoryShelf
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.unit.ledger_samples import BrittleShelf, stored_size

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
#: Random letters, which no compression makes small.
BULKY = ["".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=100)) for number in range(4000)]


@given(content=plain, first=st.booleans(), max_tries=st.integers(0, 1000))
def test_what_is_kept_comes_back(content: Any, first: bool, max_tries: int) -> None:
    shelf = MemoryShelf()
    orderbook.keep(shelf, Book(max_tries, first, content))
    assert orderbook.recall(shelf, max_tries) == Book(max_tries, first, content)


def test_a_clear_begins_another_round() -> None:
    shelf = MemoryShelf()
    assert orderbook.recall(shelf, 2) is None
    orderbook.keep(shelf, Book(2, True, ["old"]))
    assert orderbook.recall(shelf, 4) is None
    orderbook.keep(shelf, Book(4, False, ["new"]))
    assert orderbook.recall(shelf, 4) == Book(4, False, ["new"])


def test_every_value_fits_into_airflows_store() -> None:
    shelf = BrittleShelf()
    written = orderbook.keep(shelf, Book(2, True, BULKY))
    assert written == len(shelf.written) > 4
    assert shelf.written[-1] == orderbook.NAME, "whoever finds the index finds all of it"
    assert max(stored_size(text) for text in shelf.texts.values()) < 65_535
    assert orderbook.recall(shelf, 2) == Book(2, True, BULKY)


@pytest.mark.parametrize("damage", ["missing", "cut", "swapped", "foreign", "none", "no round", "other version"])
def test_what_is_damaged_is_not_taken_for_nothing(damage: str) -> None:
    shelf = MemoryShelf()
    orderbook.keep(shelf, Book(2, True, BULKY))
    first, second = f"{orderbook.NAME}_0", f"{orderbook.NAME}_1"
    index = json.loads(shelf.texts[orderbook.NAME])
    if damage == "missing":
        del shelf.texts[second]
    elif damage == "cut":
        shelf.texts[second] = shelf.texts[second][:-1]
    elif damage == "swapped":
        shelf.texts[first], shelf.texts[second] = shelf.texts[second], shelf.texts[first]
    elif damage == "foreign":
        shelf.texts[orderbook.NAME] = "[1]"
    elif damage == "none":
        shelf.texts[orderbook.NAME] = "null"
    elif damage == "no round":
        shelf.texts[orderbook.NAME] = json.dumps({**index, "max_tries": None})
    else:
        shelf.texts[orderbook.NAME] = json.dumps({**index, "version": 2})
    with pytest.raises(TransientFailure, match="nothing was sent"):
        orderbook.recall(shelf, 2)


def test_a_kill_while_it_is_kept_leaves_the_old_round() -> None:
    shelf = BrittleShelf()
    orderbook.keep(shelf, Book(2, True, BULKY))
    shelf.breaks = "refused"
    with pytest.raises(TransientFailure):
        orderbook.keep(shelf, Book(4, False, ["new"]))
    shelf.breaks = ""
    assert orderbook.recall(shelf, 4) is None


# --- beside it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noted", [Note(1, 1.5), Note(3, 1_790_000_000.25, True, 7, True, True, True, "why")])
def test_the_attempt_at_work_is_noted(noted: Note) -> None:
    shelf = MemoryShelf()
    assert orderbook.noted(shelf) is None
    orderbook.note(shelf, noted)
    assert orderbook.noted(shelf) == noted


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "try_number": "x"}'])
def test_a_note_that_cannot_be_read_stops_the_attempt(text: str) -> None:
    with pytest.raises(TransientFailure, match="nothing was sent"):
        orderbook.noted(MemoryShelf({orderbook.ATTEMPT: text}))


def test_uploads_come_back_and_are_no_loss_when_damaged() -> None:
    shelf, urls = MemoryShelf(), {"digest": "https://files.example/1"}
    assert orderbook.recall_uploads(shelf, 2) == {}
    orderbook.keep_uploads(shelf, urls, 2)
    assert orderbook.recall_uploads(shelf, 2) == urls
    assert orderbook.recall_uploads(shelf, 4) == {}, "a clear, perhaps weeks later, uploads anew"
    shelf.texts[f"{orderbook.UPLOADS}_0"] = "damaged"
    assert orderbook.recall_uploads(shelf, 2) == {}
