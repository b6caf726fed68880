"""One real Airflow for the session, an emulator behind it, and the system's Chromium before it.

Where there is no browser each test is skipped, and says what is missing. These tests run in a process of their own:
Playwright keeps an asyncio loop in the thread that uses it.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import AirflowStack
from dev.stack.browser import Site, no_browser, started_browser
from dev.stack.processes import Command
from tests.system.harness import System

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "example_dags"
USERS = {"vera": "viewer", "uma": "user", "olga": "op"}
#: What those who log in at :func:`fab` may: roles of FAB's own, and one that sees a single DAG.
FAB_USERS = {"admin": "Admin", "vera": "Viewer", "uma": "User", "olga": "Op", "dora": "OneDag"}
ONE_DAG = "nanobanana_catalogue"
FAB = {
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    # Its page for logging in is not looked at here; it limits how often one may log in.
    "AIRFLOW__FAB__AUTH_RATE_LIMITED": "False",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and skip it where there is no browser."""
    missing = no_browser()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


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
def browser() -> Iterator[Browser]:
    """One Chromium for the session; each visit is a session of its own."""
    with started_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """One emulator for the session; ``system`` clears what a test did to it."""
    with Emulator(latency=6, sigma=0.1, seed=11) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the gallery may read (``gallery_roots``); each test has its own below it."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="session")
def stack(emulator: Emulator, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStack]:
    """The four processes of Airflow, started once; the DAGs of ``example_dags``."""
    env = {
        "AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json(),
        "AIRFLOW__NANOBANANA__GALLERY_ROOTS": images.as_uri(),
    }
    home = tmp_path_factory.mktemp("airflow")
    with AirflowStack(home, [EXAMPLES], env=env, users=USERS) as stack:
        yield stack


@pytest.fixture
def system(stack: AirflowStack, emulator: Emulator, images: Path, request: pytest.FixtureRequest) -> Iterator[System]:
    """The stack, the emulator without faults, and a folder of this test that the gallery may read."""
    stack.processes.check()
    yield System(stack, emulator, images / request.node.name.replace("[", "-").replace("]", ""))
    emulator.reset()


@pytest.fixture(scope="session")
def site(stack: AirflowStack, browser: Browser) -> Site:
    """The Airflow of the stack: ``with site.visit("vera", dark=True, width=390) as page: page.goto("dags/...")``."""
    return Site(browser, stack.url, stack.password)


@pytest.fixture(scope="session")
def below_af(stack: AirflowStack, browser: Browser) -> Site:
    """The same Airflow, served below ``/af`` by an api-server of its own."""
    return Site(browser, stack.start_api_server("api-server-af", path="/af"), stack.password)


@pytest.fixture(scope="session")
def fab(stack: AirflowStack, browser: Browser) -> Site:
    """The same Airflow, behind FAB: users :data:`FAB_USERS`; ``dora`` may read the DAG :data:`ONE_DAG` alone."""
    pytest.importorskip("airflow.providers.fab", reason="FAB is not installed (make venv)")
    one_dag = [("can_read", f"DAG:{ONE_DAG}"), ("can_read", "XComs"), ("can_read", "Website")]
    wanted = {"password": stack.password, "roles": {"OneDag": one_dag}, "users": FAB_USERS}
    stack.run("fab-migrate", "fab-db", "migrate", env=FAB)
    program = ("-m", "tests.browser.fab_users", json.dumps(wanted))
    stack.processes.run(Command("fab-users", program, {**stack.env, **FAB}, stack.log("fab-users")), timeout=120)
    return Site(browser, stack.start_api_server("api-server-fab", env=FAB), stack.password)
