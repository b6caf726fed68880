"""Cells as JSON and as text, whichever library made them."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_provider_nanobanana.batch.cells import MAX_META, cell_text, read_meta
from airflow_provider_nanobanana.toapis.errors import InvalidRequest


class Colour(enum.Enum):
    RED = "red"


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("a", "a"),
        (True, True),
        (np.bool_(False), False),
        (3, 3),
        (np.int8(3), 3),
        (np.float32(1.5), 1.5),
        (float("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), None),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), "2026-01-02T03:00:00+00:00"),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (datetime.timedelta(seconds=90), "PT90.0S"),
        (pd.Timedelta(90, "s"), "PT90.0S"),
        (np.timedelta64(90_000, "ms"), "PT90.0S"),
        (np.timedelta64(1, "h"), "PT3600.0S"),
        (np.timedelta64("NaT"), None),
        (Colour.RED, "red"),
        (np.array([1, 2]), [1, 2]),
        (("a", [None, {"b": Decimal(1)}]), ["a", [None, {"b": "1"}]]),
        ({"a": {"b": float("nan")}}, {"a": {"b": None}}),
    ],
    ids=repr,
)
def test_a_cell_is_plain_json(value: Any, plain: Any) -> None:
    meta = read_meta({"x": value})
    assert meta == {"x": plain}
    assert type(meta["x"]) is type(plain) and json.loads(json.dumps(meta, allow_nan=False)) == meta


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"a", "is bytes, which is no JSON"),
        (float("inf"), "is inf, which is no JSON"),
        ({1, 2}, "is set, which is no JSON"),
        (object(), "is object, which is no JSON"),
        (1j, "is complex, which is no JSON"),
        (["fine", b"a"], "is bytes, which is no JSON"),
        ({1: 2}, "has the key 1 (int)"),
        ("a\0b", "holds the control character U+0000 at 1"),
        ("\ud83d", "lone surrogate"),
        (circle(), "has more than 10 levels, or holds itself"),
    ],
    ids=repr,
)
def test_a_cell_that_is_no_json_is_named(value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_meta({"fine": 1, "size in cm": value})
    assert "cell 'size in cm'" in caught.value.message and words in caught.value.message


@pytest.mark.parametrize("key", [1, None, ("a", "b")])
def test_a_key_of_meta_is_a_text(key: Any) -> None:
    with pytest.raises(InvalidRequest, match="its keys are texts"):
        read_meta({key: 1})


def test_meta_is_bounded_as_its_json_and_the_largest_cell_is_named() -> None:
    room = MAX_META - len(json.dumps({"a": "", "b": 1}))
    assert len(json.dumps(read_meta({"a": "x" * room, "b": 1}))) == MAX_META
    with pytest.raises(InvalidRequest, match=r"meta has 2,049 bytes of JSON, at most 2,048.*largest cell is 'a'"):
        read_meta({"a": "x" * (room + 1), "b": 1})
    with pytest.raises(InvalidRequest, match="at most 2,048"):
        read_meta({"a": "é" * 400})  # as JSON, which is ASCII


def test_a_number_too_long_to_be_written_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        read_meta({"a": 10**5000})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a {b} c", "a {b} c"),
        (" a ", " a "),
        (5.0, "5"),
        (12.5, "12.5"),
        (np.int64(7), "7"),
        (Decimal("20.00"), "20.00"),
        (True, "true"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Colour.RED, "red"),
    ],
)
def test_a_cell_in_a_prompt_reads_as_a_person_would_write_it(value: Any, text: str) -> None:
    assert cell_text(value, "x") == text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is blank"),
        (" ", "is blank"),
        (pd.NA, "is blank"),
        (["a"], "is list"),
        ({"a": 1}, "is dict"),
        (b"a", "is bytes"),
        (float("inf"), "is inf"),
    ],
)
def test_what_is_no_single_text_is_a_fault_of_the_cell(value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        cell_text(value, "colour")
    assert caught.value.message.startswith(f"cell 'colour' {words}")


def test_what_does_not_fit_is_left_out_where_it_may_be() -> None:
    left_out: list[str] = []
    values = {"sku": 7, "image": b"xx", "html": "x" * 3000, "text": "y" * 1500, "more": "z" * 1000}
    assert read_meta(values, left_out) == {"sku": 7, "more": "z" * 1000}
    assert left_out == ["image", "html", "text"]
