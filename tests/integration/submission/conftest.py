from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.submission.crash_points import HTTP_TIMEOUT, Clock, CrashHarness, install_crash_points
from tests.integration.submission.harness import SubmitTask
from tests.support.task_state_store import MemoryTaskStateStore


@pytest.fixture(scope="session")
def virtual_clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def virtual_emulator(virtual_clock: Clock) -> Iterator[Emulator]:
    with Emulator(latency=0, sigma=0, submit_rate=0, query_rate=0, seed=7, clock=virtual_clock) as emulator:
        yield emulator


@pytest.fixture
def empty_service(
    virtual_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> Iterator[Emulator]:
    virtual_emulator.reset()
    monkeypatch.setattr(client_ids, "_checked", {})
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", virtual_emulator.connection_json(timeout=HTTP_TIMEOUT))
    logging.disable(logging.CRITICAL)  # half of the time would be spent on log records that nobody reads
    yield virtual_emulator
    logging.disable(logging.NOTSET)


@pytest.fixture
def harness(empty_service: Emulator, virtual_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[CrashHarness]:
    harness = install_crash_points(monkeypatch, empty_service, virtual_clock, sockets=True)
    yield harness
    assert harness.client is not None
    harness.client.close()


@pytest.fixture
def quick_harness(empty_service: Emulator, virtual_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> CrashHarness:
    """The harness without sockets."""
    return install_crash_points(monkeypatch, empty_service, virtual_clock, sockets=False)


@pytest.fixture(params=[True, False], ids=["store", "no-store"])
def task(harness: CrashHarness, request: pytest.FixtureRequest) -> SubmitTask:
    """A task instance on Airflow 3.3, and on Airflow before it."""
    return SubmitTask(harness, MemoryTaskStateStore() if request.param else None)


@pytest.fixture
def recorded(harness: CrashHarness) -> SubmitTask:
    """A task instance with a task state store."""
    return SubmitTask(harness, MemoryTaskStateStore())


@pytest.fixture
def unrecorded(harness: CrashHarness) -> SubmitTask:
    """A task instance without a task state store."""
    return SubmitTask(harness, None)
