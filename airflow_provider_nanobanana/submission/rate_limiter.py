"""``SubmitRateLimiter``: one rate of submits, agreed on by all processes of one machine that use the same account.

Workers are processes that live for one submit, and thirty of them start at once. Each reserves the next free moment of
the account and sits it out, so that together they never exceed ``submit_rate``. A 429 slows all of them down. Machines
do not know of each other: each halves its rate at a 429 and regains it slowly, which shares the account out in time.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.submission.shared_state import FileState, ProcessState, SharedState, private_folder
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.errors import RateLimited
from airflow_provider_nanobanana.toapis.rate_pacer import LONGEST_WAIT, RatePacer
from airflow_provider_nanobanana.toapis.retry import RequestRetry

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_nanobanana.toapis.errors import ToApisError
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

log = logging.getLogger(__name__)

#: A wait longer than this, in seconds, is not sat out in a worker: the caller queues without a slot.
MAX_BLOCKING_WAIT: Final = 10.0
#: The pause after a 429 that names none.
_UNNAMED_PAUSE: Final = 1.0
#: Beyond what pauses and reservations come to, a moment so many seconds ahead was written under another clock.
_CLOCK_SLACK: Final = 5.0

#: Where the shared files are; a test puts a folder of its own here.
shared_state_folder: Callable[[], Path] = private_folder
#: By account: what this process goes by where nothing can be shared.
_process_states: dict[str, SharedState] = {}


@dataclass(frozen=True)
class _LimiterState:
    """The shared state of one account.

    :param refusals: How many 429s there were; every one makes the reservations from before it void.
    """

    pacer: RatePacer
    refusals: int = 0

    @classmethod
    def read(cls, value: Any, rate: float, now: float) -> _LimiterState:
        """Return the shared state, or a fresh start for whatever cannot be true."""
        fresh = RatePacer(rate)
        try:
            refusals, share, *moments = (-math.inf if number is None else float(number) for number in value)
            pacer = RatePacer.resumed(rate, (share, *moments))
        except (TypeError, ValueError):
            return cls(fresh)
        latest = now + LONGEST_WAIT + MAX_BLOCKING_WAIT + 1 / pacer.rate + _CLOCK_SLACK
        possible = 0 < share <= 1 and 0 <= refusals < math.inf and all(moment <= latest for moment in moments)
        return cls(pacer, int(refusals)) if possible else cls(fresh)

    def write(self) -> list[float | None]:
        """Return the form that is shared: plain JSON, which knows no infinity."""
        return [self.refusals, *(number if math.isfinite(number) else None for number in self.pacer.state())]


class SubmitRateLimiter:
    """The slots of one account's submits; moments are epoch seconds of any one clock.

    :param rate: Submits per second that the account allows.
    :param shared: Where the processes agree.
    :param fallback: What this process goes by from then on where ``shared`` cannot be used.
    """

    def __init__(self, rate: float, shared: SharedState, fallback: SharedState | None = None) -> None:
        self._rate = rate
        self._shared = shared
        self._fallback = fallback or ProcessState()
        # Of each thread its own: one limiter serves all threads of a batch, and each waits for a slot of its own.
        self._seen = threading.local()

    @classmethod
    def of(cls, settings: ToApisSettings) -> SubmitRateLimiter:
        """Return the limiter of a connection's account: whoever has base URL and key in common keeps it together."""
        secret = f"{settings.base_url}\0{settings.api_key.get_secret_value()}"
        account = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        fallback = _process_states.setdefault(account, ProcessState())
        try:
            return cls(settings.submit_rate, FileState(shared_state_folder(), account), fallback)
        except OSError as error:
            _warn_not_shared("one for temporary files", str(error))
            return cls(settings.submit_rate, fallback)

    def reserve(self, now: float) -> float | None:
        """Reserve the next free moment and return the seconds until it; None, and nothing, if it is too far away."""
        wait = 0.0

        def take(state: _LimiterState) -> _LimiterState | None:
            nonlocal wait
            self._seen.refusals = state.refusals
            wait = state.pacer.reserve(now)
            return state if wait <= MAX_BLOCKING_WAIT else None

        self._update(take, now)
        return wait if wait <= MAX_BLOCKING_WAIT else None

    def next_free_in(self, now: float) -> float:
        """Return the seconds until the next free moment, without reserving it."""
        return self._peek(now).pacer.wait(now)

    def check_near(self, now: float) -> None:
        """Find out whether a slot can be had soon, without reserving it.

        :raises RateLimited: It takes too long to be sat out; nothing was sent.
        """
        if self.next_free_in(now) > MAX_BLOCKING_WAIT:
            raise self._too_far(now)

    def still_valid(self, now: float) -> bool:
        """Whether this thread's last slot still holds: a 429 after it sends all who wait to the end of the queue."""
        return self._peek(now).refusals == getattr(self._seen, "refusals", 0)

    def on_rate_limited(self, now: float, retry_after: float | None) -> None:
        """Slow all processes down after a 429.

        :param retry_after: Seconds the service asked for, where it did.
        """
        pause = _UNNAMED_PAUSE if retry_after is None else retry_after

        def slow_down(state: _LimiterState) -> _LimiterState:
            state.pacer.on_rate_limited(now, pause)
            share, _, changed, *more = state.pacer.state()
            # Reservations are void, the pause (until ``changed``) is not: the next reservation begins there.
            return _LimiterState(RatePacer.resumed(self._rate, (share, changed, changed, *more)), state.refusals + 1)

        self._update(slow_down, now)

    def delay(self, now: float, refused: ToApisError, repeats: int) -> float | None:
        """Tell the other processes of a 429; return the seconds until this one tries again, None to give up."""
        if isinstance(refused, RateLimited):
            self.on_rate_limited(now, refused.retry_after)
        delay = RequestRetry().delay(CallKind.SUBMIT, refused, repeats, random.random())
        return delay if delay is not None and delay <= MAX_BLOCKING_WAIT else None

    def on_success(self, now: float) -> None:
        """Recover a little after a submit that passed."""

        def recover(state: _LimiterState) -> _LimiterState | None:
            before = state.pacer.state()
            state.pacer.on_success(now)
            return state if state.pacer.state() != before else None

        self._update(recover, now)

    def acquire(self, clock: Callable[[], float], sleep: Callable[[float], None], *, wait_for_slot: bool) -> None:
        """Wait for this caller's slot.

        :param wait_for_slot: Whether to wait however long it takes.
        :raises RateLimited: It takes too long to be sat out; nothing was sent.
        """
        began = clock()
        while True:
            # Sent to the end of the queue again and again, it has sat long enough.
            late = not wait_for_slot and clock() > began + MAX_BLOCKING_WAIT
            wait = None if late else self.reserve(clock())
            if wait == 0:
                return
            if wait is not None:
                sleep(wait)
                if self.still_valid(clock()):
                    return
            elif wait_for_slot:
                sleep(min(self.next_free_in(clock()), MAX_BLOCKING_WAIT))
            else:
                raise self._too_far(clock())

    def _too_far(self, now: float) -> RateLimited:
        free_in = self.next_free_in(now)
        return RateLimited(
            f"Nothing was sent now: this machine paces its own submits ({self._rate:g} a second by the connection's "
            f"submit_rate, fewer after a 429), and its queue is {free_in:.0f} s long. The next attempt queues "
            "again.",
            retry_after=free_in,
        )

    def _peek(self, now: float) -> _LimiterState:
        seen: list[_LimiterState] = []
        self._update(seen.append, now)
        return seen[-1]

    def _update(self, change: Callable[[_LimiterState], _LimiterState | None], now: float) -> None:
        def rewrite(value: Any) -> list[float | None] | None:
            changed = change(_LimiterState.read(value, self._rate, now))
            return None if changed is None else changed.write()

        try:
            self._shared.update(rewrite)
        except (OSError, ImportError) as error:
            folder = self._shared.folder if isinstance(self._shared, FileState) else "none"
            _warn_not_shared(str(folder), f"{type(error).__name__}: {error}")
            self._shared = self._fallback
            self._shared.update(rewrite)


@cache
def _warn_not_shared(folder: str, reason: str) -> None:
    log.warning(
        "This process paces its submits by itself, so that processes of this machine may together exceed the "
        "connection's submit_rate: the folder they share, %s, cannot be used (%s). This is said once.",
        folder,
        reason,
    )
