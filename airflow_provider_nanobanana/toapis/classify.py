"""From an answer that is no result to the one error it is: HTTP status first, then code, then type; text last.

Table and sources: ``reference/toapis-contract.md`` sections 6 and 10.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.answers import Answer, NoAnswer


class CallKind(StrEnum):
    """What a call is for; the same answer means different things to a submit and to a poll."""

    SUBMIT = "submit"
    STATUS = "status"
    UPLOAD = "upload"
    ACCOUNT = "account"


_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "insufficient_user_quota",
        "quota_not_enough",
        "pre_consume_token_quota_failed",
        "payment_required",
    }
)
_RATE_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error", "too_many_requests"})
_MODEL_CODES = frozenset({"model_not_found", "pricing_failed"})
_CONTENT_CODES = frozenset({"content_policy_violation", "content_policy", "content_filter", "moderation_blocked"})
#: The only texts that decide anything, and only where neither status nor code does (contract 10, rows 12 and 18).
_QUOTA_TEXT = re.compile(r"quota|credit|balance|余额|额度", re.IGNORECASE)
#: A 429 may carry the rate limit's code and still mean an empty account; only a plain statement of that counts then.
_EMPTY_TEXT = re.compile(
    r"(insufficient|not enough|no|out of|exhausted|exceeded your)\W+(user\W+)?(quota|credits?|balance)\b"
    r"|(quota|credits?|balance)\W+(is|are)\W+(not enough|insufficient|exhausted|used up)|(余额|额度)不足",
    re.IGNORECASE,
)
_CONTENT_TEXT = re.compile(r"content[ _-]?policy|safety|prohibited|moderation", re.IGNORECASE)

_SECRET = re.compile(r"(?i)\b(sk-|bearer\s+)[\w.\-]{3,}")
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


def classify(answer: Answer, kind: CallKind, now: float, image_task_id: str | None = None) -> errors.ToApisError:
    """Return the one error that an answer is; ``now`` is epoch seconds, for ``Retry-After`` as a date."""
    complaint = read_complaint(answer)
    error_class = _error_class(answer.status, complaint, kind)
    return error_class(
        _sentence(error_class, answer.status, complaint, kind, image_task_id),
        image_task_id=image_task_id,
        http_status=answer.status,
        code=complaint.code or None,
        retry_after=read_retry_after(answer.headers, now),
        # A poll that is refused says nothing of the image task: it lives on and stays paid.
        charged="yes" if kind is CallKind.STATUS and error_class is not errors.ImageTaskNotFound else None,
    )


def no_answer_error(failure: NoAnswer, kind: CallKind, image_task_id: str | None = None) -> errors.ToApisError:
    """Return the error of a call without an answer; only a submit of which bytes left is unknown."""
    if not failure.sent:
        charged: errors.Charged | None = "yes" if kind is CallKind.STATUS else None
        return errors.ConnectionFailed(
            f"No connection to the gateway ({failure.reason}); nothing was sent.",
            image_task_id=image_task_id,
            charged=charged,
        )
    if kind is CallKind.SUBMIT:
        return errors.SubmissionUnknown(_UNKNOWN.format(what=failure.reason))
    return errors.TransientFailure(
        f"No usable answer to a {kind} call ({failure.reason}).",
        image_task_id=image_task_id,
        charged="yes" if kind is CallKind.STATUS else None,
    )


def content_refused(code: str, message: str) -> bool:
    """Whether a failed image task was refused for its content; the code decides, then the text (row 20)."""
    return code.lower() in _CONTENT_CODES or bool(_CONTENT_TEXT.search(message))


def read_complaint(answer: Answer) -> Complaint:
    """Return code, type and message from any of the envelopes E1 to E9; never fails."""
    body = answer.json()
    if body is None:
        text = _TAG.sub(" ", answer.body[:4000].decode("utf-8", "replace"))
        return Complaint(message=clean(text) or "empty body")
    return _from_envelope(body, depth=0)


def _from_envelope(body: Mapping[str, Any], depth: int) -> Complaint:
    error = body.get("error")
    source = error if isinstance(error, Mapping) else body
    message = error if isinstance(error, str) else source.get("message")
    complaint = Complaint(code=_word(source.get("code")), type=_word(source.get("type")), message=clean(message))
    inner = _nested(message) if depth == 0 else None
    if inner is None:
        return complaint
    # E8: the task layer wraps the upstream's JSON in its own message; the inner code is the telling one.
    nested = _from_envelope(inner, depth=1)
    return Complaint(nested.code or complaint.code, nested.type or complaint.type, nested.message or complaint.message)


def _nested(message: Any) -> Mapping[str, Any] | None:
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _error_class(status: int, complaint: Complaint, kind: CallKind) -> type[errors.ToApisError]:
    if complaint.named(_QUOTA_CODES):
        return errors.InsufficientCredits
    if complaint.named(_MODEL_CODES) or complaint.message.startswith("pricing_failed"):
        return errors.ModelNotFound
    if complaint.named(_CONTENT_CODES):
        return errors.ContentRefused
    if 300 <= status < 500 and status != 408:
        return _client_error_class(status, complaint, kind)
    return _server_error_class(status, complaint, kind)


def _client_error_class(status: int, complaint: Complaint, kind: CallKind) -> type[errors.ToApisError]:
    if status == 429:
        pattern = _EMPTY_TEXT if complaint.named(_RATE_CODES) else _QUOTA_TEXT
        return errors.InsufficientCredits if pattern.search(complaint.message) else errors.RateLimited
    if kind is CallKind.STATUS and status in (400, 404):
        return errors.ImageTaskNotFound
    if status < 400:
        return errors.TransientFailure if kind is CallKind.STATUS else errors.ConfigurationError
    return {
        401: errors.AuthenticationFailed,
        402: errors.InsufficientCredits,
        403: errors.InsufficientCredits if _QUOTA_TEXT.search(complaint.message) else errors.PermissionRefused,
        422: errors.InvalidRequest if complaint.code else errors.ContentRefused,
    }.get(status, errors.InvalidRequest)


def _server_error_class(status: int, complaint: Complaint, kind: CallKind) -> type[errors.ToApisError]:
    if status == 503 and complaint.code.lower() == "rate_limit_unavailable":
        return errors.ServiceUnavailable
    if _means_not_found(complaint) and kind is CallKind.STATUS:
        return errors.ImageTaskNotFound
    return errors.SubmissionUnknown if kind is CallKind.SUBMIT else errors.TransientFailure


def _means_not_found(complaint: Complaint) -> bool:
    """A 200 that says the image task is not there: by its code, or (E5) by a code standing where the message should."""
    return {complaint.code.lower(), complaint.message.lower()} & {
        "task_not_found",
        "task_not_exist",
        "任务不存在",
    } != set()


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
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def clean(text: Any) -> str:
    """Return a service's text fit for a log: one line, bounded, secrets blanked."""
    if not isinstance(text, str):
        return ""
    flat = " ".join(_SECRET.sub("***", text).encode("utf-8", "replace").decode("utf-8").split())
    return flat if len(flat) <= _MESSAGE_LENGTH else f"{flat[:_MESSAGE_LENGTH]}…"


