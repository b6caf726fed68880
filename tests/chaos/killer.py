"""Killer: SIGKILL for processes and cut connections at random moments, and a restart after a short pause.

One thread draws kinds of kills from a shuffled list, so that a seed repeats who is killed and how; when is up to the
machine. What the campaign killed is started again; a process that nobody killed and that may not end is an error.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from subprocess import CalledProcessError

import psutil

from dev.stack.airflow_stack import Say
from dev.stack.processes import ProcessDied
from tests.chaos import process_tree
from tests.chaos.campaigns import Campaign
from tests.chaos.emulator import ChaosEmulator
from tests.chaos.installation import Installation
from tests.chaos.process_tree import RunningTask


@dataclass(frozen=True)
class Kill:
    """One kill; ``at`` is epoch seconds."""

    at: float
    kind: str
    what: str


@dataclass
class Killer:
    """Kill what the campaign lists, restart it, and go on restarting until :meth:`finish`.

    :param name_of: Gives the name of a task instance by its id; ``prompts_of`` gives the prompts it asks for.
    :param progress: Gives the share of the campaign that is done, 0 to 1.
    """

    installation: Installation
    emulator: ChaosEmulator
    campaign: Campaign
    rng: random.Random
    say: Say
    name_of: Callable[[str], str]
    prompts_of: Callable[[str], frozenset[str]]
    progress: Callable[[], float]
    kills: list[Kill] = field(default_factory=list)
    restarted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="killer")
        self._stop = threading.Event()
        self._restart_at: dict[str, float] = {}
        self._orphans_until: dict[int, float] = {}
        self._pending = shuffled_kinds(self.rng, self.campaign.kills, self._kinds())
        self._kill_by_kind: dict[str, Callable[[], str | None]] = {
            "task": self._kill_task,
            "supervisor": self._kill_supervisor,
            "triggerer": self._kill_triggerer,
            "scheduler": lambda: self._kill_process("scheduler"),
            "api-server": lambda: self._kill_process("api-server", whole=True),
            "celery-worker": lambda: self._kill_process(self.rng.choice(self.installation.celery_workers)),
            "service-connection": lambda: self.emulator.drop_a_connection(self.rng),
            "database-connections": self._kill_database,
        }

    def _kinds(self) -> dict[str, int]:
        absent = {"celery-worker"} if not self.installation.celery_workers else set()
        absent |= {"database-connections"} if self.installation.postgres is None else set()
        return {kind: weight for kind, weight in self.campaign.mix.items() if kind not in absent}

    def start(self) -> None:
        """Start killing in a thread of its own; :meth:`finish` ends it."""
        self._future = self._thread.submit(self._run)

    @property
    def failed(self) -> bool:
        """Whether the thread ended before :meth:`finish`, which raises the reason."""
        return self._future.done()

    def finish(self) -> None:
        """Stop killing, restart every process that is down, and raise what went wrong in the thread."""
        self._stop.set()
        self._future.result()
        self._thread.shutdown()

    def _run(self) -> None:
        due = 0.0
        while not self._stop.wait(0.2):
            self._restart_due()
            if self._pending and time.monotonic() >= due and self._is_due():
                self._kill_one()
                due = time.monotonic() + self.rng.uniform(0.3, 1.7) * self.campaign.pace
        self._orphans_until = dict.fromkeys(self._orphans_until, 0.0)
        self._restart_at = dict.fromkeys(self._restart_at, 0.0)
        self._restart_due()

    def _is_due(self) -> bool:
        done = self.progress()
        return done > 0 and len(self.kills) < self.campaign.kills * (done + self.campaign.ahead)

    def _kill_one(self) -> None:
        kind = self._pending.pop()
        what = self._kill_by_kind[kind]()
        if what is None:  # nothing of this kind runs right now
            self._pending.insert(self.rng.randrange(len(self._pending) + 1), kind)
            return
        self.kills.append(Kill(time.time(), kind, what))
        self.say(f"kill {len(self.kills)}: {kind} {what}")

    # --- what is killed ---------------------------------------------------------------------------------------

    def _kill_task(self) -> str | None:
        running = self._choose()
        return self._describe(running) if running and process_tree.kill(running.task) else None

    def _kill_supervisor(self) -> str | None:
        running = self._choose()
        if running is None or not running.task.is_running() or not process_tree.kill(running.supervisor):
            return None
        alone = self.rng.random() < 0.5
        if not alone:
            process_tree.kill(running.task)
        return f"{self._describe(running)}, {'its task lives on' if alone else 'and its task'}"

    def _choose(self) -> RunningTask | None:
        """Choose a running task.

        With the probability ``campaign.aim`` it is one whose submit the emulator is accepting at a random moment.
        """
        if self.rng.random() >= self.campaign.aim:
            return self._any(self._tasks())
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            buying = set(self.emulator.pending())
            if buying and (
                chosen := self._any([one for one in self._tasks() if self.prompts_of(one.task_instance_id) & buying])
            ):
                time.sleep(self.rng.uniform(0, self.campaign.hostility.commit_delay + 0.5))
                return chosen
            time.sleep(0.05)
        return None

    def _any(self, found: list[RunningTask]) -> RunningTask | None:
        return self.rng.choice(found) if found else None

    def _tasks(self) -> list[RunningTask]:
        up = set(self.installation.processes.names())
        return process_tree.running_tasks(
            self.installation.processes.pid(host) for host in self.installation.task_hosts if host in up
        )

    def _describe(self, running: RunningTask) -> str:
        return self.name_of(running.task_instance_id) or "a task"

    def _kill_triggerer(self) -> str | None:
        name = self.rng.choice(self.installation.triggerers)
        if name not in self._up():
            return None
        if self.rng.random() < 0.2:  # the process that runs the triggers, whose supervisor lives on
            children = psutil.Process(self.installation.processes.pid(name)).children()
            return f"{name}'s runner" if children and process_tree.kill(children[0]) else None
        return self._kill_process(name, whole=True)

    def _kill_process(self, name: str, whole: bool | None = None) -> str | None:
        if name not in self._up():
            return None
        whole = self.rng.random() < 0.5 if whole is None else whole
        if whole:
            self.installation.processes.kill(name)
        else:
            self._orphans_until[self.installation.processes.kill_leader(name)] = time.monotonic() + self.rng.uniform(
                5, 40
            )
        self._restart_at[name] = time.monotonic() + self.rng.uniform(0.2, 8)
        return name if whole else f"{name} alone, its tasks live on"

    def _kill_database(self) -> str | None:
        assert self.installation.postgres is not None
        try:
            cut = self.installation.postgres.cut_connections(self.rng, self.rng.choice((0.1, 0.3, 1.0)))
        except CalledProcessError as error:
            raise RuntimeError(f"psql: {error.stderr}") from error
        return f"{cut} connections" if cut else None

    # --- what comes back --------------------------------------------------------------------------------------

    def _up(self) -> set[str]:
        return set(self.installation.processes.names()) - set(self.installation.processes.ended())

    def _restart_due(self) -> None:
        now = time.monotonic()
        for session in [session for session, at in self._orphans_until.items() if now >= at]:
            self.installation.processes.end_orphans(session)
            del self._orphans_until[session]
        for name in self.installation.processes.ended():
            if name not in self.installation.airflow:
                raise ProcessDied(f"{name} ended on its own\n{self.installation.processes.tail(name)}")
            self.say(f"{name} ended on its own; it is started again")
            self.restarted[name] += 1
            self.installation.processes.kill(name)
            self._restart_at[name] = now + 1
        for name in [name for name, at in self._restart_at.items() if now >= at]:
            del self._restart_at[name]
            self.installation.processes.restart(name)


def shuffled_kinds(rng: random.Random, count: int, kinds: dict[str, int]) -> list[str]:
    """Return ``count`` kinds in random order, each in proportion to its weight, at least once where there is room."""
    total = sum(kinds.values())
    kinds_drawn = [kind for kind, weight in kinds.items() for _ in range(max(1, round(count * weight / total)))]
    rng.shuffle(kinds_drawn)
    while len(kinds_drawn) < count:
        kinds_drawn.append(rng.choice(list(kinds)))
    return kinds_drawn[:count]
