"""Values as people and tables give them: what counts as not given, as a text, as one column or as a table.

Told by what a value can do, never by its class: pandas, polars, pyarrow and numpy are not imported here, and a table
class that nobody has written yet is recognised all the same.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum
from itertools import islice
from numbers import Integral, Real
from typing import Any, Final

from airflow_provider_nanobanana.toapis.errors import InvalidRequest

#: Any of them makes a value a table (pandas, polars, pyarrow, dask, astropy, Hugging Face datasets and their like).
_TABLE_MARKS: Final = (
    *("columns", "column_names", "colnames", "__dataframe__"),
    *("iterrows", "itertuples", "iter_rows", "to_records", "to_dicts"),
)
#: Any of them makes a value one row with named columns (pydantic, which warns of ``__fields__``; ``namedtuple``, Spark,
#: SQLAlchemy, ``sqlite3``).
_ROW_MARKS: Final = ("model_dump", "_fields", "__fields__", "_mapping", "keys")
#: How each library gives rows as mappings, by the method that shows which library it is.
_ROWS_OF: Final = (("to_dicts", ".to_dicts()"), ("to_pylist", ".to_pylist()"), ("mappings", ".mappings().all()"))
#: What an iterable raises when it is faulty; anything else (a database that is away, a skip) is its own business.
_FAULTY: Final = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(NameError, RuntimeError, TypeError, ValueError),
)
#: Unicode's category Cc: no store, log or picture takes them; line breaks and tabs are fine where a text has lines.
_ANY_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: Above it a float has lost digits of the number it was.
_EXACT: Final = 2**53
#: Longer numbers are no ids; Python itself refuses to spell out very long ones.
_LONGEST_NUMBER: Final = 10**40
#: Schemes of which no address ends in a blank.
_NEVER_BLANK_AT_THE_END: Final = ("http", "https", "file", "local")


def is_blank(value: Any) -> bool:
    """Whether a value stands for "not given": None, NaN, NaT, NA, and texts of white space, as empty cells become."""
    if value is None or isinstance(value, str):
        return value is None or not value.strip()
    differs: Any = None
    try:
        # Not a number, NaT and their like are the values that differ from themselves.
        differs = operator.ne(value, value)
        return not isinstance(differs, Iterable) and bool(differs)
    except _FAULTY:
        return differs is value  # NA answers with itself, which is neither true nor false


def given_fields(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the fields that are given; a blank prompt stays, to be refused as one."""
    return {
        key: value
        for key, value in fields.items()
        if not is_blank(value) or (key == "prompt" and isinstance(value, str))
    }


def as_text(value: Any) -> Any:
    """Return a text, or a whole number as its text, as a plain ``str``; whatever else it is stays, to be refused.

    Whole numbers are what native rendering, YAML and tables make of ``"20261126"``; with an empty cell beside it a
    table makes ``7.0`` of 7.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool) or not isinstance(value, (Integral, Real, Decimal)):
        return value
    number: Any = value
    try:
        whole = int(number)
        most = _LONGEST_NUMBER if isinstance(value, (Integral, Decimal)) else _EXACT
        return str(whole) if whole == value and abs(whole) < most else value
    except (ArithmeticError, ValueError):  # infinite, or not a number
        return value


def as_reference(value: Any) -> Any:
    """Return a path object (``pathlib.Path``, ``ObjectStoragePath``) as its text, and anything else as it is.

    Blanks around it go, but one at the end of an object store's URI: it may be part of the key.
    """
    if isinstance(value, str):
        text = str.__str__(value).strip("\r\n\t").lstrip()
        scheme, separator, _ = text.partition("://")
        return text if separator and scheme.lower() not in _NEVER_BLANK_AT_THE_END else text.rstrip()
    if hasattr(value, "protocol") and hasattr(value, "path"):
        return str(value)
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    return os.fsdecode(path) if isinstance(value, os.PathLike) else path


def text_fault(text: str, *, lines: bool = True) -> str | None:
    """Return why a text cannot be sent and kept: a lone surrogate, or a control character; None for a good one.

    :param lines: Whether line breaks and tabs are part of it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half a character (a lone surrogate), which cannot be sent"
    found = (_CONTROL if lines else _ANY_CONTROL).search(text)
    return f"holds the control character U+{ord(found[0]):04X} at {found.start()}; take it out" if found else None


