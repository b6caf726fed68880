"""Real processes of several runs at one destination, stopped and killed around claim and POST: each is paid once.

The scenarios run side by side, since most of their time is waiting; each test looks at one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest

from airflow_provider_nanobanana.emulator import Emulator
from tests.chaos.audit import manifest_sums
from tests.support.campaign import of_campaign

pytestmark = pytest.mark.campaign

REPO = Path(__file__).parents[3]
MODULE = "tests.integration.batch.overlap_process"
#: Seconds after which only a bug can be the reason.
LONG = 180.0
PRICE = 0.025
AT_ONCE = 10
MOST_TRIES = 40


@dataclass
class Program:
    """The program that makes processes; several threads may use it."""

    process: subprocess.Popen[str]
    started: list[int] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    starting: threading.Lock = field(default_factory=threading.Lock)

    def listen(self) -> None:
        """Take note of what the program tells, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            facts = json.loads(line)
            with self.changed:
                if "started" in facts:
                    self.started.append(facts["started"])
                else:
                    self.statuses[facts["ended"]] = facts["status"]
                self.changed.notify_all()

    def start(self, job: Mapping[str, Any]) -> int:
        """Start a process; return its id."""
        assert self.process.stdin is not None
        with self.starting:
            count = len(self.started)
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            self.wait_for(lambda: len(self.started) > count)
            return self.started[-1]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of what the program told."""
        with self.changed:
            assert self.changed.wait_for(condition, LONG), "it takes too long"


@dataclass
class Site:
    """Task instances at one destination, each a process; the pictures have prompts of their own.

    :param folder: Of the destination and the task state stores.
    :param connection: As JSON.
    """

    program: Program
    bank: Emulator
    folder: Path
    connection: str
    pids: list[int] = field(default_factory=list)

    def start(self, run: str, requests: Sequence[str], *, attempt: int = 1, stop: str = "", store: bool = True) -> int:
        """Start an attempt of the task of a run; return its process id.

        :param store: Whether there is a task state store; False is an Airflow before 3.3.
        """
        job = {
            "connection": self.connection,
            "run": run,
            "try": attempt,
            "destination": (self.folder / "images").as_uri(),
            "requests": [self.prompt(request) for request in requests],
            "store": str(self.folder / "stores" / run) if store else None,
            "stop": stop,
            "log": str(self.folder / f"{run}-try-{attempt}.log"),
            "options": {},
        }
        self.pids.append(self.program.start(job))
        return self.pids[-1]

    def prompt(self, request: str) -> str:
        """Return a prompt that no other site has."""
        return f"{request} at {self.folder}"

    def send(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal to a process; return whether it was still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def status(self, pid: int) -> int | None:
        """Return the wait status of a process, None while it runs."""
        return self.program.statuses.get(pid)

    def wait(self, *pids: int) -> list[int]:
        """Wait for the end of processes; return their wait statuses."""
        self.program.wait_for(lambda: all(pid in self.program.statuses for pid in pids))
        return [self.program.statuses[pid] for pid in pids]

    def stops(self, pid: int) -> bool:
        """Wait until a process has stopped itself; return False where it ended without."""
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            if self.status(pid) is not None:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    return True
            time.sleep(0.02)
        raise AssertionError("it neither stopped nor ended")

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.pids:
            if self.status(pid) is None:
                self.send(pid, signal.SIGKILL)
        self.wait(*self.pids)

    def work_off(
        self,
        wanted: Mapping[str, Sequence[str]],
        *,
        first_tries: Mapping[str, int] | None = None,
        store: bool = True,
        disturb: Callable[[Sequence[int]], None] = lambda pids: time.sleep(0.05),
    ) -> None:
        """Run tasks to their success: whatever ends otherwise is tried again, as Airflow does.

        :param wanted: What each run asks for.
        :param disturb: Called again and again with the processes that run.
        """
        tries = {run: (first_tries or {}).get(run, 1) for run in wanted}
        pids = {run: self.start(run, wanted[run], attempt=tries[run], store=store) for run in wanted}
        while pids:
            disturb(list(pids.values()))
            for run in [run for run, pid in pids.items() if self.status(pid) is not None]:
                if self.status(pids.pop(run)):
                    tries[run] += 1
                    assert tries[run] < MOST_TRIES
                    pids[run] = self.start(run, wanted[run], attempt=tries[run], store=store)

    def outcome(self) -> Outcome:
        """Return what it came to."""
        paid = [task for task in self.bank.ledger()["image_tasks"] if task["prompt"].endswith(str(self.folder))]
        images = self.folder / "images"
        logs = "".join(log.read_text() for log in self.folder.glob("*.log"))
        return Outcome(
            charges=len(paid),
            refunds=sum(task["refunded"] for task in paid),
            files=len(list(images.glob("*.png"))),
            named=sum(task["id"] in logs for task in paid if not task["refunded"]),
            sums=manifest_sums(images),
        )


@dataclass(frozen=True)
class Outcome:
    """What the processes at one destination came to.

    :param named: Image tasks that are paid and that a log names.
    :param sums: What their manifests say of money.
    """

    charges: int
    refunds: int
    files: int
    named: int
    sums: Mapping[str, float]

    @property
    def kept(self) -> int:
        """Image tasks that are paid and not refunded."""
        return self.charges - self.refunds

    @property
    def lost_races(self) -> int:
        """Those of which the runs say that another's picture is in place."""
        return round(self.sums["lost_races"])

    @property
    def said(self) -> int:
        """Image tasks that the runs say they paid."""
        return round(self.sums["paid_usd"] / PRICE)


