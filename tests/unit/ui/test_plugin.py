"""What each Airflow is given: nothing that it does not know, and nothing that costs anything in other processes."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.get_provider_info import get_provider_info
from airflow_provider_nanobanana.ui.plugin import GalleryPlugin, plugin_entries

REPO = Path(__file__).parents[3]
HEAVY = (
    "PIL",
    "fastapi",
    "starlette",
    "sqlalchemy",
    "httpx",
    "fsspec",
    "upath",
    "airflow.models",
    "airflow.api_fastapi",
)


@pytest.mark.parametrize(
    ("version", "places"),
    [
        ((3, 0, 6), []),
        ((3, 1, 0), []),
        ((3, 1, 1), ["dag_run", "nav"]),
        ((3, 1, 8), ["dag_run", "nav"]),
        ((3, 3, 2), ["dag_run", "nav"]),
        ((3, 4, 0), ["dag_run", "nav", "task_instance", "asset"]),
        ((4, 0, 0), ["dag_run", "nav", "task_instance", "asset"]),
    ],
)
def test_only_what_a_version_knows(version: tuple[int, int, int], places: list[str]) -> None:
    entries = plugin_entries(version, "/af", switched_on=True)
    assert [app["destination"] for app in entries.get("react_apps", [])] == places
    assert bool(entries.get("fastapi_apps")) == bool(entries.get("operator_extra_links")) == bool(places)


def test_switched_off_nothing_is_registered() -> None:
    assert plugin_entries((3, 4, 0), "", switched_on=False) == {}


def test_addresses_and_names() -> None:
    apps = plugin_entries((3, 4, 0), "/af", switched_on=True)["react_apps"]
    assert len({app["url_route"] for app in apps}) == len({app["bundle_url"] for app in apps}) == len(apps)
    for app in apps:
        assert re.fullmatch(r"/af/nanobanana/static/nanobanana\.js\?view=\w+&v=[\w.]+", app["bundle_url"])
        assert app["icon"] == "/af/nanobanana/static/icon.svg"
        # Each becomes a global of the page.
        assert app["name"] in ("Images", "Image spend")
    scoped = {app["destination"]: app.get("applies_to") for app in apps}
    names = [
        *("NanoBananaGenerateOperator", "NanoBananaDownloadOperator", "@task.nanobanana"),
        "NanoBananaReviewOperator",
    ]
    assert scoped["task_instance"] == {"operator_name": names}


def test_this_airflow_takes_all_of_it() -> None:
    """It leaves out a plugin whole, with a word in a log, where it does not know one destination."""
    models = importlib.import_module("airflow.api_fastapi.core_api.datamodels.plugins")
    for app in GalleryPlugin.react_apps:
        models.ReactAppResponse.model_validate(app)
    (mounted,) = GalleryPlugin.fastapi_apps
    models.FastAPIAppResponse.model_validate({**mounted, "app": "x"})


def test_the_entry_point_and_the_provider_info_name_it() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    path = f"{GalleryPlugin.__module__}:{GalleryPlugin.__name__}"
    assert project["entry-points"]["airflow.plugins"] == {GalleryPlugin.name: path}
    named = {"name": GalleryPlugin.name, "plugin-class": path.replace(":", ".")}
    assert get_provider_info()["plugins"] == [named]


def test_the_settings_are_described_with_what_holds_without_them() -> None:
    options = get_provider_info()["config"]["nanobanana"]["options"]
    assert {name: option["default"] for name, option in options.items()} == {"gallery": "True", "gallery_roots": ""}


def run(code: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_loading_it_imports_nothing_heavy() -> None:
    """Every process of Airflow does, those of tasks too."""
    found = run(f"""
import json, sys
import airflow.providers.common.compat.sdk as sdk
sdk.AirflowPlugin, sdk.conf, sdk.BaseOperatorLink
before = set(sys.modules)
import airflow_provider_nanobanana.ui.plugin
new = set(sys.modules) - before
print(json.dumps([name for name in new if name.startswith({HEAVY!r})]))
""")
    assert found == []


def test_the_switch_and_the_base_path_are_read_from_the_configuration() -> None:
    code = """
import importlib
import json
from airflow_provider_nanobanana.ui.plugin import GalleryPlugin
print(json.dumps([app["icon"] for app in GalleryPlugin.react_apps]))
"""
    icons = run(code, AIRFLOW__API__BASE_URL="https://host.example/team/af/")
    assert set(icons) == {"/team/af/nanobanana/static/icon.svg"}
    assert run(code, AIRFLOW__NANOBANANA__GALLERY="False") == []
