"""The account's allowance: what is let through of the requests that arrive, and what a refusal says.

``docs/toapis.md`` has the service's own kind, a token bucket, under "Rate limits". The others are those that a gateway
may put in its place. Time is passed in; a refusal takes nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Literal

#: ``token_bucket``: refills steadily. ``gcra``: each request moves the moment for the next one on by one interval.
#: ``sliding_window``: so many in any one second. ``fixed_window``: so many in each second of the clock.
LimiterKind = Literal["token_bucket", "sliding_window", "fixed_window", "gcra"]

BURST_SECONDS = 10.0

_HAIR = 1e-6  # seconds; epoch seconds know no less, and the sums of many small steps fall a hair short


class Limiter(ABC):
    """Lets requests through at a rate.

    :param rate: Requests per second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @abstractmethod
    def take(self, now: float) -> bool:
        """Let one request through, or refuse it."""

    @abstractmethod
    def _left(self) -> tuple[int, float]:
        """Return how many more were let through at the moment of the last :meth:`take`, and the seconds from then until
        one is."""

    def headers(self, category: str) -> dict[str, str]:
        """Return the headers of a refusal: limit per minute, whole seconds until a request is let through."""
        remaining, wait = self._left()
        seconds = str(max(1, math.ceil(wait)))
        return {
            "Retry-After": seconds,
            "X-RateLimit-Limit": str(round(self.rate * 60)),
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": seconds,
            "X-RateLimit-Category": category,
        }


class NoLimit(Limiter):
    """Lets everything through."""

    def __init__(self) -> None:
        super().__init__(math.inf)

    def take(self, now: float) -> bool:
        """Let one request through."""
        return True

    def _left(self) -> tuple[int, float]:
        raise AssertionError("nothing was refused")


class TokenBucket(Limiter):
    """Refills steadily at ``rate`` a second, and begins full.

    :param burst: How many tokens it holds; ten seconds' worth where none is given.
    """

    def __init__(self, rate: float, now: float, burst: float | None = None) -> None:
        super().__init__(rate)
        self.burst = max(1.0, rate * BURST_SECONDS if burst is None else burst)
        self.tokens = self.burst
        self.updated = now

    def take(self, now: float) -> bool:
        """Take one token."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.updated) * self.rate)
        self.updated = now
        if self.tokens < 1 - _HAIR * self.rate:
            return False
        self.tokens -= 1
        return True

    def _left(self) -> tuple[int, float]:
        return int(self.tokens), max(0.0, 1 - self.tokens) / self.rate


class Gcra(Limiter):
    """The generic cell rate algorithm: requests an interval of ``1 / rate`` apart, or so much earlier.

    :param tolerance: Seconds that a request may be early; after a pause ``1 + tolerance * rate`` pass at once.
    """

    def __init__(self, rate: float, now: float, tolerance: float) -> None:
        super().__init__(rate)
        self.tolerance = tolerance
        self._expected = now  # the theoretical arrival time of the next request
        self._updated = now

    def take(self, now: float) -> bool:
        """Let one request through unless it is earlier than tolerated."""
        self._updated = now
        if self._wait() > _HAIR:
            return False
        self._expected = max(self._expected, now) + 1 / self.rate
        return True

    def _wait(self) -> float:
        return self._expected - self.tolerance - self._updated

    def _left(self) -> tuple[int, float]:
        wait = self._wait()
        return max(0, math.floor(1 + (_HAIR - wait) * self.rate)) if wait <= _HAIR else 0, max(0.0, wait)


class SlidingWindow(Limiter):
    """Lets exactly ``rate`` requests through in any one second, whenever it begins.

    A rate that is no whole number has a shorter window, one below 1 a longer one: what is let through in it is whole.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self._limit = max(1, int(rate))
        self._window = self._limit / rate
        self._passed: deque[float] = deque(maxlen=self._limit)
        self._updated = 0.0

    def take(self, now: float) -> bool:
        """Let one request through unless the last second is full."""
        self._updated = now
        if self._wait() > _HAIR:
            return False
        self._passed.append(now)
        return True

    def _wait(self) -> float:
        full = len(self._passed) == self._limit
        return max(0.0, self._passed[0] + self._window - self._updated) if full else 0.0

    def _left(self) -> tuple[int, float]:
        since = self._updated - self._window + _HAIR
        return self._limit - sum(passed > since for passed in self._passed), self._wait()


class FixedWindow(Limiter):
    """Lets ``rate`` requests through in each second of the clock, all at once where they come so.

    Windows as :class:`SlidingWindow` has them.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self._limit = max(1, int(rate))
        self._window = self._limit / rate
        self._number = 0
        self._count = 0
        self._updated = 0.0

    def take(self, now: float) -> bool:
        """Let one request through unless this second of the clock is full."""
        number = math.floor(now / self._window)
        if number != self._number:
            self._number = number
            self._count = 0
        self._updated = now
        if self._count >= self._limit:
            return False
        self._count += 1
        return True

    def _left(self) -> tuple[int, float]:
        remaining = self._limit - self._count
        return remaining, 0.0 if remaining else (self._number + 1) * self._window - self._updated


def limiter(kind: LimiterKind, rate: float, now: float, burst_seconds: float = BURST_SECONDS) -> Limiter:
    """Return a limiter that has let nothing through yet.

    :param rate: Requests per second; 0 means no limit.
    :param burst_seconds: What may pass at once after a pause, in seconds' worth of the rate: the burst of
        ``token_bucket``, the tolerance of ``gcra``.
    """
    if not rate:
        return NoLimit()
    if kind == "token_bucket":
        return TokenBucket(rate, now, rate * burst_seconds)
    if kind == "gcra":
        return Gcra(rate, now, burst_seconds)
    return SlidingWindow(rate) if kind == "sliding_window" else FixedWindow(rate)
