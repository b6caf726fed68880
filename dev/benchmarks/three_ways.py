"""1,000 images three ways on a real Airflow with 8 worker slots: Generate, mapped pipelines, submit and sleep."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from demo.rest import FINISHED
from demo.settings import REPO
from demo.stack import COMPONENTS, AirflowStack
from dev.benchmarks.bench import Bench, Measured
from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.scenarios.generate_ways import Meter, Way

_SLOTS = 8
_IDLE_SECONDS = 30.0
_LONGEST = 1500.0
_DAGS = REPO / "dev" / "benchmarks" / "dags"
_RATES = Rates(submits=5)


@dataclass(frozen=True)
class Size:
    """How many images each way is measured with; those of the ways with a task an image are fewer and scaled up."""

    images: int = 1000
    pipelines: int = 48
    blocking: int = 32


def three_ways(bench: Bench) -> Measured:
    """Measure the three ways one after another in one Airflow, on one account at the default limits."""
    size = Size(8, 2, 2) if bench.quick else Size()
    folder = bench.fresh("generate-vs")
    with account(folder, _RATES, bench.seed) as bank:
        connection = bank.connection_json(submit_rate=_RATES.submits, query_rate=_RATES.queries)
        env = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": connection, "AIRFLOW__CORE__PARALLELISM": str(_SLOTS)}
        with AirflowStack(folder / "airflow", [_DAGS], env=env, say=bench.say) as stack:
            course = _Course(bench, stack)
            ways = {
                "generate": course.run("bench_generate", size.images),
                "pipelines": course.run("bench_pipelines", size.pipelines).scaled(size.images, _SLOTS),
                "blocking": course.run("bench_blocking", size.blocking).scaled(size.images, _SLOTS),
            }
    setting = {**asdict(size), "slots": _SLOTS, **asdict(_RATES)}
    figures = {name: way.as_dict() for name, way in ways.items()}
    baseline = {"blocking": figures.pop("blocking")}
    note = (
        f"reckoned from {size.blocking} images that were made: further ones occupy {_SLOTS} slots without a gap, each "
        "for as long as these did"
    )
    return Measured(setting, figures, baseline, [note])


class _Course:
    """Runs one way after another in a stack that is otherwise idle."""

    def __init__(self, bench: Bench, stack: AirflowStack) -> None:
        self._bench = bench
        self._stack = stack
        self._idle = 0.0
        for dag_id in ("bench_generate", "bench_pipelines", "bench_blocking"):
            stack.api.wait_for_dag(dag_id)
        self.run("bench_generate", 1)  # what Airflow does once only is not measured
        idle = self._meter()
        idle.measure(lambda: time.sleep(_IDLE_SECONDS))
        self._idle = idle.cpu_seconds / idle.seconds
        bench.say(f"generate-vs: an idle Airflow uses {self._idle:.2f} of a core")

    def run(self, dag_id: str, images: int) -> Way:
        """Run a DAG with so many images."""
        meter, found = self._meter(), dict[str, Any]()
        with _image_folder() as folder:
            meter.measure(lambda: found.update(self._finished(dag_id, images, folder)))
            failed = images - sum(path.suffix == ".png" for path in folder.iterdir())
        wall = (datetime.fromisoformat(found["end_date"]) - datetime.fromisoformat(found["start_date"])).total_seconds()
        cpu = max(0.0, meter.cpu_seconds - self._idle * meter.seconds)
        way = Way(images, images, wall, meter.worker_seconds, cpu, failed)
        self._bench.say(
            f"generate-vs: {dag_id}: {found['state']}, {images} images in {wall:.0f} s, "
            f"{way.worker_seconds:.0f} worker-seconds, {cpu:.0f} s of CPU"
        )
        return way

    def _finished(self, dag_id: str, images: int, folder: Path) -> dict[str, Any]:
        api = self._stack.api
        run_id = api.trigger(dag_id, {"count": images, "destination": folder.as_uri()})

        def ended() -> dict[str, Any] | None:
            self._stack.processes.check()
            run = api.run(dag_id, run_id)
            return run if run["state"] in FINISHED else None

        return api.wait_until(ended, f"the end of {dag_id}", _LONGEST)

    def _meter(self) -> Meter:
        pids = {component: self._stack.processes.pid(component) for component in COMPONENTS}
        return Meter(list(pids.values()), pids["scheduler"])


@contextmanager
def _image_folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="generate-vs-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)