def table_fault(value: Any) -> str | None:
    """Return why a table, or one row of it, is no list of requests, and how to make one of it; None for anything else.

    A table gives the names of its columns when it is read as a list, and a row its cells: each would be bought as a
    prompt. One column (a series, a one-dimensional array) is a list of texts, and fine.
    """
    if isinstance(value, (str, bytes, Mapping)) or type(value) in (list, tuple, set, frozenset):
        return None
    kind, column = type(value).__name__, _is_column(value)
    tabular = _has_any(value, (*_TABLE_MARKS, "__arrow_c_stream__")) or _dimensions(value) > 1 or _fields_of(value)
    if tabular and not column:
        own = next((f"{how} here, " for method, how in _ROWS_OF if hasattr(value, method)), "")
        how = f'give them as mappings ({own}.to_dict("records") in pandas)'
        return f"is a table ({kind}), which is no list of its rows: {how}"
    if ("prompt" in _labels(value)) if column else _has_any(value, _ROW_MARKS):
        how = "row._asdict(), row.to_dict(), row.model_dump() or dict(row)"
        return f"is one row of a table ({kind}), which is no list of requests: give it as a mapping ({how})"
    return None


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what a faulty iterable or mapping raises within the block into ``InvalidRequest``.

    :param what: What the message calls it.
    """
    try:
        yield
    except _FAULTY as error:
        words = " ".join(str(error).split())
        raise InvalidRequest(
            f"{what} cannot be read ({type(error).__name__}: {words:.100}). Nothing was sent and nothing was charged; "
            "a retry would meet the same."
        ) from error


def listed(value: Iterable[Any], most: int, what: str) -> list[Any]:
    """Return what an iterable gives, at most so many entries: one without an end comes to an end here.

    :param what: What the message calls it.
    :raises InvalidRequest: The iterable is faulty and failed on the way; nothing was sent.
    """
    with readable(what):
        return list(islice(value, most))


def values_in(value: Any, deepest: int, most: int) -> Iterator[Any]:
    """Yield every value and every key inside of JSON-like data, without recursion.

    :raises ValueError: More than ``deepest`` levels (or a circle), or more than ``most`` values.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        count += 1
        if depth > deepest or count + len(waiting) > most:
            raise ValueError(f"it has more than {deepest} levels or {most:,} values, or holds itself")
        yield one
        inner: Iterable[Any] = ()
        if isinstance(one, Mapping):
            inner = [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple)):
            inner = one
        waiting.extend((part, depth + 1) for part in inner)


def _is_column(value: Any) -> bool:
    """Whether a value is one column: a series or a one-dimensional array without fields."""
    if hasattr(value, "ndim"):
        return _dimensions(value) == 1 and not _fields_of(value)
    return _has_any(value, ("dtype", "type")) and not _has_any(value, (*_TABLE_MARKS, "schema"))


def _dimensions(value: Any) -> int:
    dimensions = getattr(value, "ndim", 0)
    return dimensions if isinstance(dimensions, int) else 0


def _fields_of(value: Any) -> bool:
    """Whether each entry of an array has named fields."""
    return bool(getattr(getattr(value, "dtype", None), "names", None))


def _labels(value: Any) -> Any:
    """Return the labels of a column's entries; a row of a pandas table is a column whose labels are field names."""
    keys = getattr(value, "keys", None)
    return keys() if callable(keys) else ()


def _has_any(value: Any, names: Iterable[str]) -> bool:
    return any(hasattr(value, name) for name in names)
