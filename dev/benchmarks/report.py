"""The last figures of every scenario: kept as JSON, shown as a page and on the terminal."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table
from tabulate import tabulate

from dev.benchmarks.scenario import TODAY, Measured, Scenario
from dev.stack.processes import REPO

PLOT = "benchmarks.svg"

_HEAD = f"""# Benchmarks

Thousands of waiting images on one triggerer, measured side by side with the usual way of waiting: a trigger that opens
its own `httpx.AsyncClient` and polls every 5 s (`dev/benchmarks/baseline.py`); thousands of images from one Generate
task; and files and answers that are made to take all time and memory. `make bench` wrote this page and measures it
again. Nothing here is typed in by hand but the goals, and the column `{TODAY}`: what ours was in that commit, before
time, memory and rate were bounded, where it was measured.
"""

_COLUMNS = ("figure", TODAY, "goal", "ours", "baseline", "")

_ORIGIN = """The commit is what was checked out, with "-dirty" where files had been changed; where that was not yet
noted, the commit in which the figures were recorded.
"""

_HOW = """## How it is measured

Every scenario runs in fresh processes: the service in one (the emulator, which enforces the account's limits and keeps
the ledger), what is under test in others. Latencies are lognormal, median 25 s, sigma 0.4, in real time unless a
setting says otherwise. A delay runs from the moment at which the service's ledger says *completed* to the moment at
which the trigger yields its event, with one trigger per image task. Lag is what a 50 ms sleep on the same loop takes
longer than 50 ms. Both sides get the same seed. A 429 or an error is slept over by the baseline; the usual provider
would fail the task.
"""


@dataclass(frozen=True)
class Result:
    """The figures of a scenario, and how to have them again.

    :param made: The day, as ``2026-11-22``.
    :param commit: What :func:`commit` says.
    :param command: What was typed.
    :param machine: What :func:`machine` says.
    :param minutes: How long it took; None where that was not yet noted.
    """

    made: str
    commit: str
    command: str
    seed: int
    machine: str
    measured: Measured
    minutes: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Return the result that was stored."""
        return cls(**{**value, "measured": Measured(**value["measured"])})


def load(path: Path) -> dict[str, Result]:
    """Return the results that a file holds, by scenario; none where there is no file."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    return {name: Result.from_json(value) for name, value in stored.items()}


def store(path: Path, results: Mapping[str, Result]) -> None:
    """Write all results, a line for each; figures are rounded to what they can mean."""
    lines = []
    for name, result in results.items():
        rounded = json.loads(json.dumps(asdict(result)), parse_float=lambda digits: float(f"{float(digits):.6g}"))
        lines.append(f"{json.dumps(name)}: {json.dumps(rounded)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def machine() -> str:
    """Return processor, memory and versions in one line; no names of machines and no paths."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("apache-airflow", "httpx"))
    return (
        f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory, {platform.system()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def commit() -> str:
    """Return what is checked out, ``-dirty`` where files outside of ``docs`` were changed, ``unknown`` without git."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ":!docs")
    return f"{head or 'unknown'}{'-dirty' if changed else ''}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True, check=False).stdout.strip()


def rows(scenarios: Iterable[Scenario], results: Mapping[str, Result]) -> list[list[str]]:
    """Return for each goal its figure, what it was, the goal, both sides and the verdict in words."""
    return [
        goal.row(results[scenario.name].measured if scenario.name in results else None)
        for scenario in scenarios
        for goal in scenario.goals
    ]


def terminal_table(scenarios: Iterable[Scenario], results: Mapping[str, Result]) -> Table:
    """Return the verdicts for the terminal."""
    table = Table(*_COLUMNS)
    for row in rows(scenarios, results):
        table.add_row(*row, style="bold red" if row[-1] == "missed" else None)
    return table


def page(scenarios: Sequence[Scenario], results: Mapping[str, Result], explanations: Iterable[str]) -> str:
    """Return the page in Markdown.

    :param explanations: How the scenarios are measured, lists in Markdown.
    """
    verdicts = [[*row[:-1], row[-1].replace("missed", "**missed**")] for row in rows(scenarios, results)]
    parts = [_HEAD, markdown_table(_COLUMNS, verdicts)]
    if notes := [f"- `{name}`, baseline: {note}." for name, one in results.items() for note in one.measured.notes]:
        parts.append("\n".join(notes) + "\n")
    if "poll-1000" in results:
        parts.append(f"![How late finished images are noticed]({PLOT})\n")
    if results:
        origin = [
            [name, one.made, one.commit, _minutes(one.minutes), f"`{one.command}`", one.machine]
            for name, one in results.items()
        ]
        parts += [_ORIGIN, markdown_table(["scenario", "made", "commit", "minutes", "command", "machine"], origin)]
    else:
        parts.append("Nothing has been measured yet.\n")
    return "\n".join([*parts, _HOW, *explanations]) + "\n"


def _minutes(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return f"{tabulate(cells, heads, 'github', disable_numparse=True)}\n"
