"""The parent's end of a process under test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dev.benchmarks.child import Child, child
from dev.benchmarks.emulator import Bought

Side = Literal["ours", "baseline"]
SIDES: tuple[Side, ...] = ("ours", "baseline")

#: A process that has said nothing for so long after its own limit hangs.
_PATIENCE = 180.0


@dataclass(frozen=True)
class Report:
    """What a process under test saw; moments are epoch seconds.

    :param detected: When the trigger of each image task yielded its event.
    :param outcomes: How many events of each outcome there were.
    :param errors: What triggers raised.
    :param lag: The spread of the event loop's lag in seconds.
    :param cpu_seconds: From the first trigger's start to the last one's end.
    :param scheduled_seconds: From the start of the first triggers until each had its first poll scheduled.
    """

    started: float
    detected: Mapping[str, float]
    outcomes: Mapping[str, int]
    errors: Sequence[str]
    lag: Mapping[str, float]
    cpu_seconds: float
    scheduled_seconds: float | None


class Subject:
    """A process that waits for image tasks."""

    def __init__(self, process: Child) -> None:
        self._process = process

    def watch(self, bought: Sequence[Bought]) -> None:
        """Start a trigger for each image task."""
        self._process.send({"watch": bought})

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        self._process.send({"memory": True})
        return int(self._process.receive()["memory"])

    def report(self, *, stop: bool = False) -> Report:
        """Wait until every trigger has ended, or cancel them, and return what was seen."""
        self._process.send({"stop": True} if stop else {"end": True})
        return Report(**self._process.receive())


@contextmanager
def subject(
    side: Side, folder: Path, connection: str, *, interval: float = 5.0, limit: float = 300.0
) -> Iterator[Subject]:
    """Run a process under test and wait until it has imported what a triggerer has imported.

    :param folder: Where its log goes.
    :param connection: Airflow's connection as JSON.
    :param interval: Seconds between two polls of one image task.
    :param limit: Seconds after which it gives up a wait.
    """
    words = ("dev.benchmarks.trigger_process", side, str(interval), str(limit))
    with child(folder, connection, *words, patience=limit + _PATIENCE) as process:
        yield Subject(process)
