"""Operators of the benchmark's DAGs: the usual provider's sensor, and a timer that notes how late it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, Context
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

_PERIOD = 1.0


class BaselineSensor(BaseSensorOperator):
    """Defers to the baseline's trigger, one for its one image task."""

    template_fields: Sequence[str] = ("image_task_ids",)

    def __init__(self, *, image_task_ids: str, timeout: float, **kwargs: Any) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self.image_task_ids = image_task_ids

    def execute(self, context: Context) -> NoReturn:
        """Wait without a worker."""
        from dev.benchmarks.baseline import BaselineTrigger

        deadline = time.time() + self.timeout
        trigger = BaselineTrigger(self.image_task_ids, NanoBananaHook.default_conn_name, deadline)
        self.defer(trigger=trigger, method_name="done")
        raise AssertionError("defer raises")

    def done(self, context: Context, event: Any = None) -> Any:
        """Hand on what the trigger saw."""
        return event


class Ticker(BaseOperator):
    """Defers to a timer for as long as its triggerer lives.

    :param file: Where each tick is noted.
    """

    template_fields: Sequence[str] = ("file",)

    def __init__(self, *, file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file = file

    def execute(self, context: Context) -> NoReturn:
        """Start the timer."""
        self.defer(trigger=TickTrigger(self.file), method_name="done")
        raise AssertionError("defer raises")

    def done(self, context: Context, event: Any = None) -> None:
        """Never reached: the timer has no end."""


class TickTrigger(BaseTrigger):
    """Wakes every second and notes when, and how late it was, as one line of JSON.

    :param file: Where.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "dev.benchmarks.ticker.TickTrigger", {"file": self.file}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Tick."""
        clock = asyncio.get_running_loop().time
        with Path(self.file).open("a", buffering=1) as notes:  # noqa: ASYNC230  # microseconds
            while True:
                due = clock() + _PERIOD
                await asyncio.sleep(_PERIOD)
                notes.write(json.dumps({"at": time.time(), "late": clock() - due}) + "\n")
        yield TriggerEvent({})  # type: ignore[unreachable]  # makes it a generator
