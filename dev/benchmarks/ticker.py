"""A trigger that says whether its triggerer is on time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

_PERIOD = 1.0


class TickTrigger(BaseTrigger):
    """Wakes every second and writes when, and how late it was, as one line of JSON.

    :param file: Where to.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "dev.benchmarks.ticker.TickTrigger", {"file": self.file}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Tick for as long as the triggerer lives."""
        clock = asyncio.get_running_loop().time
        with Path(self.file).open("a", buffering=1) as ticks:  # noqa: ASYNC230  # microseconds
            while True:
                due = clock() + _PERIOD
                await asyncio.sleep(_PERIOD)
                ticks.write(json.dumps({"at": time.time(), "late": clock() - due}) + "\n")
        yield TriggerEvent({})  # type: ignore[unreachable]  # makes it a generator
