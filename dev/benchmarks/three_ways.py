"""The same images three ways on a real Airflow: one Generate task, mapped pipelines, mapped tasks that hold a worker.

- `generate-vs`: Airflow's own processes with 8 worker slots, one account at the default limits, the three ways one
  after another: one Generate task; a mapped task group of submit, wait and download; and a mapped task that submits,
  sleeps 5 s, asks, downloads, and holds its worker meanwhile. Generate makes all 1,000 images. The other two make
  48 and 32, and what 1,000 take is extrapolated: slots and CPU in proportion, and no slot ever free, which favours
  them: a run of all 1,000 pipelines, on 2026-11-22, was stopped after 25 minutes, when the scheduler had let 760
  submits run and no image had landed.
  Worker seconds are those in which a slot holds a task; CPU is that of all of Airflow's processes, less what an idle
  Airflow uses.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.scenario import Bench, Figures, Goal, Measured, Scenario
from dev.stack.airflow_api import FINISHED
from dev.stack.airflow_stack import COMPONENTS, AirflowStack
from dev.stack.processes import REPO, session_members

_SLOTS = 8
_IDLE_SECONDS = 30.0
_LONGEST = 1500.0
_RATES = Rates(submit_rate=5)
_MEMORY = Path("/dev/shm")


def measure(bench: Bench) -> Measured:
    """Measure the three ways one after another in one Airflow."""
    full = {"generate": 1000, "pipelines": 48, "blocking": 32}
    counts = {"generate": 8, "pipelines": 2, "blocking": 2} if bench.quick else full
    images = counts["generate"]
    folder = bench.fresh("generate-vs")
    dags = REPO / "dev" / "benchmarks" / "dags"
    with account(folder, _RATES, bench.seed) as service:
        connection = service.connection_json(submit_rate=_RATES.submit_rate, query_rate=_RATES.query_rate)
        env = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": connection, "AIRFLOW__CORE__PARALLELISM": str(_SLOTS)}
        with AirflowStack(folder / "airflow", [dags], env=env, say=bench.say) as stack:
            for way in counts:
                stack.api.wait_for_dag(f"bench_{way}")
            _run(bench, stack, "generate", 1, 0.0)  # what Airflow does once only is not measured
            with metered(stack) as idle:
                time.sleep(_IDLE_SECONDS)
            idle_cpu = idle.cpu_seconds / idle.seconds
            bench.say(f"generate-vs: an idle Airflow uses {idle_cpu:.2f} of a core")
            ways = {
                way: extrapolated(_run(bench, stack, way, count, idle_cpu), images) for way, count in counts.items()
            }
    baseline = {"blocking": ways.pop("blocking")}
    note = (
        f"extrapolated from {counts['blocking']} images that were made: further ones occupy {_SLOTS} slots without a "
        "gap, each for as long as these did"
    )
    return Measured({**counts, "slots": _SLOTS, **asdict(_RATES)}, ways, baseline, [note])


def _run(bench: Bench, stack: AirflowStack, way: str, images: int, idle_cpu: float) -> Figures:
    """Make so many images one way.

    :param idle_cpu: CPU seconds a second that an idle Airflow uses.
    :return: ``wall_seconds`` of the DAG run, ``worker_seconds`` of occupied slots, ``cpu_seconds`` beyond an idle
        Airflow's, how many ``images`` were made (``measured``), and how many are missing (``failed``).
    """
    dag_id = f"bench_{way}"
    parent = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="generate-vs-", dir=parent) as folder, metered(stack) as used:
        run_id = stack.api.trigger(dag_id, {"count": images, "destination": Path(folder).as_uri()})
        run = stack.api.wait_until(lambda: _ended(stack, dag_id, run_id), f"the end of {dag_id}", _LONGEST)
        landed = sum(path.suffix == ".png" for path in Path(folder).iterdir())
    wall = (datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])).total_seconds()
    cpu = max(0.0, used.cpu_seconds - idle_cpu * used.seconds)
    bench.say(
        f"generate-vs: {dag_id}: {run['state']}, {landed} of {images} images in {wall:.0f} s, "
        f"{used.worker_seconds:.0f} worker-seconds, {cpu:.0f} s of CPU"
    )
    return {
        "images": images,
        "measured": images,
        "wall_seconds": wall,
        "worker_seconds": used.worker_seconds,
        "cpu_seconds": cpu,
        "failed": images - landed,
    }


def _ended(stack: AirflowStack, dag_id: str, run_id: str) -> dict[str, Any] | None:
    stack.processes.check()
    run = stack.api.run(dag_id, run_id)
    return run if run["state"] in FINISHED else None


def extrapolated(way: Figures, images: int) -> Figures:
    """Return what more images would take at least, each costing what it costs.

    Slots and CPU grow in proportion. The wall clock grows by what the further images occupy of all slots: no slot is
    ever free, and no further image waits for its latency, which favours this way.
    """
    factor = images / way["images"]
    further = way["worker_seconds"] * (factor - 1)
    return {
        **way,
        "images": images,
        "wall_seconds": way["wall_seconds"] + further / _SLOTS,
        "worker_seconds": way["worker_seconds"] + further,
        "cpu_seconds": way["cpu_seconds"] * factor,
    }


@dataclass
class Used:
    """What Airflow's processes used.

    :param worker_seconds: For which worker slots were occupied, all together.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    worker_seconds: float = 0.0


@contextmanager
def metered(stack: AirflowStack) -> Iterator[Used]:
    """Measure what the processes of a stack use meanwhile; the result is complete at the end of the block."""
    sessions = [stack.processes.pid(component) for component in COMPONENTS]
    scheduler = psutil.Process(stack.processes.pid("scheduler"))
    used = Used()
    over = threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not over.wait(0.2):
            now = time.monotonic()
            used.worker_seconds += occupied(_titles(scheduler)) * (now - last)
            last = now

    thread = threading.Thread(target=watch)
    began = time.monotonic()
    cpu_before = _cpu_seconds(sessions)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()
    used.cpu_seconds = _cpu_seconds(sessions) - cpu_before
    used.seconds = time.monotonic() - began


def _cpu_seconds(sessions: list[int]) -> float:
    """Return the CPU seconds of all processes, those included that have ended and were waited for."""
    total = 0.0
    for pid in session_members(sessions):
        try:
            total += sum(psutil.Process(pid).cpu_times()[:4])  # user, system, and those of its children
        except psutil.Error:
            continue
    return total


def occupied(titles: Iterable[str]) -> int:
    """Return how many of these processes are worker slots with a task in them, by their titles."""
    return sum("airflow worker -- LocalExecutor" in title and "<idle>" not in title for title in titles)


def _titles(scheduler: psutil.Process) -> Iterator[str]:
    for process in scheduler.children():
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


def _least(figure: str) -> Goal:
    """Return the goal that Generate takes the least of what each way takes."""

    def met(ours: Figures, baseline: Figures) -> bool:
        ways = {**ours, **baseline}
        return bool(min(ways, key=lambda way: ways[way][figure]) == "generate" and not ours["generate"]["failed"])

    return Goal(
        f"1,000 images, 8 worker slots: {figure.replace('_', ' ')}",
        "Generate takes the least",
        lambda of: ", ".join(f"{way} {figures[figure]:,.0f} s" for way, figures in of.items()),
        met,
    )


SCENARIOS = [
    Scenario("generate-vs", measure, [_least(figure) for figure in ("wall_seconds", "worker_seconds", "cpu_seconds")])
]
