"""From an answer that is no result to the one error it is: HTTP status first, then code, then type; text last.

Table and sources: ``docs/toapis.md``, "Errors".
"""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from typing import Final

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.content_refusals import content_refused
from airflow_provider_nanobanana.toapis.error_body import ErrorBody, error_body_of, parse_wait
from airflow_provider_nanobanana.toapis.redaction import LONGEST_MESSAGE, one_line
from airflow_provider_nanobanana.toapis.responses import (
    ApiResponse,
    NoResponse,
    answer_text,
    denies,
    names_image_task,
    told_code,
)

#: Possessive, and no further than the next tag: a page of opening brackets would take a time that is quadratic.
_TAG: Final = re.compile(r"<(/?)([a-z]*+)[^<>]*+>", re.IGNORECASE)
#: Elements whose text is nothing to read.
_UNREAD: Final = ("script", "style")
#: Bytes of somebody's page of which the text is read.
_LONGEST_PAGE: Final = 16_000


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
#: The only texts that decide anything, and only where neither status nor code does (docs/toapis.md, "Errors").
_QUOTA_TEXT = re.compile(r"quota|credit|balance|余额|额度", re.IGNORECASE)
#: A 429 may carry the rate limit's code and still mean an empty account; only a plain statement of that counts then.
_EMPTY_TEXT = re.compile(
    r"(insufficient|not enough|no|out of|exhausted|exceeded your)\W+(user\W+)?(quota|credits?|balance)\b"
    r"|(quota|credits?|balance)\W+(is|are)\W+(not enough|insufficient|exhausted|used up)|(余额|额度)不足",
    re.IGNORECASE,
)
_MISSING_CODES = frozenset({"task_not_found", "task_not_exist", "not_found_error"})
_MISSING_TEXT = re.compile(r"\btask_not_(found|exist)\b|任务不存在", re.IGNORECASE)
#: A submit was refused because an earlier one has the same client id: that one may have bought the image.
_REPEATED_TEXT = re.compile(r"duplicate|conflict|already (exist|in use|used|been used)|重复|重複|已存在", re.IGNORECASE)
_CLIENT_ID_TEXT = re.compile(r"client[_ -]?business[_ -]?id", re.IGNORECASE)
#: An account that does not know the field, or not this form of it, has bought nothing.
_UNKNOWN_FIELD_TEXT = re.compile(
    r"(unknown|unsupported|not supported|unrecogni[sz]ed|unexpected|invalid|not allowed|not permitted|extra|must be"
    r"|too long|不支持|未知|无效)",
    re.IGNORECASE,
)
#: What is said where it is not known how far the service got.
_TROUBLE_TEXT = re.compile(
    r"time[ds]?[ -]?out|busy|overload|unavailable|internal|upstream|server error|try again|retry|temporar"
    r"|too many|rate limit|connection|failed to|超时|繁忙|稍后|内部|异常|上游"
    r"|deadline|\bEOF\b|unexpected end|unknown error|system error|went wrong|network|gateway|no response|\bi/o\b"
    r"|database|channel|(operation|request|creation|call|task) (has )?failed|^\W*(error|failed|failure|fail)\W*$"
    r"|(操作|请求|創建|创建|提交|调用|生成|处理|系统|任务)(失败|错误|出错)|未知错误|网络",
    re.IGNORECASE,
)
#: Client errors that a page of a web server may mean as they are: a wrong path, too much data.
_OWN_PAGES = frozenset({404, 405, 408, 409, 410, 411, 413, 414, 429, 431})
#: An edge that gave up on a request it had passed on, or whose client did (nginx, AWS).
_GAVE_UP = frozenset({460, 499})
_WAITED_TEXT = re.compile(r"time[ds]?[ -]?out|deadline exceeded|超时", re.IGNORECASE)
#: A message this short explains nothing.
_SHORTEST_REASON: Final = 4


def parse_error_body(response: ApiResponse) -> ErrorBody:
    """Return code, type and message from any of the envelopes E1 to E9; never fails."""
    body = response.json_object
    if body is not None:
        return error_body_of(body, response.secret)
    text = _page_text(response.body[:_LONGEST_PAGE].decode("utf-8", "replace"))
    return ErrorBody(message=one_line(text, response.secret) or "empty body", page=bool(response.body.strip()))


def _page_text(page: str) -> str:
    """Return what a web page says: its text without tags, scripts and styles."""
    pieces, shown, inside = [], 0, ""
    for tag in _TAG.finditer(page):
        closing, name = tag[1], tag[2].lower()
        if inside:
            inside = "" if closing and name == inside else inside
        else:
            pieces.append(page[shown : tag.start()])
            inside = name if name in _UNREAD and not closing else ""
        shown = tag.end()
    return " ".join([*pieces, page[shown:] if not inside else ""])


