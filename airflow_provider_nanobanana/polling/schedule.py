"""When to poll next, without a clock: ``now`` is an argument, in seconds of any one clock."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import Final

#: The last look before a deadline comes at least this many seconds before it, and at most that many.
_LAST_LOOK: Final = (2.0, 30.0)
#: Stands for the turn of an image task that is being polled, and of one that is not watched: no turn is earlier than
#: the one, and every turn is earlier than the other.
_IN_HAND: Final = (-math.inf, -1)
_ABSENT: Final = (math.inf, -1)
#: Entries that may lie about before a look through all of them pays.
_ROOM: Final = 1000


class PollQueue:
    """Which image task to poll next: the one that has been due longest.

    Serving the oldest first is what stretches all intervals evenly when the account's rate cannot serve that many. One
    look jumps the queue: the last before a deadline, so that nobody's time runs out unlooked at.
    """

    def __init__(self) -> None:
        self._numbers = count()
        #: Moment and number of the turn that counts, by id.
        self._valid: dict[str, tuple[float, int]] = {}
        self._due: list[tuple[float, int, str]] = []
        self._deadlines: list[tuple[float, str]] = []
        self._tidy_at = _ROOM

    def __len__(self) -> int:
        """Return how many image tasks are watched, those being polled at this moment included."""
        return len(self._valid)

    def add(self, image_task_id: str, moment: float, deadline: float) -> None:
        """Watch an image task from a moment on; one that is watched already keeps its turn, unless it comes later."""
        self._tidy()
        heapq.heappush(self._deadlines, (deadline, image_task_id))
        if moment < self._valid.get(image_task_id, _ABSENT)[0]:
            self._push(image_task_id, moment)

    def requeue(self, image_task_id: str, moment: float) -> None:
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

    def pop_due(self, now: float, rate: float) -> tuple[str, float] | None:
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
        turn = self._valid[image_task_id] = (moment, next(self._numbers))
        heapq.heappush(self._due, (*turn, image_task_id))

    def _margin(self, rate: float) -> float:
        """Return how long before a deadline its last look comes: time enough to look at all once."""
        shortest, longest = _LAST_LOOK
        return min(max(shortest, len(self._valid) / rate), longest)

    def _clean(self) -> None:
        """Drop from both heads what no longer counts."""
        while self._due and not self._counts(self._due[0]):
            heapq.heappop(self._due)
        while self._deadlines and self._deadlines[0][1] not in self._valid:
            heapq.heappop(self._deadlines)

    def _counts(self, entry: tuple[float, int, str]) -> bool:
        return self._valid.get(entry[2]) == entry[:2]

    def _tidy(self) -> None:
        """Drop what no longer counts from within: a deadline of next week would stay in memory until then."""
        if len(self._due) + len(self._deadlines) < self._tidy_at:
            return
        self._due = [entry for entry in self._due if self._counts(entry)]
        self._deadlines = [entry for entry in self._deadlines if entry[1] in self._valid]
        heapq.heapify(self._due)
        heapq.heapify(self._deadlines)
        self._tidy_at = 2 * (len(self._due) + len(self._deadlines)) + _ROOM
