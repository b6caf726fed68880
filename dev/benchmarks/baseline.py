"""The usual provider, for comparison: each call with a client of its own, a fixed interval, no view of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from dev.benchmarks.scenario import POLL_INTERVAL

_PATH = "/v1/images/generations"


def client() -> httpx.Client:
    """Return a client of its own, as every task of the usual provider opens one."""
    settings = NanoBananaHook().settings
    headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
    return httpx.Client(base_url=settings.base_url, headers=headers)


def submit(http: httpx.Client, prompt: str) -> str:
    """Send one POST and return the id of the image task.

    :raises AirflowException: It was refused.
    """
    body = {"model": "nano_banana_2", "prompt": prompt, "size": "1:1", "resolution": "1K"}
    response = http.post(_PATH, json=body)
    if not response.is_success:
        raise AirflowException(f"HTTP {response.status_code}")
    return str(response.json()["id"])


def make_image(prompt: str, destination: str) -> str:
    """Submit, sleep, ask, sleep, ask, download; nothing is checked, remembered or found again.

    :param destination: A ``file:`` URL.
    :return: The path of the image.
    :raises AirflowException: The submit was refused, or the image task failed.
    """
    with client() as http:
        image_task_id = submit(http, prompt)
        while True:
            time.sleep(POLL_INTERVAL)
            answer = http.get(f"{_PATH}/{image_task_id}").raise_for_status().json()
            if answer["status"] == "completed":
                break
            if answer["status"] == "failed":
                raise AirflowException(str(answer))
    target = Path(unquote(urlsplit(destination).path)) / f"{image_task_id}.png"
    target.write_bytes(httpx.get(answer["result"]["data"][0]["url"]).raise_for_status().content)
    return str(target)


class BaselineTrigger(BaseTrigger):
    """Poll one image task every 5 s until it has ended.

    Kinder than most: an answer that is no status (429, an error, none at all) is slept over instead of failing the
    task, and the first poll leaves at once.
    """

    first_polls = 0  # of this process, so that a benchmark sees when all have begun

    def __init__(self, image_task_id: str, nanobanana_conn_id: str, deadline: float) -> None:
        super().__init__()
        self.image_task_id = image_task_id
        self.nanobanana_conn_id = nanobanana_conn_id
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        names = ("image_task_id", "nanobanana_conn_id", "deadline")
        return "dev.benchmarks.baseline.BaselineTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, sleep, poll."""
        settings = await NanoBananaHook(self.nanobanana_conn_id).asettings()
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
        async with httpx.AsyncClient() as http:
            BaselineTrigger.first_polls += 1
            while time.time() < self.deadline:
                status = await self._status(http, f"{settings.base_url}{_PATH}/{self.image_task_id}", headers)
                if status in ("completed", "failed"):
                    yield TriggerEvent({"outcome": "finished", "status": status})
                    return
                await asyncio.sleep(POLL_INTERVAL)
        yield TriggerEvent({"outcome": "timeout"})

    @staticmethod
    async def _status(http: httpx.AsyncClient, url: str, headers: dict[str, str]) -> str | None:
        try:
            response = await http.get(url, headers=headers)
        except httpx.HTTPError:
            return None
        return str(response.json().get("status")) if response.is_success else None
