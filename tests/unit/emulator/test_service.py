"""The bank at its worst: slow to accept, slow to show what it accepted, and not asking who still waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.emulator.settings import Settings


def ask(emulator: Emulator) -> socket.socket:
    """Submit, and return the connection on which the answer would come."""
    url = urlsplit(emulator.api_url)
    body = json.dumps({"model": "nano_banana_2", "prompt": "left alone"})
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {emulator.api_key}"
    connection = socket.create_connection((url.hostname, url.port))
    connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # only a broken emulator comes near it
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def acceptance(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Submits are accepted when this is set, however long that takes."""
    gate = threading.Event()

    async def until_open(seconds: float) -> None:
        await asyncio.to_thread(gate.wait)

    monkeypatch.setattr(emulator.service, "sleep", until_open)
    yield gate
    gate.set()


def test_each_image_task_becomes_visible_after_its_own_time(
    emulator: Emulator, client: httpx.Client, submit: Any, clock: Any
) -> None:
    emulator.configure(lookup_spread=30)
    for number in range(20):
        submit(client_business_id=f"late-{number}")

    def visible() -> int:
        return sum(client.get(f"/v1/images/generations/late-{number}").status_code == 200 for number in range(20))

    seen = [visible()]
    for _ in range(2):
        clock.now += 15
        seen.append(visible())
    assert seen[0] < seen[1] < seen[2] == 20
    ids = [task["id"] for task in emulator.ledger()["image_tasks"]]
    assert client.get(f"/v1/images/generations/{ids[0]}").status_code == 200, "its own id always works"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_submit_whose_client_left_is_accepted_as_the_share_says(
    emulator: Emulator, submit: Any, acceptance: threading.Event, share: float
) -> None:
    emulator.configure(commit_delay=30, orphan_share=share)
    with contextlib.ExitStack() as connections:
        for _ in range(4):
            connections.enter_context(ask(emulator))
        wait_for(lambda: emulator.stats()["pending"] == ["left alone"] * 4)
    wait_for(lambda: emulator.stats()["by_point"] == {"submit": {"0": 4}})  # the server has seen them go
    assert emulator.ledger()["count"] == 0
    acceptance.set()
    assert submit("stays").status_code == 200
    wait_for(lambda: emulator.stats()["pending"] == [])
    prompts = [task["prompt"] for task in emulator.ledger()["image_tasks"]]
    assert sorted(prompts) == ["left alone"] * (4 if share else 0) + ["stays"]


def test_the_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="orphan_share"):
        Settings(orphan_share=1.5)


def test_an_account_finds_nothing_of_the_other() -> None:
    with Emulator(latency=0, submit_rate=0, second_api_key="sk-two") as emulator:
        one, two, stranger = (
            httpx.Client(base_url=emulator.api_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
            for key in (emulator.api_key, "sk-two", "sk-three")
        )
        with one, two, stranger:
            body = {"model": "nano_banana_2", "prompt": "a kite", "client_business_id": "shared"}
            ids = [account.post("/v1/images/generations", json=body).json()["id"] for account in (one, two)]
            for account, own, others in ((one, ids[0], ids[1]), (two, ids[1], ids[0])):
                assert account.get("/v1/images/generations/shared").json()["id"] == own
                assert account.get(f"/v1/images/generations/{own}").status_code == 200
                assert account.get(f"/v1/images/generations/{others}").status_code == 404
            assert stranger.get("/v1/models").status_code == 401
            assert [task["account"] for task in emulator.ledger()["image_tasks"]] == [1, 2]
            assert "sk-two" not in one.get("/emulator/settings").text
