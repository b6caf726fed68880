"""Real processes of several runs at one destination, stopped and killed around claim and POST: each is paid once."""

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest

from airflow_provider_nanobanana.emulator import Emulator

REPO = Path(__file__).parents[3]
MODULE = "tests.integration.batch.overlap_process"
#: Seconds after which only a bug can be the reason.
LONG = 120.0


@dataclass
class Processes:
    """Task instances as processes; each may be stopped, continued and killed.

    :ivar folder: Of the destination and the task state stores.
    """

    process: subprocess.Popen[str]
    folder: Path = Path()
    connection: str = ""
    statuses: dict[int, int] = field(default_factory=dict)
    started: list[int] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

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

    def start(
        self, run: str, requests: Sequence[Any], *, attempt: int = 1, stop: str = "", store: bool = True, **options: Any
    ) -> int:
        """Start an attempt of the task of a run; return its process id.

        :param store: Whether there is a task state store; False is an Airflow before 3.3.
        """
        job = {
            "connection": self.connection,
            "run": run,
            "try": attempt,
            "destination": (self.folder / "images").as_uri(),
            "requests": list(requests),
            "store": str(self.folder / "stores" / run) if store else None,
            "stop": stop,
            "options": options,
        }
        assert self.process.stdin is not None
        count = len(self.started)
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        self._wait_for(lambda: len(self.started) > count)
        return self.started[-1]

    def signal(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal to a process; return whether it was still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def ended(self, pid: int) -> bool:
        """Return whether a process has ended."""
        return pid in self.statuses

    def wait(self, *pids: int) -> list[int]:
        """Wait for the end of processes; return their wait statuses."""
        self._wait_for(lambda: all(map(self.ended, pids)))
        return [self.statuses[pid] for pid in pids]

    def wait_stopped(self, pid: int) -> bool:
        """Wait until a process has stopped itself; return False where it ended without."""
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            if self.ended(pid):
                return False
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                return True
            time.sleep(0.02)
        raise AssertionError("it neither stopped nor ended")

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, LONG), "it takes too long"

    @property
    def files(self) -> list[str]:
        """The names of the pictures in place."""
        return sorted(path.name for path in (self.folder / "images").glob("*.png"))

    def sums(self) -> dict[str, float]:
        """Return what the manifests say of money."""
        from tests.chaos.audit import manifest_sums

        return manifest_sums(self.folder / "images")


@pytest.fixture(scope="module")
def one_bank() -> Iterator[Emulator]:
    with Emulator(latency=1, sigma=0.3, submit_rate=0, query_rate=0, seed=7) as emulator:
        yield emulator


@pytest.fixture
def bank(one_bank: Emulator) -> Emulator:
    """A service that never deduplicates; an image takes a second."""
    one_bank.reset()
    return one_bank


@pytest.fixture(scope="module")
def program() -> Iterator[Processes]:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        [sys.executable, "-m", MODULE], cwd=REPO, env=environment, stdin=PIPE, stdout=PIPE, text=True
    ) as process:
        program = Processes(process)
        listener = threading.Thread(target=program.listen)
        listener.start()
        yield program
        assert process.stdin is not None
        process.stdin.close()
        listener.join()


@pytest.fixture
def processes(program: Processes, bank: Emulator, tmp_path: Path) -> Iterator[Processes]:
    """The program that makes processes, with a destination of this test; it has no process left afterwards."""
    program.folder = tmp_path
    program.connection = bank.connection_json(timeout=1, submit_rate=20)
    yield program
    for pid in set(program.started) - set(program.statuses):
        program.signal(pid, signal.SIGKILL)
    program.wait(*program.started)
    program.started.clear()
    program.statuses.clear()


def charges(bank: Emulator) -> int:
    """Return how many image tasks are paid and not refunded."""
    return sum(not task["refunded"] for task in bank.ledger()["image_tasks"])


PICTURES = [f"picture {number}" for number in range(6)]
STEPS = ("claim", "intent", "post", "book", "land", "manifest")
STOPS = [f"{moment} {step}" for step in STEPS for moment in ("before", "after")]


