"""Lines of JSON between the command and the processes it measures: both ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.settings import REPO, inherited


def own_stdout() -> int:
    """Keep the pipe to the parent for answers and return its descriptor; whatever else prints goes to the log."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return pipe


def answer(pipe: int, content: Mapping[str, Any]) -> None:
    """Write one answer; short ones of several processes that share a pipe do not mix."""
    data = json.dumps(content).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


class Child:
    """A process that reads commands and writes answers, one JSON object a line."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def send(self, command: Mapping[str, Any]) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the next answer.

        :raises RuntimeError: It has ended, or hung until it was killed; the message holds the end of its log.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])
            raise RuntimeError(f"The process under test has ended or hung.\n{end}")
        return dict(json.loads(line))


@contextmanager
def child(folder: Path, connection: str, *words: str, patience: float) -> Iterator[Child]:
    """Run ``python -m words`` for a while, in an Airflow home of its own, and wait for its first answer.

    :param folder: Where its log goes and its Airflow home and temporary files are.
    :param connection: Airflow's connection as JSON.
    :param patience: Seconds after which it is killed.
    """
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    log = folder / "process.log"
    env = {
        **inherited(),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW_CONN_NANOBANANA_DEFAULT": connection,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "TMPDIR": str(temporary),
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=env,
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    watchdog = threading.Timer(patience, process.kill)
    watchdog.start()
    try:
        one = Child(process, log)
        one.receive()
        yield one
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
