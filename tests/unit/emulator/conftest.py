from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator


class Clock:
    """Epoch seconds that only move when told."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(clock: Clock) -> Iterator[Emulator]:
    with Emulator(latency=50, sigma=0, submit_rate=0, query_rate=0, seed=1, clock=clock) as running:
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    with httpx.Client(base_url=emulator.api_url, headers=headers, trust_env=False) as opened:
        yield opened


Submit = Callable[..., httpx.Response]


@pytest.fixture
def submit(client: httpx.Client) -> Submit:
    def send(prompt: str = "a red kite over dunes", **fields: Any) -> httpx.Response:
        return client.post("/v1/images/generations", json={"model": "nano_banana_2", "prompt": prompt, **fields})

    return send


@pytest.fixture
def image_url(emulator: Emulator, client: httpx.Client, submit: Submit) -> Callable[..., str]:
    def make(prompt: str = "a red kite over dunes", **fields: Any) -> str:
        key = submit(prompt, **fields).json()["id"]
        emulator.complete_all()
        return str(client.get(f"/v1/images/generations/{key}").json()["result"]["data"][0]["url"])

    return make
