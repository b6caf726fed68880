"""PostgresServer: a PostgreSQL server in a temporary folder, on loopback, gone afterwards."""

from __future__ import annotations

import random
import secrets
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from dev.stack.processes import Command, Processes, free_ports
from tests.chaos.programs import find, require
from tests.chaos.run_as import give_to_service_user, service

_NAME = "postgres"
_ROLE = "airflow"


class PostgresServer:
    """One PostgreSQL server with one database.

    :param folder: An empty folder for all of its files; it is given to the user that the server runs as.
    """

    def __init__(self, processes: Processes, folder: Path, logs: Path) -> None:
        self._processes = processes
        self._folder = give_to_service_user(folder)
        self._logs = logs
        self._password = secrets.token_hex(16)
        [self._port] = free_ports(1)

    @staticmethod
    def possible() -> bool:
        """Return whether this machine has the server and this Python has its drivers."""
        return all(find(program) for program in ("initdb", "postgres", "psql")) and all(
            find_spec(module) for module in ("psycopg2", "asyncpg")
        )

    @property
    def url(self) -> str:
        """The database as SQLAlchemy wants it; Airflow derives the asynchronous form itself."""
        return f"postgresql+psycopg2://{_ROLE}:{self._password}@127.0.0.1:{self._port}/{_ROLE}"

    def start(self, timeout: float = 60) -> None:
        """Make the database and start the server.

        :raises MissingProgram: PostgreSQL is not installed.
        :raises TimeoutError: It does not answer in time.
        """
        key = self._folder / "password"
        key.write_text(self._password)
        key.chmod(0o600)
        give_to_service_user(key)
        access = ("-U", _ROLE, "-A", "scram-sha-256", "--pwfile", "password")
        self._processes.run(
            self._command("initdb", "initdb", "-D", "data", "-E", "UTF8", "--no-locale", *access), timeout
        )
        # No campaign kills the database server, so a commit need not survive a crash of the machine.
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "300",
            "fsync": "off",
            "synchronous_commit": "off",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._processes.start(self._command(_NAME, "postgres", "-D", "data", *words))
        self._wait(timeout)
        self._sql("postgres", f"CREATE DATABASE {_ROLE}")

    def cut_connections(self, rng: random.Random, share: float) -> int:
        """Terminate a random share of the open connections.

        :return: How many were cut.
        """
        others = f"datname = '{_ROLE}' AND pid <> pg_backend_pid()"
        rows = self._sql(_ROLE, f"SELECT pid FROM pg_stat_activity WHERE {others}")
        pids = [pid for pid in sorted(rows) if rng.random() < share]
        if not pids:
            return 0
        cut = self._sql(_ROLE, f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{','.join(pids)}]) AS pid")
        return cut.count("t")

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while subprocess.run(
            [require("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)], check=False
        ).returncode:
            self._processes.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL is not up.\n{self._processes.tail(_NAME)}")
            time.sleep(0.1)

    def _sql(self, database: str, statement: str) -> list[str]:
        target = f"postgresql://{_ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"
        words = [require("psql"), target, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout.split()

    def _command(self, name: str, program: str, *arguments: str) -> Command:
        return service(name, self._folder, require(program), *arguments, log=self._logs / f"{name}.log")
