"""From an answer that is no result to the one error it is: HTTP status first, then code, then type; text last.

Table and sources: ``reference/toapis-contract.md`` sections 6 and 10.1.
"""

from __future__ import annotations

import re
from enum import StrEnum

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.answers import Answer, NoAnswer
from airflow_provider_nanobanana.toapis.complaint import Complaint, read_complaint, read_retry_after


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
_OF_THE_KEY = (errors.AuthenticationFailed, errors.PermissionRefused)
#: The service has seen the client id before: whoever sent it may have bought.
_REPEATED_TEXT = re.compile(r"duplicat|already[ _-](exist|used|in[ _-]use|submitted|taken)|重复|已存在", re.IGNORECASE)
_MISSING_CODES = frozenset({"task_not_found", "task_not_exist", "not_found_error"})
_MISSING_TEXT = re.compile(r"\btask_not_(found|exist)\b|任务不存在", re.IGNORECASE)
_CONTENT_TEXT = re.compile(r"content[ _-]?policy|safety|prohibited|moderation", re.IGNORECASE)


def classify(answer: Answer, kind: CallKind, now: float, image_task_id: str | None = None) -> errors.ToApisError:
    """Return the one error that an answer is; ``now`` is epoch seconds, for ``Retry-After`` as a date."""
    complaint = read_complaint(answer)
    error_class = _error_class(answer.status, complaint, kind)
    if kind is CallKind.STATUS and error_class in _OF_THE_KEY and answer.body and answer.json() is None:
        # A page of the edge (a firewall's 403) says nothing of the key.
        error_class = errors.TransientFailure
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


def _error_class(status: int, complaint: Complaint, kind: CallKind) -> type[errors.ToApisError]:
    if complaint.named(_QUOTA_CODES):
        return errors.InsufficientCredits
    if complaint.named(_MODEL_CODES) or complaint.message.startswith("pricing_failed"):
        return errors.ModelNotFound
    if complaint.named(_CONTENT_CODES):
        return errors.ContentRefused
    if kind is CallKind.SUBMIT and _repeats(status, complaint):
        return errors.SubmissionUnknown
    if 300 <= status < 500 and status != 408:
        return _client_error_class(status, complaint, kind)
    return _server_error_class(status, complaint, kind)


def _client_error_class(status: int, complaint: Complaint, kind: CallKind) -> type[errors.ToApisError]:
    if status == 429:
        pattern = _EMPTY_TEXT if complaint.named(_RATE_CODES) else _QUOTA_TEXT
        return errors.InsufficientCredits if pattern.search(complaint.message) else errors.RateLimited
    refused = {
        401: errors.AuthenticationFailed,
        402: errors.InsufficientCredits,
        403: errors.InsufficientCredits if _QUOTA_TEXT.search(complaint.message) else errors.PermissionRefused,
        422: errors.InvalidRequest if complaint.code else errors.ContentRefused,
    }
    if kind is CallKind.STATUS and status not in (401, 402, 403):
        # Only the service's own word counts: to hear "not there" from an edge page could lead to a second purchase.
        return errors.ImageTaskNotFound if _means_not_found(complaint) else errors.TransientFailure
    return errors.ConfigurationError if status < 400 else refused.get(status, errors.InvalidRequest)


def _server_error_class(status: int, complaint: Complaint, kind: CallKind) -> type[errors.ToApisError]:
    if status == 503 and complaint.code.lower() == "rate_limit_unavailable":
        return errors.ServiceUnavailable
    if _means_not_found(complaint) and kind is CallKind.STATUS:
        return errors.ImageTaskNotFound
    return errors.SubmissionUnknown if kind is CallKind.SUBMIT else errors.TransientFailure


def _repeats(status: int, complaint: Complaint) -> bool:
    """Whether a submit was refused because one like it came before: what that one bought has to be looked for."""
    said = f"{complaint.code} {complaint.message}"
    named = "client_business_id" in said and bool(_REPEATED_TEXT.search(said))
    return status == 409 or (400 <= status < 500 and (named or bool(_REPEATED_TEXT.search(complaint.code))))


def _means_not_found(complaint: Complaint) -> bool:
    """Whether the service says that the image task is not there: by code or type, or (E5) by a code in the message."""
    return complaint.named(_MISSING_CODES) or bool(_MISSING_TEXT.search(complaint.message))


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
