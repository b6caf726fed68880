"""A process under test: thousands of triggers on one event loop, started as Airflow's triggerer starts them.

``python -m dev.benchmarks.waits_process SIDE``; the side ``airflow`` runs Airflow's own ``DateTimeTrigger`` instead of
ours, which asks nobody. The commands: ``{"warm": [[id, created], ...]}`` starts some and is answered when they wait;
``{"watch": [[id, created], ...]}`` starts the others; ``{"end": seconds}`` waits for all, at most so long, and is
answered with:

* ``detected``: when the trigger of each image task yielded its event, in epoch seconds; ``errors``: what they raised;
* ``stall``: the longest time for which the loop did nothing else, full garbage collections apart, in seconds;
  ``start_stall``: the same until all were started;
* ``collections``: how many full garbage collections there were, and the longest; ``own_collection``: how long one takes
  before there is any trigger, which is what Airflow itself has in memory;
* ``began``: when the first was started, in epoch seconds;
* ``memory``: bytes that the resident size grew by when all waited, and ``peak`` at most;
* ``cpu_seconds``: from the first trigger's start to the last one's end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from airflow.triggers.base import BaseTrigger

from dev.benchmarks.child import answering, first_event
from dev.benchmarks.scenario import Figures
from dev.benchmarks.waiting_trigger import waiting_trigger

_LONGEST_COMMAND = 64 * 1024 * 1024
_STEP = 0.002
#: Seconds after which a trigger gives up.
_LIMIT = 1000.0
#: Seconds after the last start at which all wait: clients are open, and hardly a first poll is due.
_SETTLED = 5.0


class LoopMeter:
    """Measures how long the running loop is held up, by full garbage collections and by all else."""

    def __init__(self) -> None:
        self.collections: list[float] = []
        self._stalls: list[float] = []
        self._collecting_since = 0.0
        gc.callbacks.append(self._on_collection)

    def longest(self) -> float:
        """Return the longest stall since the last call, in seconds."""
        longest = max(self._stalls, default=0.0)
        self._stalls.clear()
        return longest

    async def measure(self) -> None:
        """Note how much longer than 2 ms each sleep of 2 ms takes, without the full collections in it."""
        while True:
            before, count = time.perf_counter(), len(self.collections)
            await asyncio.sleep(_STEP)
            late = time.perf_counter() - before - _STEP - sum(self.collections[count:])
            self._stalls.append(max(0.0, late))
            if len(self._stalls) > 10_000:
                self._stalls = [max(self._stalls)]

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self.collections.append(time.perf_counter() - self._collecting_since)


class Waits:
    """Runs triggers and measures itself.

    :param side: ``ours`` or ``airflow``.
    """

    def __init__(self, side: str) -> None:
        self._side = side
        self._meter = LoopMeter()
        self._tasks: list[asyncio.Task[None]] = []
        self._detected: dict[str, float] = {}
        self._figures: Figures = {}

    async def serve(self, answer: Callable[[Figures], None]) -> None:
        """Follow the commands until the end."""
        reader = asyncio.StreamReader(limit=_LONGEST_COMMAND)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        meter = asyncio.ensure_future(self._meter.measure())
        while line := await reader.readline():
            command = json.loads(line)
            if warm := command.get("warm"):
                await self._start(warm)
                await asyncio.sleep(_SETTLED)
                answer({"warm": len(warm)})
            if watch := command.get("watch"):
                await self._watch(watch)
            if end := command.get("end"):
                await self._finish(end)
                answer(self._figures)
                break
        meter.cancel()

    async def _watch(self, watch: list[Any]) -> None:
        gc.collect()
        own = self._meter.collections.pop()
        await asyncio.sleep(0.1)
        process = psutil.Process()
        before, cpu = process.memory_info().rss, time.process_time()
        self._meter.longest()
        self._meter.collections.clear()
        began = time.time()
        await self._start(watch)
        start_stall = self._meter.longest()
        await asyncio.sleep(_SETTLED)
        memory = process.memory_info().rss - before
        self._figures = {
            "began": began,
            "own_collection": own,
            "start_stall": start_stall,
            "memory": memory,
            "peak": memory,
            "rss_before": before,
            "cpu_before": cpu,
        }

    async def _start(self, targets: list[Any]) -> None:
        for image_task_id, created in targets:
            await asyncio.sleep(0)  # as TriggerRunner.create_triggers does between two
            self._tasks.append(asyncio.ensure_future(self._wait(image_task_id, created)))

    async def _finish(self, seconds: float) -> None:
        process = psutil.Process()
        ends = time.monotonic() + seconds
        while any(not task.done() for task in self._tasks) and time.monotonic() < ends:
            await asyncio.sleep(1.0)
            grown = process.memory_info().rss - self._figures["rss_before"]
            self._figures["peak"] = max(self._figures["peak"], grown)
        stall = max(self._meter.longest(), self._figures["start_stall"])
        cpu = time.process_time() - self._figures.pop("cpu_before")
        collections = list(self._meter.collections)
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._figures |= {
            "detected": self._detected,
            "errors": [repr(result) for result in results if isinstance(result, Exception)][:5],
            "stall": stall,
            "collections": {"count": len(collections), "longest": max(collections, default=0.0)},
            "cpu_seconds": cpu,
        }

    async def _wait(self, image_task_id: str, created: float) -> None:
        event = await first_event(self._trigger(image_task_id, created))
        if self._side != "airflow" and event["outcome"] == "finished":
            self._detected[image_task_id] = time.time()

    def _trigger(self, image_task_id: str, created: float) -> BaseTrigger:
        if self._side == "airflow":
            from airflow.providers.standard.triggers.temporal import DateTimeTrigger

            return DateTimeTrigger(datetime.now(UTC) + timedelta(seconds=_LIMIT))
        return waiting_trigger(image_task_id, created_at=created, seconds=_LIMIT)


if __name__ == "__main__":
    asyncio.run(Waits(sys.argv[1]).serve(answering()))
