"""Single values out of loose JSON: the right type and range, or None; never an exception."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from airflow_provider_nanobanana.toapis.redaction import holds_key, one_line

#: Longer than any id seen; it must fit into paths, logs and XCom.
_LONGEST_ID: Final = 128
_LONGEST_WORD: Final = 64
_LONGEST_JSON_TEXT: Final = 1_000_000
#: USD that one image task may cost, and credits that an account may hold: far beyond any, and safe to calculate with.
MOST_USD: Final = 1e6
MOST_CREDITS: Final = 1e12
_NUMBER: Final = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_DOLLARS: Final = re.compile(r"^(US)?\$\s*|^USD\s+|\s*(USD|US\$|\$)$", re.IGNORECASE)


def parse_id(value: Any, secret: str = "") -> str | None:
    """Return an id, or None for what no service calls one, such as an echo of the key."""
    text = parse_text(value)
    return text if text and len(text) <= _LONGEST_ID and _is_id(text, secret) else None


@lru_cache(maxsize=1024)
def _is_id(text: str, secret: str) -> bool:
    """Whether a short text may be an id; an answer's is asked for several times, and every few seconds again."""
    return text.isascii() and text.isprintable() and '"' not in text and not holds_key(text, secret)


def parse_text(value: Any) -> str | None:
    """Return a non-empty text; numbers are spelled out (ids and codes come as both)."""
    if isinstance(value, str):
        # A lone surrogate is legal JSON but cannot be stored, logged or sent on.
        return value.encode("utf-8", "replace").decode("utf-8").strip() or None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    return None


def parse_word(value: Any, secret: str = "", limit: int = _LONGEST_WORD) -> str | None:
    """Return a short text such as a code, a status or a model name, cleaned, or None."""
    text = parse_text(value)
    if not text:
        return None
    return (_clean_word(text, secret, limit) if len(text) <= _LONGEST_WORD else one_line(text, secret, limit)) or None


#: Each answer says the same few words again.
_clean_word = lru_cache(maxsize=1024)(one_line)


def plain_word(word: str) -> str:
    """Return a word in lower case with ``_`` between its parts: ``NOT_START``, ``Not Start``, ``notStart`` alike."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.strip())
    return re.sub(r"[\W_]+", "_", apart).strip("_").lower()


def parse_number(value: Any, lowest: float = 0.0, highest: float = math.inf) -> float | None:
    """Return a finite number within the bounds from a number or a text such as ``"0.025"`` or ``"100%"``, or None."""
    if isinstance(value, str):
        text = value.strip().removesuffix("%").strip() if len(value) < 100 else ""
        if not _NUMBER.fullmatch(text):
            return None
        value = text
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and lowest <= number <= highest else None


def parse_usd_amount(value: Any) -> float | None:
    """Return an amount in USD, at most a million, also from ``"$0.025"`` and ``"0.025 USD"``; else None.

    None stands for "not known", which is counted at the list price; an amount in another currency is not known.
    """
    return parse_number(_DOLLARS.sub("", value.strip()) if isinstance(value, str) else value, highest=MOST_USD)


def parse_credits(value: Any, lowest: float = 0.0) -> float | None:
    """Return a number of credits within bounds that can be calculated with, or None."""
    return parse_number(value, lowest=lowest, highest=MOST_CREDITS)


def parse_time(value: Any) -> float | None:
    """Return epoch seconds; milliseconds are recognised by their size, zero and nonsense are absent."""
    number = parse_number(value)
    if not number:
        return None
    seconds = number / 1000 if number > 1e11 else number
    return seconds if seconds < 1e10 else None


def json_inside(text: str) -> Any:
    """Return the object or list that a text holds as JSON, or None."""
    start = text[:64].lstrip()[:1]
    if start not in ("{", "[", '"') or len(text) > _LONGEST_JSON_TEXT:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) or (isinstance(value, str) and value != text) else None


def first_given(body: Mapping[str, Any], *keys: str) -> Any:
    """Return the first of these values that is neither absent nor empty; 0 and False are given."""
    return next((body[key] for key in keys if body.get(key) not in (None, "", [], {})), None)


def storable(value: Any) -> Any:
    """Return plain JSON as every store takes it: PostgreSQL refuses U+0000, and half a character has no UTF-8."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {storable(key): storable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(inner) for inner in value]
    return value
