"""A process under test: workers that submit on one account, as Airflow's do: forked, and each submit with nothing kept.

``python -m dev.benchmarks.submit_process SIDE COUNT SECONDS MACHINES``: ours runs the real submit operator, deferrals
included. Each image task is answered with its id and when it was submitted, each failed task with its error.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from dev.benchmarks import baseline
from dev.benchmarks.child import answering, first_event
from dev.benchmarks.scenario import Figures
from tests.support.task_state_store import MemoryTaskStateStore

#: What Airflow needs to start a task; without it the baseline's workers would do nothing but collect refusals.
_TASK_START = 1.0


def submit_ours(worker: int, number: int) -> str:
    """Run one mapped task of the submit operator with ``retries=0``; what it defers to is waited for here.

    :raises AirflowException: The task failed.
    """
    operator = NanoBananaSubmitOperator(task_id="submit", prompt=f"worker {worker} picture {number}", retries=0)
    instance = SimpleNamespace(
        dag_id="bench", run_id=f"run-{worker}", task_id="submit", map_index=number, try_number=1, max_tries=0
    )
    context: Any = {"ti": instance, "task_instance": instance, "task_state_store": MemoryTaskStateStore()}
    step: Callable[[], Any] = partial(operator.execute, context)
    while True:
        try:
            return str(step())
        except TaskDeferred as deferral:
            event = asyncio.run(first_event(deferral.trigger))
            step = partial(operator.resume_execution, deferral.method_name, {"event": event}, context)


def submit_baseline(worker: int, number: int) -> str:
    """Send one POST, as the usual operator does.

    :raises AirflowException: It was refused: with ``retries=0`` the task has failed.
    """
    with baseline.client() as http:
        return baseline.submit(http, f"worker {worker} picture {number}")


def work(side: str, worker: int, machines: int, until: float, answer: Callable[[Figures], None]) -> None:
    """Submit one image after another until a moment (epoch seconds); what is queued by then is finished."""
    # What processes of one machine share is below its folder for temporary files.
    folder = Path(tempfile.gettempdir()) / f"machine-{worker % machines}"
    folder.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    submit = submit_ours if side == "ours" else submit_baseline
    for number in itertools.count():
        if time.time() >= until:
            return
        began = time.monotonic()
        try:
            answer({"id": submit(worker, number), "at": time.time()})
        except AirflowException as failure:
            answer({"failed": str(failure)[:300]})
        if side == "baseline":
            time.sleep(max(0.0, began + _TASK_START - time.monotonic()))


def main(side: str, count: int, seconds: int, machines: int) -> None:
    """Wait for the word, run the workers, say when all are done."""
    answer = answering()
    sys.stdin.readline()
    until = time.time() + seconds
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(side, number, machines, until, answer)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    answer({"done": True, "died": sum(worker.exitcode != 0 for worker in workers)})


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
