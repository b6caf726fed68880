from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.submission.crash_points import HTTP_TIMEOUT, Clock, Stage, watch
from tests.integration.submission.harness import Story
from tests.support.task_state_store import MemoryTaskStateStore


@pytest.fixture(scope="session")
def virtual_clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def virtual_emulator(virtual_clock: Clock) -> Iterator[Emulator]:
    with Emulator(latency=0, sigma=0, submit_rate=0, query_rate=0, seed=7, clock=virtual_clock) as emulator:
        yield emulator


@pytest.fixture
def empty_bank(virtual_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Iterator[Emulator]:
    virtual_emulator.reset()
    monkeypatch.setattr(client_ids, "_checked", {})
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", virtual_emulator.connection_json(timeout=HTTP_TIMEOUT))
    logging.disable(logging.CRITICAL)  # half of the time would go into lines that nobody reads
    yield virtual_emulator
    logging.disable(logging.NOTSET)


@pytest.fixture
def stage(empty_bank: Emulator, virtual_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = watch(monkeypatch, empty_bank, virtual_clock, sockets=True)
    yield stage
    assert stage.client is not None
    stage.client.close()


@pytest.fixture
def quick_stage(empty_bank: Emulator, virtual_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The same without sockets."""
    return watch(monkeypatch, empty_bank, virtual_clock, sockets=False)


@pytest.fixture(params=[True, False], ids=["store", "no-store"])
def story(stage: Stage, request: pytest.FixtureRequest) -> Story:
    """A task instance, on Airflow 3.3 and on what came before."""
    return Story(stage, MemoryTaskStateStore() if request.param else None)


@pytest.fixture
def recorded(stage: Stage) -> Story:
    """A task instance with a task state store."""
    return Story(stage, MemoryTaskStateStore())


@pytest.fixture
def unrecorded(stage: Stage) -> Story:
    """A task instance without a task state store."""
    return Story(stage, None)
