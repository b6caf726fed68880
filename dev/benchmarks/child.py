"""Processes under test, fresh ones with an Airflow home of their own: JSON objects, one a line, go in and come out."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.stack.processes import REPO, child_environment

#: Seconds after which a process hangs and is killed.
_LONGEST = 1800.0


def answering() -> Callable[[dict[str, Any]], None]:
    """Say that this process is ready, keep its standard output for answers, and return what writes one.

    Whatever else prints goes to the log. Short answers of several processes that share the pipe do not mix.
    """
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=pipe, flush=True)

    answer({"ready": True})
    return answer


async def first_event(trigger: Any) -> Any:
    """Run a trigger until its first event, and return what is in it."""
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


class Child:
    """A process that was started here."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.kill = process.kill
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._log = log

    def send(self, **command: Any) -> None:
        """Give a command that is not answered at once."""
        print(json.dumps(command), file=self._stdin, flush=True)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.send(**command)
        return self.receive()

    def receive(self) -> dict[str, Any]:
        """Wait for the next answer.

        :raises RuntimeError: It has ended, or hung until it was killed; the message holds the end of its log.
        """
        line = self._stdout.readline()
        if not line:
            end = "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])
            raise RuntimeError(f"The process under test has ended or hung.\n{end}")
        return dict(json.loads(line))

    def has_answered(self, seconds: float) -> bool:
        """Wait for the only answer that is due, at most so long; the end of the process counts as one."""
        return bool(select.select([self._stdout], [], [], seconds)[0])


@contextmanager
def child(
    folder: Path, connection: str, module: str, *arguments: object, more: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Run ``python -m dev.benchmarks.<module> arguments`` for a while, from when it is ready.

    :param folder: Where its log goes and its Airflow home and temporary files are.
    :param connection: Airflow's connection as JSON.
    :param more: Further variables of its environment.
    """
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    log = folder / "process.log"
    env = {
        **child_environment(),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW_CONN_NANOBANANA_DEFAULT": connection,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "TMPDIR": str(temporary),
        **(more or {}),
    }
    command = [sys.executable, "-m", f"dev.benchmarks.{module}", *map(str, arguments)]
    pipe = subprocess.PIPE
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=env, cwd=REPO, stdin=pipe, stdout=pipe, stderr=output, text=True) as process,
    ):
        watchdog = threading.Timer(_LONGEST, process.kill)
        watchdog.start()
        try:
            one = Child(process, log)
            one.receive()
            yield one
        finally:
            watchdog.cancel()
            process.kill()
