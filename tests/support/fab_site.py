"""Prints which statuses the gallery's routes give to users of FAB; run in a process of its own, with an empty home.

FAB's models and Airflow's share one database and one interpreter's state: nothing of it may stay in the tests' process.
Usage: ``python -m tests.support.fab_site FOLDER``; the last line is JSON: {caller: {path: status}}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.support.airflow_database import add_run, add_task
from tests.support.gallery_site import Batch

CALLERS: Final = ("Admin", "Op", "User", "Viewer", "Public", "OneDag", "anonymous")


def main(folder: Path) -> None:
    """Make the database, the roles and the users; ask as each of them."""
    import flask_appbuilder
    from airflow import settings
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_nanobanana.landing.file_names import image_key
    from airflow_provider_nanobanana.landing.image_store import open_storage
    from airflow_provider_nanobanana.ui.plugin import LazyApp

    import_all_models()
    Base.metadata.create_all(settings.engine)
    flask_appbuilder.Model.metadata.create_all(settings.engine)
    paths: dict[str, str] = {}
    for dag_id in ("shop", "mine"):
        batch = Batch(open_storage(folder / "media" / dag_id), "r", dag_id=dag_id)
        batch.add_image("SKU-1")
        batch.write()
        add_run(dag_id, "r")
        pointer = {"nanobanana_gallery": {"manifest": batch.storage.uri(batch.manifest)}}
        add_task(dag_id, "r", "pictures", rendered={"destination": batch.destination}, xcoms=pointer)
        query = f"run_id=r&task_id=pictures&map_index=-1&key={image_key(batch.images[0]['uri'])}"
        paths |= {
            f"gallery/{dag_id}": f"/api/gallery/{dag_id}?run_id=r",
            f"image/{dag_id}": f"/api/image/{dag_id}?{query}",
            f"thumb/{dag_id}": f"/api/thumb/{dag_id}?{query}",
            f"view/{dag_id}": f"/view/{dag_id}/r",
        }
    paths |= {"wildcard": "/api/gallery/~?run_id=r", "unknown": "/api/gallery/nowhere?run_id=r", "spend": "/api/spend"}
    app = FastAPI()
    # As Airflow's own command does; on 3.1 nothing else tells of FAB's defaults.
    manager: Any = providers_configuration_loaded(init_auth_manager)(app)
    app.mount("/af/nanobanana", LazyApp())
    tokens = _tokens(manager)
    answers: dict[str, dict[str, int]] = {}
    dags: dict[str, list[str]] = {}
    for caller in CALLERS:
        client = TestClient(app, base_url="http://airflow.example", follow_redirects=False)
        if caller != "anonymous":
            client.cookies.set("_token", tokens[caller])
        answers[caller] = {name: client.get(f"/af/nanobanana{path}").status_code for name, path in paths.items()}
        spend = client.get("/af/nanobanana/api/spend")
        dags[caller] = sorted(dag for dag in ("shop", "mine") if dag in spend.text)
    print(json.dumps({"statuses": answers, "spend": dags}))


def _tokens(manager: Any) -> dict[str, str]:
    """Make a user of each role, one of them with the XComs of one DAG alone, and log them in."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    one = [["can_read", "DAG:mine"], ["can_read", "XComs"], ["can_read", "Website"]]
    with get_application_builder() as builder:
        security = builder.sm
        builder.add_permissions(update_perms=True)
        security.sync_roles()
        security.bulk_sync_roles([{"role": "OneDag", "perms": one}])
        tokens = {}
        for caller in CALLERS[:-1]:
            names = (caller.lower(), caller, caller, f"{caller}@example.org")
            user = security.add_user(*names, security.find_role(caller), "password")
            tokens[caller] = manager.generate_jwt(user)
        return tokens


if __name__ == "__main__":
    main(Path(sys.argv[1]))
