"""Processes that share one account's limit and do not know of each other, simulated call by call.

Each has a backlog: it sends as soon as its pacer lets it. What passes is decided by the emulator's limiters.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_nanobanana.emulator.rate_limit import FixedWindow, Gcra, Limiter, SlidingWindow, TokenBucket
from airflow_provider_nanobanana.toapis.rate_pacer import RateLimitHeaders, RatePacer

START = 1_790_000_000.0
#: Each with the account's rate; the burst and the tolerance are those of ``make bench``.
LIMITERS: dict[str, Callable[[float], Limiter]] = {
    "sliding window": SlidingWindow,
    "fixed window": FixedWindow,
    "token bucket": lambda rate: TokenBucket(rate, START, burst=rate),
    "GCRA": lambda rate: Gcra(rate, START, tolerance=0.1),
}


@dataclass(frozen=True)
class Call:
    """One call as the limiter saw it."""

    process: int
    at: float
    passed: bool


def simulate(
    limiter: Limiter,
    begin: Sequence[float],
    seconds: float,
    *,
    headers: bool,
    believed: float = 50.0,
    seed: int = 1,
    answer: tuple[float, float] = (0.002, 0.006),
    late: float = 0.002,
) -> list[Call]:
    """Return all calls of so many seconds, in their order.

    :param begin: When each process begins, in seconds from the start.
    :param headers: Whether a refusal tells limit, rest and reset, as ``docs/toapis.md`` has it; else it says nothing.
    :param believed: The rate that each process thinks is all its own.
    :param answer: Seconds between a call and its answer, at least and at most.
    :param late: Seconds by which a sleep ends late, at most.
    """
    chance = random.Random(seed)
    pacers = [RatePacer(believed) for _ in begin]
    calls: list[Call] = []
    number = itertools.count()
    events: list[tuple[float, int, Callable[[float], None]]] = []

    def at(moment: float, event: Callable[[float], None]) -> None:
        heapq.heappush(events, (moment, next(number), event))

    def send(process: int, now: float) -> None:
        wait = pacers[process].wait(now)
        if wait > 0.001:
            at(now + wait + chance.uniform(0, late), lambda now: send(process, now))
            return
        pacers[process].reserve(now)
        at(now + chance.uniform(*answer) / 2, lambda later: arrive(process, now, later))
        at(now + pacers[process].wait(now) + chance.uniform(0, late), lambda now: send(process, now))

    def arrive(process: int, sent: float, now: float) -> None:
        passed = limiter.take(now)
        calls.append(Call(process, now - START, passed))
        shown = {} if passed or not headers else limiter.headers("async_query")
        at(now + chance.uniform(*answer) / 2, lambda now: conclude(process, sent, passed, shown, now))

    def conclude(process: int, sent: float, passed: bool, shown: dict[str, str], now: float) -> None:
        pacer = pacers[process]
        pacer.apply_headers(RateLimitHeaders.read({key.lower(): shown[key] for key in shown}, "async_query"), now)
        if passed:
            pacer.on_passed(now)
        else:
            pacer.on_rate_limited(now, float(shown["Retry-After"]) if shown else None, sent)

    for process, offset in enumerate(begin):
        at(START + offset, lambda now, process=process: send(process, now))  # type: ignore[misc]
    while events and events[0][0] < START + seconds:
        now, _, event = heapq.heappop(events)
        event(now)
    return calls


def passed(calls: Sequence[Call], process: int | None = None, begin: float = 0.0, end: float = float("inf")) -> int:
    """Return how many calls passed, of one process or of all, within a span of seconds from the start."""
    return sum(call.passed and begin <= call.at < end for call in calls if process is None or call.process == process)


def share_refused(calls: Sequence[Call]) -> float:
    """Return the share of calls that were refused."""
    return sum(not call.passed for call in calls) / len(calls)
