"""When to poll next, without a clock: ``now`` is an argument, in seconds of any one clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Final

#: The last look before a deadline comes at least this many seconds before it, and at most that many.
_LAST_LOOK: Final = (2.0, 30.0)
#: Stands for that number while the image task is being polled.
_IN_HAND: Final = -1


class PollQueue:
    """Which image task to poll next: the one that has been due longest.

    Serving the oldest first is what stretches all intervals evenly when the account's rate cannot serve that many. One
    look jumps the queue: the last before a deadline, so that nobody's time runs out unlooked at.
    """

    def __init__(self) -> None:
        self._numbers = count()
        #: The number of the entry that counts, by id.
        self._valid: dict[str, int] = {}
        self._due: list[tuple[float, int, str]] = []
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Return how many image tasks are watched, those being polled at this moment included."""
        return len(self._valid)

    def __iter__(self) -> Iterator[str]:
        return iter(self._valid)

    def add(self, image_task_id: str, moment: float, deadline: float) -> None:
        """Watch an image task from a moment on; one that is watched already keeps the turn it has."""
        heapq.heappush(self._deadlines, (deadline, image_task_id))
        if image_task_id not in self._valid:
            self._push(image_task_id, moment)

    def again(self, image_task_id: str, moment: float) -> None:
        """Put an image task that was taken back for another poll, if it is still watched."""
        if image_task_id in self._valid:
            self._push(image_task_id, moment)

    def discard(self, image_task_id: str) -> None:
        """Watch an image task no longer."""
        self._valid.pop(image_task_id, None)

    def next_moment(self, rate: float) -> float | None:
        """Return when the next poll is due, or None while nothing waits for one.

        :param rate: Polls per second that all image tasks of this queue may use together.
        """
        self._clean()
        moments = [self._due[0][0]] if self._due else []
        if self._deadlines:
            moments.append(self._deadlines[0][0] - self._margin(rate))
        return min(moments, default=None)

    def take(self, now: float, rate: float) -> tuple[str, float] | None:
        """Take the image task to poll now, with the seconds it has been due; None when nothing is due."""
        self._clean()
        while self._deadlines and self._deadlines[0][0] - self._margin(rate) <= now:
            image_task_id = heapq.heappop(self._deadlines)[1]
            if self._valid.get(image_task_id, _IN_HAND) != _IN_HAND:
                self._valid[image_task_id] = _IN_HAND
                return image_task_id, 0.0
        if not self._due or self._due[0][0] > now:
            return None
        moment, _, image_task_id = heapq.heappop(self._due)
        self._valid[image_task_id] = _IN_HAND
        return image_task_id, now - moment

    def _push(self, image_task_id: str, moment: float) -> None:
        number = next(self._numbers)
        self._valid[image_task_id] = number
        heapq.heappush(self._due, (moment, number, image_task_id))

    def _margin(self, rate: float) -> float:
        """Return how long before a deadline its last look comes: time enough to look at all once."""
        shortest, longest = _LAST_LOOK
        return min(max(shortest, len(self._valid) / rate), longest)

    def _clean(self) -> None:
        """Drop from both heads what no longer counts."""
        while self._due and self._valid.get(self._due[0][2]) != self._due[0][1]:
            heapq.heappop(self._due)
        while self._deadlines and self._deadlines[0][1] not in self._valid:
            heapq.heappop(self._deadlines)
