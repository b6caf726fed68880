"""The killing: kill -9 of processes and connections at random moments, and their return after a short pause."""

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
from tests.chaos.emulator import Bank
from tests.chaos.installation import Site
from tests.chaos.process_tree import Victim


@dataclass(frozen=True)
class Kill:
    """One kill; ``at`` is epoch seconds."""

    at: float
    kind: str
    what: str


@dataclass
class Hunter:
    """Kill as the campaign says, restart what was killed, and go on watching until told.

    :param name_of: Gives the task's name for the id of a task instance, ``buyer_of`` the prompt it buys.
    :param progress: Tells how much is done, 0 to 1.
    """

    site: Site
    bank: Bank
    campaign: Campaign
    rng: random.Random
    say: Say
    name_of: Callable[[str], str]
    buyer_of: Callable[[str], str]
    progress: Callable[[], float]
    kills: list[Kill] = field(default_factory=list)
    revived: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hunter")
        self._told = threading.Event()
        self._back: dict[str, float] = {}
        self._graves: dict[int, float] = {}
        self._deck = deck(self.rng, self.campaign.kills, self._kinds())
        self._strikes: dict[str, Callable[[], str | None]] = {
            "task": self._strike_task,
            "supervisor": self._strike_supervisor,
            "triggerer": self._strike_triggerer,
            "scheduler": lambda: self._strike_process("scheduler"),
            "api-server": lambda: self._strike_process("api-server", whole=True),
            "celery-worker": lambda: self._strike_process(self.rng.choice(self.site.celery_workers)),
            "bank-connection": lambda: self.bank.arm(self.rng),
            "database-connections": self._strike_database,
        }

    def _kinds(self) -> dict[str, int]:
        absent = {"celery-worker"} if not self.site.celery_workers else set()
        absent |= {"database-connections"} if self.site.cluster is None else set()
        return {kind: weight for kind, weight in self.campaign.mix.items() if kind not in absent}

    def start(self) -> None:
        """Hunt in a thread of its own until :meth:`finish`."""
        self._hunting = self._thread.submit(self._hunt)

    @property
    def failed(self) -> bool:
        """Whether the hunt ended before it was told to; :meth:`finish` raises why."""
        return self._hunting.done()

    def finish(self) -> None:
        """End the hunt, everything being up again, and raise what went wrong in it."""
        self._told.set()
        self._hunting.result()
        self._thread.shutdown()

    def _hunt(self) -> None:
        due = 0.0
        while not self._told.wait(0.2):
            self._mend()
            if self._deck and time.monotonic() >= due and self._may_strike():
                self._strike()
                due = time.monotonic() + self.rng.uniform(0.3, 1.7) * self.campaign.pace
        self._graves = dict.fromkeys(self._graves, 0.0)
        self._back = dict.fromkeys(self._back, 0.0)
        self._mend()

    def _may_strike(self) -> bool:
        done = self.progress()
        return done > 0 and len(self.kills) < self.campaign.kills * (done + self.campaign.ahead)

    def _strike(self) -> None:
        kind = self._deck.pop()
        what = self._strikes[kind]()
        if what is None:  # there is nobody to kill right now
            self._deck.insert(self.rng.randrange(len(self._deck) + 1), kind)
            return
        self.kills.append(Kill(time.time(), kind, what))
        self.say(f"kill {len(self.kills)}: {kind} {what}")

    # --- what is killed ---------------------------------------------------------------------------------------

    def _strike_task(self) -> str | None:
        victim = self._choose()
        return self._describe(victim) if victim and process_tree.kill(victim.task) else None

    def _strike_supervisor(self) -> str | None:
        victim = self._choose()
        if victim is None or not victim.task.is_running() or not process_tree.kill(victim.supervisor):
            return None
        alone = self.rng.random() < 0.5
        if not alone:
            process_tree.kill(victim.task)
        return f"{self._describe(victim)}, {'its task lives on' if alone else 'and its task'}"

    def _choose(self) -> Victim | None:
        """Choose a running task; as often as we aim, one whose submit the bank is accepting, at a random moment."""
        if self.rng.random() >= self.campaign.aim:
            return self._any(self._tasks())
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            buying = set(self.bank.pending())
            if buying and (chosen := self._any([one for one in self._tasks() if self.buyer_of(one.key) in buying])):
                time.sleep(self.rng.uniform(0, self.campaign.temper.commit_delay + 0.5))
                return chosen
            time.sleep(0.05)
        return None

    def _any(self, found: list[Victim]) -> Victim | None:
        return self.rng.choice(found) if found else None

    def _tasks(self) -> list[Victim]:
        up = set(self.site.processes.names())
        return process_tree.running_tasks(self.site.processes.pid(host) for host in self.site.task_hosts if host in up)

    def _describe(self, victim: Victim) -> str:
        return self.name_of(victim.key) or "a task"

    def _strike_triggerer(self) -> str | None:
        name = self.rng.choice(self.site.triggerers)
        if name not in self._up():
            return None
        if self.rng.random() < 0.2:  # the process that runs the triggers, whose supervisor lives on
            children = psutil.Process(self.site.processes.pid(name)).children()
            return f"{name}'s runner" if children and process_tree.kill(children[0]) else None
        return self._strike_process(name, whole=True)

    def _strike_process(self, name: str, whole: bool | None = None) -> str | None:
        if name not in self._up():
            return None
        whole = self.rng.random() < 0.5 if whole is None else whole
        if whole:
            self.site.processes.kill(name)
        else:
            self._graves[self.site.processes.kill_leader(name)] = time.monotonic() + self.rng.uniform(5, 40)
        self._back[name] = time.monotonic() + self.rng.uniform(0.2, 8)
        return name if whole else f"{name} alone, its tasks live on"

    def _strike_database(self) -> str | None:
        assert self.site.cluster is not None
        try:
            cut = self.site.cluster.cut(self.rng, self.rng.choice((0.1, 0.3, 1.0)))
        except CalledProcessError as error:
            raise RuntimeError(f"psql: {error.stderr}") from error
        return f"{cut} connections" if cut else None

    # --- what comes back --------------------------------------------------------------------------------------

    def _up(self) -> set[str]:
        return set(self.site.processes.names()) - set(self.site.processes.ended())

    def _mend(self) -> None:
        now = time.monotonic()
        for session in [session for session, at in self._graves.items() if now >= at]:
            self.site.processes.end_orphans(session)
            del self._graves[session]
        for name in self.site.processes.ended():
            if name not in self.site.airflow:
                raise ProcessDied(f"{name} ended on its own\n{self.site.processes.tail(name)}")
            self.say(f"{name} ended on its own; it is started again")
            self.revived[name] += 1
            self.site.processes.kill(name)
            self._back[name] = now + 1
        for name in [name for name, at in self._back.items() if now >= at]:
            del self._back[name]
            self.site.processes.restart(name)


def deck(rng: random.Random, count: int, kinds: dict[str, int]) -> list[str]:
    """Give ``count`` kinds in random order, each as often as its weight says, at least once where there is room."""
    total = sum(kinds.values())
    cards = [kind for kind, weight in kinds.items() for _ in range(max(1, round(count * weight / total)))]
    rng.shuffle(cards)
    while len(cards) < count:
        cards.append(rng.choice(list(kinds)))
    return cards[:count]
