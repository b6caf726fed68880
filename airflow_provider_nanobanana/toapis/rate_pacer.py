"""RatePacer: the account's rate limit, shared with processes we do not know: even pacing, and a cut where it is met.

A refusal (429) means one of two things. Nearly all calls of the last second passed: the limit is where we are, and the
rate goes a little below what passed, to stay there; it is tried a little faster again after half a minute. Or far
fewer passed than were sent: others use the account too, and everybody who notices falls to the same of a few steps
(a half, a quarter, ... of the limit) and climbs from there at the same speed, so that unequal shares become equal.
Nobody is told of the others. The simulation of it is ``tests/support/rate_limits.py``.

``now`` is an argument, in seconds of any one clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_nanobanana.toapis.errors import RateLimited, ToApisError
from airflow_provider_nanobanana.toapis.response_values import parse_number

#: So much below what passed when a limit was met, as a share of it: two processes that stay there leave each other
#: room.
_MARGIN: Final = 0.03
#: A refusal is a small excess where so large a share of the rate passed in the last second; else others are at work.
_NEARLY_ALL: Final = 0.94
#: So often in a row little passes at a step before the next lower one is taken.
_MOST_TRIES: Final = 3
#: A small excess takes no more than this share away, however few calls were counted.
_LEAST_KEPT: Final = 0.8
#: A pacer never falls below this share of the limit, so that a recovering service is noticed.
_LOWEST_SHARE: Final = 1 / 64
#: Refusals of calls that left within so many seconds of a cut have the same cause: a limiter's window is a second.
_EPISODE: Final = 1.0
#: After a refusal that names no time, in calls at least: the room for a few more than the excess.
_UNNAMED_CALLS: Final = 5.0
#: A caller that wakes up late may catch up so many seconds' worth: on a busy loop every wake-up is late. One that has
#: sent nothing for longer than the other was not late: it begins anew, without a burst.
_TOLERANCE: Final = 0.02
_IDLE: Final = 1.0
#: Calls that passed are counted by the tenth of a second.
_TENTHS: Final = 10
#: Steps are found by logarithms.
_HAIR: Final = 1e-9
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


class _PassedCalls:
    """How many calls passed in the last second, to a tenth of it; for any rate in the same few numbers."""

    def __init__(self, counts: Sequence[int] = (), until: int = 0) -> None:
        #: The counts of the latest tenths, that of the tenth ``until`` last.
        self._counts = [*([0] * (_TENTHS + 1)), *counts][-_TENTHS - 1 :]
        self._until = until

    def add(self, now: float) -> None:
        self._move_on(now)
        self._counts[-1] += 1

    def in_last_second(self, now: float) -> float:
        self._move_on(now)
        # Of the oldest tenth only the end is within the second.
        begun = now * _TENTHS - self._until
        return sum(self._counts[1:]) + self._counts[0] * min(1.0, max(0.0, 1.0 - begun))

    def state(self) -> tuple[list[int], int]:
        return self._counts, self._until

    def _move_on(self, now: float) -> None:
        tenth = math.floor(now * _TENTHS)
        passed = min(max(0, tenth - self._until), len(self._counts))
        if passed:
            self._counts = [*self._counts[passed:], *([0] * passed)]
            self._until = tenth


@dataclass(frozen=True)
class _Growth:
    """How a share grows: by ``gain`` in the first ``doubling`` seconds, by twice as much in the next, and so on."""

    gain: float
    doubling: float

    def after(self, seconds: float) -> float:
        doubled: float = 2.0 ** min(64.0, max(0.0, seconds) / self.doubling)
        return self.gain * (doubled - 1.0)


#: After a small excess, of what was left: the rate stays where it is, and is at the limit met in half a minute.
_SLOW: Final = _Growth(0.001, 6.0)
#: After a large one, of the limit, so equally fast for all: from a half to the whole in 15 s if nobody else is there.
_FAST: Final = _Growth(0.01, 2.5)


@dataclass(frozen=True)
class _Cut:
    """What a refusal left of the rate.

    :param share: Of the account's limit.
    :param since: When it begins to grow again.
    :param tries: After a large excess, how often in a row little passed at this step; 0 after a small one.
    """

    share: float
    since: float
    tries: int = 0

    def share_at(self, now: float) -> float:
        if self.tries:
            return self.share + _FAST.after(now - self.since)
        return self.share * (1.0 + _SLOW.after(now - self.since))


class RatePacer:
    """Spaces calls evenly at a rate, cuts it in proportion to what was refused, and recovers.

    Evenly, without bursts: other triggers and workers share the account and are not known here.

    :param rate: Calls per second that the account is said to allow.
    """

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError("rate must be positive")
        self._most = self._rate = rate
        self._next = -math.inf
        self._cut: _Cut | None = None
        self._cut_at = -math.inf
        self._limit_met = False
        self._passed = _PassedCalls()
        self._counted = True
        self._paused_from: float | None = None

    @classmethod
    def resumed(cls, rate: float, state: Mapping[str, Any], now: float = math.inf) -> RatePacer:
        """Return a pacer that goes on where :meth:`state` left off.

        :param now: What is further ahead of it than anybody rests is no moment of this clock.
        :raises ValueError: It is nothing that :meth:`state` returns; so are KeyError and TypeError.
        """
        pacer = cls(rate)
        moments = [-math.inf if state[name] is None else float(state[name]) for name in ("next", "cut_at", "since")]
        pacer._next, pacer._cut_at, since = moments
        share = float(state["share"])
        if not _LOWEST_SHARE <= share <= 1 or not all(moment < math.inf for moment in moments):
            raise ValueError("a pacer keeps a part of its rate, and knows when")
        if max(pacer._cut_at, since) > now + LONGEST_WAIT:
            raise ValueError("nobody rests that long")
        pacer._cut = None if since == -math.inf else _Cut(share, since, int(state["tries"]))
        pacer._limit_met = bool(state["limit_met"])
        counts, until = state["passed"]
        if not until <= _TENTHS * (now + _EPISODE) or not all(0 <= count < math.inf for count in counts):
            raise ValueError("no call passed after now")
        pacer._passed = _PassedCalls([int(count) for count in counts], int(until))
        return pacer

    def state(self) -> dict[str, Any]:
        """Return what another process needs to go on, as plain JSON: a moment that there was not is None."""
        cut = self._cut or _Cut(1.0, -math.inf)
        moments = {"next": self._next, "cut_at": self._cut_at, "since": cut.since}
        return {
            **{name: moment if math.isfinite(moment) else None for name, moment in moments.items()},
            "share": cut.share,
            "tries": cut.tries,
            "limit_met": self._limit_met,
            "passed": self._passed.state(),
        }

    def rate_at(self, now: float) -> float:
        """Return the calls per second."""
        most = 1.0 - _MARGIN if self._limit_met else 1.0
        share = most if self._cut is None else min(most, self._cut.share_at(now))
        return self._rate * share

    def reserve(self, now: float) -> float:
        """Take the next free moment and return the seconds until it."""
        moment = now if now - self._next > _IDLE else max(now - _TOLERANCE, self._next)
        self._next = moment + 1 / self.rate_at(max(now, moment))
        return max(0.0, moment - now)

    def wait(self, now: float) -> float:
        """Return the seconds until the next free moment, without taking it."""
        return max(0.0, self._next - now)

    def on_passed(self, now: float) -> None:
        """Count a call that was let through, whatever was answered."""
        self._passed.add(now)

    def on_rate_limited(self, now: float, named: float | None, sent: float | None = None) -> float:
        """Rest after a 429 and cut the rate, once for all calls that met the same excess; return the end of the rest.

        :param named: Seconds that the service asked for, None where it named none; a minute of them at most is kept.
        :param sent: When the call left, if not now.
        """
        passed = self._passed.in_last_second(now)
        if named is None:
            # As long as it takes until what was sent in a second has become what passed in it.
            named = max(_UNNAMED_CALLS, self.rate_at(now) - passed) / self.rate_at(now)
        resting = -math.inf if self._cut is None else self._cut.since
        until = max(resting, now + min(named, LONGEST_WAIT))
        if self._cut is None or (now if sent is None else sent) >= self._cut_at + _EPISODE:
            self._cut = self._cut_to(passed, now, until)
            self._cut_at = now
        else:
            self._cut = replace(self._cut, since=until)
        self._next = max(self._next, until)
        self._counted = True
        self._paused_from = None
        return until

    def on_error(self, now: float, error: ToApisError, sent: float) -> None:
        """Go by the error that a call ended with: a 429 is a refusal, and any other answer was let through.

        :param sent: When the call left.
        """
        if isinstance(error, RateLimited):
            self.on_rate_limited(now, error.retry_after, sent)
        elif error.http_status is not None:
            self.on_passed(now)

    def requeue(self, moment: float) -> None:
        """Forget who reserved what: the next free moment is this one."""
        self._next = moment

    def _cut_to(self, passed: float, now: float, until: float) -> _Cut:
        """Return a cut to a little below what passed or, where that is far less than the rate, to the next step."""
        rate = self.rate_at(now)
        if passed + 1 < _NEARLY_ALL * rate:  # the one refused might have been in that second, too
            step = 2.0 ** math.floor(math.log2(rate / self._rate) - _HAIR)
            tries = 1
            # While others have not noticed yet, little passes whatever the step: it is not lowered at once.
            if self._cut is not None and self._cut.tries and self._cut.share == step:
                tries = self._cut.tries + 1 if passed + 1 < _NEARLY_ALL * step * self._rate else 1
            if tries > _MOST_TRIES:
                step /= 2
                tries = 1
            return _Cut(max(step, _LOWEST_SHARE), until, tries)
        self._limit_met = self._limit_met or rate >= _NEARLY_ALL * self._rate
        kept = min(1.0, max(_LEAST_KEPT, passed / rate)) * (1.0 - _MARGIN)
        return _Cut(max(kept * rate / self._rate, _LOWEST_SHARE), until)

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
