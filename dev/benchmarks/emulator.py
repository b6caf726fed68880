"""One emulator in a process of its own: an account with limits, and a ledger that says what really happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from airflow_provider_nanobanana.emulator.rate_limit import BURST_SECONDS, LimiterKind
from dev.stack.emulator_process import start_emulator
from dev.stack.processes import Processes

#: An image task: its id and when the service says it was created, in epoch seconds.
Submitted = tuple[str, float]


@dataclass(frozen=True)
class Rates:
    """What the account allows in requests per second, and how long an image takes.

    :param submit_rate: 0 lifts the limit.
    :param query_rate: 0 lifts the limit.
    :param latency: Median seconds of the lognormal latency.
    :param time_scale: Multiplies every latency.
    :param limiter: What enforces both.
    :param burst_seconds: Seconds' worth of a rate that ``token_bucket`` and ``gcra`` let through at once.
    :param limit_headers: Whether a refusal carries ``Retry-After`` and ``X-RateLimit-*``.
    """

    submit_rate: float = 0.0
    query_rate: float = 50.0
    latency: float = 25.0
    sigma: float = 0.4
    time_scale: float = 1.0
    limiter: LimiterKind = "token_bucket"
    burst_seconds: float = BURST_SECONDS
    limit_headers: bool = True


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

    def submit(self, count: int) -> list[Submitted]:
        """Submit so many image tasks as fast as the service takes them."""
        with self._http() as http, ThreadPoolExecutor(4) as pool:

            def one(number: int) -> Submitted:
                body = {"model": "nano_banana_2", "size": "1:1", "resolution": "1K", "prompt": f"picture {number}"}
                answer = http.post("/v1/images/generations", json=body).raise_for_status().json()
                return answer["id"], float(answer["created_at"])

            return list(pool.map(one, range(count)))

    def ledger(self) -> dict[str, Any]:
        """Return ``image_tasks`` (id, created, completed, refunded), their ``count``, and the ``duplicates``."""
        return self._get("ledger")

    def counts(self, point: str = "status") -> dict[int, int]:
        """Return how many answers of each HTTP status this kind of request got (``status``, ``submit``)."""
        return {int(status): count for status, count in self._get("stats")["by_point"].get(point, {}).items()}

    def answers(self, point: str) -> list[dict[str, Any]]:
        """Return the newest 50,000 answers of this kind, oldest first: ``at`` (epoch seconds), ``status``, ``path``."""
        return [answer for answer in self._get("requests")["requests"] if answer["point"] == point]

    def change(self, **settings: Any) -> None:
        """Change settings of the emulator; a rate that changes starts with its burst."""
        self._post("settings", settings)

    def complete_all(self) -> None:
        """Let everything that runs be done now."""
        self._post("complete", {})

    def _http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {json.loads(self.connection)['password']}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def _get(self, name: str) -> dict[str, Any]:
        with self._http() as http:
            return dict(http.get(f"/emulator/{name}").raise_for_status().json())

    def _post(self, name: str, body: dict[str, Any]) -> None:
        with self._http() as http:
            http.post(f"/emulator/{name}", json=body).raise_for_status()


@contextmanager
def account(folder: Path, rates: Rates, seed: int) -> Iterator[Account]:
    """Run an emulator for a while; its log goes into the folder."""
    processes = Processes()
    try:
        service = start_emulator(processes, folder / "emulator.log", seed=seed, **asdict(rates))
        assert service.control_url is not None
        yield Account(service.control_url, service.connection)
    finally:
        processes.stop()
