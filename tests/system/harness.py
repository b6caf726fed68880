"""What system tests share: a run of a DAG by the real processes, and one by ``dag.test()``."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_api import AirflowApi, Record
from dev.stack.airflow_stack import AirflowStack, Ports, airflow_environment
from dev.stack.processes import Command, ProcessDied, Processes


@dataclass(frozen=True)
class Run:
    """One run of a DAG in the stack."""

    api: AirflowApi
    dag_id: str
    run_id: str

    def wait(self, timeout: float = 300) -> str:
        """Wait for the end; give ``success`` or ``failed``."""
        return self.api.wait_for_run(self.dag_id, self.run_id, timeout=timeout)

    def wait_for(self, task_id: str, *states: str, map_index: int = -1, timeout: float = 120) -> Record:
        """Wait until a task instance is in one of these states."""
        return self.api.wait_for_state(
            self.dag_id, self.run_id, task_id, set(states), map_index=map_index, timeout=timeout
        )

    def states(self) -> dict[str, list[str | None]]:
        """Give the states of every task, by map index."""
        found: dict[str, list[str | None]] = {}
        for instance in sorted(self.instances(), key=lambda one: one["map_index"]):
            found.setdefault(instance["task_id"], []).append(instance["state"])
        return found

    def instances(self, task_id: str | None = None) -> list[Record]:
        """Give the task instances."""
        return self.api.instances(self.dag_id, self.run_id, task_id)

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Give one XCom value."""
        return self.api.xcom(self.dag_id, self.run_id, task_id, map_index, key)

    def log(self, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """Give the text of one try's log."""
        return self.api.log(self.dag_id, self.run_id, task_id, map_index, try_number)

    def clear(self, *task_ids: str, **options: Any) -> None:
        """Clear these tasks, so that they run again."""
        self.api.clear(self.dag_id, self.run_id, task_ids, **options)


@dataclass(frozen=True)
class System:
    """What one system test works with.

    :param images: A folder of this test; its URI is the destination to give to a run.
    """

    stack: AirflowStack
    emulator: Emulator
    images: Path

    def start(self, dag_id: str, **conf: Any) -> Run:
        """Start a run, its images going to this test's folder."""
        self.stack.api.wait_for_dag(dag_id)
        conf.setdefault("destination", self.images.as_uri())
        return Run(self.stack.api, dag_id, self.stack.api.trigger(dag_id, conf))

    def wait_deferred(self, run: Run, task_id: str) -> Record:
        """Wait until a task that is not mapped is deferred, and Airflow has seen its process end.

        Airflow up to 3.3 fails some tasks that resume before that (its issue 71580).

        :return: The task instance.
        """
        deferred = run.wait_for(task_id, "deferred")
        its = f"task_id='{task_id}', run_id='{run.run_id}'"

        def is_seen() -> bool | None:
            log = self.stack.processes.log("scheduler").splitlines()
            return any("Received executor event" in line and its in line for line in log) or None

        run.api.wait_until(is_seen, f"the scheduler to see {task_id} end", timeout=120)
        return deferred

    def all_text(self) -> str:
        """Give everything that Airflow wrote to disk as text, the task logs and the database included."""
        files = [path for path in self.stack.home.rglob("*") if path.is_file()]
        return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)


@dataclass(frozen=True)
class Tested:
    """What ``dag.test()`` came to; keys are ``task_id`` or, for a mapped one, ``task_id[index]``."""

    state: str
    tasks: dict[str, str]
    xcoms: dict[str, Any]
    output: str


class DagTester:
    """Run ``dag.test()``, one after another in one process on one database; both are made for the first one.

    :param home: Becomes AIRFLOW_HOME.
    """

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self._home = home
        self._processes = Processes()
        # Airflow 3.4 reads once which folders have DAGs: it is this one, which leads to another for each run.
        self._dags = home / "dags"
        self._dags.symlink_to(home)
        self._env = airflow_environment(home, [self._dags], Ports(1, 2, 3), "unused", env)
        self._log = home / "logs" / "dagtest.log"
        self._connection: socket.socket | None = None

    def __call__(
        self,
        file: Path,
        dag_id: str,
        *,
        env: Mapping[str, str] | None = None,
        reviewer: str | None = None,
        **conf: Any,
    ) -> Tested:
        """Test one DAG.

        :param file: Its folder is the only one with DAGs.
        :param env: Added to the environment for this run.
        :param reviewer: The option that is chosen where a task asks a person (from Airflow 3.3 on).
        :param conf: The configuration of the run, on top of the DAG's params.
        :raises ProcessDied: The process ended, or did not answer in time; a failed run is no error.
        """
        shown = str(self._dags / file.name)
        return self._ask(file.parent, env, call="dag", file=shown, dag_id=dag_id, conf=conf, reviewer=reviewer)

    def pytest(self, file: Path, dags: Path) -> Tested:
        """Run the tests of a file; the state is the name of pytest's exit code.

        :param dags: The folder with DAGs.
        """
        return self._ask(dags, None, call="pytest", file=str(file))

    def close(self) -> None:
        """End what may still run."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._processes.stop()

    def _connect(self) -> socket.socket:
        """Make the database and start the process."""
        migrate = Command("migrate", ("-m", "airflow", "db", "migrate"), self._env, self._home / "logs" / "migrate.log")
        self._processes.run(migrate, 120)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(120)
            port = str(server.getsockname()[1])
            self._processes.start(Command("dagtest", ("-m", "tests.system.dagtest", port), self._env, self._log))
            try:
                self._connection, _ = server.accept()
            except TimeoutError as error:
                tail = self._processes.tail("dagtest")
                self.close()
                raise ProcessDied(f"dagtest did not come up\n{tail}") from error
        self._connection.settimeout(180)
        return self._connection

    def _ask(self, dags: Path, env: Mapping[str, str] | None, **request: Any) -> Tested:
        connection = self._connection or self._connect()
        self._dags.unlink()
        self._dags.symlink_to(dags)
        printed = self._log.stat().st_size
        try:
            with connection.makefile("rw") as lines:
                print(json.dumps({**request, "env": dict(env or {})}), file=lines, flush=True)
                answer = lines.readline()
        except OSError:  # it gave none in time, too
            answer = ""
        if not answer:
            tail = self._processes.tail("dagtest")
            self.close()
            raise ProcessDied(f"dagtest gave no answer\n{tail}")
        output = self._log.read_bytes()[printed:].decode(errors="replace")
        return Tested(**json.loads(answer), output=output)