# --- scenarios --------------------------------------------------------------------------------------------------

STEPS = ("claim", "intent", "post", "book", "land", "manifest")
MOMENTS = ("before", "after")
#: Where a process is stopped: in ``make test`` at some of all places, each time others.
STOPS = random.sample([f"{moment} {step}" for step in STEPS for moment in MOMENTS], of_campaign(4, 12))
#: Between the last look at the clock and the socket: the one place where standing still may buy twice.
WINDOW = "before post"
PICTURES = ("one", "two")
BOTH = {"run-0": PICTURES, "run-1": PICTURES}
MANY = [f"picture {number}" for number in range(6)]


def at_once(site: Site) -> Outcome:
    """Four runs start at the same time."""
    site.work_off({f"run-{number}": MANY for number in range(4)})
    return site.outcome()


def stands_still(site: Site, stop: str, zombie: bool = True) -> Outcome:
    """A process stands still at a step while another run, and its own retry, work to their end; then it goes on.

    :param zombie: Whether it has a retry.
    """
    owner = site.start("run-0", PICTURES, stop=stop)
    assert site.stops(owner), f"there is no step {stop}"
    site.work_off(BOTH if zombie else {"run-1": PICTURES}, first_tries={"run-0": 2})
    site.send(owner, signal.SIGCONT)
    [status] = site.wait(owner)
    assert zombie or status == 0
    return site.outcome()


def killed(site: Site, stop: str, store: bool) -> Outcome:
    """A process is killed at a step; its retry and another run work to their end."""
    owner = site.start("run-0", PICTURES, stop=stop, store=store)
    assert site.stops(owner), f"there is no step {stop}"
    site.send(owner, signal.SIGKILL)
    site.work_off(BOTH, first_tries={"run-0": 2}, store=store)
    return site.outcome()


def killed_at_random(site: Site, seed: int, store: bool) -> Outcome:
    """Four runs buy what is wanted by one or two of each, are killed at random, and are started again."""
    dice = random.Random(seed)
    pictures = [f"picture {number}" for number in range(16)]
    wanted = {f"run-{number}": pictures[3 * number : 3 * number + 7] for number in range(4)}
    for number in range(3):
        match = pictures[5 * number]
        site.bank.fault(on="submit", kind="failed", match=site.prompt(match), times=1)
    kills = 0

    def disturb(pids: Sequence[int]) -> None:
        nonlocal kills
        time.sleep(dice.uniform(0.1, 0.9))
        if kills < KILLS and dice.random() < 0.7:
            kills += site.send(dice.choice(pids), signal.SIGKILL)

    site.work_off(wanted, store=store, disturb=disturb)
    print(f"\nseed {seed}: {kills} kills")
    return site.outcome()


