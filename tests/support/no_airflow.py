"""A plugin for pytest (``-p tests.support.no_airflow``): there is no Airflow, whatever is installed."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class _NoAirflow(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"{fullname}: this test is not marked airflow", name=fullname)


sys.meta_path.insert(0, _NoAirflow())
