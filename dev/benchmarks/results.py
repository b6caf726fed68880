"""The figures of all scenarios, kept as JSON: what was not measured this time stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dev.benchmarks.bench import Measured

#: By name of the scenario, plain JSON.
Results = dict[str, "Result"]


@dataclass(frozen=True)
class Result:
    """What a scenario came to, and how to have it again.

    :param made: The day, as ``2026-11-22``.
    :param command: What was typed.
    :param machine: What :func:`dev.benchmarks.machine.describe` says.
    """

    made: str
    command: str
    seed: int
    machine: str
    measured: Measured

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """Return the result that was stored."""
        return cls(**{**value, "measured": Measured(**value["measured"])})


def load(path: Path) -> Results:
    """Return what a file holds; nothing where there is none."""
    if not path.exists():
        return {}
    return {name: Result.from_json(value) for name, value in json.loads(path.read_text()).items()}


def merged(before: Results, now: Results, order: Iterable[str]) -> Results:
    """Return all results in this order, the new ones instead of those of the same name; unknown names are dropped."""
    both = {**before, **now}
    return {name: both[name] for name in order if name in both}


def store(path: Path, results: Results) -> None:
    """Write all results; figures are rounded to what they can mean."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: _rounded(asdict(result)) for name, result in results.items()}
    # One line for each value: a list of a hundred percentiles must not become a hundred lines.
    blocks = [f"{json.dumps(name)}: {_block(result)}" for name, result in plain.items()]
    path.write_text("{\n" + ",\n".join(blocks) + "\n}\n")


def _block(result: dict[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in result.items() if name != "measured"]
    measured = [f"    {json.dumps(name)}: {_lines(value)}" for name, value in result["measured"].items()]
    return "{\n" + ",\n".join([*lines, '  "measured": {\n' + ",\n".join(measured) + "\n  }"]) + "\n}"


def _lines(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    lines = [f"      {json.dumps(name)}: {json.dumps(inner)}" for name, inner in value.items()]
    return "{\n" + ",\n".join(lines) + "\n    }"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
