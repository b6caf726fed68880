"""A gateway in virtual time for the watch over many image tasks."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from airflow_provider_nanobanana.exceptions import airflow_exception
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.outcome import Wait
from airflow_provider_nanobanana.triggers.poller import Watch
from tests.unit.samples import COMPLETED, NOW, STATUS, answer
from tests.unit.virtualtime import START, now, run

#: Seconds since the start and the number of the poll of this id -> an answer's JSON, or an error.
Script = Callable[[float, int], dict[str, Any] | BaseException]
LOG = logging.getLogger("test.watch")
EPSILON = 1e-3


class Service:
    """A gateway in virtual time that remembers who asked when."""

    def __init__(self, scripts: dict[str, Script] | None = None, default: Script | None = None) -> None:
        self.scripts = scripts or {}
        self.default = default or (lambda t, n: COMPLETED)
        self.polls: dict[str, list[float]] = defaultdict(list)
        self.latency = 0.2
        self.busy = self.most_busy = 0

    @property
    def moments(self) -> list[float]:
        return sorted(moment for moments in self.polls.values() for moment in moments)

    async def look(self, image_task_id: str) -> ImageTask:
        at = now() - START
        self.polls[image_task_id].append(at)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.busy -= 1
        said = self.scripts.get(image_task_id, self.default)(at, len(self.polls[image_task_id]))
        if isinstance(said, errors.ToApisError):
            raise airflow_exception(said)
        if isinstance(said, BaseException):
            raise said
        return STATUS.conclude(answer(200, {**said, "id": image_task_id}), NOW)


def watch(service: Service, ids: list[str] | int = 1, *, wait: float = 900, first: float = 0, **options: Any) -> Watch:
    names = [f"t{n}" for n in range(ids)] if isinstance(ids, int) else ids

    async def go() -> Watch:
        made = Watch(
            [(name, START + first) for name in names],
            look=service.look,
            wait=Wait(START, START + wait),
            **{"interval": 5.0, "rate": 50.0, "log": LOG, "now": now, **options},
        )
        await made.run()
        return made

    return run(go())


def until(moment: float, before: Any, after: Any) -> Script:
    return lambda t, n: before if t < moment else after
