"""The manifest of a task at work: seldom enough, and no failure of it fails the task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.operators.manifest import GALLERY_KEY, GrowingManifest, TaskManifest
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from tests.support.task_runner import TaskInstance

RUN = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1}


class Work:
    """A task at work whose manifests take so many seconds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.now, self.done, self.takes = 100.0, 0, 0.1
        self.writes: list[float] = []
        self.refusal: Exception | None = None
        self.known = True
        self.held: list[str] = []
        monkeypatch.setattr(ImageStore, "write_manifest", self.write)
        self.growing = GrowingManifest(
            TaskManifest(ImageStore(folder), RUN),
            lambda: {} if self.known else None,
            lambda: self.done,
            no_book_written=self.held_back,
            clock=lambda: self.now,
            **options,
        )

    @contextmanager
    def held_back(self) -> Iterator[None]:
        self.held.append("held")
        yield
        self.held.append("free")

    def write(self, name: str, content: Any, *, compact: bool, unless: Any) -> str:
        assert self.held[-1] == "held" and compact
        if unless():
            return name
        self.writes.append(self.now)
        self.now += self.takes
        if self.refusal:
            raise self.refusal
        return name

    def go_on(self, seconds: float) -> None:
        """Work for so many seconds; something is done each second."""
        until = self.now + seconds
        while self.now < until:
            self.now += 1
            self.done += 1
            self.growing.write_when_due()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(tmp_path, monkeypatch)


def test_what_is_short_writes_none(work: Work) -> None:
    work.go_on(1)
    assert work.writes == []


def test_the_first_comes_soon_and_the_others_now_and_then(work: Work) -> None:
    work.go_on(30)
    assert work.writes[0] == 102
    pauses = [after - before for before, after in zip(work.writes, work.writes[1:], strict=False)]
    assert len(pauses) >= 4 and all(5 <= pause <= 7 for pause in pauses)


def test_large_ones_take_two_percent_of_the_time(work: Work) -> None:
    work.takes = 3.0
    work.go_on(3_000)
    assert 18 <= len(work.writes) <= 20
    assert sum(work.takes for _ in work.writes) <= 0.021 * 3_000


def test_nothing_is_written_twice(work: Work) -> None:
    work.go_on(2)
    work.now += 1_000
    work.growing.write_when_due()
    work.growing.write()
    assert len(work.writes) == 1


def test_before_a_wait_it_is_written_whenever_something_changed(work: Work) -> None:
    work.go_on(2)
    work.done += 1
    work.growing.write()
    assert len(work.writes) == 2


def test_a_process_that_goes_on_writes_none_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path, monkeypatch, written=0)
    work.growing.write()
    assert work.writes == []
    work.done = 1
    work.growing.write()
    assert len(work.writes) == 1


@pytest.mark.parametrize("refusal", [StorageFailed("403"), OSError("gone"), ValueError("no JSON")])
def test_one_that_is_refused_is_tried_again_much_later(work: Work, refusal: Exception) -> None:
    work.refusal = refusal
    work.go_on(60)
    work.growing.write()
    assert len(work.writes) == 1
    work.refusal = None
    work.go_on(120)
    assert len(work.writes) > 2


def test_what_cannot_be_told_yet_is_told_as_soon_as_it_can(work: Work) -> None:
    work.known = False
    work.go_on(10)
    assert work.writes == []
    work.known = True
    work.go_on(6)
    assert len(work.writes) == 1


def test_airflow_is_told_where_it_is(tmp_path: Path) -> None:
    ti = TaskInstance(task_id="task", map_index=3)
    context: Any = {"ti": ti}
    manifest = TaskManifest.from_context(context, ImageStore(tmp_path), "team")
    manifest.announce(context)
    assert ti.xcoms == {
        GALLERY_KEY: {"version": 1, "manifest": manifest.uri, "destination": ImageStore(tmp_path).uri("")}
    }
    assert "task-3-team" in manifest.name


def test_a_try_that_was_overtaken_leaves_the_manifest_of_its_retry(tmp_path: Path) -> None:
    # Under a name that no manifest has: its content is none.
    store = ImageStore(tmp_path)
    store.write_manifest("x", {"of": "the retry"})
    store.write_manifest("x", {"of": "the first"}, unless=lambda: True)
    assert json.loads((tmp_path / "x.json").read_text()) == {"of": "the retry"}


def test_a_growing_manifest_asks_whether_it_was_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(tmp_path, monkeypatch, overtaken=lambda: True)
    work.done = 1
    work.growing.write()
    assert work.held == ["held", "free"] and work.writes == []
