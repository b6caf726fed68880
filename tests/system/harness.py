"""What system tests share: a run of a DAG by the real processes, and one by ``dag.test()``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_api import AirflowApi, Record
from dev.stack.airflow_stack import AirflowStack, Ports, airflow_environment
from dev.stack.processes import Command, Processes


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
    """Run ``dag.test()`` in fresh processes on one database.

    :param home: Becomes AIRFLOW_HOME.
    """

    def __init__(self, home: Path, dag_folders: Sequence[Path], env: Mapping[str, str]) -> None:
        self._home = home
        self._processes = Processes()
        self._env = airflow_environment(home, dag_folders, Ports(1, 2, 3), "unused", env)
        self._migrated = False

    def __call__(self, file: Path, dag_id: str, *, timeout: float = 180, **conf: Any) -> Tested:
        """Test one DAG.

        :param conf: The configuration of the run, on top of the DAG's params.
        :raises ProcessDied: The process ended with an error; a failed run is no error.
        """
        if not self._migrated:  # not before: the first one runs while other processes wait
            self._run("migrate", "-m", "airflow", "db", "migrate", timeout=120)
            self._migrated = True
        answer = self._home / "answer.json"
        answer.unlink(missing_ok=True)
        log = self._home / "logs" / "dagtest.log"
        log.unlink(missing_ok=True)
        arguments = [str(file), dag_id, json.dumps(conf), str(answer)]
        self._run("dagtest", "-m", "tests.system.dagtest", *arguments, timeout=timeout)
        return Tested(**json.loads(answer.read_text()), output=log.read_text(errors="replace"))

    def close(self) -> None:
        """End what may still run."""
        self._processes.stop()

    def _run(self, name: str, *arguments: str, timeout: float) -> None:
        log = self._home / "logs" / f"{name}.log"
        self._processes.run(Command(name, arguments, self._env, log), timeout)
