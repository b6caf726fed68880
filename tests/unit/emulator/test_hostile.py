"""The bank at its worst: slow to accept, slow to show what it accepted, and not asking who still waits."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.emulator.settings import Settings


def hang_up(emulator: Emulator) -> None:
    """Submit, and go away before the answer can come."""
    url = urlsplit(emulator.api_url)
    body = json.dumps({"model": "nano_banana_2", "prompt": "left alone"})
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {emulator.api_key}"
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
    emulator: Emulator, submit: Any, share: float
) -> None:
    emulator.configure(commit_delay=0.6, orphan_share=share)
    for _ in range(4):
        hang_up(emulator)
    wait_for(lambda: "left alone" in emulator.stats()["pending"])
    assert submit("stays").status_code == 200
    wait_for(lambda: emulator.stats()["pending"] == [])
    prompts = [task["prompt"] for task in emulator.ledger()["image_tasks"]]
    assert prompts.count("stays") == 1
    left = prompts.count("left alone")
    assert left == 4 if share == 1.0 else left < 4  # one whose time was too short to hang up in may slip through


def test_the_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="orphan_share"):
        Settings(orphan_share=1.5)
