"""The wait of a submit that the account's rate limit does not let through: a timer that holds no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_nanobanana.stored_forms import WAIT
from airflow_provider_nanobanana.triggers.newer_wait import wake_later


class NanoBananaTimerTrigger(BaseTrigger):
    """Wake a queued submit at a moment.

    :param moment: Epoch seconds at which to wake.
    :param deadline: Epoch seconds until which the submit may queue in all; comes back in the event, since a deferral
        carries nothing else.
    :param ticket: Whose wait this is; comes back in the event as well.
    :param version: As of :class:`~.nanobanana.NanoBananaTrigger`.
    """

    def __init__(
        self,
        moment: float = 0.0,
        deadline: float = 0.0,
        ticket: str = "",
        version: int = WAIT.version,
        **from_newer_versions: Any,
    ) -> None:
        super().__init__()
        self.version = version
        self.from_newer_versions = from_newer_versions
        self.moment = moment
        self.deadline = deadline
        self.ticket = ticket

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "moment": self.moment,
            "deadline": self.deadline,
            "ticket": self.ticket,
            "version": self.version,
            **self.from_newer_versions,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until the moment and yield one event."""
        if WAIT.is_newer(self.version):
            # What a wait of any version has, comes back as it is.
            known = {"ticket": self.ticket, **({"deadline": self.deadline} if self.deadline else {})}
            yield TriggerEvent({**await wake_later(self.version), **known})
            return
        await asyncio.sleep(max(0.0, self.moment - time.time()))
        yield TriggerEvent({"version": WAIT.version, "deadline": self.deadline, "ticket": self.ticket})
