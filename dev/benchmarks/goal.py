"""One figure and what it is measured by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dev.benchmarks.bench import Figures, Measured

Verdict = Literal["met", "missed", "not run"]


@dataclass(frozen=True)
class Goal:
    """One row of the table.

    :param scenario: Whose figures it is read from.
    :param wanted: The goal in words.
    :param shown: The figures of one side in words.
    :param met: Whether our figures, beside the baseline's, meet it.
    """

    figure: str
    scenario: str
    wanted: str
    shown: Callable[[Figures], str]
    met: Callable[[Figures, Figures], bool]

    def ours(self, measured: Measured | None) -> str:
        """Return our side in words."""
        return self.shown(measured.ours) if measured else "–"

    def baseline(self, measured: Measured | None) -> str:
        """Return the baseline's side in words."""
        return self.shown(measured.baseline) if measured and measured.baseline else "–"

    def verdict(self, measured: Measured | None) -> Verdict:
        """Return whether the goal is met."""
        if measured is None:
            return "not run"
        return "met" if self.met(measured.ours, measured.baseline or {}) else "missed"
