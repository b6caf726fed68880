"""The process under test: one event loop with one trigger per image task, as a triggerer holds them.

It reads commands and writes answers as lines of JSON; ``dev.benchmarks.subject`` is the other end. The commands:
``{"watch": [[id, created], ...]}`` starts triggers, ``{"memory": true}`` asks for the resident memory,
``{"end": true}`` says that no more are coming, ``{"stop": true}`` cancels those that still wait.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger

from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger
from dev.benchmarks.baseline import BaselineTrigger
from dev.benchmarks.child import answer, own_stdout
from dev.benchmarks.figures import Spread
from dev.benchmarks.probe import LagProbe, resident_bytes

_CONN_ID = "nanobanana_default"
_LONGEST_COMMAND = 64 * 1024 * 1024


class Client:
    """Runs triggers and measures itself.

    :param kind: ``ours`` or ``baseline``.
    :param interval: Seconds between two polls of one image task.
    :param limit: Seconds after which a wait is given up.
    """

    def __init__(self, kind: str, interval: float, limit: float) -> None:
        self._make: Callable[[str, float], BaseTrigger] = self._ours if kind == "ours" else self._baseline
        self._begun: Callable[[], int] = _registered if kind == "ours" else _first_polls
        self._interval = interval
        self._limit = limit
        self._probe = LagProbe()
        self._waits: set[asyncio.Task[None]] = set()
        self._detected: dict[str, float] = {}
        self._outcomes: Counter[str] = Counter()
        self._started = 0.0
        self._cpu = 0.0
        self._scheduled: float | None = None

    async def serve(self, commands: AsyncIterator[dict[str, Any]], answer: Callable[[dict[str, Any]], None]) -> None:
        """Follow the commands, wait for the triggers, then report."""
        side = [asyncio.ensure_future(self._probe.run())]
        answer({"ready": True})
        async for command in commands:
            if watched := command.get("watch"):
                if not self._started:
                    self._begin()
                    side.append(asyncio.ensure_future(self._until_scheduled(len(watched))))
                for image_task_id, created in watched:
                    self._waits.add(asyncio.ensure_future(self._wait(image_task_id, created)))
            if "memory" in command:
                gc.collect()
                answer({"memory": resident_bytes()})
            if "stop" in command:
                for wait in self._waits:
                    wait.cancel()
            if "stop" in command or "end" in command:
                break
        await asyncio.gather(*self._waits, return_exceptions=True)
        cpu = time.process_time() - self._cpu
        for task in side:
            task.cancel()
        answer(self._report(cpu))

    def _begin(self) -> None:
        self._started, self._cpu = time.time(), time.process_time()
        self._probe.lags.clear()

    async def _until_scheduled(self, count: int) -> None:
        """Note when the last of the first triggers has its first poll scheduled (ours) or under way (baseline)."""
        while self._begun() < count:  # noqa: ASYNC110  # the code under test has no event for it
            await asyncio.sleep(0.01)
        self._scheduled = time.time() - self._started

    async def _wait(self, image_task_id: str, created: float) -> None:
        async for event in self._make(image_task_id, created).run():
            outcome = event.payload["outcome"]
            self._outcomes[outcome] += 1
            if outcome == "finished":
                self._detected[image_task_id] = time.time()
            return
        raise AssertionError("the trigger ended without an event")

    def _ours(self, image_task_id: str, created: float) -> NanoBananaTrigger:
        now = time.time()
        return NanoBananaTrigger(
            image_task_ids=[image_task_id],
            nanobanana_conn_id=_CONN_ID,
            started_at=now,
            deadline=now + self._limit,
            poll_interval=self._interval,
            created_at=[created],
            kinds="nano_banana_2",
        )

    def _baseline(self, image_task_id: str, created: float) -> BaselineTrigger:
        return BaselineTrigger(image_task_id, _CONN_ID, time.time() + self._limit, self._interval)

    def _report(self, cpu: float) -> dict[str, Any]:
        failures = [wait.exception() for wait in self._waits if not wait.cancelled()]
        return {
            "started": self._started,
            "detected": self._detected,
            "outcomes": self._outcomes,
            "errors": [repr(failure) for failure in failures if failure is not None],
            "lag": Spread.of(self._probe.lags or [0.0]).as_dict(),
            "cpu_seconds": cpu,
            "scheduled_seconds": self._scheduled,
        }


def _registered() -> int:
    """Return how many image tasks the pollers of this loop hold a next moment for."""
    poller = sys.modules.get("airflow_provider_nanobanana.triggers.poller")  # the first trigger imports it
    # While it is being imported, in a thread, it has no pollers yet.
    pollers = getattr(poller, "_pollers", {}).get(asyncio.get_running_loop(), {})
    return sum(len(each) for each in pollers.values())


def _first_polls() -> int:
    return BaselineTrigger.first_polls


async def _commands() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader(limit=_LONGEST_COMMAND)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def main() -> None:
    """Serve one parent."""
    tell = partial(answer, own_stdout())
    kind, interval, limit = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])

    async def serve() -> None:
        await Client(kind, interval, limit).serve(_commands(), tell)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
