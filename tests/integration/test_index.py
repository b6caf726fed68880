"""The index beside the manifests: what an engine finds in it, and what becomes of a run that cannot write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from tests.support.pages import snippets
from tests.support.task_runner import Run, TaskInstance, attempt, entries_of, land
from tests.support.task_state_store import MemoryTaskStateStore

#: Where the page has its pictures.
SHOWN = "/data/catalogue"
ROWS = [
    {"name": "SKU-007", "prompt": "a red running shoe on concrete", "meta": {"price": 89.9, "colour": "red"}},
    {"name": "SKU-008", "prompt": "a blue running shoe on concrete", "meta": {"price": 94.5, "colour": "blue"}},
    {"name": "SKU-011", "prompt": "a wool scarf on linen", "meta": {"price": 39.0, "season": "winter"}},
]


def generate(folder: Path, run_id: str, requests: Any, **options: Any) -> Run:
    operator = NanoBananaGenerateOperator(
        task_id="pictures", requests=requests, destination=str(folder), poke_interval=0.05, timeout=20, **options
    )
    run = attempt(operator, TaskInstance(task_id="pictures", run_id=run_id, store=MemoryTaskStateStore()))
    assert run.error is None
    return run


def lines(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / ".nanobanana" / "index").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def cells(box: str) -> list[list[str]]:
    """Return what stands in a table of DuckDB's, without its types: how the box is drawn differs between versions."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in box.splitlines() if line.startswith("│")]
    return rows[:1] + rows[2:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


def test_one_query_finds_last_week_s_pictures_of_a_prompt(emulator: Emulator, folder: Path) -> None:
    """The query of docs/results.md, and its output."""
    import duckdb

    generate(folder, "monday", ROWS, size="3:4", variant="autumn")
    # The first is in place, and listed again.
    again = generate(folder, "tuesday", [ROWS[0], {"prompt": "a Running Shoe, poster"}], size="3:4", variant="autumn")
    assert again.result["reused"] == 1
    generate(folder, "wednesday", [ROWS[1]], size="3:4", variant="autumn")
    (query,) = [each.text for each in snippets("sql") if each.page == "results.md"]
    (output,) = [each.text for each in snippets("text") if each.page == "results.md"]
    shown = str(duckdb.sql(query.replace(SHOWN, str(folder))))
    assert cells(shown) == cells(output) and len(cells(shown)) == 4
    old = query.replace(SHOWN, str(folder)).replace("written_at > now()", "written_at < now()")
    assert duckdb.execute(old).fetchall() == []


LINE = {
    **{"name": "A", "variant": "", "version": 1, "prompt": "a running shoe", "meta": None},
    **{"width": 1, "height": 1, "reused": False, "sha256": "ab", "cost_usd": 0.025},
}


@pytest.mark.parametrize(
    ("first", "then", "row"),
    [
        ({"meta": {"price": 1}}, {"meta": {"price": 1.5}}, ("A", "", 1.5)),
        ({"variant": "2026-11-26"}, {"variant": "autumn"}, ("A", "autumn", None)),
        ({"name": "2026-11-26"}, {"name": "SKU"}, ("SKU", "", None)),
        ({"meta": {"price": 1}}, {"meta": {"price": "n/a"}}, ("A", "", None)),
        ({"meta": {"colour": "red"}}, {"meta": {"price": "12.50"}}, ("A", "", 12.5)),
        ({}, {"meta": {"price": 2.5}}, ("A", "", 2.5)),
        ({"name": None}, {}, ("A", "", None)),
        ({"prompt": "2026"}, {}, ("A", "", None)),
        ({"meta": {f"k{number}": number for number in range(300)}}, {"meta": {"price": 3}}, ("A", "", 3.0)),
    ],
)
def test_the_query_answers_right_when_runs_have_grown_different(
    folder: Path, first: dict[str, Any], then: dict[str, Any], row: tuple[Any, ...]
) -> None:
    """Of many files a guess of the types looks at the first 32 alone."""
    import duckdb

    index = folder / ".nanobanana" / "index"
    index.mkdir(parents=True)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    for number, fields in enumerate([*[first] * 40, then]):
        line = {**LINE, "uri": f"file:///x/{number}.png", "written_at": now, **fields}
        (index / f"m{number:03}.jsonl").write_text(json.dumps(line) + "\n")
    (query,) = [each.text for each in snippets("sql") if each.page == "results.md"]
    found = duckdb.execute(query.replace(SHOWN, str(folder))).fetchall()
    assert row in [each[:3] for each in found]


def test_the_query_takes_the_newest_version(emulator: Emulator, folder: Path) -> None:
    import duckdb

    generate(folder, "monday", [*ROWS, "a running shoe", "a running shoe"])
    generate(folder, "tuesday", ROWS, redo="SKU-007")
    generate(folder, "wednesday", ROWS)
    (query,) = [each.text for each in snippets("sql") if each.page == "results.md"]
    found = duckdb.execute(query.replace(SHOWN, str(folder))).fetchall()
    assert [(row[0], "-v2." in row[-1]) for row in found] == [
        ("SKU-007", True),
        ("SKU-008", False),
        (None, False),
        (None, False),
    ]


def test_the_query_of_runs_that_made_nothing_finds_nothing(folder: Path) -> None:
    import duckdb

    index = folder / ".nanobanana" / "index"
    index.mkdir(parents=True)
    (index / "m.jsonl").write_text("")
    (query,) = [each.text for each in snippets("sql") if each.page == "results.md"]
    assert duckdb.execute(query.replace(SHOWN, str(folder))).fetchall() == []


def test_the_index_is_named_as_its_manifest_and_written_anew_with_it(emulator: Emulator, folder: Path) -> None:
    first = generate(folder, "monday", ROWS)
    written = lines(folder)
    assert [line["meta"] for line in written] == [row["meta"] for row in ROWS]
    assert {line["uri"] for line in written} == {image["uri"] for image in first.result["images"]}
    (index,) = (folder / ".nanobanana" / "index").iterdir()
    assert index.name == Path(first.result["manifest"]).name.replace(".json", ".jsonl")
    generate(folder, "monday", ROWS[:1])
    assert [line["name"] for line in lines(folder)] == ["SKU-007"]


def test_a_download_writes_the_same_lines(emulator: Emulator, buy: Callable[..., str], folder: Path) -> None:
    generate(folder, "monday", ROWS[:1])
    land(entries_of(buy("a kite")), folder)
    one, other = sorted(lines(folder), key=lambda line: str(line["name"]), reverse=True)
    assert one.keys() == other.keys() and one["name"] == "SKU-007" and other["name"] is None
    assert other["submitted_at"] <= other["written_at"] and other["model"] == "nano_banana_2"


def test_an_index_that_cannot_be_written_fails_nothing(
    emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = LocalStorage.write

    def refused(self: LocalStorage, name: str, *content: Any) -> None:
        if name.endswith(".jsonl"):
            raise StorageFailed("403 AccessDenied")
        write(self, name, *content)

    monkeypatch.setattr(LocalStorage, "write", refused)
    run = generate(folder, "monday", ROWS[:1])
    assert run.result["count"] == 1 and Path(run.result["manifest"].removeprefix("file://")).exists()
    (record,) = [record for record in caplog.records if "index of the images" in record.getMessage()]
    assert record.levelname == "WARNING" and "403 AccessDenied" in record.getMessage()
