"""The real triggerer process: 300 mapped waits at once on it, and a one-second timer that must stay on time."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from demo.settings import REPO
from demo.stack import AirflowStack
from dev.benchmarks.bench import Bench, Figures, Measured
from dev.benchmarks.emulator import Account, Rates, account
from dev.benchmarks.figures import Spread
from dev.benchmarks.subject import SIDES, Side

#: Nothing completes before it is told to: tasks need minutes to start and to defer.
_RATES = Rates(latency=100_000.0, sigma=0.0)
_LONGEST_ARRIVAL = 900.0
_LONGEST_END = 900.0


@dataclass(frozen=True)
class Size:
    """How much is going on.

    :param calm: Seconds for which all wait, before and again after the triggerer was restarted.
    """

    waits: int = 300
    calm: float = 30.0


def three_hundred(bench: Bench) -> Measured:
    """Measure both sides, each with an Airflow of its own."""
    size = Size(6, 8.0) if bench.quick else Size()
    sides = {side: measure(bench, side, size) for side in SIDES}
    setting = {"waits": size.waits, "calm": size.calm, "query_rate": _RATES.queries}
    return Measured(setting, sides["ours"], sides["baseline"])


def measure(bench: Bench, side: Side, size: Size) -> Figures:
    """Let the tasks defer, wait with all of them, restart the triggerer, which then has all of them at once."""
    name = f"triggerer-{side}"
    folder = bench.fresh(name)
    ticks = folder / "ticks.jsonl"
    with account(folder, _RATES, bench.seed) as bank:
        ids = [image_task_id for image_task_id, _ in bank.buy(size.waits)]
        env = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": bank.connection_json()}
        dags = REPO / "dev" / "benchmarks" / "dags"
        with AirflowStack(folder / "airflow", [dags], env=env, say=lambda line: bench.say(f"{name}: {line}")) as stack:
            run = _Run(bench, name, stack, f"bench_{side}")
            stack.api.wait_for_dag("bench_ticker")
            stack.api.trigger("bench_ticker", {"file": str(ticks)})
            _until(ticks.exists, 120)
            arriving = time.time()
            run.start(ids)
            run.until_deferred(size.waits)
            waiting = time.time()
            time.sleep(size.calm)
            stack.kill("triggerer", signal.SIGTERM)
            restarting = time.time()
            stack.restart("triggerer")
            _until(lambda: bool(late(ticks, restarting, time.time())), 180)
            time.sleep(size.calm)
            end = time.time()
            finished = run.finish(bank) if side == "ours" else {}
    phases = {
        "arriving": late(ticks, arriving, waiting),
        "waiting": late(ticks, waiting, restarting),
        "restarted": late(ticks, restarting, end),
    }
    phases["held"] = phases["waiting"] + phases["restarted"]
    spreads = {phase: Spread.of(found or [0.0]).as_dict() for phase, found in phases.items()}
    held = spreads["held"]
    bench.say(f"{name}: the timer was {held['p99']:.3f} s late (p99), {held['max']:.3f} s at most")
    return {**spreads, **finished, "waits": size.waits, "arrival_seconds": waiting - arriving}


def late(ticks: Path, start: float, end: float) -> list[float]:
    """Return the seconds by which each tick of a span of time (epoch seconds) was late."""
    noted = [json.loads(line) for line in ticks.read_text().splitlines() if line.endswith("}")]
    return [tick["late"] for tick in noted if start <= tick["at"] < end]


class _Run:
    """One run of the DAG of waits."""

    def __init__(self, bench: Bench, name: str, stack: AirflowStack, dag_id: str) -> None:
        self._bench = bench
        self._name = name
        self._stack = stack
        self._dag_id = dag_id
        self._run_id = ""

    def start(self, ids: list[str]) -> None:
        """Start one wait for each image task."""
        self._stack.api.wait_for_dag(self._dag_id)
        self._run_id = self._stack.api.trigger(self._dag_id, {"ids": ids})

    def until_deferred(self, count: int) -> None:
        """Wait until all of them wait."""
        self._until("deferred", count, _LONGEST_ARRIVAL)

    def finish(self, bank: Account) -> Figures:
        """Let the images be done and the tasks come to their end."""
        bank.complete_all()
        state = self._stack.api.wait_for_run(self._dag_id, self._run_id, timeout=_LONGEST_END)
        succeeded = self._count("success") - 1  # the task that listed the ids
        self._bench.say(f"{self._name}: the run ended with {state}, {succeeded} waits succeeded")
        return {"succeeded": succeeded}

    def _until(self, state: str, count: int, timeout: float) -> None:
        deadline, told = time.monotonic() + timeout, 0.0
        while (there := self._count(state)) < count:
            self._stack.processes.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{there} of {count} tasks {state} after {timeout:.0f} s")
            if time.monotonic() > told + 15:
                told = time.monotonic()
                self._bench.say(f"{self._name}: {there} of {count} tasks are {state}")
            time.sleep(2.0)

    def _count(self, state: str) -> int:
        run = f"/dags/{quote(self._dag_id)}/dagRuns/{quote(self._run_id, safe='')}"
        found: dict[str, Any] = self._stack.api.get(f"{run}/taskInstances", state=state, limit=1)
        return int(found["total_entries"])


def _until(look: Any, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Nothing happened for {timeout:.0f} s")
        time.sleep(0.5)
