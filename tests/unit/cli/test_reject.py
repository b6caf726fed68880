"""The command ``reject``: what is rejected is what was named, all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.versions import VersionFolder

STEMS = ("cup-0123456789", "cup-0123456789-v2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stem in STEMS:
        (tmp_path / f"{stem}.png").touch()
    return tmp_path


def rejected(folder: Path) -> frozenset[int]:
    return VersionFolder(ImageStore(str(folder)).reserved).of(STEMS[0]).rejected


@pytest.mark.parametrize("as_uri", [False, True])
def test_a_picture_is_rejected_by_its_uri(folder: Path, capsys: pytest.CaptureFixture[str], as_uri: bool) -> None:
    path = folder / f"{STEMS[1]}.png"
    uri = path.as_uri() if as_uri else str(path)
    assert main(["reject", uri, "--comment", "der Henkel 🫖", "--by", "ada"]) == 0
    assert capsys.readouterr().out == f"rejected {uri}\n"
    assert rejected(folder) == {2} and path.exists()
    [file] = (folder / ".nanobanana" / "rejections").iterdir()
    content = json.loads(file.read_text())
    assert (content["stem"], content["by"], content["comment"]) == (STEMS[1], "ada", "der Henkel 🫖")


def test_one_in_quarantine_is_rejected_at_its_destination(folder: Path) -> None:
    quarantine = folder / ".nanobanana" / "quarantine"
    quarantine.mkdir(parents=True)
    held = quarantine / f"{STEMS[0]}.png"
    (folder / held.name).rename(held)
    assert main(["reject", held.as_uri()]) == 0
    assert rejected(folder) == {1}


@pytest.mark.parametrize("name", ["cup-0123456789-v3.png", "cup-0123456789", "cup-0123456789.png.json", ""])
def test_where_one_is_not_there_none_is_rejected(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["reject", str(folder / f"{STEMS[0]}.png"), f"{folder}/{name}"]) == 2
    assert "Nothing was rejected" in capsys.readouterr().err
    assert rejected(folder) == frozenset()
