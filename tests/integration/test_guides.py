"""docs/guides/: what is bought again after something was deleted or changed, as the guides' tables say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.storage import exclusive
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.conftest import ServiceClock
from tests.support.images import picture
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore

ROWS: list[dict[str, Any]] = [
    {"prompt": "an espresso cup", "name": "CUP-1", "meta": {"price": 12.5}},
    {"prompt": "a red kite over dunes", "name": "KITE-7"},
]
DAY = 86400.0
Change = Callable[["Runs"], dict[str, Any]]


class Runs:
    """Runs of one DAG after another, each with nothing but the destination to remember by."""

    def __init__(self, emulator: Emulator, folder: Path, clock: ServiceClock, patch: pytest.MonkeyPatch) -> None:
        self.emulator, self.folder, self.clock, self.patch = emulator, folder, clock, patch
        self.number = 0

    def next(
        self, requests: Any = ROWS, *, dag_id: str = "catalogue", task_id: str = "pictures", **options: Any
    ) -> Run:
        self.number += 1
        client_ids._checked.clear()
        exclusive._found.clear()
        options = {"destination": self.folder.as_uri(), "retries": 2, "poke_interval": 0.05, "timeout": 20, **options}
        ti = TaskInstance(dag_id, f"run {self.number}", task_id, store=MemoryTaskStateStore())
        return attempt(NanoBananaGenerateOperator(task_id=task_id, requests=requests, **options), ti)

    def bought_by(self, **how: Any) -> int:
        """Return what the next run buys; it ends with everything in place."""
        before = self.emulator.ledger()["count"]
        run = self.next(**how)
        assert run.error is None and run.result["failed_count"] == 0
        return int(self.emulator.ledger()["count"] - before)

    def own(self, name: str) -> Path:
        return self.folder / ".nanobanana" / name


@pytest.fixture
def runs(emulator: Emulator, folder: Path, service_clock: ServiceClock, monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs(emulator, folder, service_clock, monkeypatch)
    assert runs.bought_by() == 2
    return runs


# --- retention.md, "When it is deleted" ----------------------------------------------------------------------------


def test_what_of_ours_may_be_deleted_for_nothing(runs: Runs) -> None:
    for names in (("claims", "books"), ("thumbs",), ("index",), ("versions",), ("rejections",), ("",)):
        for name in names:
            shutil.rmtree(runs.own(name), ignore_errors=True)
        assert runs.bought_by() == 0, names
    for path in runs.folder.glob("manifest-*"):
        path.unlink()
    assert runs.bought_by() == 0


def test_pictures_that_are_deleted_come_again_for_a_day(runs: Runs) -> None:
    for path in runs.folder.glob("*.png"):
        path.unlink()
    assert runs.bought_by() == 0
    assert len(list(runs.folder.glob("*.png"))) == 2


def test_pictures_that_are_deleted_later_are_bought(
    emulator: Emulator, folder: Path, service_clock: ServiceClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(emulator, folder, service_clock, monkeypatch)
    service_clock.offset = -2 * DAY
    runs.next()
    service_clock.offset = 0.0
    for path in folder.glob("*.png"):
        path.unlink()
    assert runs.bought_by() == 2


def test_a_second_version_is_forgotten_with_its_folder(runs: Runs) -> None:
    assert runs.bought_by(redo=["CUP-1"]) == 1
    assert [image["version"] for image in runs.next().result["images"]] == [2, 1]
    shutil.rmtree(runs.own("versions"))
    assert runs.bought_by() == 0
    assert [image["version"] for image in runs.next().result["images"]] == [1, 1]


@pytest.mark.parametrize(("days", "bought"), [(0, 0), (2, 1)])
def test_a_suspect_picture_that_is_removed_from_quarantine(
    runs: Runs, service_clock: ServiceClock, days: int, bought: int
) -> None:
    """While its link lives the same picture comes again; then another is bought."""
    service_clock.offset = -days * DAY
    runs.emulator.fault(on="result", kind="wrong_pixel_size", times=1)
    boat = [{"prompt": "a paper boat", "name": "BOAT-3"}]
    assert runs.next(boat, on_suspect="quarantine").error is not None
    service_clock.offset = 0.0
    shutil.rmtree(runs.own("quarantine"))
    assert runs.bought_by(requests=boat, on_suspect="quarantine") == bought


# --- moving-house.md, "What a change costs" ------------------------------------------------------------------------

CHANGES: dict[str, tuple[dict[str, Any], int]] = {
    "another DAG and task": ({"dag_id": "shop", "task_id": "banners"}, 0),
    "other settings": ({"timeout": 30, "retries": 5, "max_cost_usd": 1.0}, 0),
    "another order and other columns": ({"requests": [ROWS[1], {**ROWS[0], "meta": {"price": 14}}]}, 0),
    "a row more": ({"requests": [*ROWS, "a paper boat"]}, 1),
    "another name": ({"requests": [{**ROWS[0], "name": "CUP-2"}, ROWS[1]]}, 1),
    "another prompt": ({"requests": [{**ROWS[0], "prompt": "a tea cup"}, ROWS[1]]}, 1),
    "another size": ({"size": "4:3"}, 2),
    "another variant": ({"variant": "autumn"}, 2),
    "another model": ({"model": "gemini-3.1-flash-image-preview"}, 2),
}


def test_what_a_change_buys(runs: Runs) -> None:
    assert {name: runs.bought_by(**options) for name, (options, _) in CHANGES.items()} == {
        name: bought for name, (_, bought) in CHANGES.items()
    }


def test_another_connection_buys_nothing_and_another_default_model_all(runs: Runs) -> None:
    runs.patch.setenv("AIRFLOW_CONN_BANNERS", runs.emulator.connection_json(timeout=3))
    assert runs.bought_by(nanobanana_conn_id="banners") == 0
    connection = runs.emulator.connection_json(timeout=3, model="gemini-3.1-flash-image-preview")
    runs.patch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    assert runs.bought_by() == 2


def test_pictures_that_are_copied_are_not_bought_again(runs: Runs, tmp_path: Path) -> None:
    assert runs.bought_by(destination=(tmp_path / "empty").as_uri()) == 2
    shutil.copytree(runs.folder, tmp_path / "copied")
    assert runs.bought_by(destination=(tmp_path / "copied").as_uri()) == 0
    shutil.copytree(runs.folder, tmp_path / "pictures-alone", ignore=shutil.ignore_patterns(".nanobanana"))
    assert runs.bought_by(destination=(tmp_path / "pictures-alone").as_uri()) == 0


def test_a_photo_of_another_content_is_another_picture(runs: Runs, tmp_path: Path) -> None:
    photo = tmp_path / "cup.png"
    photo.write_bytes(picture("png", (64, 64)))
    asked = {"requests": [{"prompt": "a cup", "reference_images": [photo.as_uri()]}]}
    assert runs.bought_by(**asked) == 1
    assert runs.bought_by(**asked) == 0
    photo.write_bytes(picture("png", (65, 64)))
    assert runs.bought_by(**asked) == 1
