"""Real Airflow processes for the whole session, an emulator to talk to, and ``dag.test()`` in a process of its own."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import AirflowStack
from tests.support.statsd import StatsdServer
from tests.system.harness import DagTester, System

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "example_dags"
#: Long enough for a deferral: Airflow up to 3.3 fails some tasks that resume within seconds (its issue 71580).
LATENCY_SECONDS = 8.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the processes' logs with a test that failed."""
    report = yield
    running = item.funcargs.get("system") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(running, System):
        for name in running.stack.processes.names():
            report.sections.append((f"log of {name}", running.stack.processes.tail(name, 30)))
    return report


@pytest.fixture(scope="session")
def api_key() -> str:
    """A key that occurs nowhere by chance, so that a test can search for it."""
    return f"sk-system-{secrets.token_hex(16)}"


@pytest.fixture(scope="session")
def emulator(api_key: str) -> Iterator[Emulator]:
    """One emulator for the session; a test that adds faults takes ``system``, which clears them."""
    with Emulator(api_key=api_key, latency=LATENCY_SECONDS, sigma=0.1, seed=11) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsdServer]:
    """What the four processes and their children send as metrics, from the start."""
    with StatsdServer() as server:
        yield server


@pytest.fixture(scope="session")
def stack(emulator: Emulator, statsd: StatsdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    """The four processes of Airflow, started once; DAGs of ``example_dags`` and ``tests/system/dags``."""
    home = tmp_path_factory.mktemp("airflow")
    connections = {
        "AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json(),
        "AIRFLOW_CONN_NANOBANANA_PATIENT": emulator.connection_json(timeout=600),
    }
    env = {**connections, **statsd.environment}
    with AirflowStack(home, [EXAMPLES, HERE / "dags"], env=env) as stack:
        yield stack


@pytest.fixture
def system(stack: AirflowStack, emulator: Emulator, tmp_path: Path) -> Iterator[System]:
    """The stack, the emulator without faults, and a folder of this test for its images."""
    stack.processes.check()
    yield System(stack, emulator, tmp_path / "images")
    emulator.reset()


@pytest.fixture(scope="session")
def dag_tester(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagTester]:
    """Run ``dag.test()`` of any DAG in one process, by default against the session's emulator."""
    env: dict[str, Any] = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json()}
    tester = DagTester(tmp_path_factory.mktemp("dagtest"), env)
    yield tester
    tester.close()
