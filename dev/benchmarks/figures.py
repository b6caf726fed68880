"""What raw moments amount to. Pure: seconds and counts in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0 to 1) of the values lie, interpolated linearly.

    :raises ValueError: There are no values, or the share is out of range.
    """
    if not values:
        raise ValueError("no values")
    if not 0 <= share <= 1:
        raise ValueError(f"a share is 0 to 1, not {share}")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class Spread:
    """How values are spread."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        p50, p95, p99 = (percentile(values, share) for share in (0.5, 0.95, 0.99))
        return cls(len(values), math.fsum(values) / len(values), p50, p95, p99, max(values))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def curve(values: Sequence[float], points: int = 101) -> list[float]:
    """Return evenly spaced percentiles from 0 to 100 %, enough to draw the distribution; empty without values."""
    return [round(percentile(values, step / (points - 1)), 3) for step in range(points)] if values else []


def reached(moments: Iterable[float], start: float, step: float = 1.0) -> list[int]:
    """Return how many of the moments have passed at ``start``, one step later, and so on until all have."""
    ordered = sorted(moments)
    counts, passed, mark = [], 0, start
    while True:
        while passed < len(ordered) and ordered[passed] <= mark:
            passed += 1
        counts.append(passed)
        if passed == len(ordered):
            return counts
        mark += step


@dataclass(frozen=True)
class Window:
    """The answers of a few seconds.

    :param start: Seconds since the begin of the measurement.
    :param limited: Those of them that were 429.
    """

    start: float
    answers: int
    limited: int

    @property
    def share(self) -> float:
        """Share of the answers that were 429; 0 where there was none."""
        return self.limited / self.answers if self.answers else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def windows(answers: Iterable[tuple[float, int]], start: float, width: float = 10.0) -> list[Window]:
    """Count answers, given as (moment, status), in windows of ``width`` seconds from ``start`` on, gaps included.

    What came before the start is left out.
    """
    counts: dict[int, list[int]] = {}
    for moment, status in answers:
        if moment >= start:
            number = int((moment - start) // width)
            count = counts.setdefault(number, [0, 0])
            count[0] += 1
            count[1] += status == 429
    last = max(counts, default=-1)
    return [Window(number * width, *counts.get(number, [0, 0])) for number in range(last + 1)]


def together(parts: Iterable[Window]) -> Window:
    """Return several windows as one."""
    parts = list(parts)
    start = min((part.start for part in parts), default=0.0)
    return Window(start, sum(part.answers for part in parts), sum(part.limited for part in parts))


def per_second(moments: Iterable[float], start: float, end: float) -> float:
    """Return how many moments a second lie in [start, end).

    :raises ValueError: The end is not after the start.
    """
    if end <= start:
        raise ValueError("a window has an end after its start")
    return sum(start <= moment < end for moment in moments) / (end - start)
