"""One emulator in a process of its own: an account with limits, and books that say what really happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from demo.processes import Processes
from demo.service import start_emulator

#: An image task: its id and when the service says it was created, in epoch seconds.
Bought = tuple[str, float]

_BUYERS = 4
_BODY = {"model": "nano_banana_2", "size": "1:1", "resolution": "1K"}


@dataclass(frozen=True)
class Rates:
    """What the account allows in requests per second, and how long an image takes.

    :param submits: 0 lifts the limit.
    :param queries: 0 lifts the limit.
    :param latency: Median seconds of the lognormal latency.
    :param time_scale: Multiplies every latency.
    """

    submits: float = 0.0
    queries: float = 50.0
    latency: float = 25.0
    sigma: float = 0.4
    time_scale: float = 1.0


@dataclass(frozen=True)
class Answer:
    """One answer of the service: when its request arrived (epoch seconds), for what (``status``, ``submit``)."""

    at: float
    point: str
    status: int


@dataclass(frozen=True)
class Account:
    """An emulator that runs.

    :param connection: Airflow's connection as JSON, without rates.
    """

    url: str
    connection: str = field(repr=False)

    def connection_json(self, **extra: Any) -> str:
        """Return the connection with these extras."""
        return json.dumps({**json.loads(self.connection), "extra": extra})

    def buy(self, count: int, word: str = "picture") -> list[Bought]:
        """Submit so many image tasks as fast as the service takes them."""
        with httpx.Client(base_url=self.url, headers=self._headers(), trust_env=False, timeout=60) as http:

            def one(number: int) -> Bought:
                body = {**_BODY, "prompt": f"{word} {number}"}
                answer = http.post("/v1/images/generations", json=body).raise_for_status().json()
                return answer["id"], float(answer["created_at"])

            with ThreadPoolExecutor(_BUYERS) as pool:
                return list(pool.map(one, range(count)))

    def completions(self) -> dict[str, float]:
        """Return when each image task was completed, in epoch seconds; those that run are left out."""
        tasks = self._get("ledger")["image_tasks"]
        return {task["id"]: task["completed"] for task in tasks if task["completed"] is not None}

    def counts(self, point: str = "status") -> dict[int, int]:
        """Return how many answers of each status this kind of request got."""
        counts = self._get("stats")["by_point"].get(point, {})
        return {int(status): count for status, count in counts.items()}

    def answers(self) -> list[Answer]:
        """Return the newest 50,000 answers, oldest first."""
        found = self._get("requests")["requests"]
        return [Answer(entry["at"], entry["point"], entry["status"]) for entry in found]

    def change(self, **settings: Any) -> None:
        """Change settings of the emulator; a rate that changes starts with its burst."""
        self._post("settings", settings)

    def complete_all(self) -> None:
        """Let everything that runs be done now."""
        self._post("complete", {})

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {json.loads(self.connection)['password']}"}

    def _get(self, name: str) -> dict[str, Any]:
        with httpx.Client(trust_env=False, timeout=60) as http:
            return dict(http.get(f"{self.url}/emulator/{name}").raise_for_status().json())

    def _post(self, name: str, body: dict[str, Any]) -> None:
        with httpx.Client(trust_env=False, timeout=60) as http:
            http.post(f"{self.url}/emulator/{name}", json=body).raise_for_status()


@contextmanager
def account(folder: Path, rates: Rates, seed: int) -> Iterator[Account]:
    """Run an emulator for a while; its log goes into the folder."""
    processes = Processes()
    try:
        service = start_emulator(
            processes,
            folder / "emulator.log",
            latency=rates.latency,
            sigma=rates.sigma,
            time_scale=rates.time_scale,
            submit_rate=rates.submits,
            query_rate=rates.queries,
            seed=seed,
        )
        assert service.control_url is not None
        yield Account(service.control_url, service.connection)
    finally:
        processes.stop()
