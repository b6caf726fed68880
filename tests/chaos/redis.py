"""RedisServer: the Celery broker of the campaign with CeleryExecutor."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from dev.stack.processes import Processes, free_ports
from tests.chaos.programs import require
from tests.chaos.run_as import give_to_service_user, service

_NAME = "redis"


class RedisServer:
    """One Redis server on loopback that keeps nothing on disk."""

    def __init__(self, processes: Processes, folder: Path, logs: Path) -> None:
        self._processes = processes
        self._folder = give_to_service_user(folder)
        self._log = logs / f"{_NAME}.log"
        self._password = secrets.token_hex(16)
        [self._port] = free_ports(1)

    @property
    def url(self) -> str:
        """The broker URL for Celery."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self, timeout: float = 30) -> None:
        """Start the server.

        :raises MissingProgram: Redis is not installed.
        :raises TimeoutError: It does not answer in time.
        """
        where = ("--port", str(self._port), "--bind", "127.0.0.1", "--requirepass", self._password)
        words = (*where, "--save", "", "--appendonly", "no")
        self._processes.start(service(_NAME, self._folder, require("redis-server"), *words, log=self._log))
        deadline = time.monotonic() + timeout
        while not self._answers():
            self._processes.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"Redis is not up.\n{self._processes.tail(_NAME)}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
        except OSError:
            return False
