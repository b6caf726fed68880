"""Worker processes that submit on one account, as Airflow's workers do: forked, and each submit with nothing kept.

``python -m dev.benchmarks.submit_process SIDE COUNT SECONDS MACHINES``; ours runs the real submit operator,
deferrals included.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from dev.benchmarks.child import answer, own_stdout

#: What Airflow needs to start a task; without it the naive workers would do nothing but collect refusals.
_TASK_START = 1.0


class Store:
    """The task's state store of Airflow 3.3."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return json.loads(self._rows[key]) if key in self._rows else default

    def set(self, key: str, value: Any, **options: Any) -> None:
        """Keep a value."""
        self._rows[key] = json.dumps(value)


def buy_ours(worker: int, number: int) -> str:
    """Run one mapped task of the submit operator with ``retries=0``; what it defers to is sat out here.

    :raises AirflowException: The task failed.
    """
    operator = NanoBananaSubmitOperator(task_id="submit", prompt=f"worker {worker} picture {number}", retries=0)
    instance = SimpleNamespace(
        dag_id="bench", run_id=f"run-{worker}", task_id="submit", map_index=number, try_number=1, max_tries=0
    )
    context: Any = {"ti": instance, "task_instance": instance, "task_state_store": Store()}
    step: Callable[[], Any] = partial(operator.execute, context)
    while True:
        try:
            return str(step())
        except TaskDeferred as deferral:
            event = asyncio.run(_event(deferral.trigger))
            step = partial(operator.resume_execution, deferral.method_name, {"event": event}, context)


async def _event(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def buy_naively(worker: int, number: int) -> str:
    """Send one POST, as the usual operator does.

    :raises AirflowException: It was refused: with ``retries=0`` the task has failed.
    """
    settings = NanoBananaHook().settings
    body = {"model": settings.model, "prompt": f"worker {worker} picture {number}", "size": "1:1", "resolution": "1K"}
    headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    sent = httpx.post(f"{settings.base_url}/v1/images/generations", json=body, headers=headers)
    if not sent.is_success:
        raise AirflowException(f"HTTP {sent.status_code}")
    return str(sent.json()["id"])


def work(buy: Callable[[int, int], str], worker: int, until: float, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Submit one image after another until a moment; what is queued by then is finished."""
    for number in itertools.count():
        if time.time() >= until:
            return
        began = time.monotonic()
        try:
            tell({"id": buy(worker, number), "at": int(time.time())})
        except AirflowException as failure:
            tell({"failed": str(failure)[:300]})
        if buy is buy_naively:
            time.sleep(max(0.0, began + _TASK_START - time.monotonic()))


def fork(worker: int, machines: int, job: Callable[[int], None]) -> int:
    """Start a worker process on one of so many machines, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # What processes of one machine share lies below its folder for temporary files.
        folder = Path(tempfile.gettempdir()) / f"machine-{worker % machines}"
        folder.mkdir(exist_ok=True)
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        job(worker)
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def main() -> None:
    """Wait for the word, run the workers, say when all are done."""
    tell = partial(answer, own_stdout())
    side, count, seconds, machines = sys.argv[1], *map(int, sys.argv[2:])
    tell({"ready": True})
    sys.stdin.readline()
    buy = buy_ours if side == "ours" else buy_naively
    until = time.time() + seconds
    workers = [fork(number, machines, partial(work, buy, until=until, tell=tell)) for number in range(count)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    tell({"done": True, "died": sum(code != 0 for code in codes)})


if __name__ == "__main__":
    main()
