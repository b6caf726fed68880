from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.batch.harness import SharedClock, World, watch
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
def bank(batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Emulator:
    batch_emulator.reset()
    monkeypatch.setattr(client_ids, "_checked", {})
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", batch_emulator.connection_json(timeout=HTTP_TIMEOUT))
    return batch_emulator


@pytest.fixture(params=[True, False], ids=["store", "no-store"])
def world(request: pytest.FixtureRequest, stored: World) -> World:
    """A task instance on Airflow 3.3, and on what came before."""
    stored.store = MemoryTaskStateStore() if request.param else None
    return stored


@pytest.fixture(params=[True, False], ids=["store", "no-store"])
def quick(
    request: pytest.FixtureRequest,
    bank: Emulator,
    batch_clock: SharedClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[World]:
    """The same without sockets, faults and log lines: hundreds of batches in seconds."""
    tape = watch(monkeypatch, bank, batch_clock, sockets=False, pictures=False)
    logging.disable(logging.CRITICAL)
    yield World(bank, batch_clock, tape, tmp_path / "images", MemoryTaskStateStore() if request.param else None)
    logging.disable(logging.NOTSET)


@pytest.fixture
def stored(bank: Emulator, batch_clock: SharedClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """A task instance on Airflow 3.3."""
    tape = watch(monkeypatch, bank, batch_clock, sockets=True, pictures=False)
    return World(bank, batch_clock, tape, tmp_path / "images")


@pytest.fixture
def real(bank: Emulator, batch_clock: SharedClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """The same with real pictures."""
    tape = watch(monkeypatch, bank, batch_clock, sockets=True, pictures=True)
    return World(bank, batch_clock, tape, tmp_path / "images")
