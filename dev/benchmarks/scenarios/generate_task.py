"""One task instance of the Generate operator, played from its first attempt to its end: stretch, wait, stretch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dev.benchmarks.child import Child, child

_WORKER, _TRIGGERER = "dev.benchmarks.generate_process", "dev.benchmarks.scenarios.generate_triggerer"
#: Seconds between two looks at how far it has come, to kill at the right point.
_LOOK = 0.3
_RETRIES = 20
_PATIENCE = 1800.0
#: Seconds before a retry after an error; a killed attempt is retried at once.
_RETRY_DELAY = 5.0

End = Literal["deferred", "success", "failed", "killed"]


@dataclass(frozen=True)
class Stretch:
    """One worker process.

    :param seconds: From its start to its end, imports included.
    :param peak_bytes: The most that was resident; 0 where it was killed.
    """

    end: End
    try_number: int
    seconds: float
    cpu_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Played:
    """What came of the task; moments are epoch seconds.

    :param kills: How far the batch had come at each kill.
    :param waits: Seconds of each wait in the triggerer.
    """

    began: float = 0.0
    ended: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    event_bytes: list[int] = field(default_factory=list)
    trigger_bytes: list[int] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def stretch_figures(self) -> dict[str, Any]:
        """Return what the worker processes amount to."""
        return {
            "stretches": [asdict(each) for each in self.stretches],
            "longest_stretch": max(each.seconds for each in self.stretches),
            "worker_seconds": sum(each.seconds for each in self.stretches),
            "cpu_seconds": sum(each.cpu_seconds for each in self.stretches),
            "peak_bytes": max(each.peak_bytes for each in self.stretches),
        }


@dataclass(frozen=True)
class TaskRun:
    """A task instance.

    :param folder: Where its state, its logs and its Airflow home are.
    :param connection: Airflow's connection as JSON.
    :param options: Of the operator.
    :param progress: Says how far the batch has come; only asked where a kill is due.
    :param say: Called with one line at a time.
    """

    folder: Path
    connection: str
    options: Mapping[str, Any]
    progress: Callable[[], int]
    say: Callable[[str], None]

    def play(self, kill_at: Sequence[int] = ()) -> Played:
        """Run attempt after attempt until one succeeds or none is left.

        :param kill_at: Progress at which the worker process is killed, one point after the other.
        """
        played = Played(began=time.time())
        points = iter(kill_at)
        point = next(points, None)
        try_number, resume = 1, None
        with child(self.folder / "triggerer", self.connection, _TRIGGERER, patience=_PATIENCE) as triggerer:
            while try_number <= _RETRIES + 1:
                outcome = self._stretch(played, try_number, resume, point)
                resume = None
                if outcome["state"] == "success":
                    played.result = outcome["result"]
                    break
                if outcome["state"] == "deferred":
                    resume = self._wait(played, triggerer, outcome)
                    continue
                if outcome["state"] == "killed":
                    played.kills.append(self.progress())
                    point = next(points, None)
                else:
                    played.errors.append(outcome["error"])
                    if not outcome["again"]:
                        break
                    time.sleep(_RETRY_DELAY)
                try_number += 1
        played.ended = time.time()
        return played

    def _stretch(self, played: Played, try_number: int, resume: Any, point: int | None) -> dict[str, Any]:
        """Run one worker process to its end, or to its point of death, and note it."""
        job = {"options": self.options, "retries": _RETRIES, "try_number": try_number, "resume": resume}
        began = time.time()
        folder = self.folder / "worker"
        with child(folder, self.connection, _WORKER, str(self.folder / "state"), patience=_PATIENCE) as worker:
            pid = int(worker.receive()["pid"])
            with self._assassin(pid, point) as struck:
                worker.send(job)
                outcome = _outcome(worker, struck)
        seconds = time.time() - began
        number = len(played.stretches)
        shutil.copy(folder / "process.log", self.folder / f"stretch-{number}.log")
        used = {name: outcome[name] for name in ("cpu_seconds", "peak_bytes") if name in outcome}
        played.stretches.append(Stretch(outcome["state"], try_number, seconds, **used))
        self.say(f"stretch {number}, try {try_number}: {outcome['state']} after {seconds:.1f} s")
        return outcome

    def _wait(self, played: Played, triggerer: Child, outcome: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        triggerer.send(outcome["trigger"])
        event = triggerer.receive()["event"]
        played.trigger_bytes.append(len(json.dumps(outcome["trigger"]["kwargs"])))
        played.event_bytes.append(len(json.dumps(event).encode()))
        played.waits.append(time.time() - began)
        self.say(f"waited {played.waits[-1]:.1f} s without a worker")
        return {"method": outcome["method"], "event": event}

    @contextmanager
    def _assassin(self, pid: int, point: int | None) -> Iterator[threading.Event]:
        """Kill a process once the batch has come to a point; the event says that it was done."""
        over, struck = threading.Event(), threading.Event()

        def watch() -> None:
            while point is not None and not over.wait(_LOOK):
                if self.progress() >= point:
                    struck.set()
                    os.kill(pid, signal.SIGKILL)
                    return

        killer = threading.Thread(target=watch)
        killer.start()
        try:
            yield struck
        finally:
            over.set()
            killer.join()


def _outcome(worker: Child, struck: threading.Event) -> dict[str, Any]:
    """Return what the worker answered; one that was killed answers nothing."""
    try:
        return worker.receive()
    except RuntimeError:
        if not struck.is_set():
            raise
        return {"state": "killed"}
