"""A process under test: one event loop with one trigger per image task, as a triggerer holds them.

``python -m dev.benchmarks.trigger_process SIDE``. The commands: ``{"watch": [[id, created], ...]}`` starts triggers;
``{"memory": true}`` is answered with the resident bytes; ``{"end": "wait"}`` says that no more are coming and waits for
all, ``{"end": "cancel"}`` cancels those that still wait. The end is answered with:

* ``detected``: when the trigger of each image task yielded its event, in epoch seconds;
* ``watched``: how many triggers there were; ``errors``: what they raised;
* ``lag``: the spread of what a sleep of 50 ms on the loop took longer, in seconds;
* ``cpu_seconds``: from the first trigger's start to the last one's end;
* ``scheduled_seconds``: from the start of the first triggers until each had its first poll scheduled.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
from airflow.triggers.base import BaseTrigger

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from dev.benchmarks.baseline import BaselineTrigger
from dev.benchmarks.child import answering, first_event
from dev.benchmarks.scenario import Figures, spread
from dev.benchmarks.waiting_trigger import waiting_trigger

_LONGEST_COMMAND = 64 * 1024 * 1024
_LAG_STEP = 0.05
#: Seconds after which a trigger gives up.
_LIMIT = 1000.0
#: Has the pollers of each loop in ``_pollers``; imported by the first trigger.
_POLLER = "airflow_provider_nanobanana.polling.poller"


class Triggers:
    """Runs triggers and measures itself.

    :param side: ``ours`` or ``baseline``.
    """

    def __init__(self, side: str) -> None:
        self._is_ours = side == "ours"
        self._lags: list[float] = []
        self._waits: set[asyncio.Task[None]] = set()
        self._detected: dict[str, float] = {}
        self._scheduled: float | None = None

    async def serve(self, answer: Callable[[Figures], None]) -> None:
        """Follow the commands, wait for the triggers, then report."""
        helpers = [asyncio.ensure_future(self._measure_lag())]
        cpu_before = 0.0
        async for command in _commands():
            if watched := command.get("watch"):
                if not self._waits:
                    cpu_before = time.process_time()
                    self._lags.clear()
                    helpers.append(asyncio.ensure_future(self._until_scheduled(len(watched))))
                self._waits |= {asyncio.ensure_future(self._wait(*one)) for one in watched}
            if "memory" in command:
                gc.collect()
                answer({"memory": psutil.Process().memory_info().rss})
            if end := command.get("end"):
                for wait in self._waits if end == "cancel" else ():
                    wait.cancel()
                break
        results = await asyncio.gather(*self._waits, return_exceptions=True)
        cpu_seconds = time.process_time() - cpu_before
        for helper in helpers:
            helper.cancel()
        answer(
            {
                "detected": self._detected,
                "watched": len(self._waits),
                "errors": [repr(result) for result in results if isinstance(result, Exception)],
                "lag": spread(self._lags or [0.0]),
                "cpu_seconds": cpu_seconds,
                "scheduled_seconds": self._scheduled,
            }
        )

    async def _measure_lag(self) -> None:
        """Note how much longer than 50 ms each sleep of 50 ms takes, in seconds."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_LAG_STEP)
            self._lags.append(max(0.0, time.perf_counter() - before - _LAG_STEP))

    async def _until_scheduled(self, count: int) -> None:
        """Note when the last of the first triggers has its first poll scheduled (ours) or under way (baseline)."""
        began = time.time()
        while (scheduled_polls() if self._is_ours else BaselineTrigger.first_polls) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._scheduled = time.time() - began

    async def _wait(self, image_task_id: str, created: float) -> None:
        event = await first_event(self._trigger(image_task_id, created))
        if event["outcome"] == "finished":
            self._detected[image_task_id] = time.time()

    def _trigger(self, image_task_id: str, created: float) -> BaseTrigger:
        if not self._is_ours:
            return BaselineTrigger(image_task_id, NanoBananaHook.default_conn_name, time.time() + _LIMIT)
        return waiting_trigger(image_task_id, created_at=created, seconds=_LIMIT)


def scheduled_polls() -> int:
    """Return how many image tasks the pollers of this loop hold a next moment for."""
    # While the module is being imported, in a thread, it has no pollers yet.
    pollers = getattr(sys.modules.get(_POLLER), "_pollers", {}).get(asyncio.get_running_loop(), {})
    return sum(len(poller) for poller in pollers.values())


async def _commands() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader(limit=_LONGEST_COMMAND)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


if __name__ == "__main__":
    asyncio.run(Triggers(sys.argv[1]).serve(answering()))
