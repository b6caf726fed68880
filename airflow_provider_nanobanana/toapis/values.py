"""Single values out of loose JSON: the right type and range, or None; never an exception."""

from __future__ import annotations

import math
from typing import Any

#: Longer than any id seen; it must fit into paths, logs and XCom.
_LONGEST_ID = 128


def read_id(value: Any) -> str | None:
    """Return an id, or None for what no service calls one."""
    text = read_text(value)
    return (
        text
        if text and len(text) <= _LONGEST_ID and text.isascii() and text.isprintable() and '"' not in text
        else None
    )


def read_text(value: Any) -> str | None:
    """Return a non-empty text; numbers are spelled out (ids and codes come as both)."""
    if isinstance(value, str):
        # A lone surrogate is legal JSON but cannot be stored, logged or sent on.
        return value.encode("utf-8", "replace").decode("utf-8").strip() or None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    return None


def read_number(value: Any, lowest: float = 0.0) -> float | None:
    """Return a finite number of at least ``lowest`` from a number or a text such as ``"0.025"`` or ``"100%"``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= lowest else None


def read_time(value: Any) -> float | None:
    """Return epoch seconds; milliseconds are recognised by their size, zero and nonsense are absent."""
    number = read_number(value)
    if not number:
        return None
    seconds = number / 1000 if number > 1e11 else number
    return seconds if seconds < 1e10 else None


def storable(value: Any) -> Any:
    """Return plain JSON as every store takes it: PostgreSQL refuses U+0000, and half a character has no UTF-8."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {storable(key): storable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(inner) for inner in value]
    return value
