"""One stretch of a Generate task in a process of its own, as Airflow's workers run it: execute, or resume.

``python -m dev.benchmarks.generate_process STORE``: says who it is, reads one job, answers what came of it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from dev.benchmarks.child import answer, own_stdout
from dev.benchmarks.scenarios.generate_store import FileStore


class TaskInstance:
    """As much of a task instance as the operator touches."""

    dag_id, run_id, task_id, map_index = "bench", "run", "generate", -1

    def __init__(self, try_number: int, max_tries: int) -> None:
        self.try_number = try_number
        self.max_tries = max_tries

    def xcom_push(self, key: str, value: Any) -> None:
        """Forget it: only the result of the last attempt is looked at."""


def stretch(job: dict[str, Any], store: FileStore) -> dict[str, Any]:
    """Run one stretch; return ``state`` (``deferred``, ``success``, ``failed``) and what belongs to it.

    :param job: ``options`` of the operator, ``try_number``, ``retries``, and what to ``resume`` with, if so.
    """
    operator = NanoBananaGenerateOperator(task_id="generate", retries=job["retries"], **job["options"])
    instance = TaskInstance(job["try_number"], job["retries"])
    context: Any = {"ti": instance, "task_instance": instance, "task_state_store": store}
    try:
        if job["resume"] is None:
            result = operator.execute(context)
        else:
            resume = job["resume"]
            result = operator.resume_execution(resume["method"], {"event": resume["event"]}, context)
    except TaskDeferred as deferral:
        path, kwargs = deferral.trigger.serialize()
        return {"state": "deferred", "method": deferral.method_name, "trigger": {"path": path, "kwargs": kwargs}}
    except AirflowException as failure:
        again = not isinstance(failure, AirflowFailException)
        return {"state": "failed", "again": again, "error": str(failure)[:2000]}
    return {"state": "success", "result": result}


def peak_bytes(status: str) -> int:
    """Return the most memory that was ever resident, from the text of ``/proc/self/status`` (Linux only).

    Not ``ru_maxrss``: that counts what the parent held when it forked.

    :raises ValueError: The text does not say.
    """
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmHWM")


def main() -> None:
    """Serve one job."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    tell = partial(answer, own_stdout())
    tell({"ready": True})
    tell({"pid": os.getpid()})
    outcome = stretch(json.loads(sys.stdin.readline()), FileStore(Path(sys.argv[1])))
    used = os.times()
    measured = {"peak_bytes": peak_bytes(Path("/proc/self/status").read_text()), "cpu_seconds": used.user + used.system}
    tell({**outcome, **measured})


if __name__ == "__main__":
    main()
