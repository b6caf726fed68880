"""One campaign: an installation, a hostile bank, runs that buy pictures, and somebody who kills what buys them."""

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
from tests.chaos.audit import Books, reattached_attempts, reckon, sound_files
from tests.chaos.campaigns import Campaign
from tests.chaos.emulator import Bank
from tests.chaos.installation import Site
from tests.chaos.killer import Hunter, Kill

SUBMIT = "submit"


@dataclass(frozen=True)
class Outcome:
    """What a campaign came to.

    :param connections: Cut connections to the bank, by what they were for.
    :param revived: Processes that ended on their own, as after a cut connection to the database.
    :param stuck: Task instances that had not ended at the limit.
    """

    campaign: Campaign
    seed: int
    seconds: float
    books: Books
    kills: Sequence[Kill]
    connections: dict[str, int]
    revived: dict[str, int]
    stuck: Sequence[str]
    attempts: dict[str, int]


class Wave:
    """The runs of one campaign as the API shows them; the api-server may be dead at any moment."""

    def __init__(self, api: AirflowApi, campaign: Campaign, destination: Path, say: Say) -> None:
        self._api = api
        self._campaign = campaign
        self._destination = destination
        self._say = say
        self._coming = {f"{campaign.name}-{number:02d}": size for number, size in enumerate(campaign.sizes(), 1)}
        self.sizes = dict(self._coming)
        self.states: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._prompts: dict[str, str] = {}
        self._done: dict[str, float] = {}

    @property
    def over(self) -> bool:
        """Whether every run has ended."""
        return not self._coming and all(state in FINISHED for state in self.states.values())

    def name_of(self, key: str) -> str:
        """Give the name of a task by the id of its task instance."""
        return self._names.get(key, "")

    def prompt_of(self, key: str) -> str:
        """Give what a task buys by the id of its task instance."""
        return self._prompts.get(key, "")

    def progress(self) -> float:
        """Tell how much is done, 0 to 1; a first task that runs is a little."""
        return sum(self._done.values()) / self._campaign.images

    def prompts(self) -> list[str]:
        """Give every prompt of every run."""
        return [f"{run_id} {index}" for run_id, size in self.sizes.items() for index in range(size)]

    def step(self) -> None:
        """Look at the runs and start the next where there is room."""
        try:
            self._look()
            active = sum(state not in FINISHED for state in self.states.values())
            if self._coming and active < self._campaign.overlap:
                self._start(next(iter(self._coming)))
        except ApiError as error:
            if error.status is not None and error.status < 500:
                raise

    def _look(self) -> None:
        dag_id = self._campaign.dag_id
        for run_id in [run_id for run_id, state in self.states.items() if state not in FINISHED]:
            instances = self._api.instances(dag_id, run_id)
            self._names |= {one["id"]: _label(one) for one in instances}
            self._prompts |= {one["id"]: _prompt(one) for one in instances if one["task_id"] == SUBMIT}
            self._done[run_id] = _done(instances, self.sizes[run_id])
            self.states[run_id] = str(self._api.run(dag_id, run_id)["state"])
            if self.states[run_id] in FINISHED:
                self._say(f"{run_id}: {self.states[run_id]}")

    def _start(self, run_id: str) -> None:
        conf = {"images": self.sizes[run_id], "destination": (self._destination / run_id).as_uri()}
        try:
            self._api.trigger(self._campaign.dag_id, conf, run_id)
        except ApiError as error:
            if error.status != 409:  # an earlier call had come through, its answer had not
                raise
        self._say(f"{run_id}: started, {self.sizes[run_id]} images")
        self.states[run_id] = "queued"
        del self._coming[run_id]

    def instances(self) -> list[Record]:
        """Give every task instance of every run that was started."""
        return [one for run_id in self.states for one in self._api.instances(self._campaign.dag_id, run_id)]

    def message(self, submit: Record) -> str:
        """Give what the log of a failed submit says, its last attempt with a complaint first."""
        run_id, index = submit["dag_run_id"], submit["map_index"]
        for number in range(submit["try_number"], 0, -1):
            try:
                entries = self._api.log_entries(self._campaign.dag_id, run_id, SUBMIT, index, number)
            except ApiError:
                continue
            if found := problems(entries):
                return f"(attempt {number}) {found[-1]}"
        return "no log says why"