def _word(value: Any) -> str:
    return clean(str(value))[:80] if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


_UNKNOWN = (
    "The submit left but no usable answer came back ({what}); an image task may exist and be charged. "
    "It is never sent again blindly."
)

_ADVICE: dict[type[errors.ToApisError], str] = {
    errors.AuthenticationFailed: "The API key is missing or wrong: check the connection's password.",
    errors.PermissionRefused: "The key may not do this: check its model list, address list and account.",
    errors.InsufficientCredits: "The account or key is out of credits: top up, then clear the task.",
    errors.ModelNotFound: (
        "The model id is unknown or not enabled for this key; documented ids are 'nano_banana_2' and "
        "'gemini-3.1-flash-image-preview' (hook.models() lists yours)."
    ),
    errors.ContentRefused: "The service refused the prompt or image by content policy; a repeat is refused again.",
    errors.ConfigurationError: "The gateway redirected the call: check the connection's host.",
    errors.ImageTaskNotFound: "The service does not know this image task: check connection, host and account.",
    errors.RateLimited: "The account's rate limit is reached; the request was not accepted.",
    errors.ServiceUnavailable: "The gateway takes no submits right now; the request was not accepted.",
}


def _sentence(
    error_class: type[errors.ToApisError],
    status: int,
    complaint: Complaint,
    kind: CallKind,
    image_task_id: str | None,
) -> str:
    said = f"HTTP {status}" + (f" {complaint.code}" if complaint.code else "")
    about = f" for image task {image_task_id}" if image_task_id else ""
    quote = f": {complaint.message}" if complaint.message else ""
    if error_class is errors.SubmissionUnknown:
        return _UNKNOWN.format(what=f"{said}{quote}")
    advice = _ADVICE.get(error_class, "")
    return f"{kind} call{about} answered {said}{quote}.{' ' + advice if advice else ''}"
