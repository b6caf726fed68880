"""run(): one campaign from start to audit: an installation, an emulator, DAG runs that buy images, a killer."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.demo.report import problems
from dev.stack.airflow_api import FINISHED, AirflowApi, ApiError, Record
from dev.stack.airflow_stack import Say
from dev.stack.processes import Processes
from tests.chaos.audit import Audit, audit_of, audit_of_shared, complete_files, manifest_sums, reattached_attempts
from tests.chaos.campaigns import Campaign
from tests.chaos.emulator import ChaosEmulator
from tests.chaos.installation import Installation
from tests.chaos.killer import Kill, Killer


@dataclass(frozen=True)
class Outcome:
    """What a campaign came to.

    :param connections: How many connections to the emulator were cut, by kind of request.
    :param restarted: How often a process ended on its own, as after a cut connection to the database, by its name.
    :param stuck: Task instances that had not ended at the campaign's time limit.
    :param attempts: How many attempts beyond the first there were, by task.
    """

    campaign: Campaign
    seed: int
    seconds: float
    audit: Audit
    kills: Sequence[Kill]
    connections: dict[str, int]
    restarted: dict[str, int]
    stuck: Sequence[str]
    attempts: dict[str, int]


class CampaignRuns:
    """The DAG runs of one campaign as Airflow's REST API shows them; the api-server may be down at any moment."""

    def __init__(self, api: AirflowApi, campaign: Campaign, destination: Path, say: Say) -> None:
        self._api = api
        self._campaign = campaign
        self._destination = destination
        self._say = say
        self._workload = campaign.workload
        sizes = self._workload.sizes()
        self._not_started = {f"{campaign.name}-{number:02d}": size for number, size in enumerate(sizes, 1)}
        self._numbers = {run_id: number for number, run_id in enumerate(self._not_started)}
        self._tasks = sum(sizes)
        self.sizes = dict(self._not_started)
        self.states: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._prompts: dict[str, frozenset[str]] = {}
        self._done: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return not self._not_started and all(state in FINISHED for state in self.states.values())

    def name_of(self, task_instance_id: str) -> str:
        """Return the name of a task instance by its id; empty if it is not known."""
        return self._names.get(task_instance_id, "")

    def prompts_of(self, task_instance_id: str) -> frozenset[str]:
        """Return the prompts that a task instance asks for by its id; empty if it is not known."""
        return self._prompts.get(task_instance_id, frozenset())

    def wanted_by(self, instance: Record) -> frozenset[str]:
        """Return the prompts that a buying task instance asks for."""
        run_id = instance["dag_run_id"]
        return self._workload.wanted_by(self._numbers[run_id], run_id, instance["map_index"])

    def progress(self) -> float:
        """Return the share of the campaign that is done, 0 to 1; a first running task counts a little."""
        return sum(self._done.values()) / self._tasks

    def prompts(self) -> list[str]:
        """Return every prompt of every run, each once."""
        wanted = [
            prompt
            for run_id, size in self.sizes.items()
            for index in range(size)
            for prompt in sorted(self._workload.wanted_by(self._numbers[run_id], run_id, index))
        ]
        return list(dict.fromkeys(wanted))

    def step(self) -> None:
        """Poll the active runs, then start the next one if fewer than ``campaign.overlap`` are active."""
        try:
            self._poll()
            active = sum(state not in FINISHED for state in self.states.values())
            if self._not_started and active < self._campaign.overlap:
                self._start(next(iter(self._not_started)))
        except ApiError as error:
            if error.status is not None and error.status < 500:
                raise

    def _poll(self) -> None:
        dag_id = self._campaign.dag_id
        for run_id in [run_id for run_id, state in self.states.items() if state not in FINISHED]:
            instances = self._api.instances(dag_id, run_id)
            self._names |= {one["id"]: _label(one) for one in instances}
            self._prompts |= {one["id"]: self.wanted_by(one) for one in buying(instances, self._workload.task_id)}
            self._done[run_id] = self._workload.done(instances, self.sizes[run_id])
            self.states[run_id] = str(self._api.run(dag_id, run_id)["state"])
            if self.states[run_id] in FINISHED:
                self._say(f"{run_id}: {self.states[run_id]}")

    def _start(self, run_id: str) -> None:
        conf = self._workload.conf(self._numbers[run_id], self.sizes[run_id], run_id, self._destination)
        try:
            self._api.trigger(self._campaign.dag_id, conf, run_id)
        except ApiError as error:
            if error.status != 409:  # an earlier request had arrived and its response was lost
                raise
        self._say(f"{run_id}: started, {self.sizes[run_id]} tasks that buy")
        self.states[run_id] = "queued"
        del self._not_started[run_id]

    def instances(self) -> list[Record]:
        """Return every task instance of every run that was started."""
        return [one for run_id in self.states for one in self._api.instances(self._campaign.dag_id, run_id)]

    def message(self, instance: Record) -> str:
        """Return the last error in the log of a failed task instance, from the last attempt that logged one."""
        place = (self._campaign.dag_id, instance["dag_run_id"], instance["task_id"], instance["map_index"])
        for number in range(instance["try_number"], 0, -1):
            try:
                entries = self._api.log_entries(*place, number)
            except ApiError:
                continue
            if found := problems(entries):
                return f"(attempt {number}) {found[-1]}"
        return "no log says why"


