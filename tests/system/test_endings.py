"""Real tasks whose threads are stuck: they end by themselves soon after a timeout or SIGTERM, and pay nothing twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from tests.system.harness import System

TASKS = ("generate", "submit", "sensor", "download")
#: Seconds of the tasks of ``stuck_timed``.
TIMEOUT = 5.0
#: How long the service keeps what is asked for to itself; the connection waits for ten minutes.
FOREVER = 3600.0
#: What a task's ending takes is measured in docs/durability.md; this only tells it from one that waits for its threads.
SOON = 60.0


@pytest.fixture
def stuck(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The service never answers what the four tasks ask; give the conf of a run that asks for it."""
    emulator = system.emulator
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json())
    with NanoBananaHook() as hook:
        to_wait, to_land = (hook.submit({"prompt": f"bought before to {what}"}).id for what in ("wait", "land"))
        emulator.complete_all()
        [image] = hook.get_task(to_land).images
    emulator.fault(on="submit", kind="slow", seconds=FOREVER, match="stuck generate")
    emulator.fault(on="submit", kind="slow", seconds=FOREVER, match="stuck submit")
    emulator.fault(on="status", kind="slow", seconds=FOREVER, match="bought before to wait")
    emulator.fault(on="result", kind="slow", seconds=FOREVER)
    entry = {"id": to_land, "status": "completed", "images": [{"index": 0, "url": image.url}]}
    yield {"ids": to_wait, "images": [entry]}


def await_stuck(system: System) -> None:
    deadline = time.monotonic() + 90
    while not all(rule["hits"] for rule in system.emulator.faults()):
        assert time.monotonic() < deadline, system.emulator.faults()
        time.sleep(0.2)


def seconds(instance: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(instance[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()


def test_a_timeout_ends_a_task_whatever_its_threads_do(system: System, stuck: dict[str, Any]) -> None:
    run = system.start("stuck_timed", **stuck)
    for task_id in TASKS:
        instance = run.wait_for(task_id, "up_for_retry", timeout=120)
        print(f"{task_id}: ended {seconds(instance) - TIMEOUT:.1f} s after its timeout, with the start of its process")
        assert seconds(instance) < SOON, task_id
        assert "AirflowTaskTimeout" in run.log(task_id), task_id


def test_a_task_that_is_killed_ends_by_itself_and_goes_on_unharmed(system: System, stuck: dict[str, Any]) -> None:
    """SIGTERM alone, as a supervisor passes it on whose pod is moved; and marked failed: SIGKILL follows after 5 s."""
    run = system.start("stuck_signalled", **stuck)
    await_stuck(system)
    pids = {task_id: run.wait_for(task_id, "running")["pid"] for task_id in TASKS}
    for task_id in ("submit", "download"):
        began = time.monotonic()
        os.kill(pids[task_id], signal.SIGTERM)
        run.wait_for(task_id, "up_for_retry", timeout=SOON)
        print(f"{task_id}: ended {time.monotonic() - began:.1f} s after SIGTERM, within a second")
    for task_id in ("generate", "sensor"):
        run.api.mark(run.dag_id, run.run_id, task_id)
    for task_id, pid in pids.items():
        run.api.wait_until(lambda pid=pid: None if _is_alive(pid) else True, f"the end of {task_id}", SOON)  # type: ignore[misc]
    for task_id in TASKS:
        assert "Airflow ended this attempt" in run.log(task_id), task_id

    system.emulator.clear_faults()
    system.emulator.complete_all()
    run.clear(*TASKS)
    assert run.wait(timeout=200) == "success", run.states()
    ledger = system.emulator.ledger()
    assert ledger["count"] == 2 + 4 + 1 and not ledger["duplicates"], "what was bought is found"
    assert len(list(system.images.glob("*.png"))) == 5


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
