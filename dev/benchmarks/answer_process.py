"""A process under test: one event loop that a trigger polls on, and how long an answer held it up.

``python -m dev.benchmarks.answer_process SIDE``. ``{"id": image_task_id, "seconds": limit}`` runs one trigger, and is
answered with ``outcome`` (of the trigger, or None where it did not end in time), ``stall`` (the longest time that the
loop did nothing else, in seconds), ``collecting`` (the longest garbage collection meanwhile) and ``memory`` (bytes that
the process's highest resident size grew by).
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from dev.benchmarks.baseline import BaselineTrigger
from dev.benchmarks.child import answering, first_event
from dev.benchmarks.scenario import Figures
from dev.benchmarks.waiting_trigger import waiting_trigger

_STEP = 0.001


class Loop:
    """Measures how long the running loop is held up."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.collecting = 0.0
        self._began = 0.0
        gc.callbacks.append(self._on_collection)

    async def measure(self) -> None:
        """Note how much longer than a millisecond a sleep of one takes at most, in seconds."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_STEP)
            self.longest = max(self.longest, time.perf_counter() - before - _STEP)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.collecting = max(self.collecting, time.perf_counter() - self._began)


def trigger(side: str, image_task_id: str, seconds: float) -> BaseTrigger:
    """Return the trigger of a side that waits for an image task at most so many seconds."""
    now = time.time()
    if side == "baseline":
        return BaselineTrigger(image_task_id, NanoBananaHook.default_conn_name, now + seconds)
    return waiting_trigger(image_task_id, created_at=now - 3600, seconds=seconds)


async def serve(side: str, answer: Callable[[Figures], None]) -> None:
    """Follow the commands."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        answer(await _watch(side, json.loads(line)))


async def _watch(side: str, command: dict[str, Any]) -> Figures:
    gc.collect()
    await asyncio.sleep(0.2)
    measured = Loop()
    helper = asyncio.ensure_future(measured.measure())
    before = _reset_peak()
    outcome = None
    try:
        async with asyncio.timeout(command["seconds"] + 60):
            outcome = (await first_event(trigger(side, command["id"], command["seconds"])))["outcome"]
    except Exception as error:  # noqa: BLE001 - what it raises is a finding
        outcome = type(error).__name__
    await asyncio.sleep(0.05)
    helper.cancel()
    gc.callbacks.clear()
    return {
        "outcome": outcome,
        "stall": measured.longest,
        "collecting": measured.collecting,
        "memory": _peak() - before,
    }


def _reset_peak() -> int:
    """Set the highest resident size back to the present one, and return it."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Return the highest resident size in bytes, since it was last set back."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], answering()))
