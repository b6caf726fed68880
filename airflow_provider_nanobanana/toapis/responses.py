"""From the bytes of an answer to a model: every documented shape, and any other JSON without an exception of its own.

Shapes and sources: ``docs/toapis.md``, "Submit", "Status", "Result links" and "Billing".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Final
from urllib.parse import urljoin

from pydantic import BaseModel, ConfigDict

from airflow_provider_nanobanana.toapis.content_refusals import content_refused
from airflow_provider_nanobanana.toapis.error_body import error_body_of
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED, SERVICE_FAILURE
from airflow_provider_nanobanana.toapis.models import Billing, GeneratedImage, ImageTask, ImageTaskError
from airflow_provider_nanobanana.toapis.redaction import one_line
from airflow_provider_nanobanana.toapis.response_values import (
    MOST_CREDITS,
    parse_credits,
    parse_id,
    parse_number,
    parse_text,
    parse_time,
    parse_usd_amount,
    parse_word,
    plain_word,
)
from airflow_provider_nanobanana.toapis.result_links import FoundImage, find_images
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus, parse_status, says_moderated

#: Where other gateways put an image task, its id, and the word for its state; the documented key first.
_ENVELOPES: Final = ("data", "task", "output", "result", "response")
_IDS: Final = ("id", "task_id", "taskId")
_STATUSES: Final = ("status", "task_status", "taskStatus", "state", "success_flag", "successFlag")
#: Fields that only an image task has: with one of them an answer without an id speaks of the one asked for.
_MARKS: Final = ("progress", "created_at", "completed_at", "billing", "result", "object", "model", "fail_reason")
#: No id of an image task stands below these.
_FOREIGN: Final = ("error", "user", "account", "channel", "model", "token", "input", "request", "params", "usage")
_MOST_NODES: Final = 2_000
_DEEPEST: Final = 5
#: Characters of an answer without an image that are kept for a person to read.
_LONGEST_ANSWER: Final = 2_000
#: What the service says of a bill; only a pending one says nothing of the cost yet.
_BILLED: Final = frozenset({"pending", "settled", "refunded"})


@dataclass(frozen=True)
class ApiResponse:
    """One HTTP answer: status, headers with lower-case names, body.

    :param body: Unpacked; its beginning, where it is ``too_long``.
    :param secret: The API key the call was made with, to be blanked wherever the answer repeats it.
    :param base_url: Where the call was sent; links without a host are completed with it.
    :param too_long: Whether it is more than whoever asked reads of an answer; then it is no JSON object.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | bytearray = b""
    secret: str = field(default="", repr=False)
    base_url: str = ""
    too_long: bool = False

    @cached_property
    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None for HTML, broken JSON and anything that is no object."""
        if self.too_long:
            return None
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class NoResponse:
    """A call that brought no answer.

    :param sent: Whether any byte of the request may have reached the service.
    :param reason: What happened, in words.
    :param too_long: Whether there was an answer, longer than whoever asked reads.
    """

    sent: bool
    reason: str
    too_long: bool = False


class Balance(BaseModel):
    """What an account or a key has left; credits are the reliable unit (the balance unit depends on the site)."""

    model_config = ConfigDict(frozen=True)

    remain_credits: float | None = None
    used_credits: float | None = None
    credits_per_usd: float = 200.0
    unlimited: bool = False

    @property
    def remain_usd(self) -> float | None:
        """Return the USD left, or None when unlimited or not reported."""
        if self.unlimited or self.remain_credits is None:
            return None
        return self.remain_credits / self.credits_per_usd


def parse_submitted(
    response: ApiResponse, client_business_id: str | None = None, sent: Collection[str] | None = None
) -> ImageTask | None:
    """Return the image task that the answer to a submit speaks of, or None where it names none that is surely ours.

    :param client_business_id: The client id that was sent; an answer that repeats another one is not ours.
    :param sent: The links that were sent.
    """
    body = response.json_object or {}
    if says_error(body) and not _status_word(_task_of(body)):
        return None
    image_task_id = _submitted_id(body, client_business_id, response.secret)
    return _image_task(response, _task_of(body), image_task_id, sent) if image_task_id else None


def parse_polled(response: ApiResponse, asked: str, sent: Collection[str] | None = None) -> ImageTask | None:
    """Return the image task that the answer to a poll speaks of, or None where it speaks of none.

    :param asked: The id that was asked for: the image task's own, or the client id of its submit.
    :param sent: The links of the request, where they are known.
    """
    body = response.json_object or {}
    task = _task_of(body)
    if not is_image_task(body):
        return None
    ids = _ids(task, response.secret)
    found = _image_task(response, task, asked if asked in ids or not ids else ids[0], sent)
    if found.status is ImageTaskStatus.FAILED and not ids and not any(mark in task for mark in _MARKS):
        # "failed" alone may speak of the call; a failed image task would be refunded, and bought again.
        return None
    return found


def speaks_of_another(response: ApiResponse, asked: str, *, by_client_id: bool) -> bool:
    """Whether an answer is about another image task than the one asked for, as a mixed-up cache would send it.

    :param by_client_id: Whether ``asked`` is a client id: then the answer has an id of its own, and need not repeat it.
    """
    task = _task_of(response.json_object or {})
    ids, client_id = _ids(task, response.secret), parse_text(task.get("client_business_id"))
    if not ids or asked in ids or asked == client_id:
        # Without an id of its own only the client id can tell.
        return not ids and by_client_id and client_id not in (None, asked)
    return client_id is not None or not by_client_id


def _image_task(
    response: ApiResponse, body: Mapping[str, Any], image_task_id: str, sent: Collection[str] | None
) -> ImageTask:
    secret = response.secret
    wire_status = _status_word(body, secret)
    progress = parse_number(body.get("progress"), highest=100)
    status, images = _outcome(response, body, wire_status, progress, sent)
    missing = status is ImageTaskStatus.COMPLETED and not images
    return ImageTask(
        id=image_task_id,
        status=status,
        wire_status=wire_status,
        model=parse_word(body.get("model"), secret, 100),
        progress=progress,
        created_at=parse_time(body.get("created_at")),
        completed_at=parse_time(body.get("completed_at")),
        expires_at=parse_time(body.get("expires_at")),
        images=tuple(
            GeneratedImage(id=image_task_id, index=index, url=image.url, b64_json=image.b64_json)
            for index, image in enumerate(images)
        ),
        error=_task_error(body, wire_status, secret) if status is ImageTaskStatus.FAILED else None,
        billing=_parse_billing(body.get("billing")),
        client_business_id=parse_word(body.get("client_business_id"), secret, 200),
        answer=answer_text(response) if missing else None,
    )


def _outcome(
    response: ApiResponse,
    body: Mapping[str, Any],
    wire_status: str,
    progress: float | None,
    sent: Collection[str] | None,
) -> tuple[ImageTaskStatus, Sequence[FoundImage]]:
    """Return what the image task amounts to, and its images.

    A word that nobody knows is completed where an image is there and progress is not below 100, failed where an error
    is there instead, and otherwise running.
    """
    status = parse_status(wire_status)
    if status in (ImageTaskStatus.FAILED, ImageTaskStatus.RUNNING):
        return status, ()
    images = find_images(body, response.base_url, sent)
    if status is ImageTaskStatus.COMPLETED:
        return status, images
    if images:
        going_on = progress is not None and progress < 100
        return (ImageTaskStatus.RUNNING, ()) if going_on else (ImageTaskStatus.COMPLETED, images)
    # Whose failure it is must be sure: a failed image task is bought again.
    failed = says_error(body) and names_image_task(body)
    return (ImageTaskStatus.FAILED if failed else ImageTaskStatus.RUNNING), ()


def is_image_task(body: Mapping[str, Any]) -> bool:
    """Whether an answer speaks of an image task at all: it names its status, or its id (then it is running)."""
    task = _task_of(body)
    if _ids(task):
        return True
    word = _status_word(task)
    # {"status": "error", "message": ...} without anything else is how a service says that the call failed.
    envelope = parse_status(word) is ImageTaskStatus.FAILED and not any(key in task for key in _MARKS)
    return bool(word) and not (envelope and plain_word(word) in ("error", "fail"))


def says_error(body: Mapping[str, Any]) -> bool:
    """Whether an answer names an error; an empty one is none."""
    error = body.get("error")
    if isinstance(error, (Mapping, list)):
        error_body = error_body_of({"error": error})
        return bool(error_body.code or error_body.message)
    return bool(error)


def told_code(body: Mapping[str, Any]) -> int | None:
    """Return the HTTP status 400 to 499 that a body names as its code while it names no image task, or None."""
    error = body.get("error")
    inner = error.get("code") if isinstance(error, Mapping) else None
    for code in (body.get("code"), inner, body.get("status_code"), body.get("statusCode"), body.get("status")):
        number = parse_number(code)
        if number is not None and 400 <= number < 500 and number == int(number):
            return None if names_image_task(body) else int(number)
    return None


def is_refusal(body: Mapping[str, Any]) -> bool:
    """Whether a 2xx body is an error in disguise; a failed image task also has ``error`` but names its status."""
    if denies(body) or told_code(body) is not None:
        return not (names_image_task(body) and _status_word(_task_of(body)))
    return says_error(body) and not is_image_task(body)


def denies(body: Mapping[str, Any]) -> bool:
    """Whether a body says ``success: false``."""
    success = body.get("success")
    return success is False or (isinstance(success, str) and success.strip().lower() == "false")


def names_image_task(body: Mapping[str, Any]) -> bool:
    """Whether a body names the id of an image task."""
    return bool(_ids(_task_of(body)))


def _task_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the image task of an answer, what stands around it in an envelope included."""
    if any(parse_text(body.get(key)) for key in ("id", "task_id")) and _status_word(body):
        return body
    for key in _ENVELOPES:
        inner = body.get(key)
        if isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        if isinstance(inner, Mapping) and _looks_like_a_task(inner, whole=key == "data"):
            # "ok" around it speaks of the call: the image task's own word wins, under whatever key it stands.
            around = {key: value for key, value in body.items() if key not in _STATUSES or not _status_word(inner)}
            return {**around, **inner}
    return body


