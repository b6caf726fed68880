"""What people and tables give: a table is never bought by its column names, a column of texts is a list of prompts."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections import deque, namedtuple
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.request_values import as_reference, as_text, is_blank, table_fault
from tests.support.batch import items

Row = namedtuple("Row", ["prompt", "size"])


class Table:
    """Iterates over its column names, as data frames do; what else it can do is given."""

    def __init__(self, **can: Any) -> None:
        for name, value in can.items():
            setattr(self, name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(["prompt", "size"])


class Column(Table):
    """Iterates over its texts, as series and one-dimensional arrays do."""

    def __iter__(self) -> Iterator[str]:
        return iter(["a red kite", "a paper boat"])


def nothing() -> None: ...


TABLES = {
    "pandas": Table(columns=["prompt", "size"], ndim=2, iterrows=nothing, to_dict=nothing, keys=nothing),
    "polars": Table(columns=["prompt"], to_dicts=nothing, __arrow_c_stream__=nothing),
    "arrow": Table(column_names=["prompt"], schema=(), __arrow_c_stream__=nothing, to_pylist=nothing),
    "a stream": Table(__arrow_c_stream__=nothing, schema=()),
    "interchange": Table(__dataframe__=nothing),
    "astropy": Table(colnames=["prompt"]),
    "only rows": Table(iterrows=nothing),
    "own": Table(columns=["prompt"]),
    "mapping-like": Table(keys=lambda: ["prompt"]),
    "2-d array": Table(ndim=2, dtype=SimpleNamespace(names=None)),
    "structured array": Table(ndim=1, dtype=SimpleNamespace(names=("prompt", "size"))),
    "row of a series": Column(ndim=1, dtype=object(), keys=lambda: ["prompt", "size"]),
    "namedtuple": Row("a kite", "1:1"),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_refused_and_the_way_out_named(table: Any) -> None:
    for given in (table, [table], {"prompt": "x", "reference_images": table}):
        with pytest.raises(InvalidRequest) as refused:
            items(given)
        assert "table" in refused.value.message and "was charged" in refused.value.message
    with pytest.raises(InvalidRequest, match=r"dict"):
        items(table)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLES["pandas"], '.to_dict("records") in pandas'),
        (TABLES["polars"], ".to_dicts() here"),
        (TABLES["arrow"], ".to_pylist() here"),
    ],
)
def test_the_way_out_is_that_of_the_library(table: Any, words: str) -> None:
    assert words in str(table_fault(table))


COLUMNS: dict[str, Iterable[str]] = {
    "pandas": Column(ndim=1, dtype=SimpleNamespace(names=None), keys=lambda: range(2), to_dict=nothing),
    "numpy": Column(ndim=1, dtype=SimpleNamespace(names=None)),
    "polars": Column(dtype=object(), __arrow_c_stream__=nothing, to_dict=nothing),
    "plain": Column(),
    "deque": deque(["a red kite", "a paper boat"]),
    "view": {"a red kite": 1, "a paper boat": 2}.keys(),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_a_column_of_texts_is_a_list_of_prompts(column: Any) -> None:
    if hasattr(column, "mapping"):
        column = list(column)
    assert [item.request.prompt for item in items(column)] == ["a red kite", "a paper boat"]


def test_rows_as_mappings_are_requests() -> None:
    rows = csv.DictReader(io.StringIO("prompt,size,name\na kite,,7\na boat,16:9,\n"))
    taken = [(item.request.prompt, item.request.size, item.name) for item in items(rows)]
    assert taken == [("a kite", "1:1", "7"), ("a boat", "16:9", None)]


def test_a_cursor_and_its_rows_are_refused() -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.row_factory = sqlite3.Row
        for given in (connection.execute("select 'a' prompt"), connection.execute("select 'a' prompt").fetchone()):
            with pytest.raises(InvalidRequest, match="one row of a table"):
                items(given)
    connection.close()


@pytest.mark.parametrize("error", [ValueError("cell 3"), KeyError("x"), RuntimeError("boom"), RecursionError()])
def test_a_list_that_fails_on_the_way_is_refused(error: Exception) -> None:
    def faulty() -> Iterator[str]:
        yield "a kite"
        raise error

    with pytest.raises(InvalidRequest, match="cannot be read") as refused:
        items(faulty())
    assert refused.value.__cause__ is error


def test_a_database_that_is_away_is_not_called_a_fault_of_the_list() -> None:
    def away() -> Iterator[str]:
        yield "a kite"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        items(away())


def test_a_request_that_fails_when_it_is_read_is_one_fault_among_the_others() -> None:
    class Faulty(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise TypeError("no keys")

    with pytest.raises(InvalidRequest, match="2 of 3") as refused:
        items(["fine", Faulty(prompt="a"), ""])
    assert "#1: it cannot be read (TypeError: no keys)" in refused.value.message


def test_a_list_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidRequest, match="is list, neither"):
        items(circle)


@pytest.mark.parametrize("value", [0, False, [], {}, (), "0", b"", 0.0, object()])
def test_what_is_there_is_not_blank(value: Any) -> None:
    assert not is_blank(value)


@pytest.mark.parametrize(("value", "text"), [(-7, "-7"), (10**20, "1" + "0" * 20), (2.0**52, str(2**52)), ("01", "01")])
def test_no_digit_is_lost(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    "value", [True, 1.5, float("nan"), 10**5000, 1e22, 3 + 0j, None], ids=lambda v: type(v).__name__
)
def test_what_is_no_whole_number_stays_what_it_is(value: Any) -> None:
    assert as_text(value) is value


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (" https://h/a.png \n", "https://h/a.png"),
        ("s3://bucket/x .png ", "s3://bucket/x .png "),
        ("\tgs://bucket/a.png\r\n", "gs://bucket/a.png"),
        (" file:///a b.png ", "file:///a b.png"),
        (" /a b.png ", "/a b.png"),
    ],
)
def test_a_blank_at_the_end_is_part_of_a_store_s_key_and_of_nothing_else(written: str, meant: str) -> None:
    assert as_reference(written) == meant


@pytest.mark.filterwarnings("error")
def test_a_pydantic_model_is_refused_without_a_warning_and_told_how_it_becomes_a_request() -> None:
    class Row(BaseModel):
        prompt: str

    assert "row.model_dump()" in (table_fault(Row(prompt="a kite")) or "")
