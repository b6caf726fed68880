"""Tests never touch ``~/airflow``, also when pytest is called without make."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_reach import airflow_marks

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="nanobanana-tests-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__USAGE_DATA_COLLECTION__ENABLED", "False")

_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what can depend on the version of Airflow, where somebody asks for it."""
    if "airflow" not in config.option.markexpr:
        return
    marks = {file: airflow_marks(file) for file in {item.path for item in items}}
    for item in items:
        for mark in marks[item.path]:
            item.add_marker(mark)


def pytest_collection_finish() -> None:
    """Spare the collections to come what is imported by now, as :func:`everything_closed` does."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _retention_of_any_airflow() -> None:
    """Below Airflow 3.3 there is no state store, nor the word that the tests' stand-ins for one are given."""
    with contextlib.suppress(ModuleNotFoundError):  # where a run is to do without (``tests.support.no_airflow``)
        import tests.support.task_state_store  # noqa: F401


@pytest.fixture(scope="session")
def _shared_state_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pace")


@pytest.fixture(autouse=True)
def shared_state_folder(_shared_state_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's submits agree on their pace: what another test's clock wrote would hold them up."""
    from airflow_provider_nanobanana.submission import rate_limiter

    folder = _shared_state_folders / str(next(_numbers))
    monkeypatch.setattr(rate_limiter, "shared_state_folder", lambda: folder)
    monkeypatch.setattr(rate_limiter, "_process_states", {})
    return folder


@pytest.fixture(scope="module", autouse=True)
def everything_closed() -> Iterator[None]:
    """What a test leaves open fails its own module; a later collection would blame whichever test it comes in."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        # Nothing of ours opens a database: it is Airflow's engine, of which Python 3.13 began to warn.
        warnings.filterwarnings("ignore", r"unclosed database in <sqlite3\.Connection", ResourceWarning)
        gc.collect()
    # What is left stays, most of it modules: to look through it again takes a quarter of a second each time.
    gc.freeze()


@pytest.fixture(autouse=True)
def every_manifest_is_valid(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test writes a manifest that its schema refuses, be it by a process of its own in the test's folder."""
    from airflow_provider_nanobanana.landing.image_store import ImageStore
    from tests.support.manifests import manifest_faults

    faults: list[str] = []
    write = ImageStore.write_manifest

    def checked(self: ImageStore, name: str, data: Any, **how: Any) -> str:
        # Tests of the store itself write what is no manifest, under other names.
        if name.startswith("manifest-"):
            faults.extend(manifest_faults(data))
        return write(self, name, data, **how)

    # Not the test's own: what that one replaces (a folder's listing, say) is back in place when the folder is read.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageStore, "write_manifest", checked)
        yield
    folder = request.node.funcargs.get("tmp_path")
    for path in folder.rglob("manifest-*.json") if folder is not None else ():
        content = _json(path)
        if isinstance(content, dict) and content.get("version") == 2:
            faults.extend(f"{path.name}: {fault}" for fault in manifest_faults(content))
    assert faults == []


def _json(path: Path) -> Any:
    """Return what a file holds; None where it is none, or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError):
        return None
