"""What a scenario is: how it is measured, what it gives back, and the goals that its figures are held against."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any, Literal

from dev.stack.processes import REPO

#: Plain JSON.
Figures = dict[str, Any]
Side = Literal["ours", "baseline"]
SIDES: tuple[Side, ...] = ("ours", "baseline")

#: The commit before time, memory and rate were bounded; its figures stand beside the goals.
TODAY = "c04b3ef"
#: Seconds between two polls of one image task, on both sides.
POLL_INTERVAL = 5.0
#: Where the logs and the Airflow homes of the processes go.
FOLDER = REPO / ".bench"


@dataclass(frozen=True)
class Bench:
    """One run of the command.

    :param seed: Decides the latencies of the emulator.
    :param quick: A smoke run: a few image tasks, no figure worth keeping.
    :param say: Called with one line of progress at a time.
    """

    seed: int
    quick: bool
    say: Callable[[str], None]

    def fresh(self, name: str) -> Path:
        """Return an empty folder of this name."""
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class Measured:
    """The figures of a scenario.

    :param setting: What was measured: sizes and rates.
    :param baseline: None where the baseline cannot do this at all.
    :param notes: Sentences about the baseline.
    """

    setting: Figures
    ours: Figures
    baseline: Figures | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Goal:
    """One row of the table.

    :param wanted: The goal in words.
    :param shown: The figures of one side in words.
    :param met: Whether our figures, beside the baseline's (empty where there are none), meet it.
    :param today: What ours was at :data:`TODAY`, in words.
    """

    figure: str
    wanted: str
    shown: Callable[[Figures], str]
    met: Callable[[Figures, Figures], bool]
    today: str = "–"

    def row(self, measured: Measured | None) -> list[str]:
        """Return figure, what it was, goal, ours, baseline and verdict (``met``, ``missed``, ``not run``) in words.

        Figures that were kept before the goal was set may lack what it is about: then it was not run.
        """
        row = [self.figure, self.today, self.wanted]
        if measured is None:
            return [*row, "–", "–", "not run"]
        try:
            return [*row, *self.judge(measured)]
        except KeyError:
            return [*row, "–", "–", "not run"]

    def judge(self, measured: Measured) -> list[str]:
        """Return ours, baseline and verdict in words.

        :raises KeyError: A figure is not there: of a run just made, the goal or the scenario misspells it.
        """
        baseline = self.shown(measured.baseline) if measured.baseline else "–"
        verdict = "met" if self.met(measured.ours, measured.baseline or {}) else "missed"
        return [self.shown(measured.ours), baseline, verdict]


@dataclass(frozen=True)
class Scenario:
    """Something that is measured under one name."""

    name: str
    measure: Callable[[Bench], Measured]
    goals: Sequence[Goal]


def percentiles(values: Sequence[float]) -> list[float]:
    """Return the percentiles from 0 to 100 of at least one value, interpolated linearly."""
    pair = [*values, *values] if len(values) == 1 else values  # quantiles wants two
    return [min(values), *quantiles(pair, n=100, method="inclusive"), max(values)]


def spread(values: Sequence[float]) -> Figures:
    """Return count, mean, percentiles and maximum of at least one value."""
    points = percentiles(values)
    tail = {f"p{share}": points[share] for share in (50, 95, 99)}
    return {"count": len(values), "mean": fmean(values), **tail, "max": points[100]}


def seconds(value: float) -> str:
    """Return seconds in words, in milliseconds below one."""
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def p99_and_max(of: Figures) -> str:
    """Return a spread of seconds in words."""
    return f"{seconds(of['p99'])} (max {seconds(of['max'])})"
