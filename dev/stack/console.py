"""What a program with processes of its own shows (:class:`Progress`) and how it ends (:func:`run_program`)."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import TextIO

from dev.stack.airflow_api import Record
from dev.stack.processes import ProcessDied, Processes

_SILENCE_SECONDS = 10.0
_MEANING = {"deferred": "waiting in the triggerer, no worker held", "success": "done"}


class Progress:
    """Print progress with the seconds since the start.

    On a terminal the last line rewrites itself; elsewhere there is a line for each change.

    :param out: Where to print.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._started = time.monotonic()
        self._live = self._out.isatty()
        self._pending = False
        self._last = ("", 0.0)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._end_live()
        print(f"{self._elapsed():5.0f} s  {line}", file=self._out, flush=True)

    def watch(self, instances: list[Record]) -> None:
        """Show the states of a run's task instances; off a terminal only what changed, or a sign of life."""
        line = describe(instances)
        if self._live:
            shown = f"{self._elapsed():5.0f} s  {line}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{shown}", end="", file=self._out, flush=True)
            self._pending = True
            return
        before, at = self._last
        now = time.monotonic()
        if line != before or now - at > _SILENCE_SECONDS:
            self._last = (line, now)
            self.say(line)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _end_live(self) -> None:
        if self._pending:
            print(file=self._out)
            self._pending = False


def describe(instances: list[Record]) -> str:
    """Sum up in one line the task instances that have a state, tasks in the order in which they began."""
    tasks: dict[str, Counter[str]] = {}
    for instance in sorted(instances, key=lambda one: (one["start_date"] or "9", one["task_id"])):
        if instance["state"] is not None:
            tasks.setdefault(instance["task_id"], Counter())[instance["state"]] += 1
    return " | ".join(_describe_task(name, states) for name, states in tasks.items()) or "waiting for the scheduler"


def _describe_task(name: str, states: Counter[str]) -> str:
    if states.total() == 1:
        (state,) = states
        return f"{name}: {_MEANING.get(state, state)}"
    parts = [f"{count} {_MEANING.get(state, state)}" for state, count in sorted(states.items())]
    return f"{name}: {', '.join(parts)}"


def run_program(work: Callable[[Processes, Progress], int], *, when_interrupted: str = "interrupted") -> int:
    """Run what needs processes of its own, and end those whatever happens.

    :return: What ``work`` returns; 2 where a process did not come up; 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    progress = Progress()
    processes = Processes()
    try:
        return work(processes, progress)
    except KeyboardInterrupt:
        progress.say(when_interrupted)
        return 130
    except (ProcessDied, TimeoutError) as error:
        progress.say(str(error))
        return 2
    finally:
        progress.say("stopping everything that was started")
        processes.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
