"""The parts of the demo that need no Airflow: what its processes may see, what is printed, what is drawn."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from airflow_provider_nanobanana.batch.manifest import utc_text
from dev.demo.__main__ import Folders
from dev.demo.contact_sheet import CELL, Picture, draw_sheet
from dev.demo.report import Line, lines_of_generate, problems, table
from dev.stack.airflow_api import AirflowApi, ApiError, Record
from dev.stack.airflow_stack import Ports, airflow_environment
from dev.stack.console import Progress, describe
from dev.stack.emulator_process import list_price, real_service
from dev.stack.processes import REPO, free_ports


def _picture(folder: Path, size: tuple[int, int], colour: str) -> Path:
    path = folder / f"{colour}.png"
    Image.new("RGB", size, colour).save(path)
    return path


def _instance(task_id: str, state: str | None, start: str | None = None, map_index: int = -1) -> Record:
    return {"task_id": task_id, "state": state, "start_date": start, "map_index": map_index}


def test_the_stack_sees_neither_the_users_airflow_nor_the_raw_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW_CONN_PROD", "x://y")
    monkeypatch.setenv("TOAPIS_API_KEY", "sk-real")
    monkeypatch.setenv("NO_PROXY", "example.com")
    env = airflow_environment(tmp_path, [tmp_path], Ports(1, 2, 3), "secret", {"AIRFLOW_CONN_NANOBANANA_DEFAULT": "{}"})
    assert "production" not in "".join(env.values())
    assert "AIRFLOW_CONN_PROD" not in env
    assert "sk-real" not in env.values()
    assert env["AIRFLOW_CONN_NANOBANANA_DEFAULT"] == "{}"
    assert env["NO_PROXY"] == "example.com,127.0.0.1,localhost"
    assert env["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] == "True"


def test_each_dag_folder_is_a_bundle_and_a_missing_one_is_named(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "dags", tmp_path / "b" / "dags"]
    for folder in folders:
        folder.mkdir(parents=True)
    env = airflow_environment(tmp_path, folders, Ports(1, 2, 3), "secret", {})
    bundles = json.loads(env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert [bundle["kwargs"]["path"] for bundle in bundles] == [str(folder) for folder in folders]
    assert len({bundle["name"] for bundle in bundles}) == 2
    with pytest.raises(FileNotFoundError, match="nowhere"):
        airflow_environment(tmp_path, [tmp_path / "nowhere"], Ports(1, 2, 3), "secret", {})


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_the_key_decides_between_emulator_and_service() -> None:
    assert real_service({"TOAPIS_API_KEY": " "}) is None
    service = real_service({"TOAPIS_API_KEY": " sk-1\n", "TOAPIS_BASE_URL": "https://toapis.cn"})
    assert service is not None
    assert json.loads(service.connection) == {
        "conn_type": "nanobanana",
        "password": "sk-1",
        "host": "https://toapis.cn",
    }
    assert service.ledger() is None
    assert "sk-1" not in repr(service)
    assert list_price(6) == pytest.approx(0.15)


@pytest.mark.parametrize("real", [True, False])
def test_what_was_paid_outlives_the_next_demo(tmp_path: Path, real: bool) -> None:
    bought = Folders(tmp_path, real=True)
    drawn = Folders(tmp_path, real=False)
    for folder in (bought.images, drawn.images, drawn.airflow):
        folder.mkdir(parents=True)
        (folder / "left.png").touch()
    Folders(tmp_path, real=real).prepare()
    assert (bought.images / "left.png").exists()
    assert not (drawn.images / "left.png").exists() and not drawn.airflow.exists()


def test_make_clean_deletes_nothing_that_was_paid(tmp_path: Path) -> None:
    bought = Folders(tmp_path, real=True).images
    bought.mkdir()
    (bought / "paid.png").touch()
    drawn = Folders(tmp_path, real=False).images
    drawn.mkdir(parents=True)
    subprocess.run(["make", "-f", REPO / "Makefile", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert (bought / "paid.png").exists() and not drawn.exists()


def test_progress_names_tasks_in_the_order_of_their_start() -> None:
    instances = [
        _instance("download", None),
        _instance("wait", "deferred", "2026-01-01T00:00:05Z"),
        _instance("submit", "success", "2026-01-01T00:00:01Z", 0),
        _instance("submit", "running", "2026-01-01T00:00:02Z", 1),
    ]
    assert describe(instances) == "submit: 1 running, 1 done | wait: waiting in the triggerer, no worker held"
    assert describe([_instance("download", None)]) == "waiting for the scheduler"


def test_off_a_terminal_only_changes_are_printed() -> None:
    out = io.StringIO()
    progress = Progress(out)
    for state in ("running", "running", "success", "success"):
        progress.watch([_instance("submit", state, "2026-01-01T00:00:01Z")])
    assert [line.split("  ")[-1] for line in out.getvalue().splitlines()] == ["submit: running", "submit: done"]


def test_the_table_counts_what_is_there_and_explains_what_is_not(tmp_path: Path) -> None:
    there = Line("a", "t1", tmp_path / "a.png", (1376, 768), 175_400, 23.44, 0.025)
    before = Line("d", None, tmp_path / "d.png", (1376, 768), 175_400, None, 0.0)
    lost = Line("b", "t2", cost_usd=0.025, problem="expired: gone")
    text = table([there, before, lost, Line("c", None, problem="not submitted (failed)")], tmp_path)
    rows = text.splitlines()
    assert rows[2].split() == ["a.png", "1376", "x", "768", "175", "23.4", "0.025"]
    assert rows[3].split() == ["d.png", "1376", "x", "768", "175", "reused", "0.000"]
    assert "2 of 4 images" in text
    assert rows[-3].endswith("0.050")
    assert rows[-2:] == ["Missing: 'b': expired: gone", "Missing: 'c': not submitted (failed)"]


class Answers:
    """Airflow's API, of which the XComs are given."""

    def __init__(self, **xcoms: Any) -> None:
        self._xcoms = xcoms

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        if task_id not in self._xcoms:
            raise ApiError("no such XCom", 404)
        return self._xcoms[task_id]


