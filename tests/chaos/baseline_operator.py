"""What most teams write first: POST, keep the id in XCom, let Airflow retry; or look for the file, buy it, write it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from airflow.providers.common.compat.sdk import BaseHook, BaseOperator

if TYPE_CHECKING:
    import httpx
    from airflow.providers.common.compat.sdk import Context


class BaselineSubmitOperator(BaseOperator):
    """Buy one image and return its id; every error is left to the next retry."""

    template_fields: Sequence[str] = ("prompt",)

    def __init__(self, *, prompt: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt

    def execute(self, context: Context) -> str:
        """Submit."""
        with _client() as service:
            return _submit(service, self.prompt)


class BaselineGenerateOperator(BaseOperator):
    """Buy what is not at the destination yet, wait in the worker and write it; an error is left to the next retry."""

    template_fields: Sequence[str] = ("destination", "requests")

    def __init__(self, *, destination: str, requests: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.destination = destination
        self.requests = requests

    def execute(self, context: Context) -> None:
        """Generate."""
        folder = Path(urlsplit(self.destination).path)
        folder.mkdir(parents=True, exist_ok=True)
        with _client() as service:
            missing = {
                one["name"]: one["prompt"] for one in self.requests if not (folder / f"{one['name']}.png").exists()
            }
            for name, image_task_id in {name: _submit(service, prompt) for name, prompt in missing.items()}.items():
                draft = folder / f".{name}-{uuid4()}"
                draft.write_bytes(_picture(service, image_task_id))
                draft.replace(folder / f"{name}.png")


def _client() -> httpx.Client:
    import httpx

    connection = BaseHook.get_connection("nanobanana_default")
    headers = {"Authorization": f"Bearer {connection.password}"}
    return httpx.Client(base_url=f"{connection.host}/v1/images", headers=headers, timeout=30)


def _submit(service: httpx.Client, prompt: str) -> str:
    body = {"model": "nano_banana_2", "prompt": prompt, "size": "1:1"}
    return str(service.post("/generations", json=body).raise_for_status().json()["id"])


def _picture(service: httpx.Client, image_task_id: str) -> bytes:
    while True:
        answer = service.get(f"/generations/{image_task_id}").raise_for_status().json()
        if answer["status"] == "completed":
            return service.get(answer["result"]["data"][0]["url"]).raise_for_status().content
        if answer["status"] == "failed":
            raise RuntimeError(f"{image_task_id} failed")
        time.sleep(1)