def classify(response: ApiResponse, kind: CallKind, now: float, image_task_id: str | None = None) -> errors.ToApisError:
    """Return the one error that an answer is; ``now`` is epoch seconds, for ``Retry-After`` as a date."""
    error_body = parse_error_body(response)
    status = _told_status(response, error_body, kind)
    charged: errors.Charged | None = None
    if _refused_on_the_way(status, error_body):
        error_class: type[errors.ToApisError] = errors.TransientFailure
        sentence = _sentence_of_the_edge(response, error_body, kind, image_task_id)
        # Whoever refused it, the service never saw it.
        charged = "yes" if kind is CallKind.STATUS else "no"
    else:
        error_class = _error_class(status, error_body, kind)
        # An answer without a word of trouble may hold an id where a person finds it.
        odd = error_class is errors.SubmissionUnknown and response.status < 300 and not error_body.message
        if odd and response.json_object:
            error_body = replace(error_body, message=answer_text(response, LONGEST_MESSAGE))
        sentence = _sentence(error_class, response.status, error_body, kind, image_task_id)
        # A poll that is refused says nothing of the image task: it lives on and stays paid.
        if kind is CallKind.STATUS and error_class is not errors.ImageTaskNotFound:
            charged = "yes"
    return error_class(
        sentence,
        image_task_id=image_task_id,
        http_status=response.status,
        code=error_body.code or None,
        retry_after=parse_wait(response.headers, response.json_object, now),
        charged=charged,
    )


def no_response_error(failure: NoResponse, kind: CallKind, image_task_id: str | None = None) -> errors.ToApisError:
    """Return the error of a call without an answer; only a submit of which bytes left is unknown."""
    reason = one_line(failure.reason)
    charged: errors.Charged | None = "yes" if kind is CallKind.STATUS else None
    if not failure.sent:
        return errors.ConnectionFailed(
            f"No connection to the gateway ({reason}); nothing was sent.",
            image_task_id=image_task_id,
            charged=charged,
        )
    if kind is CallKind.SUBMIT:
        return errors.SubmissionUnknown(_UNKNOWN.format(what=reason))
    error_class = errors.ResponseTooLong if failure.too_long else errors.TransientFailure
    return error_class(
        f"No usable answer to a {kind} call ({reason}).",
        image_task_id=image_task_id,
        charged=charged,
    )


def refuses_repetition(response: ApiResponse) -> bool:
    """Whether the answer to a submit refuses it for an earlier one with the same client id."""
    return _repeats_a_submit(response.status, parse_error_body(response))


def _told_status(response: ApiResponse, error_body: ErrorBody, kind: CallKind) -> int:
    """Return the HTTP status that an answer is to be taken for: a 2xx may hold a refusal in its body.

    A code of 400 to 499 decides as that status would. So does ``success: false`` with a reason, unless the reason is
    trouble of the service: then nobody knows how far a submit got, as with a code of 500.
    """
    body = response.json_object
    if not 200 <= response.status < 300 or body is None:
        return response.status
    if (code := told_code(body)) is not None:
        return code
    refused = kind in (CallKind.SUBMIT, CallKind.UPLOAD) and denies(body) and not names_image_task(body)
    return 400 if refused and error_body.message and not _TROUBLE_TEXT.search(error_body.words) else response.status


def _refused_on_the_way(status: int, error_body: ErrorBody) -> bool:
    """Whether a firewall, a proxy or a login page refused a call: the page is not the service's own JSON."""
    if status == 407 or (
        status == 403 and (error_body.page or error_body.silent or error_body.message == "empty body")
    ):
        return True
    return error_body.page and 400 <= status < 500 and status not in _OWN_PAGES | _GAVE_UP


def _error_class(status: int, error_body: ErrorBody, kind: CallKind) -> type[errors.ToApisError]:
    if error_body.has_code(_QUOTA_CODES):
        return errors.InsufficientCredits
    if error_body.has_code(_MODEL_CODES) or error_body.message.startswith("pricing_failed"):
        return errors.ModelNotFound
    if _content_refused(status, error_body, kind):
        return errors.ContentRefused
    if 300 <= status < 500 and status != 408:
        return _client_error_class(status, error_body, kind)
    return _server_error_class(status, error_body, kind)


def _content_refused(status: int, error_body: ErrorBody, kind: CallKind) -> bool:
    """Whether the content was refused: by its code always, by its words where a prompt or picture was sent."""
    if content_refused(error_body.code, "") or content_refused(error_body.type, ""):
        return True
    by_words = kind in (CallKind.SUBMIT, CallKind.UPLOAD) and status not in (401, 402, 404, 408, 429)
    return by_words and not error_body.page and content_refused("", error_body.words)


