"""A process under test: a worker or a triggerer of one Generate task, as Airflow runs them.

``python -m dev.benchmarks.generate_process worker STORE`` runs one slice (execute or resume) and answers what came of
it; ``... triggerer`` rebuilds each trigger from JSON and answers its first event.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from dev.benchmarks.child import answering, first_event
from tests.support.task_state_store import FileTaskStateStore


def run_slice(job: dict[str, Any], store: FileTaskStateStore) -> dict[str, Any]:
    """Run one slice; return ``state`` (``deferred``, ``success``, ``failed``) and what belongs to it.

    :param job: ``options`` of the operator, ``run_id``, ``try_number``, ``retries``, and what to ``resume`` with, if
        so.
    """
    operator = NanoBananaGenerateOperator(task_id="generate", retries=job["retries"], **job["options"])
    instance = SimpleNamespace(
        dag_id="bench",
        run_id=job["run_id"],
        task_id="generate",
        map_index=-1,
        try_number=job["try_number"],
        max_tries=job["retries"],
        xcom_push=lambda key, value: None,  # only the result of the last attempt is looked at
    )
    context: Any = {"ti": instance, "task_instance": instance, "task_state_store": store}
    try:
        if job["resume"] is None:
            result = operator.execute(context)
        else:
            resume = job["resume"]
            result = operator.resume_execution(resume["method"], {"event": resume["event"]}, context)
    except TaskDeferred as deferral:
        path, kwargs = deferral.trigger.serialize()
        module, _, name = path.rpartition(".")
        return {"state": "deferred", "method": deferral.method_name, "trigger": [module, name, kwargs]}
    except AirflowException as failure:
        return {"state": "failed", "error": str(failure)[:2000]}
    return {"state": "success", "result": result}


class Activity:
    """When this process asked the service, fetched a link, landed an image or wrote its ledger."""

    def __init__(self) -> None:
        #: Beginning and end of each, in monotonic seconds.
        self.spans: list[tuple[float, float]] = []

    def watch(self, owner: type, method: str) -> None:
        """Take note of every call of a method."""
        effect = getattr(owner, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return effect(*args, **kwargs)
            finally:
                self.spans.append((began, time.monotonic()))

        setattr(owner, method, noted)


def idle_seconds(spans: Iterable[tuple[float, float]], until: float | None = None, moment: float = 2.0) -> float:
    """Return the seconds within which nothing went on, in stretches longer than ``moment``, after the first span.

    :param until: When the last stretch ends; None: with the last span.
    """
    idle, busy_until = 0.0, math.inf
    for began, ended in [*sorted(spans), *([] if until is None else [(until, until)])]:
        if began - busy_until > moment:
            idle += began - busy_until
        busy_until = ended if busy_until == math.inf else max(busy_until, ended)
    return idle


def peak_bytes(status: str) -> int:
    """Return the most memory that was ever resident, from the text of ``/proc/self/status`` (Linux only).

    Not ``ru_maxrss``: that counts what the parent held when it forked.

    :raises ValueError: The text does not say.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise ValueError("no VmHWM")
    return int(found[1]) * 1024


def main(role: str, *store: str) -> None:
    """Serve the one job of a worker, or the triggers of a task on one event loop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    answer = answering()
    if role == "worker":
        activity = Activity()
        activity.watch(httpx.HTTPTransport, "handle_request")
        activity.watch(ImageDownloader, "land")
        activity.watch(BatchState, "save")
        outcome = run_slice(json.loads(sys.stdin.readline()), FileTaskStateStore(Path(*store)))
        # A deferral is to come at once; before the end a report is written.
        idle = idle_seconds(activity.spans, time.monotonic() if outcome["state"] == "deferred" else None)
        used = os.times()
        peak = peak_bytes(Path("/proc/self/status").read_text())
        answer({**outcome, "peak_bytes": peak, "cpu_seconds": used.user + used.system, "idle_seconds": idle})
        return
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            module, name, kwargs = json.loads(line)["trigger"]
            trigger = getattr(importlib.import_module(module), name)(**kwargs)
            answer({"event": runner.run(first_event(trigger))})


if __name__ == "__main__":
    main(*sys.argv[1:])
