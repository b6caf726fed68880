"""FAB as the auth manager of all processes: whoever logs in there buys, clears and sees what the role allows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import USER
from dev.stack.processes import Command
from tests.shapes import buying
from tests.shapes.gallery_pages import fetch_page, gallery_page, pictures_seen, visitor
from tests.shapes.stacks import FAB, Started

USERS = {USER: "Admin", "vera": "Viewer", "olga": "Op", "dora": "OneDag"}
ONE_DAG = [("can_read", f"DAG:{buying.PIPELINE}"), ("can_read", "XComs"), ("can_read", "Website")]


def test_behind_fab_everything_is_bought_once_and_seen_by_roles(
    tmp_path: Path, emulator: Emulator, started: Started
) -> None:
    pytest.importorskip("airflow.providers.fab", reason="FAB is not installed (make venv)")
    stack = started.stack(
        tmp_path / "airflow", emulator, {**FAB, "AIRFLOW__NANOBANANA__GALLERY_ROOTS": tmp_path.as_uri()}
    )
    # Users are in FAB's tables: before anybody can log in there must be both.
    stack.run("migrate-first", "db", "migrate", timeout=240)
    wanted = {"password": stack.password, "roles": {"OneDag": ONE_DAG}, "users": USERS}
    program = ("-m", "tests.browser.fab_users", json.dumps(wanted))
    stack.processes.run(Command("fab-users", program, stack.env, stack.log("fab-users")), timeout=240)
    stack.start(timeout=400)
    place = buying.local_place(tmp_path / "images")
    runs = buying.buy(stack.api, emulator, place)
    for user in ("vera", "olga"):
        with visitor(stack.url, user, stack.password) as client:
            for run in runs:
                assert pictures_seen(client, run) == 3
                fetch_page(client, gallery_page(run))
            fetch_page(client, "nanobanana/spend")
    generate, pipeline = runs
    with visitor(stack.url, "dora", stack.password) as dora:
        assert pictures_seen(dora, pipeline) == 3
        assert dora.get(f"nanobanana/api/gallery/{generate.dag_id}?run_id=x").status_code == 403
        assert dora.get(gallery_page(generate)).status_code == 403
        assert generate.dag_id not in dora.get("nanobanana/api/spend").raise_for_status().text
    with visitor(stack.url, None) as nobody:
        assert nobody.get(gallery_page(generate)).status_code == 401
    buying.clear(runs, emulator, place)
