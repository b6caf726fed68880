"""``.airflow-registry.yaml``: one entry for each class that this provider offers, and none that is not there."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_nanobanana.get_provider_info import get_provider_info

#: It imports what the file names, which no chain of imports tells.
pytestmark = pytest.mark.airflow
REPO = Path(__file__).resolve().parents[2]
REGISTRY: dict[str, Any] = yaml.safe_load((REPO / ".airflow-registry.yaml").read_text())
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
INFO = get_provider_info()
KINDS = [kind for kind, value in REGISTRY.items() if isinstance(value, list)]
ENTRIES = [(kind, entry) for kind in KINDS for entry in REGISTRY[kind]]
#: Sections whose entries are the public classes of the modules that the provider info names.
OF_MODULES = ("hooks", "operators", "sensors", "triggers", "retry-policies")


def public_classes(module_name: str) -> set[str]:
    """The classes that a module offers: those it lists, or its own."""
    module = importlib.import_module(module_name)
    own = [name for name, value in inspect.getmembers(module, inspect.isclass) if value.__module__ == module_name]
    return {f"{module_name}.{name}" for name in getattr(module, "__all__", own) if not name.startswith("_")}


def test_what_it_says_of_the_project_is_what_the_project_says() -> None:
    (integration,) = INFO["integrations"]
    assert REGISTRY["package-name"] == PROJECT["name"]
    assert REGISTRY["docs-url"] == PROJECT["urls"]["Documentation"]
    assert REGISTRY["source-url"] == PROJECT["urls"]["Source"]
    assert REGISTRY["logo"] == integration["logo"]


@pytest.mark.parametrize(("kind", "entry"), ENTRIES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_entry_is_a_thing_that_imports(kind: str, entry: dict[str, str]) -> None:
    module, _, name = entry["module"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    assert entry["description"].endswith(".")
    assert set(entry) == {"module", "description"}


@pytest.mark.parametrize("kind", OF_MODULES)
def test_every_public_class_has_its_entry(kind: str) -> None:
    offered = {path for entry in INFO[kind] for module in entry["python-modules"] for path in public_classes(module)}
    assert offered
    assert sorted(_modules(kind)) == sorted(offered)


def test_what_the_provider_info_names_one_by_one_is_there_one_by_one() -> None:
    assert set(KINDS) == {*OF_MODULES, "task-decorators", "plugins", "extra-links"}
    assert _modules("task-decorators") == [entry["class-name"] for entry in INFO["task-decorators"]]
    assert _modules("plugins") == [entry["plugin-class"] for entry in INFO["plugins"]]
    assert _modules("extra-links") == INFO["extra-links"]


def _modules(kind: str) -> list[str]:
    return [entry["module"] for entry in REGISTRY[kind]]
