"""``SubmitRateLimiter``: one rate of submits, agreed on by all processes of one machine that use the same account.

Workers are processes that live for one submit, and thirty of them start at once. Each reserves the next free moment of
the account and sits it out, so that together they never exceed ``submit_rate``. A 429 slows all of them down. Machines
do not know of each other: ``RatePacer`` shares the account out between them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_nanobanana.stored_forms import RATE_STATE
from airflow_provider_nanobanana.submission.shared_state import FileState, ProcessState, SharedState, private_folder
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.errors import RateLimited
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.rate_pacer import LONGEST_WAIT, RatePacer
from airflow_provider_nanobanana.toapis.retry import RequestRetry

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_nanobanana.toapis.errors import ToApisError
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings

log = LineLogger(__name__)

#: A wait longer than this, in seconds, is not sat out in a worker: the caller queues without a slot.
MAX_BLOCKING_WAIT: Final = 10.0
#: Beyond what pauses and reservations come to, a moment so many seconds ahead was written under another clock.
_CLOCK_SLACK: Final = 5.0

#: What a file holds, in its name: while a machine has processes of two versions, each version's keep the rate, and do
#: not take what the others wrote for damaged.
_FORM: Final = RATE_STATE.version

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
        try:
            refusals = int(value["refusals"])
            pacer = RatePacer.resumed(rate, value["pacer"], now + _CLOCK_SLACK)
            latest = LONGEST_WAIT + MAX_BLOCKING_WAIT + 1 / pacer.rate_at(now) + _CLOCK_SLACK
            if refusals >= 0 and pacer.wait(now) <= latest:
                return cls(pacer, refusals)
        except (TypeError, ValueError, KeyError, OverflowError):
            pass
        return cls(RatePacer(rate))

    def write(self) -> dict[str, Any]:
        """Return the form that is shared: plain JSON."""
        return {"refusals": self.refusals, "pacer": self.pacer.state()}


class Slot(NamedTuple):
    """A moment at which one submit may leave.

    :param wait: Seconds until then.
    :param refusals: How many 429s there were when it was reserved; each one makes the slots from before it void.
    """

    wait: float
    refusals: int


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

    @classmethod
    def of(cls, settings: ToApisSettings) -> SubmitRateLimiter:
        """Return the limiter of a connection's account: whoever has base URL and key in common keeps it together."""
        secret = f"{settings.base_url}\0{settings.api_key.get_secret_value()}"
        account = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        fallback = _process_states.setdefault(account, ProcessState())
        try:
            return cls(settings.submit_rate, FileState(shared_state_folder(), f"{account}-{_FORM}"), fallback)
        except OSError as error:
            _warn_not_shared("one for temporary files", str(error))
            return cls(settings.submit_rate, fallback)

    def reserve(self, now: float) -> Slot | None:
        """Reserve the next free moment; None, and nothing, if it is too far away."""
        slots: list[Slot] = []

        def take(state: _LimiterState) -> _LimiterState | None:
            slots.append(Slot(state.pacer.reserve(now), state.refusals))
            return state if slots[-1].wait <= MAX_BLOCKING_WAIT else None

        self._update(take, now)
        return slots[-1] if slots[-1].wait <= MAX_BLOCKING_WAIT else None

    def next_free_in(self, now: float) -> float:
        """Return the seconds until the next free moment, without reserving it."""
        return self._peek(now).pacer.wait(now)

    def check_near(self, clock: Callable[[], float]) -> None:
        """Find out whether a slot can be had soon, without reserving it.

        :raises RateLimited: It takes too long to be sat out; nothing was sent.
        """
        if self._is_far(clock):
            raise self._too_far(clock())

    def _is_far(self, clock: Callable[[], float]) -> bool:
        """Whether the next free moment is too far away by the time that it is when that moment is known.

        A thread may stand still for long behind its reading of the clock: what was far away then need not be so now.
        """
        asked = clock()
        free_at = asked + self.next_free_in(asked)
        return free_at > clock() + MAX_BLOCKING_WAIT

    def still_valid(self, slot: Slot, now: float) -> bool:
        """Whether a slot still holds: a 429 after it was reserved sends all who wait to the end of the queue."""
        return self._peek(now).refusals == slot.refusals

    def on_rate_limited(self, now: float, retry_after: float | None, sent: float | None = None) -> None:
        """Slow all processes down after a 429.

        :param retry_after: Seconds the service asked for, where it did.
        :param sent: When the submit left, if not now: the 429s of one excess cut the rate once.
        """

        def slow_down(state: _LimiterState) -> _LimiterState:
            # Reservations are void, and the next one begins when the rest is over.
            state.pacer.requeue(state.pacer.on_rate_limited(now, retry_after, sent))
            return _LimiterState(state.pacer, state.refusals + 1)

        self._update(slow_down, now)

    def on_error(self, now: float, error: ToApisError, sent: float) -> None:
        """Go by the error that a submit ended with: after a 429 all slow down; any other answer was let through.

        :param sent: When the submit left.
        """
        if isinstance(error, RateLimited):
            self.on_rate_limited(now, error.retry_after, sent)
        elif error.http_status is not None:
            self.on_success(now)

    def delay(self, now: float, refused: ToApisError, repeats: int, sent: float) -> float | None:
        """Do as :meth:`on_error`; return the seconds until this process tries again, None to give up."""
        self.on_error(now, refused, sent)
        delay = RequestRetry().delay(CallKind.SUBMIT, refused, repeats, random.random())
        return delay if delay is not None and delay <= MAX_BLOCKING_WAIT else None

    def on_success(self, now: float) -> None:
        """Count a submit that was let through: after a 429 the rate goes by how many were."""

        def passed(state: _LimiterState) -> _LimiterState:
            state.pacer.on_passed(now)
            return state

        self._update(passed, now)

    def acquire(self, clock: Callable[[], float], sleep: Callable[[float], None], *, wait_for_slot: bool) -> None:
        """Wait for this caller's slot.

        :param wait_for_slot: Whether to wait however long it takes.
        :raises RateLimited: It takes too long to be sat out; nothing was sent.
        """
        began, has_waited = clock(), False
        while True:
            # Sent to the end of the queue again and again, it has sat long enough.
            late = has_waited and not wait_for_slot and clock() > began + MAX_BLOCKING_WAIT
            slot = None if late else self.reserve(clock())
            if slot is not None and slot.wait == 0:
                return
            if slot is not None:
                sleep(slot.wait)
                has_waited = True
                if self.still_valid(slot, clock()):
                    return
            elif wait_for_slot:
                sleep(min(self.next_free_in(clock()), MAX_BLOCKING_WAIT))
            elif late or self._is_far(clock):
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
        def rewrite(value: Any) -> dict[str, Any] | None:
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