def test_a_run_of_one_task_has_a_line_for_each_prompt(tmp_path: Path) -> None:
    stored = _picture(tmp_path, (16, 9), "red")
    image = {"uri": stored.as_uri(), "id": "t1", "index": 0, "request": 0, "cost_usd": 0.025}
    reused = {**image, "id": None, "request": 1, "cost_usd": 0.0}
    gone = {**image, "uri": (tmp_path / "gone.png").as_uri(), "request": 2}
    failure = {"request": 3, "id": "t4", "code": "content_policy_violation", "message": "refused"}
    manifest = tmp_path / "manifest.json"
    listed = [
        {"request": 0, "times": {"submitted_at": utc_text(stored.stat().st_mtime - 20)}},
        {"request": 1, "times": {"submitted_at": None}},
    ]
    manifest.write_text(json.dumps({"images": listed}))
    result = {"images": [image, reused, gone], "failed": [failure], "manifest": manifest.as_uri()}
    api = cast("AirflowApi", Answers(pictures=result))
    lines = lines_of_generate(api, "dag", "run", ["a", "b", "c", "d", "e"])
    assert [(line.path, line.seconds) for line in lines[:2]] == [(stored, pytest.approx(20, abs=0.01)), (stored, None)]
    assert lines[0].pixels == (16, 9)
    assert [line.problem.split(":")[0] for line in lines[2:]] == [
        "unreadable",
        "content_policy_violation",
        "the task ended without a result",
    ]
    nothing = lines_of_generate(cast("AirflowApi", Answers()), "dag", "run", ["a"])
    assert nothing == [Line("a", None, problem="the task ended without a result")]


def test_a_failure_is_shown_without_frames() -> None:
    entries = [
        "plain text",
        {"level": "info", "event": "fine"},
        {
            "level": "error",
            "event": "Task failed with exception",
            "error_detail": [{"exc_type": "X", "exc_value": "why", "frames": [{"name": "deep"}]}],
        },
    ]
    assert problems(entries) == ["Task failed with exception X: why"]


def test_the_sheet_shows_every_picture_whole(tmp_path: Path) -> None:
    pictures = [
        Picture(_picture(tmp_path, (1376, 768), "red"), "wide"),
        Picture(_picture(tmp_path, (768, 1376), "lime"), "tall " * 60, ("x" * 300,)),
        Picture(None, "gone", ("refused",)),
    ]
    target = draw_sheet(pictures, tmp_path / "new" / "sheet.png", title="three")
    with Image.open(target) as sheet:
        colours = {colour: count for count, colour in sheet.convert("RGB").getcolors(1 << 24) or []}
    assert colours[(255, 0, 0)] == pytest.approx(CELL * CELL * 768 / 1376, rel=0.02)
    assert colours[(0, 255, 0)] == pytest.approx(CELL * CELL * 768 / 1376, rel=0.02)


@pytest.mark.parametrize("count", [0, 1, 5, 17])
def test_the_sheet_grows_with_the_number_of_pictures(tmp_path: Path, count: int) -> None:
    pictures = [Picture(None, f"picture {number}") for number in range(count)]
    with Image.open(draw_sheet(pictures, tmp_path / "sheet.png", title="many")) as sheet:
        columns = {0: 1, 1: 1, 5: 3, 17: 4}[count]
        assert columns * CELL < sheet.width < (columns + 1) * CELL
