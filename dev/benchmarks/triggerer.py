"""The real triggerer process: hundreds of mapped waits on it, and a one-second timer that must stay on time.

- `triggerer`: Airflow's own processes. 300 mapped sensors defer, wait, and are all started again by a restarted
  triggerer, the extreme case of "at once"; a timer beside them wakes every second and notes how late it is. The
  verdict is on the seconds in which all 300 wait, before and after the restart.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.scenario import SIDES, Bench, Figures, Goal, Measured, Scenario, Side, p99_and_max, spread
from dev.stack.airflow_stack import AirflowStack
from dev.stack.processes import REPO

#: Nothing completes before it is told to: tasks need minutes to start and to defer.
_RATES = Rates(latency=100_000.0, sigma=0.0)
_LONGEST = 900.0
#: Airflow warns from here on that its loop was blocked (``triggerer.blocked_main_thread_warning_threshold``).
_BLOCKED = 0.2


def measure(bench: Bench) -> Measured:
    """Measure both sides, each with an Airflow of its own."""
    waits = 6 if bench.quick else 300
    calm = 8.0 if bench.quick else 30.0
    ours, baseline = (_measure_side(bench, side, waits, calm) for side in SIDES)
    return Measured({"waits": waits, "calm": calm, "query_rate": _RATES.query_rate}, ours, baseline)


def _measure_side(bench: Bench, side: Side, waits: int, calm: float) -> Figures:
    """Let the tasks defer, wait with all of them, restart the triggerer, which then has all of them at once.

    :param calm: Seconds for which all wait, before and again after the restart.
    """
    name = f"triggerer-{side}"
    folder = bench.fresh(name)
    ticks = folder / "ticks.jsonl"
    dags = REPO / "dev" / "benchmarks" / "dags"
    with account(folder, _RATES, bench.seed) as service:
        ids = [image_task_id for image_task_id, _ in service.submit(waits)]
        env = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": service.connection_json()}
        with AirflowStack(folder / "airflow", [dags], env=env, say=lambda line: bench.say(f"{name}: {line}")) as stack:
            api = stack.api
            dag_id = f"bench_{side}"
            api.wait_for_dag("bench_ticker")
            api.wait_for_dag(dag_id)
            api.trigger("bench_ticker", {"file": str(ticks)})
            api.wait_until(lambda: ticks.exists() or None, "the first tick", 120)
            arriving = time.time()
            run_id = api.trigger(dag_id, {"ids": ids})
            api.wait_until(lambda: _count(stack, dag_id, run_id, "deferred") >= waits or None, "all waits", _LONGEST)
            waiting = time.time()
            bench.say(f"{name}: all {waits} wait, after {waiting - arriving:.0f} s")
            time.sleep(calm)
            stack.kill("triggerer", signal.SIGTERM)
            restarting = time.time()
            stack.restart("triggerer")
            api.wait_until(lambda: late(ticks, restarting, time.time()) or None, "a tick after the restart", 180)
            time.sleep(calm)
            end = time.time()
            succeeded = None
            if side == "ours":
                service.complete_all()
                api.wait_for_run(dag_id, run_id, timeout=_LONGEST)
                succeeded = _count(stack, dag_id, run_id, "success") - 1  # the task that listed the ids
                bench.say(f"{name}: {succeeded} waits succeeded")
    phases = {
        "arriving": late(ticks, arriving, waiting),
        "waiting": late(ticks, waiting, restarting),
        "restarted": late(ticks, restarting, end),
    }
    phases["held"] = phases["waiting"] + phases["restarted"]
    spreads = {phase: spread(found or [0.0]) for phase, found in phases.items()}
    bench.say(f"{name}: the timer was {p99_and_max(spreads['held'])} late, p99")
    return {**spreads, "succeeded": succeeded, "waits": waits, "arrival_seconds": waiting - arriving}


def _count(stack: AirflowStack, dag_id: str, run_id: str, state: Literal["deferred", "success"]) -> int:
    """Return how many task instances of a run are in a state."""
    stack.processes.check()
    run = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"
    return int(stack.api.get(f"{run}/taskInstances", state=state, limit=1)["total_entries"])


def late(ticks: Path, start: float, end: float) -> list[float]:
    """Return the seconds by which each tick of a span of time (epoch seconds) was late."""
    found = [json.loads(line) for line in ticks.read_text().splitlines() if line.endswith("}")]
    return [tick["late"] for tick in found if start <= tick["at"] < end]


SCENARIOS = [
    Scenario(
        "triggerer",
        measure,
        [
            Goal(
                "real triggerer, 300 mapped waits: lateness of a 1 s timer, p99",
                "< 200 ms, all waits succeed",
                lambda of: f"{p99_and_max(of['waiting'])}; all starting at once: {p99_and_max(of['restarted'])}",
                lambda ours, _: ours["held"]["p99"] < _BLOCKED and ours["succeeded"] == ours["waits"],
            )
        ],
    )
]
