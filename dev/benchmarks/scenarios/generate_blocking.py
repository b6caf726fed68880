"""The usual way without deferral: one task an image, which submits, sleeps, asks, and downloads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator, Context

from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

_INTERVAL = 5.0


class BlockingOperator(BaseOperator):
    """Hold a worker until the image is there; nothing is checked, noted or found again."""

    template_fields: Sequence[str] = ("prompt", "destination")

    def __init__(self, *, prompt: str, destination: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.destination = destination

    def execute(self, context: Context) -> str:
        """Submit, sleep, ask, sleep, ask, download."""
        import httpx

        settings = NanoBananaHook().settings
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
        body = {"model": settings.model, "prompt": self.prompt, "size": "1:1", "resolution": "1K"}
        path = "/v1/images/generations"
        with httpx.Client(base_url=settings.base_url, headers=headers) as http:
            image_task_id = http.post(path, json=body).raise_for_status().json()["id"]
            url = self._wait(http, f"{path}/{image_task_id}")
        target = Path(unquote(urlsplit(self.destination).path)) / f"{image_task_id}.png"
        target.write_bytes(httpx.get(url).raise_for_status().content)
        return str(target)

    @staticmethod
    def _wait(http: Any, path: str) -> str:
        while True:
            time.sleep(_INTERVAL)
            status = http.get(path).raise_for_status().json()
            if status["status"] == "completed":
                return str(status["result"]["data"][0]["url"])
            if status["status"] == "failed":
                raise AirflowException(str(status))
