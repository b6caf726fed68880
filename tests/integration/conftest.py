from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from tests.support.task_runner import WAYS


class ServiceClock:
    """The service's clock, which a test may set back: what it sells then has expired by now."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.fixture(scope="session")
def running_clock() -> ServiceClock:
    return ServiceClock()


@pytest.fixture(scope="session")
def running_emulator(running_clock: ServiceClock) -> Iterator[Emulator]:
    with Emulator(latency=0, sigma=0, submit_rate=0, query_rate=0, seed=7, clock=running_clock) as emulator:
        yield emulator


@pytest.fixture
def service_clock(running_clock: ServiceClock) -> Iterator[ServiceClock]:
    yield running_clock
    running_clock.offset = 0.0


@pytest.fixture
def emulator(running_emulator: Emulator, service_clock: ServiceClock, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The bank, empty, with the connection pointing at it."""
    running_emulator.reset()
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", running_emulator.connection_json(timeout=3))
    return running_emulator


class HookClock:
    """The hook's clock, which its waits move; so does what passes without a worker, by :meth:`sleep`."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._passed = 0.0

    def __call__(self) -> float:
        return time.time() + self._passed + sum(self.waits)

    def sleep(self, seconds: float) -> None:
        self._passed += seconds


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The hook's waits are noted; they move its clock and take no time."""
    clock = HookClock()
    monkeypatch.setattr(NanoBananaHook, "sleep", staticmethod(clock.waits.append))
    monkeypatch.setattr(NanoBananaHook, "clock", staticmethod(clock))
    return clock.waits


@pytest.fixture(autouse=True)
def polls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator is faster than the service: no waiting for the earliest expected result."""
    monkeypatch.setattr(LatencyEstimator, "first_poll_age", lambda self, kind: 0.0)


@pytest.fixture
def buy(emulator: Emulator) -> Callable[..., str]:
    """Submit one image and return its id."""

    def submit(prompt: str = "a red kite", **fields: Any) -> str:
        with NanoBananaHook() as hook:
            return hook.submit({"prompt": prompt, **fields}).id

    return submit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    """Each way in which the sensor waits."""
    return str(request.param)
