"""Provider discovery: one wrong entry here breaks the provider list of the whole Airflow installation."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.get_provider_info import get_provider_info
from dev.constraints import known_versions

REPO = Path(__file__).resolve().parents[2]
#: What each supported Airflow ships as ``airflow/provider_info.schema.json``.
SCHEMAS = REPO / "tests" / "unit" / "provider_info_schemas"
INFO = get_provider_info()
(CONNECTION,) = INFO["connection-types"]


def _schema() -> Any:
    import airflow

    return json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())


def _modules() -> list[str]:
    kinds = ("hooks", "operators", "sensors", "triggers", "retry-policies")
    return [module for kind in kinds for entry in INFO[kind] for module in entry["python-modules"]]


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_it_satisfies_airflows_schema() -> None:
    jsonschema.Draft7Validator(_schema()).validate(INFO)


@pytest.mark.parametrize("version", known_versions())
def test_it_satisfies_the_schema_of_each_supported_airflow(version: str) -> None:
    schema = json.loads((SCHEMAS / f"{version}.json").read_text())
    jsonschema.Draft7Validator(schema).validate(INFO)
    broken = {**INFO, "config": {"nanobanana": {"options": {"gallery": {"default": "True"}}}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(broken), "the schema checks nothing"


def test_the_schema_kept_is_the_one_installed() -> None:
    from airflow import __version__ as airflow_version

    kept = SCHEMAS / f"{airflow_version}.json"
    if not kept.exists():
        pytest.skip(f"not a version of the matrix: {airflow_version}")
    assert json.loads(kept.read_text()) == _schema()


def test_no_key_is_one_that_no_airflow_knows() -> None:
    """A key that is spelled wrong is ignored in silence."""
    known = {key for path in SCHEMAS.glob("*.json") for key in json.loads(path.read_text())["properties"]}
    assert set(INFO) - known == {"retry-policies"}  # in provider.yaml.schema.json of 3.4


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
    kinds = ("hooks", "operators", "sensors", "triggers", "retry-policies")
    assert {entry["integration-name"] for kind in kinds for entry in INFO[kind]} == declared


def test_logo_and_guides_are_pages_of_the_site() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    (integration,) = INFO["integrations"]
    site, _, logo = integration["logo"].rpartition("/")
    assert f"{site}/" == project["urls"]["Documentation"]
    assert (REPO / "docs" / logo).read_text().startswith("<svg ")
    for guide in integration["how-to-guide"]:
        assert guide.startswith("/docs/")
        assert (REPO / guide.removeprefix("/")).is_file(), guide


def test_link_plugin_and_decorator_are_the_classes_named() -> None:
    assert [_named(path).name for path in INFO["extra-links"]] == ["Gallery"]
    (plugin,) = INFO["plugins"]
    assert _named(plugin["plugin-class"]).name == plugin["name"]
    (decorator,) = INFO["task-decorators"]
    assert callable(_named(decorator["class-name"]))


def test_the_settings_described_are_those_read() -> None:
    """``[nanobanana]`` is read in several places; each option is in the provider info, with the default used there."""
    source = "".join(path.read_text() for path in (REPO / "airflow_provider_nanobanana").rglob("*.py"))
    read = set(re.findall(r"""conf\.get\w*\(\s*["']nanobanana["'],\s*["'](\w+)["']""", source))
    assert read == set(INFO["config"]["nanobanana"]["options"]), read


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


def test_airflow_before_3_2_has_the_same_fields_from_the_hook() -> None:
    hook = importlib.import_module("airflow_provider_nanobanana.hooks.nanobanana").NanoBananaHook
    try:
        from wtforms import Form
    except ImportError:
        with pytest.raises(ImportError, match="wtforms"):
            hook.get_connection_form_widgets()
        return
    form = type("ConnectionForm", (Form,), hook.get_connection_form_widgets())()
    fields = CONNECTION["conn-fields"]
    assert {field.name: (field.label.text, field.description) for field in form} == {
        name: (field["label"], field["description"])
        for name, field in fields.items()
        if name not in ("prices", "models")
    }
    # What is left as it was changes nothing: an empty text is not set, a switch keeps its default.
    assert {field.name: field.data for field in form if field.data is not None} == {
        "client_ids": True,
        "allow_http": False,
    }


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
    asks_the_hook = get_base_airflow_version_tuple() < (3, 2)
    if asks_the_hook and importlib.util.find_spec("wtforms") is None:
        assert "nanobanana" not in manager.field_behaviours, "Airflow 3.0 shows no form of any provider without WTForms"
        return
    assert manager.field_behaviours["nanobanana"]["relabeling"] == {"host": "Base URL", "password": "API key"}
    shown = {
        widget.field_name
        for widget in manager.connection_form_widgets.values()
        if widget.package_name == "airflow-provider-nanobanana"
    }
    in_extra = {"prices", "models"} if asks_the_hook else set()
    assert shown == set(CONNECTION["conn-fields"]) - in_extra


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
