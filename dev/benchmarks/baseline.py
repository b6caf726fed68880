"""The usual provider's trigger, for comparison: its own client, its own fixed clock, no view of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

_TERMINAL = ("completed", "failed")


class BaselineTrigger(BaseTrigger):
    """Poll one image task every ``poll_interval`` seconds until it has ended.

    Kinder than most: an answer that is no status (429, an error, none at all) is slept over instead of failing the
    task, and the first poll leaves at once.
    """

    first_polls = 0  # of this process, so that a benchmark sees when all have begun

    def __init__(self, image_task_id: str, nanobanana_conn_id: str, deadline: float, poll_interval: float = 5) -> None:
        super().__init__()
        self.image_task_id = image_task_id
        self.nanobanana_conn_id = nanobanana_conn_id
        self.deadline = deadline
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        names = ("image_task_id", "nanobanana_conn_id", "deadline", "poll_interval")
        return "dev.benchmarks.baseline.BaselineTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, sleep, poll."""
        settings = await NanoBananaHook(self.nanobanana_conn_id).asettings()
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
        url = f"{settings.base_url}/v1/images/generations/{self.image_task_id}"
        async with httpx.AsyncClient() as http:
            BaselineTrigger.first_polls += 1
            while time.time() < self.deadline:
                status = await self._status(http, url, headers)
                if status in _TERMINAL:
                    yield TriggerEvent({"outcome": "finished", "status": status})
                    return
                await asyncio.sleep(self.poll_interval)
        yield TriggerEvent({"outcome": "timeout"})

    @staticmethod
    async def _status(http: httpx.AsyncClient, url: str, headers: dict[str, str]) -> str | None:
        try:
            response = await http.get(url, headers=headers)
        except httpx.HTTPError:
            return None
        return str(response.json().get("status")) if response.is_success else None
