"""Runs the parts: one or two real Airflows with homes and databases of their own, and one bank."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from dev.demo.report import problems
from dev.stack.airflow_api import FINISHED, AirflowApi, ApiError, Record
from dev.stack.airflow_stack import AirflowStack, Say
from dev.stack.emulator_process import start_emulator
from dev.stack.processes import Processes
from tests.chaos import process_tree
from tests.chaos.audit import complete_files
from tests.overlap.parts import FIRST_KEY, NAMED, SECOND_KEY, Part
from tests.overlap.report import Outcome, outcome_of
from tests.support.versions import STATE_STORE, gives

DAGS = Path(__file__).parent / "dags"
#: Seconds of one HTTP call; half of what a connection has by default, so that a killed owner is given up sooner.
_HTTP_TIMEOUT = 15
#: How the bank behaves while workers are killed: slow to accept, slow to show, and not asking who still waits.
_HOSTILE = {"commit_delay": 3.0, "orphan_share": 0.5, "lookup_spread": 20.0}
_FRIENDLY = {"commit_delay": 0.0, "orphan_share": 1.0, "lookup_spread": 0.0}


class Bank:
    """The one emulator that all installations buy from; it knows two accounts."""

    def __init__(self, processes: Processes, log: Path) -> None:
        second = "sk-emulator-of-a-second-account"
        service = start_emulator(processes, log, latency=8, sigma=0.1, second_api_key=second)
        assert service.control_url is not None
        first = json.loads(service.connection) | {"extra": {"timeout": _HTTP_TIMEOUT}}
        self._connections = {FIRST_KEY: first, SECOND_KEY: first | {"password": second}}
        self._http = httpx.Client(base_url=f"{service.control_url}/emulator", trust_env=False, timeout=15)

    def environment(self, namespace: str) -> dict[str, str]:
        """Return the connections that an installation has."""
        first = self._connections[FIRST_KEY]
        named = first | {"extra": first["extra"] | {"namespace": namespace}}
        connections = self._connections | {NAMED: named}
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}

    def image_tasks(self) -> list[dict[str, Any]]:
        """Return every image task that was ever accepted."""
        return list(self._http.get("/ledger").raise_for_status().json()["image_tasks"])

    def pending(self) -> set[str]:
        """Return the prompts of the submits that are being accepted right now."""
        return set(self._http.get("/stats").raise_for_status().json()["pending"])

    def behave(self, *, hostile: bool) -> None:
        """Change how submits are accepted and shown."""
        self._http.post("/settings", json=_HOSTILE if hostile else _FRIENDLY).raise_for_status()

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()


@dataclass
class Site:
    """The runs of one part in one installation.

    :param runs: Their ids.
    :param killed: Prompts of the tasks whose worker was killed.
    """

    stack: AirflowStack
    part: Part
    runs: list[str] = field(default_factory=list)
    killed: set[str] = field(default_factory=set)

    @property
    def api(self) -> AirflowApi:
        """The installation's REST API."""
        return self.stack.api

    def start(self, folder: str, connection: str) -> None:
        """Start the runs, all at once.

        :param folder: URI of the destination.
        """
        part = self.part
        self.api.wait_for_dag(part.dag_id)
        conf = {"destination": folder, "conn_id": connection}
        if part.days is None:
            self.runs = [self.api.trigger(part.dag_id, conf, f"overlap-{part.name}")]
        else:
            self.runs = self.api.backfill(part.dag_id, *part.days, conf | {"prompts": list(part.prompts)})

    def add_scheduled(self) -> None:
        """Take the runs that the schedule started for this part's, too."""
        found = {run["dag_run_id"] for run in self.api.runs(self.part.dag_id) if run["run_type"] == "scheduled"}
        self.runs += sorted(found - set(self.runs))

    def instances(self) -> list[Record]:
        """Return the task instances of all runs."""
        return [one for run in self.runs for one in self.api.instances(self.part.dag_id, run)]

    def ended(self) -> bool:
        """Return whether every run has ended."""
        return all(self.api.run(self.part.dag_id, run)["state"] in FINISHED for run in self.runs)

    def kill_around_posts(self, pending: set[str]) -> Iterator[str]:
        """Kill the worker of each task whose prompt the bank is accepting and that was not killed yet; yield which."""
        running = process_tree.running_tasks([self.stack.processes.pid("scheduler")])
        if not running or not pending:
            return
        prompts = {one["id"]: self.part.prompts[one["map_index"]] for one in self.instances() if one["map_index"] >= 0}
        for one in running:
            wanted = prompts.get(one.task_instance_id)
            if wanted is not None and wanted in pending - self.killed and process_tree.kill(one.task):
                self.killed.add(wanted)
                yield wanted

    def result(self, instance: Record) -> Any:
        """Return what a task instance returned, None for nothing."""
        try:
            return self.api.xcom(self.part.dag_id, instance["dag_run_id"], instance["task_id"], instance["map_index"])
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def failure(self, instance: Record) -> str:
        """Return the last error in the log of a failed task instance."""
        entries = self.api.log_entries(
            self.part.dag_id,
            instance["dag_run_id"],
            instance["task_id"],
            instance["map_index"],
            instance["try_number"],
        )
        return f"{_label(instance)}: {(problems(entries) or ['no log says why'])[-1]}"


