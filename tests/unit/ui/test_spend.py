"""Image spend: the sums of the command, for the DAGs that a person may read, and no word of any other."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch import manifest_cache, spend_reader
from airflow_provider_nanobanana.batch.spend import summarise
from airflow_provider_nanobanana.batch.spend_reader import SpendReader, list_place
from airflow_provider_nanobanana.durable.claims import BookEntry, Buyer
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.landing.storage import read_ahead
from airflow_provider_nanobanana.ui.confinement import parse_folder
from airflow_provider_nanobanana.ui.manifests import MOST_BYTES, GalleryPointer
from airflow_provider_nanobanana.ui.spend import SpendPage, page_csv, page_json
from tests.support.claims import write_book
from tests.support.gallery_site import gallery_roots

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


@dataclass
class World:
    """Destinations in a folder, and what task instances said of them."""

    folder: Path
    pointers: list[GalleryPointer] = field(default_factory=list)
    passed: float = 0.0
    asked: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page = SpendPage(lambda: self.passed)

    def manifest(
        self, dag_id: str, *images: tuple[str, str, float], place: str = "pictures", run_id: str = "monday", **more: Any
    ) -> Path:
        """Write the manifest of a run whose images are (id, day, USD)."""
        folder = self.folder / place
        folder.mkdir(exist_ok=True)
        entries = [
            {
                **{"id": image_task_id, "request": number, "model": "nano_banana_2", "name": f"{dag_id} {number}"},
                **{"cost_usd": usd, "paid_usd": usd, "times": {"submitted_at": f"{day}T08:00:00.000Z"}},
            }
            for number, (image_task_id, day, usd) in enumerate(images)
        ]
        content = {"version": 1, "dag_id": dag_id, "run_id": run_id, "task_id": "generate", "map_index": -1}
        path = folder / f"manifest-{dag_id}-{run_id}.json"
        path.write_text(
            json.dumps({**content, "images": entries, "paid_usd": sum(image[2] for image in images), **more})
        )
        os.utime(path, (NOW, NOW))
        self.says(dag_id, place)
        return path

    def says(self, dag_id: str, place: str, **more: Any) -> None:
        self.pointers.append(
            GalleryPointer(dag_id, parse_folder(str(self.folder / place)), **{"readable": True, **more})
        )

    def said(self, since: datetime) -> list[GalleryPointer]:
        self.asked.append(since)
        return self.pointers

    def shown(self, *dags: str, now: float = NOW) -> dict[str, Any]:
        """Return what a person sees who may read these DAGs, all where none is given."""
        return page_json(self.page.read(self.said, now), lambda told: set(told) & set(dags or told))

    def csv(self, *dags: str) -> list[dict[str, str]]:
        spend = self.page.read(self.said, NOW)
        return list(csv.DictReader(page_csv(spend, lambda told: set(told) & set(dags or told))))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with gallery_roots([tmp_path]):
        yield World(tmp_path)


def paid(shown: dict[str, Any], month: str = "2026-11") -> float:
    usd: float = shown["month"][month]["totals"]["paid_usd"]
    return usd


def keys(shown: dict[str, Any], table: str, month: str = "2026-11") -> list[list[str]]:
    return [row["key"] for row in shown["month"][month]["tables"][table]]


def test_two_months_by_dag_run_model_and_day(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025), ("t2", "2026-10-31", 0.04), ("t3", "2026-09-30", 5.0))
    world.manifest("hats", ("t4", "2026-11-02", 0.03), place="hats")
    shown = world.shown()
    assert shown["months"] == ["2026-11", "2026-10"] and shown["destinations"] == 2 and shown["skipped"] == []
    assert paid(shown) == 0.055 and paid(shown, "2026-10") == 0.04
    assert keys(shown, "dag") == [["hats"], ["kites"]] and keys(shown, "day") == [["2026-11-02"]]
    assert keys(shown, "run", "2026-10") == [["kites", "monday"]] and keys(shown, "model") == [["nano_banana_2"]]
    assert shown["written_at"] == "2026-11-26T12:00:00.000Z"
    assert world.asked == [datetime(2026, 10, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("day", "months"), [("2027-01-01", ["2027-01", "2026-12"]), ("2028-03-31", ["2028-03", "2028-02"])]
)
def test_the_month_before_is_that_of_the_calendar(world: World, day: str, months: list[str]) -> None:
    assert world.shown(now=datetime.fromisoformat(f"{day}T00:00+00:00").timestamp())["months"] == months


def test_who_may_read_one_dag_sees_nothing_of_another_at_the_same_destination(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    world.manifest("secret", ("t2", "2026-11-03", 0.5), run_id="hidden")
    (world.folder / "pictures" / "manifest-secret-broken.json").write_text("{")
    world.manifest("secret", ("t3", "2026-11-03", 0.5), place="vault")
    (world.folder / "vault" / "manifest-x.json").write_text("{")
    world.says("secret", "closed", readable=False)
    shown = world.shown("kites")
    assert paid(shown) == 0.025 and shown["destinations"] == 1
    told = json.dumps(shown) + json.dumps(world.csv("kites"))
    assert not [word for word in ("secret", "hidden", "vault", "closed", "2026-11-03", "0.5") if word in told]
    assert len(shown["skipped"]) == 1, "a file at its own destination"
    assert paid(world.shown("secret")) == 1.0 and len(world.shown("secret")["skipped"]) == 3
    nobody = page_json(world.page.read(world.said, NOW), lambda told: set())
    assert (paid(nobody), nobody["destinations"], nobody["skipped"]) == (0.0, 0, [])


def test_an_image_task_counts_for_the_same_dag_whoever_looks(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    world.manifest("boats", ("t1", "2026-11-02", 0.025))
    assert paid(world.shown()) == paid(world.shown("boats")) + paid(world.shown("kites")) == 0.025


def test_a_manifest_speaks_for_no_dag_that_puts_nothing_there(world: World) -> None:
    """Whoever may write one folder must not change another team's bill."""
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    world.manifest("evil", ("t2", "2026-11-02", 0.03), place="evil")
    forged = world.manifest("kites", ("t3", "2026-11-02", 900.0), place="evil", run_id="=cmd()")
    world.pointers.pop()
    shown = world.shown("kites")
    assert paid(shown) == 0.025 and keys(shown, "run") == [["kites", "monday"]] and shown["skipped"] == []
    seen = world.shown("evil")
    assert paid(seen) == 0.03
    assert seen["skipped"] == ["evil: images whose DAG does not say that it puts any there: 1"] and forged.exists()
    buyer = Buyer(dag_id="kites", run_id="monday", task_id="generate")
    write_book(world.folder / "evil", {"x.g0": BookEntry("bought", "t9")}, buyer=buyer)
    assert paid(world.shown("kites", now=NOW + 120)) == 0.025