def buying(instances: Sequence[Record], task_id: str) -> list[Record]:
    """Return the mapped instances of the task that buys; before it is expanded it has one without an index."""
    return [one for one in instances if one["task_id"] == task_id and one["map_index"] >= 0]


def _label(instance: Record) -> str:
    index = f"[{instance['map_index']}]" if instance["map_index"] >= 0 else ""
    return f"{instance['dag_run_id']} {instance['task_id']}{index}"


def run(campaign: Campaign, folder: Path, seed: int, say: Say) -> Outcome:
    """Run a campaign; its logs and images stay in a folder.

    :raises ProcessDied: A process ended that was not killed and is not restarted.
    """
    rng = random.Random(f"{seed} {campaign.name}")
    images = folder / "images"
    images.mkdir(parents=True)
    processes = Processes()
    began = time.monotonic()
    try:
        log = folder / "emulator.log"
        with (
            ChaosEmulator(
                processes, log, campaign.hostility, latency=campaign.latency, seed=rng.getrandbits(32)
            ) as emulator,
            Installation(
                folder / "airflow", campaign.installation, processes, emulator.environment, say
            ) as installation,
        ):
            installation.stack.api.wait_for_dag(campaign.dag_id)
            runs = CampaignRuns(installation.stack.api, campaign, images, say)
            killer = Killer(installation, emulator, campaign, rng, say, runs.name_of, runs.prompts_of, runs.progress)
            _run_to_the_end(runs, killer, campaign.limit)
            say("no more kills")
            installation.stack.wait_healthy(120)
            return _outcome(campaign, seed, began, runs, killer, emulator, folder)
    finally:
        processes.stop()


def _run_to_the_end(runs: CampaignRuns, killer: Killer, limit: float) -> None:
    deadline = time.monotonic() + limit
    killer.start()
    try:
        while not runs.finished and time.monotonic() < deadline and not killer.failed:
            runs.step()
            time.sleep(1)
    finally:
        killer.finish()


def _outcome(
    campaign: Campaign,
    seed: int,
    began: float,
    runs: CampaignRuns,
    killer: Killer,
    emulator: ChaosEmulator,
    folder: Path,
) -> Outcome:
    instances = runs.instances()
    buyers = buying(instances, campaign.workload.task_id)
    failed = {prompt: runs.message(one) for one in buyers if one["state"] == "failed" for prompt in runs.wanted_by(one)}
    files = complete_files(folder / "images")
    if campaign.shared:
        sums = manifest_sums(folder / "images" / "all")
        audit = audit_of_shared(runs.prompts(), emulator.image_tasks(), files, failed, sums)
    else:
        submits = {prompt: one for one in buyers for prompt in runs.wanted_by(one)}
        reattached = reattached_attempts(folder / "airflow" / "logs")
        audit = audit_of(runs.prompts(), emulator.image_tasks(), files, submits, failed, reattached)
    return Outcome(
        campaign=campaign,
        seed=seed,
        seconds=time.monotonic() - began,
        audit=audit,
        kills=list(killer.kills),
        connections=emulator.dropped_connections(),
        restarted=dict(killer.restarted),
        stuck=[f"{_label(one)}: {one['state']}" for one in instances if _is_stuck(one, runs)],
        attempts=_attempts(instances),
    )


def _is_stuck(instance: Record, runs: CampaignRuns) -> bool:
    return runs.states[instance["dag_run_id"]] not in FINISHED and instance["state"] not in ("success", "failed")


def _attempts(instances: Sequence[Record]) -> dict[str, int]:
    """Count the attempts beyond the first, by task."""
    counts: dict[str, int] = {}
    for one in instances:
        counts[one["task_id"]] = counts.get(one["task_id"], 0) + max(0, one["try_number"] - 1)
    return counts
