"""PollResult: what one poll of an image task showed, and the one mapping from it to a record or a failure.

Sensor (poke and deferred), trigger, download and batch share it, so that they never disagree about what is final.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.polling.latency import latency_key
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import (
    ACCESS_DENIED,
    CONTENT_REFUSED,
    EXPIRED,
    NOT_SEEN,
    RESERVED_CODES,
    RESULT_MISSING,
    RESULT_PENDING,
    SERVICE_FAILURE,
    TASK_NOT_FOUND,
    TIMEOUT,
    FailureCode,
    ImageTaskFailure,
)
from airflow_provider_nanobanana.toapis.models import GeneratedImage, ImageTask
from airflow_provider_nanobanana.toapis.redaction import one_line, truncate_json
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

#: Seconds for which an id may be unknown to the status route after the submit (docs/toapis.md, "Status").
NOT_FOUND_GRACE_SECONDS: Final = 60.0
#: Seconds for which a completed image task may lack its image (newer docs, 2026-10).
RESULT_GRACE_SECONDS: Final = 120.0
#: Bytes of JSON for the links of one record, and for all of it.
_LONGEST_LINKS: Final = 300
_LONGEST_RECORD: Final = 600
_NO_IMAGE: Final = "completed, but names no image"


@dataclass(frozen=True, slots=True)
class WaitWindow:
    """How long a wait may last; both moments are epoch seconds and survive restarts.

    :param started_at: When the wait began.
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
    """What one poll of an image task showed: the image task, or the error of the poll."""

    id: str
    image_task: ImageTask | None = None
    error: errors.ToApisError | None = None

    @property
    def created_at(self) -> float | None:
        """When it was submitted, in epoch seconds, as far as the service said."""
        return self.image_task.created_at if self.image_task else None

    @property
    def latency_key(self) -> str:
        """What decides how long an image takes: an answer names the model and no resolution."""
        return latency_key(self.image_task.model) if self.image_task else ""

    @property
    def access_denied(self) -> bool:
        """Whether the service refused to show the image task to this key."""
        return isinstance(self.error, errors.ACCESS_ERRORS)

    def is_final(self, wait: WaitWindow, now: float) -> bool:
        """Whether no further poll can change the result; a failed poll is never a failed image."""
        if self.image_task is not None:
            return self.image_task.terminal and not self._awaits_delivery(wait, now)
        return isinstance(self.error, errors.ImageTaskNotFound) and now - wait.started_at >= NOT_FOUND_GRACE_SECONDS

    def _awaits_delivery(self, wait: WaitWindow, now: float) -> bool:
        image_task = self.image_task
        if image_task is None or image_task.status is not ImageTaskStatus.COMPLETED or image_task.images:
            return False
        return now - (image_task.completed_at or wait.started_at) < RESULT_GRACE_SECONDS

    def failure(self, wait: WaitWindow, now: float) -> ImageTaskFailure | None:
        """Return why there is no image when no further poll follows, or None where there is one."""
        image_task = self.image_task
        if image_task is not None and image_task.images:
            return None
        final = self.access_denied or self.is_final(wait, now)
        meaning, message = self._why_failed() if final else self._why_unfinished()
        code = meaning.code
        if meaning is SERVICE_FAILURE and image_task is not None and image_task.error is not None:
            code = image_task.error.code
            # The service's word for a refunded failure must not pass for one of ours, which may mean paid.
            code = f"service_{code}" if code in RESERVED_CODES else truncate_json(one_line(code), 60)
        answer = image_task.answer if image_task else None
        return ImageTaskFailure(self.id, meaning, code, truncate_json(message), answer)

    def to_record(self, wait: WaitWindow, now: float) -> dict[str, Any]:
        """Return the plain record that travels through XCom, at most 600 bytes of JSON for one image task.

        What is completed and names no image has a third key in its ``error``: ``answer``, the beginning of the answer.
        """
        image_task = self.image_task
        record: dict[str, Any] = {
            "id": self.id,
            "status": "completed",
            "images": _links(image_task.images if image_task else ()),
            "expires_at": int(image_task.expires(now)) if image_task and image_task.images else None,
            "cost_usd": image_task.cost_usd if image_task else None,
            "error": None,
        }
        failure = self.failure(wait, now)
        if failure is None:
            return record
        record["status"] = "timeout" if failure.meaning.pending else "failed"
        record["error"] = {"code": failure.code, "message": failure.message}
        if failure.answer is not None:
            record["error"]["answer"] = ""
            room = _LONGEST_RECORD - len(json.dumps(record))
            record["error"]["answer"] = truncate_json(failure.answer, max(0, room))
        return record

    def _why_failed(self) -> tuple[FailureCode, str]:
        image_task = self.image_task
        if image_task is None:
            if self.error is not None and self.access_denied:
                return ACCESS_DENIED, self.error.message
            return TASK_NOT_FOUND, "the service does not know this id"
        if image_task.expired_at_service:
            return EXPIRED, "its result expired at the service before it was landed"
        if image_task.error is None:
            return RESULT_MISSING, _NO_IMAGE
        refused = image_task.error.code == CONTENT_REFUSED.code
        return CONTENT_REFUSED if refused else SERVICE_FAILURE, image_task.error.message

    def _why_unfinished(self) -> tuple[FailureCode, str]:
        if self.image_task is None:
            return NOT_SEEN, self.error.message if self.error else "never asked"
        if self.image_task.status is ImageTaskStatus.COMPLETED:
            return RESULT_PENDING, _NO_IMAGE
        status = self.image_task.wire_status or "running"
        return TIMEOUT, f"still {status} at the deadline; it goes on and stays paid"


def _links(images: Sequence[GeneratedImage]) -> list[dict[str, str | None]]:
    """Return the links of images as far as there is room; whoever downloads asks for the others again, for free."""
    # The first is there without its link already; each further one takes room of its own.
    room = _LONGEST_LINKS - sum(len(json.dumps({"url": None})) + 2 for _ in images[1:])
    links: list[dict[str, str | None]] = []
    for image in images:
        size = len(json.dumps(image.url))
        fits = image.url is not None and size <= room
        room -= size if fits else 0
        links.append({"url": image.url if fits else None})
    return links