def test_what_is_not_readable_is_said_and_not_read(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    world.pointers = [GalleryPointer("kites", world.pointers[0].folder, readable=False)] * 2
    shown = world.shown()
    assert paid(shown) == 0.0 and shown["skipped"][0].startswith("destinations that may not be read: 1. ")
    world.says("kites", "pictures")
    world.page = SpendPage(lambda: 0.0)
    assert paid(world.shown()) == 0.025 and world.shown()["skipped"] == [], "one may, that is enough"


def test_who_looks_sees_no_bucket_and_no_connection(world: World) -> None:
    world.pointers.append(GalleryPointer("kites", parse_folder("nosuch://conn@bucket"), readable=True))
    assert world.shown()["skipped"] == [": the api-server cannot read this store"]


def test_a_manifest_that_is_too_much_for_an_api_server_is_left_out(world: World) -> None:
    """While one is parsed, nothing else of Python runs there."""
    large = world.manifest("kites", ("t1", "2026-11-02", 0.025))
    large.write_text(large.read_text() + " " * MOST_BYTES)
    os.utime(large, (NOW, NOW))
    world.manifest("kites", ("t2", "2026-11-02", 0.025), run_id="many", more=[{}] * 400_000)
    shown = world.shown()
    assert paid(shown) == 0.0 and shown["skipped"][0].endswith(": 2")


def test_a_destination_that_became_a_link_is_not_read(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    (world.folder / "pictures").rename(tmp_path_factory.mktemp("vault") / "pictures")
    (world.folder / "pictures").symlink_to(next(tmp_path_factory.getbasetemp().glob("vault*/pictures")))
    shown = world.shown()
    assert paid(shown) == 0.0 and shown["skipped"] == ["pictures: the api-server cannot read this store"]


def test_a_store_that_cannot_be_read_hides_no_other(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    world.pointers.append(GalleryPointer("kites", parse_folder("nosuch://conn@bucket/a-folder"), readable=True))
    shown = world.shown()
    assert paid(shown) == 0.025 and shown["skipped"] == ["a-folder: the api-server cannot read this store"]


def test_where_a_try_remembers_no_earlier_one_it_is_said(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025), try_number=2, all_tries=False)
    world.manifest("boats", ("t2", "2026-11-02", 0.025), try_number=2, all_tries=True)
    assert world.shown("boats")["skipped"] == []
    assert [words.partition(" a task")[0] for words in world.shown()["skipped"]] == ["Before Airflow 3.3"]


def test_it_is_the_sum_of_the_command(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025), ("t2", "2026-10-31", 0.04), ("t3", "2026-09-30", 5.0))
    buyer = Buyer(dag_id="boats", run_id="killed", task_id="generate", try_number=1)
    book = write_book(world.folder / "pictures", {"boat.g0": BookEntry("bought", "t9")}, buyer=buyer)
    os.utime(book, (NOW, NOW))
    world.says("boats", "pictures")  # before it buys anything
    reader = SpendReader([list_place(open_storage(world.folder / "pictures"))], print)
    by_month = {group.key[0]: group.totals for group in summarise(reader.records(), ["month"]).tables["month"].groups}
    shown = world.shown()
    assert {month: shown["month"][month]["totals"] for month in shown["months"]} == {
        month: by_month[month].plain() for month in shown["months"]
    }
    assert shown["month"]["2026-11"]["totals"]["booked"] == 1


def read_again(world: World, monkeypatch: pytest.MonkeyPatch, now: float) -> list[str]:
    """Return the names of the files that the next view reads."""
    names: list[str] = []

    def read_files(storage: Any, wanted: Iterable[str], *more: Any) -> Any:
        def noted() -> Iterable[str]:
            for name in wanted:
                names.append(name)
                yield name

        return read(storage, noted(), *more)

    read = read_ahead.read_files
    with monkeypatch.context() as patch:
        patch.setattr(spend_reader, "read_files", read_files)
        world.shown(now=now)
    return names


def test_only_what_was_written_since_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        world.manifest("kites", (f"t{number}", "2026-11-02", 0.025), run_id=f"run {number}")
    old = world.manifest("kites", ("t99", "2026-09-02", 0.025), run_id="old")
    os.utime(old, (NOW - 90 * DAY, NOW - 90 * DAY))
    assert len(read_again(world, monkeypatch, NOW)) == 30, "and none that was written before the last month"
    assert read_again(world, monkeypatch, NOW + 59) == []
    assert read_again(world, monkeypatch, NOW + 61) == []
    changed = world.manifest("kites", ("t7", "2026-11-02", 0.5), run_id="run 7")
    os.utime(changed, (NOW + 100, NOW + 100))
    assert read_again(world, monkeypatch, NOW + 130) == [changed.name]
    assert paid(world.shown(now=NOW + 130)) == pytest.approx(29 * 0.025 + 0.5)


def test_the_manifest_of_a_task_at_work_is_read_each_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be written twice within the second that a store tells."""
    world.manifest("kites", ("t1", "2026-11-02", 0.025), finished=False)
    world.shown()
    world.manifest("kites", ("t1", "2026-11-02", 0.025), ("t2", "2026-11-02", 0.025))
    assert paid(world.shown(now=NOW + 61)) == 0.05
    assert read_again(world, monkeypatch, NOW + 130) == []


def test_reading_ends_after_a_while_and_goes_on_with_the_next_view(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        world.manifest("kites", (f"t{number}", "2026-11-02", 0.025), place=f"place{number}")
    world.shown(now=NOW - DAY)
    world.page = SpendPage(lambda: world.passed)
    listed = []

    def slow(storage: Any, since: float) -> Any:
        listed.append(storage.uri(""))
        world.passed += 5.0
        return list_place(storage, since)

    monkeypatch.setattr("airflow_provider_nanobanana.ui.spend.list_place", slow)
    shown = [world.shown(now=NOW + 61 * view) for view in range(6)]
    assert len(listed) == len(set(listed[:10])) + 2 == 12, "two a view, those first that waited longest"
    assert [len(one["skipped"]) for one in shown] == [8, 6, 4, 2, 0, 0]
    assert paid(shown[-1]) == 0.25


def test_a_cache_forgets_what_was_used_longest_ago(world: World) -> None:
    cache = manifest_cache.ManifestCache(most_records=4)
    for number in range(3):
        path = world.manifest("kites", (f"t{number}", "2026-11-02", 0.025), run_id=str(number))
        cache.put(str(number), 1.0, spend_reader._parsed(path.read_bytes(), "x"))
    assert [cache.get(str(number), 1.0) is not None for number in range(3)] == [False, True, True]
    assert cache.get("2", 2.0) is None and cache.get("2", None) is None


def test_csv_has_every_row_and_no_formula(world: World) -> None:
    for number in range(600):
        world.manifest("kites", (f"t{number}", "2026-11-02", 0.025), run_id=f"=run{number}")
    rows = world.csv()
    assert [row["name"] for row in rows if row["by"] == "dag"] == ["kites"]
    runs = [row for row in rows if row["by"] == "run"]
    assert len(runs) == 600 and all(row["name"].startswith("'=run") and row["month"] == "2026-11" for row in runs)
    table = world.shown()["month"]["2026-11"]["tables"]["run"]
    assert len(table) == 501 and (table[-1]["key"], table[-1]["groups"]) == ([], 100)
    assert sum(row["paid_usd"] for row in table) == pytest.approx(15.0)


def test_csv_says_what_was_left_out(world: World) -> None:
    world.manifest("kites", ("t1", "2026-11-02", 0.025))
    (world.folder / "pictures" / "manifest-x.json").write_text("{")
    assert world.csv()[-1]["by"] == "left out" and "pictures: files" in world.csv()[-1]["name"]
