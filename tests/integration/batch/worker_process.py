"""Workers for a batch: each line read is a try number, made by a process of its own, to be killed at any moment.

It is forked from this one, which has done the imports; its pid is printed, then its wait status. Arguments:
destination, folder of the store, number of requests.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_nanobanana.batch import submitter
from airflow_provider_nanobanana.durable import claims, reconcile
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.submission import claims as submission_claims
from tests.support.preload import preload
from tests.support.task_runner import TaskInstance
from tests.support.task_state_store import FileTaskStateStore

# This service shows at once what it sold: the waits of an attempt that must find out what was bought are cut short.
reconcile.VISIBLE_AFTER_SECONDS = 0.5  # type: ignore[misc]
reconcile._FIRST_PAUSE = 0.2
for module in (claims, submission_claims, submitter):
    vars(module)["POST_WINDOW"] = 3.0


def work(destination: str, folder: str, count: str, try_number: str) -> None:
    """Run a try to its end; pauses are slept through."""
    ti = TaskInstance(task_id="generate", try_number=int(try_number), max_tries=99)
    context: Any = {"ti": ti, "task_instance": ti, "task_state_store": FileTaskStateStore(Path(folder))}
    operator = NanoBananaGenerateOperator(
        task_id="generate", destination=destination, requests=[f"picture {n}" for n in range(int(count))], retries=99
    )
    step = operator.execute
    while True:
        try:
            step(context)
            return
        except TaskDeferred:
            time.sleep(0.2)
            step = operator.execute_complete


if __name__ == "__main__":
    preload()
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            os.dup2(2, 1)  # where the log goes
            destination, folder, count = sys.argv[1:]
            work(destination, folder, count, line.strip())
            os._exit(0)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)
