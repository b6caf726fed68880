"""From the bytes of an answer to a model: every documented shape, and any other JSON without an exception of its own.

Shapes and sources: docs.toapis.com (2026-08) and client code (to 2026-10).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_nanobanana.toapis.models import (
    Billing,
    GeneratedImage,
    ImageTask,
    ImageTaskError,
    ImageTaskStatus,
)
from airflow_provider_nanobanana.toapis.values import read_id, read_number, read_text, read_time

_SUCCEEDED = frozenset({"completed", "succeeded", "success"})
_FAILED = frozenset({"failed", "failure", "error", "cancelled", "canceled", "expired"})
#: Where a service speaks in words; ids and links are left as they are, whatever the key is.
_WORDS = frozenset({"message", "error", "fail_reason", "code", "type", "param"})
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: status, headers with lower-case names, body.

    :param secret: The API key the call was made with, to be blanked wherever the answer repeats it.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    secret: str = field(default="", repr=False)

    def json(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, or None for HTML, broken JSON and anything that is no object.

        What the service says in words is returned without the key: an error may echo it.
        """
        try:
            value = json.loads(self.body)
            return _hushed(value, self.secret) if isinstance(value, dict) else None
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class NoAnswer:
    """A call that brought no answer.

    :param sent: Whether any byte of the request may have reached the service.
    :param reason: What happened, in words.
    """

    sent: bool
    reason: str


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


def read_image_task(body: Mapping[str, Any], fallback_id: str | None = None) -> ImageTask | None:
    """Return the image task an answer speaks of, or None when it names no id and ``fallback_id`` is not given."""
    body = _unwrap(body)
    image_task_id = read_id(body.get("id")) or read_id(body.get("task_id")) or fallback_id
    if not image_task_id:
        return None
    wire_status = read_text(body.get("status")) or ""
    status = read_status(wire_status)
    return ImageTask(
        id=image_task_id,
        status=status,
        wire_status=wire_status[:64],
        model=read_text(body.get("model")),
        progress=read_number(body.get("progress")),
        created_at=read_time(body.get("created_at")),
        completed_at=read_time(body.get("completed_at")),
        expires_at=read_time(body.get("expires_at")),
        images=_read_images(image_task_id, body) if status is ImageTaskStatus.COMPLETED else (),
        error=_read_task_error(body) if status is ImageTaskStatus.FAILED else None,
        billing=_read_billing(body.get("billing")),
        client_business_id=read_text(body.get("client_business_id")),
    )


def read_status(wire_status: str) -> ImageTaskStatus:
    """Return what a wire status amounts to; unknown words are running until the deadline."""
    word = wire_status.strip().lower()
    if word in _SUCCEEDED:
        return ImageTaskStatus.COMPLETED
    return ImageTaskStatus.FAILED if word in _FAILED else ImageTaskStatus.RUNNING


def says_status(body: Mapping[str, Any]) -> bool:
    """Whether an answer speaks of an image task at all: it names its status, or its id (then it is running)."""
    body = _unwrap(body)
    return bool(read_text(body.get("status")) or read_id(body.get("id")) or read_id(body.get("task_id")))


def read_balance(body: Mapping[str, Any]) -> Balance | None:
    """Return the balance, or None when the answer holds none."""
    credits_per_usd = read_number(body.get("credits_per_usd")) or 0.0
    remain = read_number(body.get("remain_credits"), lowest=-math.inf)
    unlimited = body.get("unlimited_quota") is True
    if remain is None and not unlimited:
        return None
    return Balance(
        remain_credits=None if remain is None else max(0.0, remain),
        used_credits=read_number(body.get("used_credits")),
        credits_per_usd=credits_per_usd if credits_per_usd > 0 else 200.0,
        unlimited=unlimited,
    )


def read_model_ids(body: Mapping[str, Any]) -> list[str] | None:
    """Return the model ids of a list answer, or None when it holds no list."""
    entries = body.get("data")
    if not isinstance(entries, list):
        return None
    ids = (read_text(entry.get("id")) for entry in entries if isinstance(entry, Mapping))
    return [model_id for model_id in ids if model_id]


def read_upload_url(body: Mapping[str, Any]) -> str | None:
    """Return the public URL of an uploaded reference image, or None."""
    data = body.get("data")
    return read_text(data.get("url")) if isinstance(data, Mapping) else None


def _unwrap(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Some routes put the image task under ``data`` (and then keep the envelope's own ``code`` and ``message``)."""
    inner = body.get("data")
    if isinstance(inner, Mapping) and not any(read_text(body.get(key)) for key in ("id", "task_id")):
        return {**body, **inner}
    return body


def _read_images(image_task_id: str, body: Mapping[str, Any]) -> tuple[GeneratedImage, ...]:
    images: list[GeneratedImage] = []
    seen: set[str] = set()
    for entry in _image_entries(body):
        url, encoded = read_text(entry.get("url")), read_text(entry.get("b64_json"))
        key = url or encoded
        if key and key not in seen:
            seen.add(key)
            images.append(GeneratedImage(id=image_task_id, index=len(images), url=url, b64_json=encoded))
    return tuple(images)


def _image_entries(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield whatever may name an image, the documented place first, so that duplicates keep its order."""
    result = body.get("result")
    candidates: list[Any] = []
    if isinstance(result, Mapping):
        candidates += [result.get("data"), result]
    else:
        candidates.append(result)
    candidates += [body.get("data"), body]
    for candidate in candidates:
        for entry in candidate if isinstance(candidate, list) else [candidate]:
            if isinstance(entry, Mapping):
                yield entry


def _read_task_error(body: Mapping[str, Any]) -> ImageTaskError:
    error = body.get("error")
    if isinstance(error, Mapping):
        code, message = read_text(error.get("code")) or read_text(error.get("type")), read_text(error.get("message"))
    else:
        code, message = None, read_text(error)
    message = message or read_text(body.get("fail_reason")) or read_text(body.get("message"))
    return ImageTaskError(code=code or "generation_failed", message=message or "no reason given")


def _read_billing(value: Any) -> Billing | None:
    if not isinstance(value, Mapping) or not (status := read_text(value.get("status"))):
        return None
    return Billing(
        status=status, cost_usd=read_number(value.get("cost_usd")), credits=read_number(value.get("credits"))
    )


def blank(text: str, secret: str) -> str:
    """Return a text without the key; a key too short to be one is left, it would garble everything."""
    return text.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else text


def _hushed(value: Any, secret: str, spoken: bool = False) -> Any:
    if isinstance(value, str):
        return blank(value, secret) if spoken else value
    if isinstance(value, dict):
        return {key: _hushed(inner, secret, spoken or key in _WORDS) for key, inner in value.items()}
    return [_hushed(inner, secret, spoken) for inner in value] if isinstance(value, list) else value
