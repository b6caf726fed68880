"""A plugin for pytest (``-p tests.support.no_airflow``): there is no Airflow, and only what can do without is run."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from tests.support.airflow_reach import folder_reaches_airflow, reaches_airflow


class _NoAirflow(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"{fullname}: this test is not marked airflow", name=fullname)


sys.meta_path.insert(0, _NoAirflow())


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what would fail to be imported; no answer is given of the rest."""
    if collection_path.is_dir():
        return folder_reaches_airflow(collection_path) or None
    return (collection_path.suffix == ".py" and reaches_airflow(collection_path)) or None
