"""What the looks at many image tasks amount to: the one mapping that first check, poke, trigger and resume share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.polling.latency import latency_key
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.content_refusals import REFUSED, content_refused
from airflow_provider_nanobanana.toapis.models import GeneratedImage, ImageTask, ImageTaskStatus
from airflow_provider_nanobanana.toapis.text import one_line

#: An id may be unknown to the status route for a while after the submit (docs/toapis.md, "Status").
NOT_FOUND_GRACE_SECONDS: Final = 60.0
#: "completed" may come before the image can be delivered (newer docs, 2026-10).
RESULT_GRACE_SECONDS: Final = 120.0
#: Bytes of JSON for the links of one record, and for all of it.
_LINKS: Final = 300
_RECORD: Final = 600

#: Code and words of what is completed and names no image, whether it still may or not.
_NO_IMAGE: Final = ("result_missing", "completed, but names no image")

#: The codes of what was merely not ready in time.
NOT_READY_CODES: Final = frozenset({"timeout", "not_seen"})
_OUR_CODES: Final = NOT_READY_CODES | {"expired", "look_refused", "result_missing", "task_not_found"}

#: What a look at any image task would meet as well, unless another look has just succeeded.
ACCESS_ERRORS: Final = (errors.AuthenticationFailed, errors.PermissionRefused, errors.ConfigurationError)


@dataclass(frozen=True)
class WaitWindow:
    """How long a wait may last; both moments are epoch seconds and survive restarts.

    :param started_at: When the watch began.
    :param deadline: When it ends.
    """

    started_at: float
    deadline: float

    def over(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return now >= self.deadline

    def remaining(self, now: float) -> float:
        """Return the seconds left, at least zero."""
        return max(0.0, self.deadline - now)


@dataclass(frozen=True)
class PollResult:
    """What one look at an image task showed: the image task, or the error of the look."""

    id: str
    image_task: ImageTask | None = None
    error: errors.ToApisError | None = None

    @property
    def created_at(self) -> float | None:
        """When it was submitted, in epoch seconds, as far as the service said."""
        return self.image_task.created_at if self.image_task else None

    @property
    def kind(self) -> str:
        """What decides how long it takes; an answer tells the model and no resolution."""
        return latency_key(self.image_task.model) if self.image_task else ""

    @property
    def access_denied(self) -> bool:
        """Whether the service refused to show the image task to this key."""
        return isinstance(self.error, ACCESS_ERRORS)

    def is_final(self, wait: WaitWindow, now: float) -> bool:
        """Whether no further look can change the result; a failed look is never a failed image."""
        if self.image_task is not None:
            return self.image_task.terminal and not self._awaits_delivery(wait, now)
        return isinstance(self.error, errors.ImageTaskNotFound) and now - wait.started_at >= NOT_FOUND_GRACE_SECONDS

    def _awaits_delivery(self, wait: WaitWindow, now: float) -> bool:
        image_task = self.image_task
        if image_task is None or image_task.status is not ImageTaskStatus.COMPLETED or image_task.images:
            return False
        return now - (image_task.completed_at or wait.started_at) < RESULT_GRACE_SECONDS

    def to_record(self, wait: WaitWindow, now: float) -> dict[str, Any]:
        """Return the plain record that travels through XCom, at most 600 bytes of JSON for one image task.

        What is completed and names no image has a third key in its ``error``: ``answer``, the beginning of the answer.
        """
        image_task = self.image_task
        images = image_task.images if image_task else ()
        record: dict[str, Any] = {
            "id": self.id,
            "status": "timeout",
            "images": _links(images),
            "expires_at": None,
            "cost_usd": image_task.cost_usd if image_task else None,
            "error": None,
        }
        if image_task is not None and images:
            return {**record, "status": "completed", "expires_at": int(image_task.expires(now))}
        final = self.access_denied or self.is_final(wait, now)
        code, message = self._failure() if final else self._lateness()
        error = {"code": code, "message": truncate_json(message)}
        return self._with_answer({**record, "status": "failed" if final else "timeout", "error": error})

    def _with_answer(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record with as much of an answer without an image as there is room for."""
        if self.image_task is None or self.image_task.answer is None:
            return record
        whole = {**record, "error": {**record["error"], "answer": ""}}
        room = _RECORD - len(json.dumps(whole))
        return {**record, "error": {**record["error"], "answer": truncate_json(self.image_task.answer, max(0, room))}}

    def _failure(self) -> tuple[str, str]:
        if self.image_task is None:
            if self.error is not None and self.access_denied:
                return "look_refused", self.error.message
            return "task_not_found", "the service does not know this id"
        if self.image_task.expired_at_service:
            return "expired", "its result expired at the service before it was landed"
        if self.image_task.error is None:
            return _NO_IMAGE
        code, message = self.image_task.error.code, self.image_task.error.message
        if content_refused(code, message):
            return REFUSED, message
        # The service's word for a refunded failure must not pass for one of ours, which may mean paid.
        return (f"service_{code}" if code in _OUR_CODES else truncate_json(one_line(code), 60)), message

    def _lateness(self) -> tuple[str, str]:
        if self.image_task is None:
            return "not_seen", self.error.message if self.error else "never asked"
        if self.image_task.status is ImageTaskStatus.COMPLETED:
            return _NO_IMAGE
        return "timeout", f"still {self.image_task.wire_status or 'running'} at the deadline; it goes on and stays paid"


def _links(images: Sequence[GeneratedImage]) -> list[dict[str, str | None]]:
    """Return the links of images as far as there is room; whoever downloads asks for the others again, for free."""
    # The first is there without its link already; each further one takes room of its own.
    room = _LINKS - sum(len(json.dumps({"url": None})) + 2 for _ in images[1:])
    links: list[dict[str, str | None]] = []
    for image in images:
        size = len(json.dumps(image.url))
        fits = image.url is not None and size <= room
        room -= size if fits else 0
        links.append({"url": image.url if fits else None})
    return links


def truncate_json(message: str, budget: int = 160) -> str:
    """Return a message cut so that its JSON form stays small; a Chinese character takes six bytes there."""
    size, fits = 0, 0
    for position, character in enumerate(message):
        size += len(json.dumps(character)) - 2
        if size <= budget - 3:
            fits = position + 1
        if size > budget:
            return f"{message[:fits]}..."
    return message
