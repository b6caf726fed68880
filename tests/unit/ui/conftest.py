"""A database of Airflow's with runs in it, and the web application as Airflow mounts it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.airflow_database import airflow_database
from tests.support.gallery_site import Batch, environment, gallery_roots
from tests.support.versions import PAGES, gives, reason

if not gives(PAGES):
    # Not even what they import is there.
    class Skipped(pytest.Module):
        def collect(self) -> Iterator[pytest.Item]:
            pytest.skip(reason(PAGES), allow_module_level=True)

    def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
        return Skipped.from_parent(parent, path=module_path)


_numbers = itertools.count()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty database of Airflow's."""
    with airflow_database(tmp_path_factory.mktemp("airflow-database")):
        yield


@pytest.fixture
def run_id(database: None) -> str:
    """A run id that no other test uses, with all that is hard in one."""
    return f"manual__2026-11-26T08:00:00+00:00/{next(_numbers)}"


@dataclass(frozen=True)
class Site:
    """Airflow's web server, as far as the gallery needs it; at ``/`` and below ``/af``."""

    app: Any

    def client(self, role: str | None = "admin", base: str = "") -> TestClient:
        """Return a browser's connection.

        :param role: Of the user; None for nobody.
        """
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        client = TestClient(self.app, base_url=f"http://airflow.example{base}", follow_redirects=False)
        if role is not None:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=f"a-{role}", role=role))
            client.cookies.set("_token", token)
        return client


@pytest.fixture(scope="session")
def site(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application behind the SimpleAuthManager."""
    from airflow.api_fastapi.app import init_auth_manager
    from fastapi import FastAPI

    from airflow_provider_nanobanana.ui.plugin import LazyApp

    passwords = tmp_path_factory.mktemp("passwords") / "passwords.json"
    names = {
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": "of the tests alone; " * 4,
    }
    with environment(names):
        parent = FastAPI()
        init_auth_manager(parent)
        parent.mount("/nanobanana", LazyApp())
        outer = FastAPI()
        outer.mount("/af", parent)
        outer.mount("/", parent)
        yield Site(outer)


@pytest.fixture
def batch(site: Site, run_id: str, tmp_path: Path) -> Iterator[Batch]:
    """A task instance with one picture, in a local folder that the settings allow."""
    from airflow_provider_nanobanana.landing.image_store import open_storage

    folder = tmp_path / "media"
    with gallery_roots([folder]):
        made = Batch(open_storage(folder), run_id)
        made.add_image("SKU-1")
        yield made
