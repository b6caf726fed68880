"""What the service says of a call it did not fulfil: code, type, message and wait, from any of its envelopes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_nanobanana.toapis.answers import Answer, blank

_KEY = re.compile(r"(?i)\b(sk-|bearer\s+)[\w.\-]{3,}")
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_MESSAGE_LENGTH = 300
_LONGEST_RETRY_AFTER = 3600.0


@dataclass(frozen=True)
class Complaint:
    """What the service said of a call it did not fulfil: its code, type and message as text, empty where absent."""

    code: str = ""
    type: str = ""
    message: str = ""

    def named(self, codes: frozenset[str]) -> bool:
        """Whether code or type is one of ``codes``."""
        return self.code.lower() in codes or self.type.lower() in codes


def read_complaint(answer: Answer) -> Complaint:
    """Return code, type and message from any of the envelopes E1 to E9; never fails."""
    body = answer.json()
    if body is None:
        text = _TAG.sub(" ", answer.body[:4000].decode("utf-8", "replace"))
        return Complaint(message=clean(text, answer.secret) or "empty body")
    return _from_envelope(body, answer.secret, depth=0)


def _from_envelope(body: Mapping[str, Any], secret: str, depth: int) -> Complaint:
    error = body.get("error")
    source = error if isinstance(error, Mapping) else body
    message = error if isinstance(error, str) else source.get("message")
    code, kind = (_word(source.get(key), secret) for key in ("code", "type"))
    complaint = Complaint(code=code, type=kind, message=clean(message, secret))
    inner = _nested(message) if depth == 0 else None
    if inner is None:
        return complaint
    # E8: the task layer wraps the upstream's JSON in its own message; the inner code is the telling one.
    nested = _from_envelope(inner, secret, depth=1)
    return Complaint(nested.code or complaint.code, nested.type or complaint.type, nested.message or complaint.message)


def _nested(message: Any) -> Mapping[str, Any] | None:
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds to wait from ``Retry-After`` (seconds, decimals or an HTTP date), or None."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        moment, reference = _epoch(text), _epoch(headers.get("date", ""))
        if moment is None:
            return None
        # The server's own clock, where it tells it: ours may be minutes off.
        seconds = moment - (now if reference is None else reference)
    # NaN fails both comparisons and is dropped with the negatives.
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds >= 0 else None


def _epoch(http_date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
        # The asctime form names no zone; HTTP dates are in GMT (RFC 9110, 5.6.7).
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def clean(text: Any, secret: str = "") -> str:
    """Return a service's text fit for a log: one line, bounded, keys blanked."""
    if not isinstance(text, str):
        return ""
    flat = " ".join(_KEY.sub("***", blank(text, secret)).encode("utf-8", "replace").decode("utf-8").split())
    return flat if len(flat) <= _MESSAGE_LENGTH else f"{flat[:_MESSAGE_LENGTH]}…"


def _word(value: Any, secret: str) -> str:
    return clean(str(value), secret)[:80] if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
