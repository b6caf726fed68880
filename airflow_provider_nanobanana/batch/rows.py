"""Rows: what a user gave, as entries one by one, and whether each is the row of a table.

A table is what pandas, polars and arrow call one, told by what it can do; none of them is imported. What a list holds
is read here and judged in ``requests``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.request_values import listed, readable, table_fault, text_fault
from airflow_provider_nanobanana.worker_threads import take_each

MAX_REQUESTS: Final = 20_000
#: What a request given as a mapping, or a row of a table, may say of itself; all other columns are the row's own data.
FIELDS: Final = (*ImageRequest.model_fields, "name", "meta")
NOTHING_SENT: Final = "Nothing was sent and nothing was charged; a retry would meet the same."
#: What makes a table one that is elsewhere, or not computed yet, and how its rows are to be had.
_LAZY: Final = (
    *(("toPandas", ".toPandas()"), ("to_spark", ".to_pandas()"), ("compute", ".compute()"), ("collect", ".collect()")),
    *(("execute", ".execute()"), ("fetchall", ".df() or .pl()"), ("read_all", ".read_all()")),
)
#: How an index that had no name is called in Parquet files that pandas wrote.
_UNNAMED_INDEX: Final = "__index_level_"
_ROWS_AT_ONCE: Final = 1000
_MOST_NAMED: Final = 30


@dataclass(frozen=True)
class Rows:
    """What was given, at most :data:`MAX_REQUESTS` entries.

    :param entries: Texts, mappings, requests; an ``InvalidRequest`` stands for one that could not be read.
    :param tabular: Whether they are rows of a table, whose columns need not be fields.
    :param columns: The columns where all rows have the same.
    """

    entries: Sequence[Any]
    tabular: bool = False
    columns: tuple[str, ...] | None = None

    def line(self) -> str:
        """Return what was read of a table, for the log."""
        columns = self.columns or tuple(dict.fromkeys(key for row in self.entries if _is_row(row) for key in row))
        fields = [column for column in columns if column in FIELDS]
        others = [column for column in columns if column not in FIELDS]
        line = f"Rows: {len(self.entries):,}. Columns that are fields: {_named(fields)}; that travel as meta: "
        close = [f"{column!r} is not {field!r}" for column in others if (field := _like(column)) in FIELDS]
        return f"{line}{_named(others)}{f' ({_named(close)})' if close else ''}"


def read_rows(given: Any) -> Rows:
    """Return the rows of a prompt, a request, an iterable of both, or a table.

    :raises InvalidRequest: It is nothing of that, has more than :data:`MAX_REQUESTS` rows, or columns without names.
    """
    if isinstance(given, Rows):
        return given
    if isinstance(given, (str, Mapping, ImageRequest)):
        return Rows([given])
    if (reader := _reader_of(given)) is not None:
        return table_rows(*reader(given))
    if fault := table_fault(given):
        raise InvalidRequest(f"What was given {fault}. {NOTHING_SENT}")
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InvalidRequest(
            f"There is no request in {type(given).__name__}: give a prompt (text), a request (mapping), a list of "
            f"both, a table, or the URI of a CSV, JSON lines or Parquet file. {NOTHING_SENT}"
        )
    if hasattr(type(given), "to_pylist") and hasattr(type(given), "slice"):
        column: Any = given
        given = column.slice(0, MAX_REQUESTS + 1).to_pylist()  # a column of arrow, which else gives scalars of its own
    # One more than allowed tells "too many", also of a list that never ends.
    return Rows(not_too_many(listed(take_each(given), MAX_REQUESTS + 1, "The list of requests")))


def table_rows(columns: Iterable[Any], rows: Iterable[Sequence[Any]]) -> Rows:
    """Return the rows of a table.

    :param rows: The cells of each, in the order of the columns.
    :raises InvalidRequest: There are too many, or a column has no name of its own.
    """
    names = check_columns(list(columns))
    kept = [position for position, name in enumerate(names) if not name.startswith(_UNNAMED_INDEX)]
    columns = tuple(names[position] for position in kept)
    entries = listed(islice(rows, MAX_REQUESTS + 1), MAX_REQUESTS + 1, "The table")
    return Rows(
        [dict(zip(columns, (row[position] for position in kept), strict=True)) for row in not_too_many(entries)],
        tabular=True,
        columns=columns,
    )


def check_columns(names: Sequence[Any]) -> list[str]:
    """Return the names of columns.

    :raises InvalidRequest: One is no text, is blank or cannot be sent, or two are the same.
    """
    for position, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            called = f"{name!r:.60} ({type(name).__name__})"
            raise InvalidRequest(
                f"Column {position} of the table (counted from 0) is called {called}: a column's name is a text that "
                f"is not blank. Rename it first. {NOTHING_SENT}"
            )
        if fault := text_fault(name):
            raise InvalidRequest(f"The name of column {position} (counted from 0) {fault}. {NOTHING_SENT}")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise InvalidRequest(
            f"The table has more than one column called {_named(map(repr, twice))}: a row has one value for each. "
            f"Rename or drop all but one. {NOTHING_SENT}"
        )
    return [str.__str__(name) for name in names]


def not_too_many(entries: list[Any]) -> list[Any]:
    """Return the entries, of which one more than allowed was read.

    :raises InvalidRequest: They are too many.
    """
    if len(entries) > MAX_REQUESTS:
        raise InvalidRequest(
            f"There are more than {MAX_REQUESTS:,} requests, which is the most for one task; split them, for instance "
            f"with .expand(requests=[...]). {NOTHING_SENT}"
        )
    return entries


_Reader = Callable[[Any], tuple[Iterable[Any], Iterable[Sequence[Any]]]]


def _reader_of(given: Any) -> _Reader | None:
    """Return what reads a table, or None for anything else.

    Asked of the class: pandas gives columns as attributes of the table, whatever they are called.

    :raises InvalidRequest: It is a table whose rows are not here.
    """
    kind = type(given)
    if not any(hasattr(kind, name) for name in ("columns", "column_names", "schema")):
        return None
    # Before anything is asked of the table itself: a lazy one may compute to answer.
    how = next((how for method, how in _LAZY if hasattr(kind, method)), None)
    if how is not None:
        raise InvalidRequest(
            f"What was given is a table ({kind.__name__}) whose rows are not here yet: give {how} of it. {NOTHING_SENT}"
        )
    if hasattr(kind, "itertuples") and hasattr(kind, "columns"):
        return _read_pandas
    if hasattr(kind, "iter_rows") and hasattr(kind, "columns"):
        return lambda frame: (frame.columns, frame.iter_rows())
    if hasattr(kind, "to_pylist") and hasattr(kind, "schema") and hasattr(kind, "slice"):
        return lambda table: (table.schema.names, _arrow_rows(table))
    return None


def _read_pandas(frame: Any) -> tuple[Iterable[Any], Iterable[Sequence[Any]]]:
    """Return columns and rows; an index with a name is a column too, as everywhere outside of pandas."""
    with readable("The table"):
        if any(name is not None for name in getattr(getattr(frame, "index", None), "names", ())):
            frame = frame.reset_index()
        return list(frame.columns), frame.itertuples(index=False, name=None)


def _arrow_rows(table: Any) -> Iterator[Sequence[Any]]:
    """Yield the rows of an arrow table or record batch, some at a time."""
    for start in range(0, min(table.num_rows, MAX_REQUESTS + 1), _ROWS_AT_ONCE):
        some = table.slice(start, _ROWS_AT_ONCE)
        yield from zip(*(column.to_pylist() for column in some.columns), strict=True)


def _is_row(entry: Any) -> bool:
    return isinstance(entry, Mapping)


def _like(column: str) -> str:
    """Return a column's name as a field of that meaning would be spelled."""
    return "_".join(column.casefold().replace("-", " ").split())


def _named(names: Iterable[str]) -> str:
    shown = [f"{name:.40}" for name in names]
    more = [f"and {len(shown) - _MOST_NAMED} more"] if len(shown) > _MOST_NAMED else []
    return ", ".join([*shown[:_MOST_NAMED], *more]) or "none"