#: Seed, and whether there is a store. Their service shows late, accepts after the sender died, and fails at times.
AT_RANDOM = dict(
    random.sample(
        [("killed at random, store", (11, True)), ("killed at random, no store", (12, False))], of_campaign(1, 2)
    )
)
KILLS = 10

SCENARIOS: dict[str, Callable[[Site], Outcome]] = {
    "at once": at_once,
    **{f"stands still {stop}": partial(stands_still, stop=stop) for stop in sorted({*STOPS, WINDOW})},
    f"stands still {WINDOW}, no retry": partial(stands_still, stop=WINDOW, zombie=False),
    **{
        f"killed {stop}, {'store' if store else 'no store'}": partial(killed, stop=stop, store=store)
        for stop in STOPS
        for store in (True, False)
        if store or stop.split()[1] in ("claim", "post", "land")
    },
    **{name: partial(killed_at_random, seed=seed, store=store) for name, (seed, store) in AT_RANDOM.items()},
}


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        [sys.executable, "-m", MODULE], cwd=REPO, env=environment, stdin=PIPE, stdout=PIPE, text=True
    ) as process:
        program = Program(process)
        listener = threading.Thread(target=program.listen)
        listener.start()
        yield program
        assert process.stdin is not None
        process.stdin.close()
        listener.join()


@pytest.fixture(scope="module")
def outcomes(
    program: Program, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Mapping[str, Future[Outcome]]]:
    """All scenarios that are asked for, side by side; the longest begin first."""
    # A service that never deduplicates; an image takes a second.
    with (
        Emulator(latency=1, sigma=0.3, submit_rate=0, query_rate=0, seed=7) as bank,
        Emulator(latency=1, sigma=0.3, submit_rate=0, query_rate=0, seed=7) as hostile,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        hostile.configure(lookup_spread=0.8, commit_delay=0.4, orphan_share=0.7)

        def run(name: str) -> Outcome:
            account = hostile if name in AT_RANDOM else bank
            connection = account.connection_json(timeout=5, submit_rate=20)
            site = Site(program, account, tmp_path_factory.mktemp("site"), connection)
            try:
                return SCENARIOS[name](site)
            finally:
                site.end()

        names = sorted(chosen(request), key=lambda name: name not in AT_RANDOM)
        yield {name: pool.submit(run, name) for name in names}


def chosen(request: pytest.FixtureRequest) -> list[str]:
    """Return the scenarios that this session tests."""
    items = [one for one in request.session.items if isinstance(one, pytest.Function) and one.path == request.path]
    return [str(item.callspec.params["name"]) for item in items if "name" in item.fixturenames]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in AT_RANDOM])
def test_each_picture_is_paid_once(outcomes: Mapping[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    print(f"\n{name}: {outcome}")
    assert outcome.files == (len(MANY) if name == "at once" else len(PICTURES))
    if name == f"stands still {WINDOW}":
        # What a process buys that a retry has overtaken is in no sum; its log has it.
        assert (outcome.kept, outcome.lost_races) == (len(PICTURES) + 1, 0)
        assert (outcome.said, outcome.named) == (len(PICTURES), outcome.kept)
        return
    assert outcome.kept == outcome.files + outcome.lost_races
    assert outcome.lost_races == (WINDOW in name and "still" in name)
    assert outcome.said == outcome.named == outcome.kept


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", AT_RANDOM)
def test_overlapping_runs_are_killed_at_random_moments(outcomes: Mapping[str, Future[Outcome]], name: str) -> None:
    """Charges less refunds are files."""
    outcome = outcomes[name].result()
    print(f"\n{name}: {outcome}")
    assert outcome.files == 16
    assert outcome.kept == outcome.files + outcome.lost_races
    assert outcome.said == outcome.kept
