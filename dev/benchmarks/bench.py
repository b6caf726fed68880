"""What every scenario is given, and what it gives back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """One run of the command.

    :param folder: Where logs and Airflow homes go.
    :param quick: A smoke run: a few image tasks, no figure worth keeping.
    :param say: Called with one line of progress at a time.
    """

    folder: Path
    seed: int
    quick: bool
    say: Callable[[str], None]

    def fresh(self, name: str) -> Path:
        """Return an empty folder of this name."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class Measured:
    """The figures of a scenario, plain JSON.

    :param setting: What was measured: sizes and rates.
    :param baseline: None where the baseline cannot do this at all.
    """

    setting: Figures
    ours: Figures
    baseline: Figures | None = None
    notes: list[str] = field(default_factory=list)


Scenario = Callable[[Bench], Measured]