def _client_error_class(status: int, error_body: ErrorBody, kind: CallKind) -> type[errors.ToApisError]:
    if status == 429:
        pattern = _EMPTY_TEXT if error_body.has_code(_RATE_CODES) else _QUOTA_TEXT
        empty = not error_body.page and pattern.search(error_body.message)
        return errors.InsufficientCredits if empty else errors.RateLimited
    if kind is CallKind.SUBMIT and (_repeats_a_submit(status, error_body) or _may_have_passed(status, error_body)):
        return errors.SubmissionUnknown
    explained = error_body.code or len(error_body.message) >= _SHORTEST_REASON
    refused = {
        401: errors.AuthenticationFailed,
        402: errors.InsufficientCredits,
        403: errors.InsufficientCredits if _QUOTA_TEXT.search(error_body.message) else errors.PermissionRefused,
        422: errors.InvalidRequest if explained and error_body.message != "empty body" else errors.ContentRefused,
    }
    if kind is CallKind.STATUS and status not in (401, 402, 403):
        # Only the service's own word counts: to hear "not there" from an edge page could lead to a second purchase.
        return errors.ImageTaskNotFound if _means_not_found(error_body) else errors.TransientFailure
    return errors.ConfigurationError if status < 400 else refused.get(status, errors.InvalidRequest)


def _may_have_passed(status: int, error_body: ErrorBody) -> bool:
    """Whether a client error tells of a wait that ended behind the gateway: what waits there may have been accepted."""
    return status in _GAVE_UP or (status in (400, 422) and bool(_WAITED_TEXT.search(error_body.words)))


def _repeats_a_submit(status: int, error_body: ErrorBody) -> bool:
    """Whether a submit was refused for an earlier one with the same client id, which may have bought the image."""
    if status == 409 or (status in (400, 422) and _REPEATED_TEXT.search(f"{error_body.code} {error_body.words}")):
        return True
    named = status < 500 and _CLIENT_ID_TEXT.search(f"{error_body.code} {error_body.words}")
    return bool(named) and not _UNKNOWN_FIELD_TEXT.search(error_body.words)


def _server_error_class(status: int, error_body: ErrorBody, kind: CallKind) -> type[errors.ToApisError]:
    if status == 503 and error_body.code.lower() == "rate_limit_unavailable":
        return errors.ServiceUnavailable
    if _means_not_found(error_body) and kind is CallKind.STATUS:
        return errors.ImageTaskNotFound
    return errors.SubmissionUnknown if kind is CallKind.SUBMIT else errors.TransientFailure


def _means_not_found(error_body: ErrorBody) -> bool:
    """Whether the service says that the image task is not there: by code or type, or (E5) by a code in the message."""
    return not error_body.page and (
        error_body.has_code(_MISSING_CODES) or bool(_MISSING_TEXT.search(error_body.message))
    )


_UNKNOWN = (
    "The submit left but no usable answer came back ({what}); an image task may exist and be charged. "
    "It is never sent again blindly."
)
_CHECK_HOST = "Check the connection's host: nothing answers at this path there."

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
    error_body: ErrorBody,
    kind: CallKind,
    image_task_id: str | None,
) -> str:
    said = f"HTTP {status}" + (f" {error_body.code}" if error_body.code else "")
    quote = f": {error_body.message}" if error_body.message else ""
    if error_class is errors.SubmissionUnknown:
        return _UNKNOWN.format(what=f"{said}{quote}")
    lost_path = status in (404, 405) and kind is not CallKind.STATUS and error_class is errors.InvalidRequest
    advice = _CHECK_HOST if lost_path else _ADVICE.get(error_class, "")
    return f"{_call(kind, image_task_id)} answered {said}{quote}.{' ' + advice if advice else ''}"


def _sentence_of_the_edge(
    response: ApiResponse, error_body: ErrorBody, kind: CallKind, image_task_id: str | None
) -> str:
    if error_body.page:
        what = "HTML page" if b"<" in response.body[:1000] else "page that is no JSON"
    else:
        what = "empty body" if not response.body.strip() else "not the service's own words"
    quote = f": {error_body.message}" if error_body.message not in ("", "empty body") else ""
    bought = " Nothing was bought." if kind is CallKind.SUBMIT else ""
    return (
        f"{_call(kind, image_task_id)}: an edge or proxy refused it (HTTP {response.status}, {what}){quote}.{bought} "
        "It may pass; if it stays, let the network or the service allow this machine's address and User-Agent."
    )


def _call(kind: CallKind, image_task_id: str | None) -> str:
    return f"{kind} call" + (f" for image task {image_task_id}" if image_task_id else "")
