"""The command: its arguments, its exit status, and what it says where there is nothing or something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_nanobanana.__main__ import main
from tests.support.claims import claim, write_claim

MANIFEST = {
    **{"version": 1, "dag_id": "kites", "run_id": "monday", "task_id": "generate", "map_index": -1},
    **{"cost_usd": 0.025, "paid_usd": 0.025, "failed": []},
    "images": [{"id": "tsk_1", "request": 0, "name": "hero", "cost_usd": 0.025, "paid_usd": 0.025}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest-kites.json").write_text(json.dumps(MANIFEST))
    return tmp_path


def test_it_prints_tables_and_open_claims(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_claim(folder, claim("b-1"))
    assert main(["spend", str(folder)]) == 0
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if line.startswith("By ")] == ["By dag", "By day", "By model"]
    assert "Open claims: 1" in shown.out and shown.err == ""


def test_its_tables_are_those_that_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spend", folder.as_uri(), "--by", "month", "--by", "request", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["by"]) == ["month", "request"]
    assert content["destinations"] == [folder.as_uri()] and content["skipped"] == []


def test_claims_alone_read_no_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "manifest-bad.json").write_text("{")
    write_claim(folder, claim("b-1"))
    assert main(["spend", str(folder), "--claims", "--json"]) == 0
    assert [one["stem"] for one in json.loads(capsys.readouterr().out)["open_claims"]] == ["b-1"]


def test_a_destination_that_is_given_twice_is_read_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spend", str(folder), f"{folder}/", folder.as_uri(), "--csv", "--by", "dag"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("total,,,0.025,")


def test_a_file_that_cannot_be_read_is_named_and_the_status_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "manifest-\x1b[31mbad.json").write_text("{")
    assert main(["spend", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "Paid: $0.025" in shown.out
    (line,) = shown.err.splitlines()
    assert line.startswith(f"spend: {folder.as_uri()}/manifest-[31mbad.json: it is no JSON")


def test_where_there_is_nothing_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spend", str(tmp_path / "typo")]) == 1
    assert "is it the destination of a task?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("relative/folder", "must be an absolute path"),
        ("", "destination is empty"),
        ("https://example.com/x", "no place that images can be put to"),
        ("s3://", "needs a bucket"),
        ("s3://user:secret@bucket/x", "holds a user and a password"),
        ("nosuch://bucket/x", "cannot be used"),
        ("/proc/self/status", "Could not"),
    ],
)
def test_a_destination_that_cannot_be_used_is_one_line(
    destination: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spend", destination]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("spend: ") and words in line and "secret" not in line
    assert shown.out == ""


@pytest.mark.parametrize("line", [[], ["x", "--by", "weather"], ["x", "--top", "0"], ["x", "--json", "--csv"]])
def test_a_line_that_makes_no_sense_reads_nothing(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["spend", *line])
    assert end.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_a_terminal_that_knows_few_letters_is_no_error(folder: Path) -> None:
    (folder / "manifest-x.json").write_text(json.dumps({**MANIFEST, "dag_id": "größe 帽子"}))
    command = [sys.executable, "-m", "airflow_provider_nanobanana", "spend", str(folder)]
    ended = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, b"") and b"gr\\xf6\\xdfe" in ended.stdout


def test_a_reader_that_has_seen_enough_is_no_error(folder: Path) -> None:
    """Also: no Airflow is loaded for a local folder, and nothing but the answer is on stdout."""
    code = (
        "import sys; from airflow_provider_nanobanana.__main__ import main; status = main(sys.argv[1:]); "
        "assert 'airflow' not in sys.modules; sys.exit(status)"
    )
    for number in range(2_000):
        copy = {**MANIFEST, "dag_id": f"dag-{number}", "images": []}
        (folder / f"manifest-{number}.json").write_text(json.dumps(copy))
    command = [sys.executable, "-c", code, "spend", str(folder), "--csv", "--by", "dag"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("by,name,dag,paid_usd")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
