"""The gallery of an Airflow as a browser asks for it: every address that a page or an answer names is fetched."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urljoin

import httpx

from tests.system.harness import Run

_ADDRESS = re.compile(r'(?:src|href)="([^"#]+)"')


@contextlib.contextmanager
def visitor(url: str, user: str | None, password: str = "") -> Iterator[httpx.Client]:
    """Give a client with the cookie that a log-in sets, below the base URL; None is nobody."""
    with httpx.Client(base_url=f"{url}/", trust_env=False, timeout=90) as client:
        if user is not None:
            login = client.post("auth/token", json={"username": user, "password": password})
            client.cookies.set("_token", login.raise_for_status().json()["access_token"])
        yield client


def pictures_seen(client: httpx.Client, run: Run) -> int:
    """Return how many pictures a run shows; thumbnail and original of each are fetched."""
    answer = client.get(f"nanobanana/api/gallery/{run.dag_id}", params={"run_id": run.run_id}).raise_for_status().json()
    assert [task["problem"] for task in answer["tasks"] if task["problem"]] == []
    seen = 0
    for task in answer["tasks"]:
        of_task = {"run_id": run.run_id, "task_id": task["task_id"], "map_index": task["map_index"]}
        for card in task["cards"]:
            assert card["kind"] == "image", card
            for route, kind in (("thumb", "image/webp"), ("image", "image/png")):
                found = client.get(f"nanobanana/api/{route}/{run.dag_id}", params={**of_task, "key": card["key"]})
                assert found.raise_for_status().headers["content-type"] == kind
            seen += 1
    return seen


def ledger(client: httpx.Client, run: Run, task_id: str) -> dict[str, Any]:
    """Return the ledger of a task as the page shows it."""
    asked = {"run_id": run.run_id, "task_id": task_id}
    return dict(client.get(f"nanobanana/api/ledger/{run.dag_id}", params=asked).raise_for_status().json())


def fetch_page(client: httpx.Client, path: str) -> str:
    """Fetch a page and everything that it names; all of it is below the base URL."""
    found = client.get(path).raise_for_status()
    for address in _ADDRESS.findall(found.text):
        target = urljoin(str(found.url), address.replace("&amp;", "&"))
        assert target.startswith(str(client.base_url)), target
        client.get(target).raise_for_status()
    return found.text


def gallery_page(run: Run) -> str:
    """Return the path of a run's page."""
    return f"nanobanana/view/{run.dag_id}/{quote(run.run_id, safe='')}"


def plugin_bundles(run: Run) -> list[str]:
    """Return the addresses of scripts and icons that Airflow's interface loads for our tabs."""
    plugins = run.api.get("/plugins", limit=100)["plugins"]
    apps = [app for plugin in plugins if plugin["name"] == "nanobanana" for app in plugin["react_apps"]]
    return [str(app[name]) for app in apps for name in ("bundle_url", "icon", "icon_dark_mode")]
