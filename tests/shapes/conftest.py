"""Each shape starts an Airflow of its own, for minutes: collected only where it is asked for (``make shapes``)."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from tests.shapes.bucket import Bucket, missing_packages, running_bucket
from tests.shapes.stacks import Started

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out of every run that does not name it."""
    named = (Path(argument.partition("::")[0]) for argument in config.invocation_params.args)
    asked = any(HERE in (path := config.invocation_params.dir / name, *path.parents) for name in named)
    return None if asked else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(900))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the processes' logs with a test that failed."""
    report = yield
    started = item.funcargs.get("started") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(started, Started):
        report.sections.extend(started.tails())
    return report


@pytest.fixture
def started() -> Iterator[Started]:
    """Everything that a test starts, ended with it."""
    with Started() as started:
        yield started


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A ToAPIs of the test's own; an image takes long enough for a deferral."""
    with Emulator(api_key=f"sk-shapes-{secrets.token_hex(8)}", latency=6, sigma=0.1, seed=11) as emulator:
        yield emulator


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """A store that speaks S3, with one bucket and the connection ``store`` to it."""
    if missing := missing_packages():
        pytest.skip(f"not installed: {', '.join(missing)} (make venv)")
    with running_bucket() as bucket:
        yield bucket