def _label(instance: Record) -> str:
    index = f"[{instance['map_index']}]" if instance["map_index"] >= 0 else ""
    return f"{instance['dag_run_id']} {instance['task_id']}{index}: {instance['state']}"


class Demonstration:
    """Installations and bank; a context manager.

    :param folder: Holds the homes of the installations, the images and the logs.
    :param processes: Ends the bank; each installation has processes of its own.
    """

    def __init__(self, folder: Path, processes: Processes, say: Say) -> None:
        self._folder = folder
        self._images = folder / "images"
        self._say = say
        self._bank = Bank(processes, folder / "emulator.log")
        self._stacks: list[AirflowStack] = []
        self._open = ExitStack()
        self._has_state_store = gives(STATE_STORE)

    def __enter__(self) -> Demonstration:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()
        self._bank.close()

    def run(self, part: Part, limit: float) -> Outcome:
        """Run a part to its end.

        :param limit: Seconds; what has not ended then is stuck.
        """
        self._provide(len(part.folders))
        began = time.monotonic()
        self._bank.behave(hostile=part.killed)
        sites = [Site(stack, part) for stack in self._stacks[: len(part.folders)]]
        for site, folder, connection in zip(sites, part.folders, part.connections, strict=False):
            # Airflow before 3.3 has no state store for a salt: there a namespace tells the installations apart.
            site.start(self._uri(folder), connection if part.lands or self._has_state_store else NAMED)
        self._wait(sites, began + limit)
        instances = [site.instances() for site in sites]
        landed = {folder: complete_files(self._images / folder) for folder in part.folders if folder}
        return outcome_of(
            part,
            self._bank.image_tasks(),
            sum(map(len, landed.values())),
            [
                [result for one in found if (result := site.result(one)) is not None]
                for site, found in zip(sites, instances, strict=True)
            ],
            failed=[
                site.failure(one)
                for site, found in zip(sites, instances, strict=True)
                for one in found
                if one["state"] == "failed"
            ],
            stuck=[_label(one) for found in instances for one in found if one["state"] not in FINISHED],
            kills=sum(len(site.killed) for site in sites),
            seconds=time.monotonic() - began,
        )

    def _wait(self, sites: list[Site], deadline: float) -> None:
        asked = 0.0
        while time.monotonic() < deadline:
            for site in sites:
                site.stack.processes.check()
                if site.part.killed and time.monotonic() < deadline:
                    for prompt in site.kill_around_posts(self._bank.pending()):
                        self._say(f"killed {prompt!r} in {site.stack.home.name}")
            if time.monotonic() > asked + 3:
                asked = time.monotonic()
                for site in sites:
                    if site.part.dag_id == "overlap_scheduled":
                        site.add_scheduled()
                if all(site.ended() for site in sites):
                    return
            time.sleep(0.2 if sites[0].part.killed else 1.0)

    def _provide(self, count: int) -> None:
        """Start installations until there are so many."""
        while len(self._stacks) < count:
            name = f"installation-{len(self._stacks) + 1}"
            self._say(f"starting {name}")
            env = {
                **self._bank.environment(name),
                "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",  # no DAG here buys unasked but while it is unpaused
                "OVERLAP_DESTINATION": self._uri("scheduled"),
            }
            stack = AirflowStack(self._folder / name, [DAGS], env=env, say=self._say)
            self._stacks.append(self._open.enter_context(stack))

    def _uri(self, folder: str) -> str:
        return (self._images / folder).as_uri()
