"""When an image task is polled: first_poll_at and next_poll_at make the moments, PollQueue says which is due.

Pure: ``now`` is an argument, in seconds of any one clock, and so is the jitter.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from itertools import count
from typing import Final

from airflow_provider_nanobanana.toapis.rate_pacer import LONGEST_WAIT

#: The last poll before a deadline comes at least and at most so many seconds before it.
_LAST_POLL_MARGIN: Final = (2.0, 30.0)
#: Stand for the planned poll of an image task that is being polled, earlier than any other, and of one that is not
#: in the queue, later than any other.
_BEING_POLLED: Final = (-math.inf, -1)
_NOT_QUEUED: Final = (math.inf, -1)
#: Stale entries of the heaps that may pile up before all are looked through.
_MOST_STALE: Final = 1000
#: Intervals vary by this share either way, so that polls drift apart.
JITTER: Final = 0.1


def first_poll_at(created_at: float | None, age: float, *, now: float, not_before: float = 0.0) -> float:
    """Return the moment of an image task's first poll.

    :param created_at: When it was submitted, by the service's clock; None where that is not known.
    :param age: Seconds after its submit at which a poll pays, from ``LatencyEstimator.first_poll_age``.
    :param not_before: A moment before which nothing is polled.
    """
    # The service's clock may run ahead of ours; that must not postpone the first poll.
    submitted_at = min(created_at or 0.0, now)
    return max(submitted_at + age, not_before, now)


def next_poll_at(intervals: Iterable[float], retry_after: float | None, *, now: float, jitter: float) -> float:
    """Return the moment of an image task's next poll after one that has just ended.

    :param intervals: The seconds between two polls that its subscriptions ask for; the shortest counts.
    :param retry_after: Seconds that the service asked for, if it did; at most ``LONGEST_WAIT`` of them are kept.
    :param jitter: From -1 to 1: how far within :data:`JITTER` the interval is moved.
    """
    interval = min(intervals) * (1 + JITTER * jitter)
    return now + max(interval, min(retry_after or 0.0, LONGEST_WAIT))


class PollQueue:
    """The polls of the image tasks that triggers wait for; the one that has been due longest comes first.

    That stretches all intervals evenly when the account's rate cannot serve that many. One poll jumps the queue: the
    last before a deadline, so that no wait ends with an image task unpolled.
    """

    def __init__(self) -> None:
        self._numbers = count()
        #: Moment and number of the planned poll by id; any other entry of the heaps is stale.
        self._planned: dict[str, tuple[float, int]] = {}
        self._due: list[tuple[float, int, str]] = []
        self._deadlines: list[tuple[float, str]] = []
        self._compact_at = _MOST_STALE

    def __len__(self) -> int:
        """Return how many image tasks are in the queue, those being polled at this moment included."""
        return len(self._planned)

    def add(self, image_task_id: str, moment: float, deadline: float) -> None:
        """Poll an image task from a moment on; one that is in the queue already keeps an earlier planned poll."""
        self._compact()
        heapq.heappush(self._deadlines, (deadline, image_task_id))
        if moment < self._planned.get(image_task_id, _NOT_QUEUED)[0]:
            self._push(image_task_id, moment)

    def requeue(self, image_task_id: str, moment: float) -> None:
        """Plan the next poll of an image task that was popped, if it is still in the queue."""
        if image_task_id in self._planned:
            self._push(image_task_id, moment)

    def discard(self, image_task_id: str) -> None:
        """Take an image task out of the queue."""
        self._planned.pop(image_task_id, None)

    def next_moment(self, rate: float) -> float | None:
        """Return when the next poll is due, or None while nothing waits for one.

        :param rate: Polls per second that all image tasks of this queue may use together.
        """
        self._drop_stale_heads()
        moments = [self._due[0][0]] if self._due else []
        if self._deadlines:
            moments.append(self._deadlines[0][0] - self._margin(rate))
        return min(moments, default=None)

    def pop_due(self, now: float, rate: float) -> tuple[str, float] | None:
        """Take the image task to poll now, with the seconds it has been due; None when nothing is due."""
        self._drop_stale_heads()
        while self._deadlines and self._deadlines[0][0] - self._margin(rate) <= now:
            image_task_id = heapq.heappop(self._deadlines)[1]
            if self._planned.get(image_task_id, _BEING_POLLED) != _BEING_POLLED:
                self._planned[image_task_id] = _BEING_POLLED
                return image_task_id, 0.0
        if not self._due or self._due[0][0] > now:
            return None
        moment, _, image_task_id = heapq.heappop(self._due)
        self._planned[image_task_id] = _BEING_POLLED
        return image_task_id, now - moment

    def _push(self, image_task_id: str, moment: float) -> None:
        planned = (moment, next(self._numbers))
        self._planned[image_task_id] = planned
        heapq.heappush(self._due, (*planned, image_task_id))

    def _margin(self, rate: float) -> float:
        """Return how many seconds before a deadline its last poll comes: enough to poll all image tasks once."""
        shortest, longest = _LAST_POLL_MARGIN
        return min(max(shortest, len(self._planned) / rate), longest)

    def _drop_stale_heads(self) -> None:
        """Drop stale entries from the heads of both heaps."""
        while self._due and not self._is_current(self._due[0]):
            heapq.heappop(self._due)
        while self._deadlines and self._deadlines[0][1] not in self._planned:
            heapq.heappop(self._deadlines)

    def _is_current(self, entry: tuple[float, int, str]) -> bool:
        return self._planned.get(entry[2]) == entry[:2]

    def _compact(self) -> None:
        """Drop stale entries from within the heaps: a deadline of next week would stay in memory until then."""
        if len(self._due) + len(self._deadlines) < self._compact_at:
            return
        self._due = [entry for entry in self._due if self._is_current(entry)]
        self._deadlines = [entry for entry in self._deadlines if entry[1] in self._planned]
        heapq.heapify(self._due)
        heapq.heapify(self._deadlines)
        self._compact_at = 2 * (len(self._due) + len(self._deadlines)) + _MOST_STALE
