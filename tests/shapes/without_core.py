"""Print as JSON which of our modules need Airflow's core, and what of it: ``python -m tests.shapes.without_core``.

What belongs to the distribution ``apache-airflow-core`` is not there in this process, as if it were not installed.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import types
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import files
from pathlib import Path

NAME = "airflow_provider_nanobanana"


class _Refusing(MetaPathFinder):
    """Refuses what is directly below ``airflow`` and comes with the core."""

    def __init__(self) -> None:
        owned = (path.parts for path in files("apache-airflow-core") or ())
        self._names = {parts[1].removesuffix(".py") for parts in owned if len(parts) > 1 and parts[0] == "airflow"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse a module of the core; leave others to others."""
        parts = fullname.split(".")
        if parts[0] == "airflow" and len(parts) > 1 and parts[1] in self._names - {"sdk", "providers"}:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def main() -> None:
    """Import every module, the emulator's apart."""
    import airflow

    bare = types.ModuleType("airflow")
    bare.__path__ = list(airflow.__path__)
    for name in [name for name in sys.modules if name.partition(".")[0] == "airflow"]:
        del sys.modules[name]
    sys.modules["airflow"] = bare
    sys.meta_path.insert(0, _Refusing())
    package = importlib.import_module(NAME)
    missing: dict[str, str] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{NAME}."):
        if module.name.endswith(".__main__") or module.name.startswith(f"{NAME}.emulator"):
            continue
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            missing[module.name.removeprefix(f"{NAME}.")] = f"{_asker(error)}: {error}"
    print(json.dumps(missing))


def _asker(error: ImportError) -> str:
    """Return which distribution's code asked for what is missing: ours, or the provider of Airflow by its folder."""
    trace = error.__traceback__
    asker = ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "importlib" not in str(path) and "tests" not in path.parts:
            asker = NAME if NAME in path.parts else ".".join(path.parts[-4:-1])
        trace = trace.tb_next
    return asker


if __name__ == "__main__":
    main()
