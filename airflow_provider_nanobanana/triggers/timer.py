"""The wait of a submit that the account's rate limit does not let through: a timer that holds no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class NanoBananaTimerTrigger(BaseTrigger):
    """Wake a queued submit at a moment.

    :param moment: Epoch seconds at which to wake.
    :param deadline: Epoch seconds until which the submit may queue in all; comes back in the event, since a deferral
        carries nothing else.
    :param ticket: Whose wait this is; comes back in the event as well.
    """

    def __init__(self, moment: float, deadline: float, ticket: str = "", **_from_newer_versions: Any) -> None:
        super().__init__()
        self.moment = moment
        self.deadline = deadline
        self.ticket = ticket

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "moment": self.moment,
            "deadline": self.deadline,
            "ticket": self.ticket,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until the moment and yield one event."""
        await asyncio.sleep(max(0.0, self.moment - time.time()))
        yield TriggerEvent({"deadline": self.deadline, "ticket": self.ticket})
