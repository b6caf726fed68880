"""Snippets of docs/ that need a service: run as they stand, but for ports and the folder of the pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_nanobanana.emulator import Emulator
from tests.support.pages import Snippet, snippets

PROGRAMS = [each for each in snippets("python") if "with DAG(" not in each.text]


@pytest.mark.parametrize("snippet", PROGRAMS, ids=str)
def test_a_program_that_is_shown_runs(
    snippet: Snippet, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    text = snippet.text.replace("file:///tmp", tmp_path.as_uri())
    exec(compile(text, str(snippet), "exec"), {})
    stored = list(tmp_path.rglob("*.png"))
    assert len(stored) == emulator.ledger()["count"] == text.count("hook.submit(")
    for path in stored:
        with Image.open(path) as image:
            image.load()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page shows curl")
def test_the_emulator_is_steered_as_shown(emulator: Emulator) -> None:
    (shown,) = (each.text for each in snippets("sh") if each.text.startswith("curl"))
    text = shown.replace("http://127.0.0.1:8787", emulator.api_url)
    assert text != shown
    ended = subprocess.run(["bash", "-ec", text], check=True, capture_output=True, text=True)
    faults, ledger, none = ended.stdout.replace("}{", "}\n{").splitlines()
    assert [fault["kind"] for fault in json.loads(faults)["faults"]] == ["rate_limit", "expired"]
    assert json.loads(ledger)["count"] == 0
    assert json.loads(none) == {"faults": []} and emulator.faults() == []


def test_the_emulator_starts_as_shown() -> None:
    (shown,) = (
        each.text for each in snippets("sh") if each.text.startswith("python -m airflow_provider_nanobanana.emu")
    )
    command = shown.replace("--port 8787", "--port 0").split()
    with subprocess.Popen([sys.executable, *command[1:]], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        process.terminate()
    assert greeting.startswith("API http://127.0.0.1:") and "AIRFLOW_CONN_NANOBANANA_DEFAULT" in greeting