def _looks_like_a_task(inner: Mapping[str, Any], *, whole: bool) -> bool:
    """Whether what an envelope holds is the image task and not one of its images.

    :param whole: Whether the documentation knows this envelope.
    """
    if any(parse_text(inner.get(key)) for key in ("task_id", "taskId")) or _status_word(inner):
        return True
    return whole and bool(parse_text(inner.get("id"))) and not inner.keys() & {"url", "b64_json"}


def _status_word(body: Mapping[str, Any], secret: str = "") -> str:
    """Return the service's word for the state, cleaned; a number that is an HTTP status is none."""
    for key in _STATUSES:
        value = body.get(key)
        number = parse_number(value)
        if number is not None and 100 <= number < 600:
            continue
        if word := parse_word(value, secret):
            return word
    return ""


def _ids(task: Mapping[str, Any], secret: str = "") -> list[str]:
    return [found for key in _IDS if (found := parse_id(task.get(key), secret))]


def _submitted_id(body: Mapping[str, Any], client_business_id: str | None, secret: str) -> str | None:
    """Return the id of what a submit bought.

    The documented places are taken as they are. Any other is taken only beside our client id, or where the answer has
    no second id: what is taken for an id here is never bought again.
    """
    parts = list(_parts(body))
    echoes = [part for part in parts if parse_text(part.get("client_business_id"))]
    ours = [part for part in echoes if parse_text(part.get("client_business_id")) == client_business_id]
    if client_business_id is not None and echoes and not ours:
        return None
    data = body.get("data")
    documented = [body, data] if isinstance(data, Mapping) else [body]
    for part in documented:
        for key in ("id", "task_id"):
            if found := parse_id(part.get(key), secret):
                return found
    beside = [found for part in ours for found in _ids(part, secret)]
    tasks = (part for part in parts if not part.keys() & {"url", "b64_json"})
    others = list(dict.fromkeys(found for part in tasks for found in _ids(part, secret)))
    if beside or len(others) == 1:
        return (beside or others)[0]
    bare = [found for key in ("data", "result") if (found := parse_id(body.get(key), secret)) and " " not in found]
    return bare[0] if ours and not others and len(bare) == 1 else None


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of an answer, the outer ones first, without those of something else."""
    waiting: list[tuple[Any, int]] = [(body, 0)]
    for _ in range(_MOST_NODES):
        if not waiting:
            return
        value, depth = waiting.pop(0)
        if isinstance(value, Mapping):
            yield value
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [
            (each, depth + 1)
            for key, each in inner
            if isinstance(each, (Mapping, list)) and key not in _FOREIGN and depth < _DEEPEST
        ]


def parse_balance(response: ApiResponse) -> Balance | None:
    """Return the balance, or None when the answer holds none."""
    body = response.json_object or {}
    remain = parse_credits(body.get("remain_credits"), lowest=-MOST_CREDITS)
    unlimited = body.get("unlimited_quota") is True
    if remain is None and not unlimited:
        return None
    return Balance(
        remain_credits=None if remain is None else max(0.0, remain),
        used_credits=parse_credits(body.get("used_credits")),
        credits_per_usd=parse_number(body.get("credits_per_usd"), lowest=0.01, highest=1e6) or 200.0,
        unlimited=unlimited,
    )


def parse_model_ids(response: ApiResponse) -> list[str] | None:
    """Return the model ids of a list answer, or None when it holds no list."""
    entries = (response.json_object or {}).get("data")
    if not isinstance(entries, list):
        return None
    ids = (parse_word(entry.get("id"), response.secret, 200) for entry in entries if isinstance(entry, Mapping))
    return [model_id for model_id in ids if model_id]


def parse_upload_url(response: ApiResponse) -> str | None:
    """Return the public URL of an uploaded reference image, or None."""
    data = (response.json_object or {}).get("data")
    link = parse_text(data.get("url")) if isinstance(data, Mapping) else None
    return urljoin(f"{response.base_url}/", link) if link and link.startswith("/") and response.base_url else link


def answer_text(response: ApiResponse, limit: int = _LONGEST_ANSWER) -> str:
    """Return an answer as JSON text for a person: at most ``limit`` characters, nothing long or that gives access."""
    # Cleaned piece by piece, before JSON writes what cannot be printed in letters, and once more as a whole.
    text = json.dumps(_shortened(response.json_object, response.secret), ensure_ascii=False)
    return one_line(text, response.secret, limit)


def _shortened(value: Any, secret: str, depth: int = 0) -> Any:
    """Return JSON of the same shape in which every text is cleaned and nothing is long."""
    if isinstance(value, str):
        return (
            one_line(value, secret, 500)
            if len(value) <= 500
            else f"{one_line(value, secret, 80)} ({len(value):,} characters)"
        )
    if depth >= 8:
        return "…"
    if isinstance(value, Mapping):
        entries = islice(value.items(), 40)
        return {one_line(str(key), secret, 80): _shortened(inner, secret, depth + 1) for key, inner in entries}
    return [_shortened(inner, secret, depth + 1) for inner in value[:20]] if isinstance(value, list) else value


def _task_error(body: Mapping[str, Any], wire_status: str, secret: str) -> ImageTaskError:
    error_body = error_body_of(body, secret)
    kind = error_body.type if isinstance(body.get("error"), Mapping) else ""
    code = error_body.code or kind or SERVICE_FAILURE.code
    # Decided here, where the words are still whole.
    if says_moderated(wire_status) or content_refused(code, error_body.words):
        code = CONTENT_REFUSED.code
    return ImageTaskError(code=code, message=error_body.message or "no reason given")


def _parse_billing(value: Any) -> Billing | None:
    if not isinstance(value, Mapping) or not (status := parse_word(value.get("status"))):
        return None
    word = plain_word(status)
    return Billing(
        status=word if word in _BILLED else "unknown",
        cost_usd=parse_usd_amount(value.get("cost_usd")),
        credits=parse_credits(value.get("credits")),
    )
