"""The recorded data sets: none changes, and each release that writes a new form brings one along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_nanobanana
from airflow_provider_nanobanana.durable.claims import Claim
from airflow_provider_nanobanana.stored_forms import CLAIM, FORMS
from tests.integration.upgrade.record import HASHES, VERSIONS, main, set_hash
from tests.integration.upgrade.world import DATA
from tests.support.manifests import schema

HASHES_OF: dict[str, str] = json.loads((DATA / HASHES).read_text())
RELEASES = sorted(path.parent.name for path in DATA.glob(f"*/{VERSIONS}"))


def test_the_data_of_a_release_is_as_it_was_written() -> None:
    """Also by ``git``, which must not turn its line ends."""
    assert {folder.name: set_hash(folder) for folder in DATA.iterdir() if folder.is_dir()} == HASHES_OF


def recorded(release: str) -> dict[str, Any]:
    versions: dict[str, Any] = json.loads((DATA / release / VERSIONS).read_text())
    return versions


def test_what_is_written_today_is_recorded() -> None:
    """A form of a higher version, or a new one: raise ``__version__`` and run ``make upgrade-data``."""
    assert "0.1.0" in RELEASES
    highest: dict[str, int] = {}
    for release in RELEASES:
        for name, version in recorded(release)["forms"].items():
            highest[name] = max(version, highest.get(name, 0))
    assert {form.name: form.version for form in FORMS} == highest, "run make upgrade-data with a new __version__"


def test_a_release_says_of_what_commit_it_is() -> None:
    assert all(len(recorded(release)["commit"]) == 40 for release in RELEASES)


def test_a_recorded_release_is_never_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    before = set_hash(DATA / "0.1.0")
    assert main("0.1.0") == 1 and "stays as it is" in capsys.readouterr().err
    assert set_hash(DATA / "0.1.0") == before


def test_one_number_a_form() -> None:
    """Where a version stands a second time, as a type or in a schema, it is the same."""
    assert Claim.model_fields["v"].default == CLAIM.version
    assert schema()["properties"]["version"]["const"] == {form.name: form.version for form in FORMS}["manifest"]


def test_nothing_secret_is_in_the_data() -> None:
    for path in DATA.rglob("*.json"):
        text = path.read_text()
        assert "sk-" not in text and "Signature" not in text and str(Path.home()) not in text, path
    assert airflow_provider_nanobanana.__version__
