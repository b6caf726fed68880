"""Cells: one value of a row, as the plain JSON that ``meta`` holds or as the text that a prompt's template takes.

Told by what a value can do, as in ``request_values``: what pandas, polars, arrow and numpy put into their cells needs
none of them here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import Any, Final
from uuid import UUID

from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.request_values import as_text, is_blank, readable, text_fault

#: Bytes of JSON that the ``meta`` of one row may have.
MAX_META: Final = 2048
_DEEPEST: Final = 10
#: Python itself refuses to spell out numbers that are much longer.
_LARGEST: Final = 10**1000
#: Nearly all cells are of one of them.
_PLAIN: Final = frozenset((str, int, float, bool, type(None)))
_TAKEN: Final = "texts, numbers, true and false, dates and times, lists and mappings of them"


def read_meta(values: Mapping[Any, Any], left_out: list[str] | None = None) -> dict[str, Any]:
    """Return a row's own data as plain JSON of at most 2,048 bytes; what is not a number becomes None.

    Dates, times and durations become their ISO text, ``Decimal`` and ``UUID`` their text, scalars and arrays of numpy
    the Python values, an enum its value.

    :param left_out: Takes the names of cells that are left out because they do not fit, as a table's long descriptions
        and bytes do not; None refuses the row for them.
    :raises InvalidRequest: A key is no text, a value cannot be JSON, or it is too much; the cell is named.
    """
    meta = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise InvalidRequest(f"meta has the key {key!r:.40} ({type(key).__name__}); its keys are texts")
        if fault := text_fault(key):
            raise InvalidRequest(f"the name of cell {key!r:.40} {fault}")
        try:
            with readable(f"cell {key!r:.40}"):
                meta[str.__str__(key)] = plain_cell(value, f"cell {key!r:.40}")
        except InvalidRequest:
            if left_out is None:
                raise
            left_out.append(key)
    if (size := len(json.dumps(meta))) > MAX_META:
        sizes = {key: len(json.dumps({key: value})) for key, value in meta.items()}
        largest = max(sizes, key=sizes.__getitem__)
        if left_out is None:
            raise InvalidRequest(
                f"meta has {size:,} bytes of JSON, at most {MAX_META:,} are allowed; the largest cell is "
                f"{largest!r:.40} ({sizes[largest]:,})"
            )
        _leave_out_largest(meta, sizes, left_out)
    return meta


def _leave_out_largest(meta: dict[str, Any], sizes: Mapping[str, int], left_out: list[str]) -> None:
    for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if len(json.dumps(meta)) <= MAX_META:
            return
        del meta[key]
        left_out.append(key)


def plain_cell(value: Any, what: str, depth: int = 0) -> Any:
    """Return a value as plain JSON; see :func:`read_meta`.

    :param what: What a message calls it.
    :raises InvalidRequest: It cannot be.
    """
    if depth > _DEEPEST:
        raise InvalidRequest(f"{what} has more than {_DEEPEST} levels, or holds itself")
    if type(value) not in _PLAIN:
        value = _simplified(value)
    if isinstance(value, Mapping):
        if strangers := [key for key in value if not isinstance(key, str)]:
            kind = type(strangers[0]).__name__
            raise InvalidRequest(f"{what} has the key {strangers[0]!r:.40} ({kind}); keys are texts")
        return {_plain_value(key, what): plain_cell(inner, what, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_cell(inner, what, depth + 1) for inner in value]
    return _plain_value(value, what)


def _plain_value(value: Any, what: str) -> str | float | bool | None:
    """Return a single value as JSON has it.

    :raises InvalidRequest: JSON has none such.
    """
    if isinstance(value, str):
        if fault := text_fault(value):
            raise InvalidRequest(f"{what} {fault}")
        return str.__str__(value)
    if isinstance(value, bool) or is_blank(value):
        return value if isinstance(value, bool) else None
    if isinstance(value, Integral) and abs(int(value)) < _LARGEST:
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Integral) and math.isfinite(value):
        return float(value)
    shown = f"{value!r:.20}" if isinstance(value, float) else type(value).__name__
    raise InvalidRequest(f"{what} is {shown}, which is no JSON; give {_TAKEN}")


def cell_text(value: Any, column: str) -> str:
    """Return a cell as the text that a template takes: a whole number without a point, a date as ISO says it.

    :raises InvalidRequest: It is blank, or no single value.
    """
    what = f"cell {column!r:.40}"
    if is_blank(value):
        raise InvalidRequest(f"{what} is blank, and the template of the prompt needs it")
    with readable(what):
        plain = as_text(value) if not isinstance(value, Decimal) else str(value)
        plain = plain_cell(plain, what)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if not isinstance(plain, (str, int, float)):
        raise InvalidRequest(f"{what} is {type(value).__name__}, and the template of the prompt takes one text")
    return str(plain)


def json_cell(text: str, column: str) -> Any:
    """Return what the JSON in a text cell says.

    :raises InvalidRequest: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"cell {column!r:.40} holds {text!r:.60}, which is no JSON ({error!s:.60})") from None


def _simplified(value: Any) -> Any:
    """Return what stands for a value of a class that JSON does not know, or the value itself."""
    if isinstance(value, Enum):
        return value.value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind and kind in "mM" and not is_blank(value) and not getattr(value, "ndim", 0):
        return str(value) if kind == "M" else f"PT{float(value / type(value)(1, 's'))!r}S"
    if kind and hasattr(value, "tolist"):
        return value.tolist()  # a scalar or an array of numpy
    if hasattr(value, "total_seconds") and not is_blank(value):
        return f"PT{value.total_seconds()!r}S"
    if hasattr(value, "isoformat") and not is_blank(value):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID)) and not is_blank(value) else value
