"""Task instances of many runs at one destination: each line read is a job, made by a process of its own.

The processes are forked from this one, which has done the imports, so that they may be stopped and killed at any
moment. A job is JSON: ``connection``, ``run``, ``try``, ``destination``, ``requests``, ``options`` of the operator,
``store`` (folder of the task state store, null before Airflow 3.3), ``log`` (file) and ``stop``, the step at which the
process stops itself with SIGSTOP, such as ``before post``. Each line printed is JSON: ``started`` (pid), or ``ended``
(pid) with its wait ``status``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_nanobanana.batch import submitter
from airflow_provider_nanobanana.durable import claims as durable_claims
from airflow_provider_nanobanana.durable import reconcile
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.submission import claims
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import ToApisClient
from tests.support.preload import preload
from tests.support.task_runner import TaskInstance
from tests.support.task_state_store import FileTaskStateStore

#: Between two resumptions of a deferred task; a resumption that comes early finds that out itself.
_PAUSE = 0.5
#: Where a process may be stopped: class, method, and the name of the step.
STEPS: dict[str, tuple[Any, str]] = {
    "claim": (LocalStorage, "create"),
    "intent": (FileTaskStateStore, "set"),
    "post": (ToApisClient, "_exchange"),
    "book": (LocalStorage, "write"),
    "land": (ImageDownloader, "land"),
    "manifest": (ImageStore, "write_manifest"),
}


def shorten_waits() -> None:
    """Cut the waits of an attempt that must find out what was bought: this service shows soon what it sold."""
    reconcile.VISIBLE_AFTER_SECONDS = 0.5  # type: ignore[misc]
    reconcile._FIRST_PAUSE = 0.5
    for module in (durable_claims, claims, submitter):
        vars(module)["POST_WINDOW"] = 3.0


def stop_at(moment: str, step: str) -> None:
    """Stop this process once, before or after the first time it takes a step."""
    owner, method = STEPS[step]
    effect: Callable[..., Any] = getattr(owner, method)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            # To this thread: sent to the process it goes to any thread, and this one may run on for a while.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if step == "post" and args[1].kind is not CallKind.SUBMIT:
            return effect(*args, **kwargs)
        if moment == "before":
            stop()
        try:
            return effect(*args, **kwargs)
        finally:
            if moment == "after":
                stop()

    setattr(owner, method, stopping)


def work(job: dict[str, Any]) -> None:
    """Run one attempt of one task instance to its end; pauses are slept through."""
    os.environ["AIRFLOW_CONN_NANOBANANA_DEFAULT"] = job["connection"]
    if job["stop"]:
        stop_at(*job["stop"].split())
    ti = TaskInstance(run_id=job["run"], task_id="generate", try_number=job["try"], max_tries=99)
    context: Any = {"ti": ti, "task_instance": ti}
    if job["store"] is not None:
        context["task_state_store"] = FileTaskStateStore(Path(job["store"]))
    options = {"destination": job["destination"], "requests": job["requests"], "retries": 99, **job["options"]}
    operator = NanoBananaGenerateOperator(task_id="generate", **options)
    step = operator.execute
    while True:
        try:
            step(context)
            return
        except TaskDeferred:
            time.sleep(_PAUSE)
            step = operator.execute_complete


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Start a process a line, and tell which have ended, until the input closes and all have."""
    running: set[int] = set()
    open_input = True
    while open_input or running:
        if open_input and select.select([sys.stdin], [], [], 0.02)[0]:
            line = sys.stdin.readline()
            if not line:
                open_input = False
                continue
            if (pid := os.fork()) == 0:
                job = json.loads(line)
                log = os.open(job["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                work(job)
                return
            running.add(pid)
            tell(started=pid)
        elif not open_input:
            time.sleep(0.02)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                tell(ended=pid, status=status)


if __name__ == "__main__":
    # A line is read at a time, so that select() sees the next one.
    sys.stdin = os.fdopen(0, "r", buffering=1)
    preload()
    shorten_waits()
    main()
