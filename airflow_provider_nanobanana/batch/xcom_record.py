"""``fit_record``: the record of one image or failure as it goes through XCom, in at most 600 bytes of JSON.

What is left out is in the manifest. URI, id and name are what a downstream task lives on: they are never cut.
"""

from __future__ import annotations

import json
from typing import Any, Final

from airflow_provider_nanobanana.toapis.redaction import truncate_json

#: Bytes of JSON for one image or failure.
LONGEST_RECORD: Final = 600
#: Shortened to a beginning, down to none.
_BEGINNINGS: Final = ("prompt", "variant")
#: Words about what happened, shortened with dots.
_WORDS: Final = ("message", "reason")
#: Left out with their keys, in this order: only where destination and name together have more than some 150 bytes.
_REPEATED: Final = (
    *("meta", "prompt", "sha256", "version", "variant", "shared", "reused", "suspect", "paid_usd", "cost_usd"),
    *("bytes", "format", "width", "height"),
)


def fit_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of at most 600 bytes of JSON.

    Given up in this order: ``meta`` (whole or None), ``prompt`` (its end), ``variant`` (its end), ``sha256`` (None),
    ``message`` or ``reason`` (its end), then keys altogether; an id that is longer than any of the service's last.
    """
    if _size(record) <= LONGEST_RECORD:
        return record
    fitted = dict(record)
    if fitted.get("meta") is not None:
        fitted["meta"] = None
    for key in _BEGINNINGS:
        if isinstance(fitted.get(key), str):
            fitted[key] = _beginning(fitted[key], _room_for(fitted, key))
    if _size(fitted) > LONGEST_RECORD and "sha256" in fitted:
        fitted["sha256"] = None
    for key in _WORDS:
        if _size(fitted) > LONGEST_RECORD and isinstance(fitted.get(key), str):
            room = _room_for(fitted, key)
            fitted[key] = truncate_json(fitted[key], room) if room > len("...") else ""
    for key in _REPEATED:
        if _size(fitted) <= LONGEST_RECORD:
            return fitted
        fitted.pop(key, None)
    return fitted if _size(fitted) <= LONGEST_RECORD else {**fitted, "id": None}


def _size(record: dict[str, Any]) -> int:
    return len(json.dumps(record))


def _room_for(record: dict[str, Any], key: str) -> int:
    """Return the bytes of JSON that a text of a record may have."""
    return max(0, LONGEST_RECORD - _size({**record, key: ""}))


def _beginning(text: str, room: int) -> str:
    """Return as much of a text as has so many bytes of JSON, whole characters only."""
    for position, character in enumerate(text):
        room -= len(json.dumps(character)) - 2
        if room < 0:
            return text[:position]
    return text
