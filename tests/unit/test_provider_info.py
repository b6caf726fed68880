"""Provider discovery: one wrong entry here breaks the provider list of the whole Airflow installation."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.get_provider_info import get_provider_info

REPO = Path(__file__).resolve().parents[2]
INFO = get_provider_info()
(CONNECTION,) = INFO["connection-types"]


def _schema() -> Any:
    import airflow

    return json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())


def _modules() -> list[str]:
    kinds = ("hooks", "operators", "sensors", "triggers")
    return [module for kind in kinds for entry in INFO[kind] for module in entry["python-modules"]]


def test_it_satisfies_airflows_schema() -> None:
    jsonschema.Draft7Validator(_schema()).validate(INFO)


def test_package_name_is_the_distributions() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert INFO["package-name"] == project["name"] == "airflow-provider-nanobanana"


def test_the_entry_point_leads_here() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["apache_airflow_provider"]["provider_info"]
    module, _, function = target.partition(":")
    assert getattr(importlib.import_module(module), function) is get_provider_info


def test_each_integration_named_is_declared() -> None:
    declared = {entry["integration-name"] for entry in INFO["integrations"]}
    used = {entry["integration-name"] for kind in ("hooks", "operators", "sensors", "triggers") for entry in INFO[kind]}
    assert used == declared


@pytest.mark.parametrize("module", _modules())
def test_each_module_named_imports(module: str) -> None:
    assert importlib.import_module(module).__name__ == module


def test_the_hook_and_the_form_agree() -> None:
    module, _, name = CONNECTION["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert hook.conn_type == CONNECTION["connection-type"] == "nanobanana"
    assert hook.hook_name == CONNECTION["hook-name"]
    assert hook.conn_name_attr == "nanobanana_conn_id"
    assert hook.default_conn_name == "nanobanana_default"


def test_airflow_before_3_2_hears_the_same_of_the_form_from_the_hook() -> None:
    hook = importlib.import_module("airflow_provider_nanobanana.hooks.nanobanana").NanoBananaHook
    said = hook.get_ui_field_behaviour()
    assert set(said) == {"hidden_fields", "relabeling", "placeholders"}
    assert list(said.values()) == list(CONNECTION["ui-field-behaviour"].values())


def test_the_form_offers_each_extra_of_the_connection() -> None:
    fields = CONNECTION["conn-fields"]
    rates = {"timeout", "submit_rate", "query_rate"}
    assert set(fields) == {"model", "models", "prices", "client_ids", "namespace", "allow_http", *rates}
    for field in fields.values():
        jsonschema.Draft7Validator.check_schema(field["schema"])
        jsonschema.validate(field["schema"].get("default"), field["schema"])
        assert field["description"].endswith(".")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", 0),
        ("timeout", "soon"),
        ("submit_rate", -1),
        ("client_ids", "yes"),
        ("namespace", "n" * 101),
        ("prices", {"1K": -0.1}),
        ("prices", {"m": {"1K": "x"}}),
        ("models", {"m": "guide"}),
    ],
)
def test_the_form_refuses_nonsense(field: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, CONNECTION["conn-fields"][field]["schema"])


def test_airflow_shows_the_form() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    provider = manager.providers.get("airflow-provider-nanobanana")
    if provider is None:
        pytest.fail("the provider is not installed in this environment: pip install -e .")
    assert provider.version == __version__
    assert manager.field_behaviours["nanobanana"]["relabeling"] == {"host": "Base URL", "password": "API key"}
    shown = {
        widget.field_name
        for widget in manager.connection_form_widgets.values()
        if widget.package_name == "airflow-provider-nanobanana"
    }
    assert shown == set(CONNECTION["conn-fields"])


def test_it_imports_nothing_heavy() -> None:
    """Every Airflow process calls it at start; ``airflow providers list`` calls it for each provider."""
    program = (
        "import json, sys; before = set(sys.modules);"
        "from airflow_provider_nanobanana.get_provider_info import get_provider_info; get_provider_info();"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, cwd=REPO, capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in json.loads(answer.stdout)}
    assert loaded.isdisjoint({"airflow", "httpx", "pydantic", "PIL", "fsspec", "upath", "starlette", "uvicorn"}), loaded