def _done(instances: Sequence[Record], size: int) -> float:
    """Tell how much of a run is done, in images: most of it is submitting, the rest waiting and landing."""
    ended = [one["task_id"] for one in instances if one["state"] in FINISHED]
    begun = any(one["task_id"] == SUBMIT and one["state"] == "running" for one in instances)
    return (
        0.7 * ended.count(SUBMIT) + size * (0.15 * ended.count("wait") + 0.15 * ended.count("download")) + 0.01 * begun
    )


def _prompt(instance: Record) -> str:
    return f"{instance['dag_run_id']} {instance['map_index']}"


def _label(instance: Record) -> str:
    index = f"[{instance['map_index']}]" if instance["map_index"] >= 0 else ""
    return f"{instance['dag_run_id']} {instance['task_id']}{index}"


def run(campaign: Campaign, folder: Path, seed: int, say: Say) -> Outcome:
    """Run a campaign in a folder that holds all of it afterwards.

    :raises ProcessDied: Something died that nobody killed and that is not restarted.
    """
    rng = random.Random(f"{seed} {campaign.name}")
    images = folder / "images"
    images.mkdir(parents=True)
    processes = Processes()
    began = time.monotonic()
    try:
        log = folder / "emulator.log"
        with (
            Bank(processes, log, campaign.temper, latency=campaign.latency, seed=rng.getrandbits(32)) as bank,
            Site(folder / "airflow", campaign.plan, processes, bank.environment, say) as site,
        ):
            site.stack.api.wait_for_dag(campaign.dag_id)
            wave = Wave(site.stack.api, campaign, images, say)
            hunter = Hunter(site, bank, campaign, rng, say, wave.name_of, wave.prompt_of, wave.progress)
            _endure(wave, hunter, campaign.limit)
            say("the hunt is over")
            site.stack.wait_healthy(120)
            return _outcome(campaign, seed, began, wave, hunter, bank, folder)
    finally:
        processes.stop()


def _endure(wave: Wave, hunter: Hunter, limit: float) -> None:
    deadline = time.monotonic() + limit
    hunter.start()
    try:
        while not wave.over and time.monotonic() < deadline and not hunter.failed:
            wave.step()
            time.sleep(1)
    finally:
        hunter.finish()


def _outcome(
    campaign: Campaign, seed: int, began: float, wave: Wave, hunter: Hunter, bank: Bank, folder: Path
) -> Outcome:
    instances = wave.instances()
    submits = {_prompt(one): one for one in instances if one["task_id"] == SUBMIT}
    failed = {prompt: wave.message(one) for prompt, one in submits.items() if one["state"] == "failed"}
    books = reckon(
        wave.prompts(),
        bank.image_tasks(),
        sound_files(folder / "images"),
        submits,
        failed,
        reattached_attempts(folder / "airflow" / "logs"),
    )
    return Outcome(
        campaign=campaign,
        seed=seed,
        seconds=time.monotonic() - began,
        books=books,
        kills=list(hunter.kills),
        connections=bank.struck(),
        revived=dict(hunter.revived),
        stuck=[f"{_label(one)}: {one['state']}" for one in instances if _hangs(one, wave)],
        attempts=_attempts(instances),
    )


def _hangs(instance: Record, wave: Wave) -> bool:
    return wave.states[instance["dag_run_id"]] not in FINISHED and instance["state"] not in ("success", "failed")


def _attempts(instances: Sequence[Record]) -> dict[str, int]:
    """Count the attempts beyond the first, by task."""
    again: dict[str, int] = {}
    for one in instances:
        again[one["task_id"]] = again.get(one["task_id"], 0) + max(0, one["try_number"] - 1)
    return again
