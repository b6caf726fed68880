from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.batch.harness import GenerateTask, SharedClock, install_crash_points
from tests.support.task_state_store import MemoryTaskStateStore

HTTP_TIMEOUT = 30


@pytest.fixture(scope="session")
def batch_clock() -> SharedClock:
    return SharedClock()


@pytest.fixture(scope="session")
def batch_emulator(batch_clock: SharedClock) -> Iterator[Emulator]:
    with Emulator(latency=10, sigma=0, submit_rate=0, query_rate=0, seed=7, clock=batch_clock) as emulator:
        yield emulator


@pytest.fixture
def service(batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Emulator:
    batch_emulator.reset()
    monkeypatch.setattr(client_ids, "_checked", {})
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", batch_emulator.connection_json(timeout=HTTP_TIMEOUT))
    return batch_emulator


@pytest.fixture(params=[True, False], ids=["store", "no-store"])
def batch(request: pytest.FixtureRequest, with_store: GenerateTask) -> GenerateTask:
    """A task instance on Airflow 3.3, and on Airflow before it."""
    with_store.store = MemoryTaskStateStore() if request.param else None
    return with_store


@pytest.fixture(params=[True, False], ids=["store", "no-store"])
def quick(
    request: pytest.FixtureRequest,
    service: Emulator,
    batch_clock: SharedClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[GenerateTask]:
    """A task instance without sockets, faults and log records: hundreds of batches in seconds."""
    crash_points = install_crash_points(monkeypatch, service, batch_clock, sockets=False, pictures=False)
    logging.disable(logging.CRITICAL)
    yield GenerateTask(
        service, batch_clock, crash_points, tmp_path / "images", MemoryTaskStateStore() if request.param else None
    )
    logging.disable(logging.NOTSET)


@pytest.fixture
def with_store(
    service: Emulator, batch_clock: SharedClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> GenerateTask:
    """A task instance on Airflow 3.3."""
    crash_points = install_crash_points(monkeypatch, service, batch_clock, sockets=True, pictures=False)
    return GenerateTask(service, batch_clock, crash_points, tmp_path / "images")


@pytest.fixture
def real(service: Emulator, batch_clock: SharedClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GenerateTask:
    """A task instance on Airflow 3.3 whose images are really downloaded."""
    crash_points = install_crash_points(monkeypatch, service, batch_clock, sockets=True, pictures=True)
    return GenerateTask(service, batch_clock, crash_points, tmp_path / "images")
