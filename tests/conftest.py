"""Tests never touch ``~/airflow``, also when pytest is called without make."""

from __future__ import annotations

import gc
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="nanobanana-tests-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__USAGE_DATA_COLLECTION__ENABLED", "False")

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _retention_of_any_airflow() -> None:
    """Below Airflow 3.3 there is no state store, nor the word that the tests' stand-ins for one are given."""
    if tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 3):
        import airflow.sdk

        vars(airflow.sdk).setdefault("NEVER_EXPIRE", None)


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
