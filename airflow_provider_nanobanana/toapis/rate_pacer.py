"""The account's rate limit, shared with processes we do not know: even pacing, down at once, up gently.

``now`` is an argument, in seconds of any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_nanobanana.toapis.response_values import parse_number

#: A pacer never falls below this share of its rate, so that a recovering service is noticed.
_LOWEST_SHARE: Final = 1 / 64
#: Share of the full rate regained each second, and no more than one in so many calls: processes that share an account
#: then meet its limit about once in a thousand calls.
_RECOVERY: Final = 1 / 100
_RECOVERY_CALLS: Final = 2000
#: A caller that wakes up late may catch up so many seconds' worth: on a busy loop every wake-up is late.
_TOLERANCE: Final = 0.05
#: 429s within a second of each other were caused by the same excess.
_EPISODE: Final = 1.0
#: The documented limits lie within a factor of ten (docs/toapis.md, "Rate limits"). A header that says far less than
#: the connection counts in another unit than minutes, which nobody documents: believed, calls per second would slow
#: us sixtyfold.
LEAST_BELIEVED: Final = 1 / 20
#: Obedience to one header: an absurd one must not turn paid images into timeouts.
LONGEST_WAIT: Final = 60.0


@dataclass(frozen=True)
class RateLimitHeaders:
    """What the headers of an answer tell of the account's limit (``docs/toapis.md``); None where they say nothing.

    :param rate: Calls per second that the account allows.
    :param exhausted_for: Seconds until the next call is allowed.
    :param some_left: Whether they say that calls are left.
    """

    rate: float | None = None
    exhausted_for: float | None = None
    some_left: bool = field(default=False, compare=False)

    @classmethod
    def read(cls, headers: Mapping[str, str], category: str) -> RateLimitHeaders:
        """Read headers (lower-case names); those of another category tell nothing of this one.

        The limits page counts per minute; a reset that is no plausible number of seconds is left unread.
        """
        if headers.get("x-ratelimit-category", category) != category:
            return cls()
        limit = parse_number(headers.get("x-ratelimit-limit"))
        left = parse_number(headers.get("x-ratelimit-remaining"))
        reset = parse_number(headers.get("x-ratelimit-reset"))
        exhausted = left is not None and left < 1 and reset is not None and reset <= LONGEST_WAIT
        return cls(
            rate=limit / 60 if limit else None,
            exhausted_for=reset if exhausted else None,
            some_left=left is not None and left >= 1,
        )


class RatePacer:
    """Spaces calls evenly at a rate; slows down at once when told to, recovers gently.

    Evenly, without bursts: other triggers and workers share the account and are not known here.

    :param rate: Calls per second.
    """

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError("rate must be positive")
        self._most = self._rate = rate
        self._share = 1.0
        self._next = -math.inf
        self._changed = -math.inf
        self._halved = -math.inf
        self._counted = True
        self._paused_from: float | None = None

    @classmethod
    def resumed(cls, rate: float, state: Sequence[float]) -> RatePacer:
        """Return a pacer that goes on where :meth:`state` left off."""
        pacer = cls(rate)
        share, pacer._next, pacer._changed, pacer._halved = state
        pacer._share = min(1.0, max(_LOWEST_SHARE, share))
        return pacer

    def state(self) -> tuple[float, ...]:
        """Return what another process needs to go on: the share, and the moments next free, changed and halved."""
        return self._share, self._next, self._changed, self._halved

    @property
    def rate(self) -> float:
        """Calls per second right now."""
        return self._rate * self._share

    def reserve(self, now: float) -> float:
        """Take the next free moment and return the seconds until it."""
        moment = max(now - _TOLERANCE, self._next)
        self._next = moment + 1 / self.rate
        return max(0.0, moment - now)

    def wait(self, now: float) -> float:
        """Return the seconds until the next free moment, without taking it."""
        return max(0.0, self._next - now)

    def on_success(self, now: float) -> None:
        """A call passed: recover in proportion to the time since the last change."""
        if self._share < 1.0 and now > self._changed:
            self._share = min(1.0, self._share + min(_RECOVERY, self._rate / _RECOVERY_CALLS) * (now - self._changed))
            self._changed = now

    def on_rate_limited(self, now: float, seconds: float, sent: float = math.inf) -> None:
        """The service said 429: half the rate, once for all calls that met the same excess, and a pause.

        :param sent: When the call left: one that was on its way before the last halving met the same excess.
        """
        if now >= self._halved + _EPISODE and sent >= self._halved:
            self._share, self._halved = max(_LOWEST_SHARE, self._share / 2), now
        self._counted, self._paused_from = True, None
        # The recovery begins when the pause is over.
        self._changed = max(self._changed, now + min(seconds, LONGEST_WAIT))
        self._next = max(self._next, now + min(seconds, LONGEST_WAIT))

    def apply_headers(self, headers: RateLimitHeaders, now: float) -> None:
        """Follow the headers of an answer: never faster than the account's limit, silent while nothing is left.

        Of the calls that passed, one can have been the last of a window. A service that says so of a second one does
        not count: it is not obeyed before it has refused a call, or said that some are left.
        """
        if headers.rate is not None and headers.rate >= self._most * LEAST_BELIEVED:
            self._rate = min(self._most, headers.rate)
        self._counted = self._counted or headers.some_left
        if headers.exhausted_for is None:
            return
        if self._counted:
            self._paused_from, self._counted = max(self._next, now), False
            self._next = max(self._next, now + headers.exhausted_for)
        elif self._paused_from is not None:
            self._next, self._paused_from = min(self._next, max(self._paused_from, now)), None
