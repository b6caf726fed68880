"""The command ``ledger``: what needs a look first, all of it as JSON, and an exit status for what was not read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.cli.ledger import ledger_lines
from tests.support.airflow_database import add_run, add_task, airflow_database

ROW: dict[str, Any] = {
    **{"label": "#0", "state": "in place", "image_task_id": "tsk_1", "paid_usd": 0.025, "money": "$0.025 paid"},
    **{"why": None, "retry": "uses it and buys nothing", "clear": "uses it and buys nothing"},
    **{"retry_buys": "no", "clear_buys": "no"},
}


@pytest.fixture(scope="module")
def run_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A run with two sensors of ours and a task of somebody else's."""
    with airflow_database(tmp_path_factory.mktemp("database")):
        add_run("shop", "monday")
        for map_index in (0, 1):
            ids = {"image_task_ids": [f"tsk_{map_index}"]}
            add_task("shop", "monday", "wait", map_index=map_index, operator="NanoBananaSensor", rendered=ids)
        add_task("shop", "monday", "other", operator="BashOperator")
        yield "monday"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["ledger", "shop", *words])
    return status, capsys.readouterr().out


def test_every_task_of_ours_is_told(run_of_three: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, run_of_three)
    assert status == 0
    assert (
        "Task wait [0], from" in out and "Task wait [1], from" in out and "other" not in out.replace("task before", "")
    )
    assert "tsk_1 (tsk_1): waited for" in out and "a clear  waits for it again" in out


def test_one_of_a_mapped_task_as_json(run_of_three: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, run_of_three, "--task", "wait", "--map-index", "1", "--json")
    content = json.loads(out)
    assert (status, content["dag_id"], content["run_id"]) == (0, "shop", "monday")
    (only,) = content["task_instances"]
    assert (only["task_id"], only["map_index"], only["rows"][0]["image_task_id"]) == ("wait", 1, "tsk_1")


@pytest.mark.parametrize("words", [("tuesday",), ("monday", "--task", "nobody")])
def test_what_is_not_there_is_said(
    run_of_three: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    status, out = run(capsys, *words)
    assert status == 1 and "There is no task instance" in out


def test_a_database_that_cannot_be_read_is_an_error_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.utils import session as sessions
    from sqlalchemy.exc import OperationalError

    def refuse(**_: Any) -> Any:
        raise OperationalError("SELECT 1", {}, Exception("no such host"))

    monkeypatch.setattr(sessions, "create_session", refuse)
    assert main(["ledger", "shop", "monday"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "no such host" in said.err and len(said.err.splitlines()) == 1


def test_of_many_rows_those_that_need_a_look_are_printed() -> None:
    rows = [ROW | {"label": f"#{number}"} for number in range(10_000)]
    rows[7_000] = ROW | {"label": "bad", "state": "failed: x", "why": "sorry"}
    ledger = {
        "task_id": "t",
        "map_index": -1,
        "source": "a test",
        "summary": ["10,000 images"],
        "skipped": [],
        "rows": rows,
    }
    lines = list(ledger_lines(ledger, most=3))
    assert next(line for line in lines if "(tsk_1)" in line).startswith("bad")
    assert lines[-1] == "and 9,997 more: --json lists all of them" and len(lines) < 30


def test_help_needs_no_airflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "airflow.utils.session", None)
    with pytest.raises(SystemExit):
        main(["ledger", "--help"])
    assert "DAG_ID" in capsys.readouterr().out
