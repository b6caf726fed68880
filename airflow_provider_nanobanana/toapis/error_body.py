"""What the service says of a call or an image task it did not fulfil: code, type, message and wait, from any shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from airflow_provider_nanobanana.toapis.redaction import one_line
from airflow_provider_nanobanana.toapis.response_values import (
    first_given,
    json_inside,
    parse_number,
    parse_text,
    parse_word,
)

_LONGEST_RETRY_AFTER: Final = 3600.0
#: Where services put an error, and where they put its words; the documented key first.
_ERRORS: Final = ("error", "errors", "err", "error_info", "errorInfo")
_MESSAGES: Final = (
    "message", "msg", "detail", "reason", "fail_reason", "failReason", "failMsg", "fail_msg", "error_message",
    "errorMessage", "error_msg", "errorMsg", "error_description",
)  # fmt: skip
_MESSAGES_OF_AN_ERROR: Final = (*_MESSAGES, "text", "details", "description", "title")
_CODES: Final = ("code", "error_code", "errorCode", "failCode", "fail_code")
#: Said of an answer that holds what was asked for; no complaint.
_NO_CODES: Final = frozenset({"0", "1", "200", "201", "202", "success", "ok", "succeeded"})
_NO_WORDS: Final = frozenset({"success", "ok", "succeeded", "operation succeeded"})
_DEEPEST: Final = 6
_MOST_WORDS: Final = 8
_LONGEST_WORDS: Final = 4_000
_WAITS: Final = {
    "retry_after": 1.0, "retryAfter": 1.0, "retry-after": 1.0, "Retry-After": 1.0, "retry_after_seconds": 1.0,
    "retryAfterSeconds": 1.0, "retry_in": 1.0, "retryDelay": 1.0, "retry_delay": 1.0,
    "retry_after_ms": 0.001, "retryAfterMs": 0.001,
}  # fmt: skip


@dataclass(frozen=True)
class ErrorBody:
    """What the service said of a call it did not fulfil: its code, type and message as text, empty where absent.

    :param words: The message before it was cut: what decides by words looks here.
    :param page: Whether the answer was no JSON object, but a web page.
    """

    code: str = ""
    type: str = ""
    message: str = ""
    words: str = ""
    page: bool = False

    def has_code(self, codes: frozenset[str]) -> bool:
        """Whether code or type is one of ``codes``."""
        return self.code.lower() in codes or self.type.lower() in codes

    @property
    def silent(self) -> bool:
        """Whether nothing at all was said."""
        return not (self.code or self.type or self.message)


def error_body_of(body: Mapping[str, Any], secret: str = "") -> ErrorBody:
    """Return what an envelope, or a failed image task, says of what went wrong; never fails."""
    error = first_given(body, *_ERRORS)
    source = error if isinstance(error, Mapping) else body
    own = (text for key in _MESSAGES for text in _words(body.get(key)) if text.lower() not in _NO_WORDS)
    said = list(dict.fromkeys([*_words(error), *own]))
    code = parse_word(first_given(source, *_CODES) or first_given(body, *_CODES), secret, 80) or ""
    code = "" if code.lower() in _NO_CODES else code
    kind = parse_word(source.get("type"), secret, 80) or ""
    # E8: the task layer wraps the upstream's JSON in its own message; the inner words are the telling ones.
    inner = next((value for text in said if isinstance(value := json_inside(text), Mapping)), None)
    if inner is not None:
        nested = error_body_of(inner, secret)
        if not nested.silent:
            return ErrorBody(nested.code or code, nested.type or kind, nested.message, nested.words)
    words = ": ".join(said[:_MOST_WORDS])
    return ErrorBody(code, kind, one_line(words, secret), words[:_LONGEST_WORDS])


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts of a reason, however deep it is: a text, a mapping, or a list as validators give it."""
    if isinstance(value, str):
        if text := parse_text(value):
            yield text
    elif isinstance(value, list) and depth < _DEEPEST:
        for entry in value[:_MOST_WORDS]:
            yield from _words(entry, depth + 1)
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        place = value.get("loc") or value.get("field") or value.get("param")
        where = ".".join(str(part) for part in place[:6]) if isinstance(place, list) else ""
        for key in (*_MESSAGES_OF_AN_ERROR, *_ERRORS):
            for text in _words(value.get(key), depth + 1):
                yield f"{where}: {text}" if where else text


def parse_wait(headers: Mapping[str, str], body: Mapping[str, Any] | None, now: float) -> float | None:
    """Return the seconds to wait that an answer asks for, by its header, else in its body; at most an hour."""
    named = parse_retry_after(headers, now)
    if named is not None or body is None:
        return named
    error = first_given(body, *_ERRORS)
    for source in (error, body, body.get("data")):
        if not isinstance(source, Mapping):
            continue
        for key, unit in _WAITS.items():
            value = source.get(key)
            seconds = parse_number(value.strip().removesuffix("s") if isinstance(value, str) else value)
            if seconds is not None:
                return min(seconds * unit, _LONGEST_RETRY_AFTER)
    return None


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
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
