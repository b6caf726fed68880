"""When to poll next, without a clock: ``now`` is an argument, in seconds of any one clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

#: A bucket never falls below this share of its rate, so that a recovering service is noticed.
_LOWEST_SHARE = 1 / 16
_RECOVERY_PER_CALL = 1 / 100


class TokenBucket:
    """Spaces calls evenly at a rate; slows down at once when told to, recovers gently.

    Evenly, without bursts: other triggers and workers share the account and are not known here.

    :param rate: Calls per second.
    """

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError("rate must be positive")
        self._rate = rate
        self._share = 1.0
        self._next = float("-inf")

    @property
    def rate(self) -> float:
        """Calls per second right now."""
        return self._rate * self._share

    def reserve(self, now: float) -> float:
        """Take the next free moment and return the seconds until it."""
        moment = max(now, self._next)
        self._next = moment + 1 / self.rate
        return moment - now

    def succeeded(self) -> None:
        """One call passed: recover a hundredth of the rate."""
        self._share = min(1.0, self._share + _RECOVERY_PER_CALL)

    def slow_down(self, now: float, seconds: float) -> None:
        """The service said 429: half the rate, and nothing before ``now + seconds``."""
        self._share = max(_LOWEST_SHARE, self._share / 2)
        self._next = max(self._next, now + seconds)


class PollSchedule:
    """Which image task to poll next, and when: a heap of due moments.

    :param first_polls: Pairs of id and the moment from which polling it pays.
    :param interval: Seconds between two polls of one image task; stretched evenly when the rate cannot serve all.
    :param rate: Polls per second that all image tasks of this schedule may use together.
    """

    def __init__(self, first_polls: Iterable[tuple[str, float]], *, interval: float, rate: float) -> None:
        self._due = [(moment, image_task_id) for image_task_id, moment in first_polls]
        heapq.heapify(self._due)
        self._watched = len(self._due)
        self._interval = interval
        self._rate = rate

    def __len__(self) -> int:
        """Return how many image tasks are still watched, those being polled at this moment included."""
        return self._watched

    @property
    def interval(self) -> float:
        """Seconds between two polls of one image task, as the rate allows with that many watched."""
        return max(self._interval, self._watched / self._rate)

    def take(self) -> tuple[str, float] | None:
        """Take the next image task to poll and the moment it is due, or None while all are being polled."""
        if not self._due:
            return None
        moment, image_task_id = heapq.heappop(self._due)
        return image_task_id, moment

    def again(self, image_task_id: str, now: float, jitter: float, at_least: float = 0.0) -> None:
        """Put an image task back for another poll.

        :param jitter: A random number in [0, 1); the wait varies by a tenth either way, so that waits drift apart.
        :param at_least: Seconds the service asked to wait.
        """
        wait = max(self.interval * (0.9 + jitter / 5), at_least)
        heapq.heappush(self._due, (now + wait, image_task_id))

    def done(self) -> None:
        """One of the image tasks that were taken needs no further poll."""
        self._watched -= 1
