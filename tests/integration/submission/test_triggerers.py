"""Row R9 of docs/durability.md: what becomes of a deferred task when its triggerer dies, moves or runs twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from tests.integration.submission.harness import SubmitTask
from tests.support import task_runner
from tests.support.task_runner import fire, rebuilt, sensor

REPO = Path(__file__).parents[3]
#: A triggerer with one trigger: it knows nothing but the trigger's row in the database, and tells of the event.
TRIGGERER = """
import asyncio, importlib, json, sys
from pathlib import Path

async def run(row, told):
    path, arguments = json.loads(row)
    module, _, name = path.rpartition(".")
    async for event in getattr(importlib.import_module(module), name)(**arguments).run():
        Path(told).write_text(json.dumps(event.payload))

asyncio.run(run(*sys.argv[1:]))
"""


async def killed(trigger: asyncio.Future[Any]) -> None:
    """Cancel a trigger that has not ended: Airflow's triggerer goes down."""
    assert not trigger.done()
    trigger.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trigger


def polls(emulator: Emulator) -> int:
    return sum("generations/" in request["path"] for request in emulator.requests())


@contextmanager
def triggerer(trigger: Any, told: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a trigger in a process of its own, which is killed in the end."""
    command = [sys.executable, "-c", TRIGGERER, json.dumps(trigger.serialize()), str(told)]
    with subprocess.Popen(command, cwd=REPO) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None, "the triggerer ended by itself"
        time.sleep(0.02)


@pytest.fixture
def waiting(recorded: SubmitTask) -> SubmitTask:
    """A task whose image tasks run until they are told to be done."""
    recorded.harness.emulator.configure(latency=1e6)
    return recorded


def test_r09_a_queued_submit_under_dying_and_doubled_triggerers(
    task: SubmitTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger is its row in the database, and buys nothing; what is bought is bought by the attempt that resumes."""
    events: list[Any] = []

    async def hostile(trigger: Any) -> Any:
        asleep = rebuilt(rebuilt(trigger))
        asleep.moment = time.time() + 3600
        at_work = asyncio.ensure_future(fire(asleep))
        await asyncio.sleep(0)
        await killed(at_work)
        events.extend(await asyncio.gather(fire(trigger), fire(trigger)))
        assert task.charges == []
        return events[0]

    monkeypatch.setattr(task_runner, "fire", hostile)
    task.harness.emulator.fault(on="submit", kind="rate_limit", retry_after=40, times=1)
    run = task.attempt()
    assert events[0] == events[1], "whichever of the two is heard, the attempt resumes in the same way"
    assert [run.result] == task.charges
    assert task.attempt().result == run.result
    assert task.accepted == 1


def test_two_triggerers_watch_one_wait_and_one_dies(waiting: SubmitTask, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = waiting.harness.emulator
    bought = waiting.attempt().result

    async def hostile(trigger: Any) -> Any:
        before = polls(emulator)
        first, second = (asyncio.ensure_future(fire(trigger)) for _ in range(2))
        while polls(emulator) < before + 4:
            await asyncio.sleep(0.01)
        await killed(first)
        emulator.complete_all()
        return await second

    monkeypatch.setattr(task_runner, "fire", hostile)
    run = task_runner.attempt(sensor(bought, timeout=3600))
    assert [event["counts"] for event in run.events] == [{"completed": 1}]
    assert [(entry["id"], entry["status"]) for entry in run.result] == [(bought, "completed")]
    assert waiting.charges == [bought]


def test_kill_9_of_a_triggerer_and_another_takes_over(
    waiting: SubmitTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    emulator = waiting.harness.emulator
    bought = waiting.attempt().result

    async def hostile(trigger: Any) -> Any:
        before = polls(emulator)
        with triggerer(trigger, tmp_path / "first") as first:
            until(lambda: polls(emulator) > before, first)
        assert first.returncode == -9
        emulator.complete_all()
        with triggerer(trigger, tmp_path / "second") as second:
            second.wait()
        assert not (tmp_path / "first").exists()
        return json.loads((tmp_path / "second").read_text())

    monkeypatch.setattr(task_runner, "fire", hostile)
    run = task_runner.attempt(sensor(bought, timeout=3600))
    assert [event["counts"] for event in run.events] == [{"completed": 1}]
    assert [(entry["id"], entry["status"]) for entry in run.result] == [(bought, "completed")]
    assert waiting.charges == [bought]
