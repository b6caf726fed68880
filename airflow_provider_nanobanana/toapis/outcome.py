"""What the looks at many image tasks amount to: the one mapping that first check, poke, trigger and resume share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.toapis import catalogue, errors
from airflow_provider_nanobanana.toapis.classify import content_refused
from airflow_provider_nanobanana.toapis.complaint import clean
from airflow_provider_nanobanana.toapis.models import ImageTask, ImageTaskStatus

#: An id may be unknown to the status route for a while after the submit (contract 10, row 11).
NOT_FOUND_GRACE_SECONDS: Final = 60.0
#: "completed" may come before the image can be delivered (newer docs, 2026-10).
RESULT_GRACE_SECONDS: Final = 120.0
_LONGEST_LINK: Final = 300
_MOST_LISTED: Final = 10

#: What ends a wait at once, for all image tasks: the next poll would be refused as well.
REFUSALS: Final = (errors.AuthenticationFailed, errors.PermissionRefused, errors.ConfigurationError)


@dataclass(frozen=True)
class Wait:
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
class Sighting:
    """What one look at an image task showed: the image task, or the error of the look."""

    id: str
    image_task: ImageTask | None = None
    error: errors.ToApisError | None = None

    def settled(self, wait: Wait, now: float) -> bool:
        """Whether no further look can change the result; a failed look is never a failed image."""
        if self.image_task is not None:
            return self.image_task.terminal and not self._awaits_delivery(wait, now)
        return isinstance(self.error, errors.ImageTaskNotFound) and now - wait.started_at >= NOT_FOUND_GRACE_SECONDS

    def _awaits_delivery(self, wait: Wait, now: float) -> bool:
        image_task = self.image_task
        if image_task is None or image_task.status is not ImageTaskStatus.COMPLETED or image_task.images:
            return False
        return now - (image_task.completed_at or wait.started_at) < RESULT_GRACE_SECONDS

    def record(self, wait: Wait, now: float) -> dict[str, Any]:
        """Return the plain record that travels through XCom, at most 600 bytes of JSON for one image."""
        image_task = self.image_task
        images = image_task.images if image_task else ()
        record: dict[str, Any] = {
            "id": self.id,
            "status": "timeout",
            "images": [{"url": _link(image.url)} for image in images],
            "expires_at": None,
            "cost_usd": image_task.cost_usd if image_task else None,
            "error": None,
        }
        if image_task is not None and images:
            return {**record, "status": "completed", "expires_at": int(image_task.expires(now))}
        if self.settled(wait, now):
            code, message = self._failure()
            return {**record, "status": "failed", "error": {"code": code, "message": _short(message)}}
        return {**record, "error": {"code": "timeout", "message": _short(self._last_seen())}}

    def _failure(self) -> tuple[str, str]:
        if self.image_task is None:
            return "task_not_found", "the service does not know this id: check connection, host and account"
        if self.image_task.error is None:
            return "result_missing", "completed, but the service names no image; the image task stays paid"
        code, message = self.image_task.error.code, clean(self.image_task.error.message)
        return ("content_policy_violation" if content_refused(code, message) else _short(clean(code), 60)), message

    def _last_seen(self) -> str:
        if self.image_task is not None:
            return f"still {self.image_task.wire_status or 'running'} at the deadline; it goes on and stays paid"
        return f"not seen: {self.error.message if self.error else 'never asked'}"

    def first_poll(self, now: float) -> float:
        """Return the moment from which polling pays: near the earliest expected result, now when that is unknown."""
        if self.image_task is None or self.image_task.created_at is None:
            return now
        model = catalogue.model_for(self.image_task.model or catalogue.DEFAULT_MODEL)
        expected = model.first_result_seconds["1K"]
        # The service's clock may run ahead of ours; that must not postpone the first poll.
        return min(self.image_task.created_at, now) + expected


def conclude(records: Sequence[dict[str, Any]], *, allow_partial: bool) -> errors.ToApisError | None:
    """Return the error that final records amount to, or None for success.

    A remote failure outweighs a timeout. With ``allow_partial`` one completed image task is enough.
    """
    if not records:
        return errors.InvalidRequest(
            "There are no image task ids to wait for: every submit failed or there was nothing to submit. "
            "Nothing is paid; clear the submit tasks, then this one."
        )
    completed = [record["id"] for record in records if record["status"] == "completed"]
    failed = [record for record in records if record["status"] == "failed"]
    late = [record for record in records if record["status"] == "timeout"]
    if not (failed or late) or (allow_partial and completed):
        return None
    sentences = [f"{len(completed)} of {len(records)} image tasks completed."]
    if failed:
        sentences.append(
            f"Failed ({_amount(failed)}): {_listed(failed)}. What the service itself failed is refunded; clear the "
            "submit tasks concerned to make those images anew (a refused prompt must be changed first)."
        )
    if late:
        sentences.append(
            f"Not ready in time, paid and going on ({_amount(late)}): {_listed(late)}. Clear this task to wait again "
            "for free; do not clear their submit tasks."
        )
    if completed:
        sentences.append(
            f"Paid and completed: {', '.join(completed[:_MOST_LISTED])}{_more(len(completed))}. They are in this "
            "task's XCom; a download task with trigger_rule='all_done' lands them all the same."
        )
    error_class = errors.ImageTaskFailed if failed else errors.ImageTaskTimeout
    return error_class(
        " ".join(sentences), image_task_id=(failed or late)[0]["id"], charged=_charged(completed, failed, late)
    )


def _charged(completed: Sequence[str], failed: Sequence[dict[str, Any]], late: Sequence[object]) -> errors.Charged:
    codes = {record["error"]["code"] for record in failed}
    if completed or late or "result_missing" in codes:
        return "yes"
    return "unknown" if "task_not_found" in codes else "no"


def _amount(records: Sequence[dict[str, Any]]) -> str:
    return f"{len(records)} image task{'s' if len(records) > 1 else ''}"


def _listed(records: Sequence[dict[str, Any]]) -> str:
    shown = (
        f"{record['id']} ({record['error']['code']}: {record['error']['message']})" for record in records[:_MOST_LISTED]
    )
    return "; ".join(shown) + _more(len(records))


def _more(count: int) -> str:
    return f" and {count - _MOST_LISTED} more" if count > _MOST_LISTED else ""


def _link(url: str | None) -> str | None:
    """A link too long for XCom is left out; whoever downloads asks the service for it again, for free."""
    return url if url is not None and len(json.dumps(url)) <= _LONGEST_LINK else None


def _short(message: str, budget: int = 160) -> str:
    """Cut a message so that its JSON form stays small; a Chinese character takes six bytes there."""
    size, fits = 0, 0
    for position, character in enumerate(message):
        size += len(json.dumps(character)) - 2
        if size <= budget - 3:
            fits = position + 1
        if size > budget:
            return f"{message[:fits]}..."
    return message
