"""Tables as pandas, polars and arrow give them, and what is refused before anything is sent."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from airflow_provider_nanobanana.batch.rows import MAX_REQUESTS, read_rows
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from tests.support.batch import items

COLUMNS: dict[str, list[Any]] = {
    "prompt": ["a kite", "a boat"],
    "name": ["K", None],
    "price": [1.5, None],
    "when": [datetime.date(2026, 1, 2), None],
}


def frames() -> dict[str, Callable[[dict[str, Any]], Any]]:
    return {
        "pandas": pd.DataFrame,
        "polars": pl.DataFrame,
        "arrow": pa.table,
        "batch": pa.RecordBatch.from_pydict,
    }


@pytest.fixture(params=["pandas", "polars", "arrow", "batch"])
def table(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Any]:
    return frames()[request.param]


def refusal(given: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        items(given)
    assert "othing was sent and nothing was charged" in caught.value.message
    return caught.value.message


def test_a_table_is_its_rows_and_other_columns_are_meta(table: Callable[[dict[str, Any]], Any]) -> None:
    taken = items(table(COLUMNS))
    assert [(item.index, item.request.prompt, item.name, item.meta) for item in taken] == [
        (0, "a kite", "K", {"price": 1.5, "when": "2026-01-02"}),
        (1, "a boat", None, None),
    ]


def test_meta_is_no_part_of_the_identity(table: Callable[[dict[str, Any]], Any]) -> None:
    dearer = items(table({**COLUMNS, "price": [2.5, 9.0]}))
    assert [item.key for item in dearer] == [item.key for item in items(table(COLUMNS))]


def test_no_rows_are_no_items(table: Callable[[dict[str, Any]], Any]) -> None:
    assert items(table({"prompt": []})) == []


def test_one_row_too_many_is_refused(table: Callable[[dict[str, Any]], Any]) -> None:
    assert "more than 20,000 requests" in refusal(table({"prompt": ["a"] * (MAX_REQUESTS + 1)}))


def test_a_table_without_prompts_names_its_columns(table: Callable[[dict[str, Any]], Any]) -> None:
    assert "no column 'prompt'" in (message := refusal(table({"Prompt": ["a"], "sku": ["b"]})))
    assert "Prompt, sku" in message


# --- pandas ---------------------------------------------------------------------------------------------------------


def test_what_pandas_puts_into_cells() -> None:
    frame = pd.DataFrame(
        {
            "prompt": ["a", "b"],
            "when": [pd.Timestamp("2026-01-02"), pd.NaT],
            "count": pd.array([1, None], dtype="Int64"),
            "kind": pd.Categorical(["mug", None]),
            "tags": [np.array(["x", "y"]), None],
            "size": ["16:9", np.nan],
        }
    )
    first, second = items(frame)
    assert first.meta == {"when": "2026-01-02T00:00:00", "count": 1, "kind": "mug", "tags": ["x", "y"]}
    assert (first.request.size, second.request.size, second.meta) == ("16:9", "1:1", None)


def test_an_index_with_a_name_is_a_column_and_one_without_is_not() -> None:
    frame = pd.DataFrame({"prompt": ["a"], "name": ["K"], "sku": [7]})
    assert items(frame.set_index(["name", "sku"]))[0].name == "K"
    assert items(frame.set_index(["name", "sku"]))[0].meta == {"sku": 7}
    frame.index = [5]
    assert items(frame)[0].meta == {"sku": 7}


def test_columns_called_like_methods_are_columns() -> None:
    names = ["prompt", "columns", "compute", "collect", "index", "execute", "itertuples"]
    (item,) = items(pd.DataFrame([range(len(names))], columns=names))
    assert item.request.prompt == "0"
    assert item.meta == {name: number for number, name in enumerate(names) if number}


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame([["p", 1]], columns=["prompt", 0]), "Column 1 of the table (counted from 0) is called 0 (int)"),
        (pd.DataFrame([["p", 1]], columns=["prompt", " "]), "is called ' ' (str)"),
        (
            pd.DataFrame([["p", 1]], columns=pd.MultiIndex.from_tuples([("prompt", "a"), ("x", "b")])),
            "('prompt', 'a') (tuple)",
        ),
        (pd.DataFrame([["p", 1]], columns=["prompt", "prompt"]), "more than one column called 'prompt'"),
        (pd.DataFrame([["p", 1]], columns=["prompt", "a\0"]), "holds the control character"),
    ],
    ids=["number", "blank", "several levels", "twice", "control"],
)
def test_columns_that_cannot_be_named_are_refused(frame: Any, words: str) -> None:
    assert words in refusal(frame)


# --- polars and arrow -----------------------------------------------------------------------------------------------


def test_what_polars_puts_into_cells() -> None:
    frame = pl.DataFrame(
        {
            "prompt": ["a"],
            "tags": [["x", None]],
            "box": [{"w": 1, "h": None}],
            "price": [Decimal("1.50")],
            "nan": [float("nan")],
            "extra_body": [{"seed": 3, "style": None}],
        }
    )
    (item,) = items(frame)
    assert item.meta == {"tags": ["x", None], "box": {"w": 1, "h": None}, "price": "1.50"}
    assert item.request.extra_body == {"seed": 3}, "a field that a struct has for other rows is not sent"


def test_what_arrow_puts_into_cells() -> None:
    table = pa.table(
        {
            "prompt": pa.array(["a", "b"]).dictionary_encode(),
            "price": pa.array([Decimal("1.50"), None]),
            "at": pa.array([datetime.datetime(2026, 1, 2, 3), None], pa.timestamp("ns")),
            "box": pa.array([{"w": 1}, None]),
            "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "reference_images": pa.array([["https://h/a.png"], None]),
        }
    )
    first, second = items(table)
    assert first.meta == {"price": "1.50", "at": "2026-01-02T03:00:00", "box": {"w": 1}, "pairs": [["k", 1]]}
    assert first.request.reference_images == ("https://h/a.png",) and second.meta is None


def test_a_column_of_any_of_them_is_a_list_of_prompts() -> None:
    for column in (
        pd.Series(["a", "b"]),
        pl.Series(["a", "b"]),
        pa.array(["a", "b"]),
        pa.chunked_array([["a"], ["b"]]),
    ):
        assert [item.request.prompt for item in items(column)] == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "how"),
    [
        (pl.LazyFrame({"prompt": ["a"]}), "give .collect() of it"),
        (pa.table({"prompt": ["a"]}).to_reader(), "give .read_all() of it"),
        (type("Spark", (), {"columns": ["prompt"], "collect": 1, "toPandas": 1})(), "give .toPandas() of it"),
        (type("Dask", (), {"columns": ["prompt"], "compute": 1, "itertuples": 1})(), "give .compute() of it"),
        (np.array([["a", "b"]]), "is a table (ndarray)"),
        (np.array([("a", 1)], dtype=[("prompt", "U5"), ("x", "i4")]), "is a table (ndarray)"),
        (pd.DataFrame({"prompt": ["a"]}).iloc[0], "is one row of a table"),
        ([pd.DataFrame({"prompt": ["a"]})], "is a table (DataFrame)"),
    ],
)
def test_a_table_whose_rows_are_not_here_is_refused_with_what_to_do(given: Any, how: str) -> None:
    assert how in refusal(given)


def test_a_list_without_end_is_read_no_further_than_allowed() -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "a kite"

    assert "more than 20,000" in refusal(endless()) and taken == MAX_REQUESTS + 1


def test_the_log_says_how_a_table_was_understood() -> None:
    line = read_rows(pd.DataFrame({"prompt": ["a"], "Size": ["M"], "sku": [1]})).line()
    assert line == ("Rows: 1. Columns that are fields: prompt; that travel as meta: Size, sku ('Size' is not 'size')")


def test_no_table_library_is_imported_for_a_list() -> None:
    code = (
        "import sys; from airflow_provider_nanobanana.batch import requests, row_files, rows; "
        "requests.parse_requests(['a'], {}, 'nano_banana_2'); "
        "assert not {'pandas', 'polars', 'pyarrow'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-300:]