def test_runs_at_once(bank: Emulator, processes: Processes) -> None:
    pids = [processes.start(f"run-{number}", PICTURES) for number in range(4)]
    assert processes.wait(*pids) == [0] * 4
    print(f"\nfour runs, {len(PICTURES)} pictures: {charges(bank)} charges, {len(processes.files)} files")
    assert charges(bank) == len(processes.files) == len(PICTURES)


@pytest.mark.parametrize("other", ["another run", "its retry"])
@pytest.mark.parametrize("stop", STOPS)
def test_an_owner_stands_still_while_another_works(bank: Emulator, processes: Processes, stop: str, other: str) -> None:
    owner = processes.start("run-0", PICTURES[:2], stop=stop)
    assert processes.wait_stopped(owner), f"there is no step {stop}"
    second = processes.start(
        *(("run-1", PICTURES[:2]) if other == "another run" else ("run-0", PICTURES[:2])), attempt=2
    )
    statuses = processes.wait(second)
    processes.signal(owner, signal.SIGCONT)
    statuses += processes.wait(owner)
    sums = processes.sums()
    print(f"\nstopped {stop}, {other}: {charges(bank)} charges, {len(processes.files)} files, {sums}, {statuses}")
    assert statuses[0] == 0
    assert len(processes.files) == 2
    assert charges(bank) - round(sums["lost_races"]) == 2


@pytest.mark.parametrize("store", [True, False], ids=["store", "no-store"])
@pytest.mark.parametrize("stop", STOPS)
def test_an_owner_is_killed_while_another_works(bank: Emulator, processes: Processes, stop: str, store: bool) -> None:
    owner = processes.start("run-0", PICTURES[:2], stop=stop, store=store)
    if not processes.wait_stopped(owner):
        pytest.skip(f"there is no step {stop}")
    other = processes.start("run-1", PICTURES[:2], store=store)
    processes.signal(owner, signal.SIGKILL)
    retry = processes.start("run-0", PICTURES[:2], attempt=2, store=store)
    statuses = processes.wait(other, retry)
    sums = processes.sums()
    print(f"\nkilled {stop}: {charges(bank)} charges, {len(processes.files)} files, {sums}")
    assert statuses == [0, 0]
    assert charges(bank) == len(processes.files) == 2
    assert round(sums["paid_usd"] / 0.025) == 2


@pytest.mark.parametrize("store", [True, False], ids=["store", "no-store"])
def test_overlapping_runs_are_killed_at_random_moments(bank: Emulator, processes: Processes, store: bool) -> None:
    """Late visibility, submits accepted after their sender died, failures: charges less refunds are files."""
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    bank.configure(lookup_spread=0.8, commit_delay=0.4, orphan_share=0.7)
    for number in range(3):
        bank.fault(on="submit", kind="failed", skip=4 * number + 3, times=1)
    pictures = [f"picture {number}" for number in range(16)]
    wanted = {f"run-{number}": pictures[3 * number : 3 * number + 7] for number in range(4)}
    attempts = dict.fromkeys(wanted, 1)
    pids = {run: processes.start(run, requests, store=store) for run, requests in wanted.items()}
    kills = 0
    while pids:
        time.sleep(dice.uniform(0.1, 0.9))
        for run, pid in list(pids.items()):
            if processes.ended(pid):
                del pids[run]
                if processes.statuses[pid]:  # killed, or an error that Airflow retries
                    attempts[run] += 1
                    assert attempts[run] < 40, seed
                    pids[run] = processes.start(run, wanted[run], attempt=attempts[run], store=store)
        if pids and kills < 10 and dice.random() < 0.7:
            kills += processes.signal(pids[dice.choice(list(pids))], signal.SIGKILL)
    ledger = bank.ledger()["image_tasks"]
    refunds = sum(task["refunded"] for task in ledger)
    sums = processes.sums()
    print(
        f"\nseed {seed}: {kills} kills, {len(ledger)} charges, {refunds} refunds, {len(processes.files)} files, {sums}"
    )
    assert len(processes.files) == 16, seed
    assert charges(bank) == 16 + round(sums["lost_races"]), seed
    assert round(sums["paid_usd"] / 0.025) == charges(bank), seed
