"""Manifests and books of whole folders: nothing counts twice, nothing is forgotten, what cannot be read is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.spend import SpendRecord, summarise
from airflow_provider_nanobanana.batch.spend_reader import SpendReader, list_place
from airflow_provider_nanobanana.durable.claims import BookEntry, Buyer
from airflow_provider_nanobanana.landing.image_store import open_storage
from tests.support.claims import BUYER, claim, write, write_book, write_claim

STEM = "hero-5f0c6e9a1b"
CLAIM = f"{STEM}.g0"
RUN = {"version": 1, "dag_id": "kites", "run_id": "monday", "task_id": "generate", "map_index": -1}
BEFORE, AFTER = (1_000, 1_000), (2_000, 2_000)


def image(image_task_id: str | None, paid: float = 0.025, **changes: Any) -> dict[str, Any]:
    entry = {"id": image_task_id, "request": 0, "name": "hero", "model": "nano_banana_2", "uri": f"x/{STEM}.png"}
    return {**entry, "cost_usd": 0.025, "paid_usd": paid, **changes}


def write_manifest(folder: Path, *images: Any, name: str = "manifest-kites", **run: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    paid = sum(entry["paid_usd"] for entry in images)
    path.write_text(json.dumps({**RUN, "images": images, "failed": [], "paid_usd": paid, "cost_usd": paid, **run}))
    return path


def read(*folders: Path) -> tuple[list[SpendRecord], list[str]]:
    skipped: list[str] = []
    places = (list_place(open_storage(folder)) for folder in folders)
    reader = SpendReader(places, lambda uri, why: skipped.append(f"{Path(uri).name}: {why}"))
    return list(reader.records()), skipped


def totals(*folders: Path) -> dict[str, Any]:
    records, skipped = read(*folders)
    assert skipped == []
    return {name: value for name, value in summarise(records).totals.plain().items() if value}


ONE = {"paid_usd": 0.025, "bought": 1}
LISTED = {"paid_usd": 0.025, "of_which_listed_usd": 0.025, "booked": 1}


def test_a_purchase_that_a_manifest_and_a_book_tell_of_counts_once(tmp_path: Path) -> None:
    write_manifest(tmp_path, image("tsk_1"))
    write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")})
    assert totals(tmp_path) == ONE


def test_a_purchase_of_a_run_that_wrote_no_manifest_counts_at_list_price(tmp_path: Path) -> None:
    bought = {CLAIM: BookEntry("bought", "tsk_1"), "x.g0": BookEntry("released"), "y.g0": BookEntry("refused", "no")}
    os.utime(write_book(tmp_path, bought), (1_795_698_873, 1_795_698_873))
    ((record,), _) = read(tmp_path)
    assert record == SpendRecord(
        *("booked", "tsk_1", tmp_path.as_uri(), "kites", "monday", "generate", -1),
        *("2026-11-26", "nano_banana_2", STEM, 25_000, 25_000),
    )
    assert totals(tmp_path) == LISTED


def test_a_manifest_sums_up_all_that_its_task_had_bought_by_then(tmp_path: Path) -> None:
    """What expired and was bought again, lost in a race, or asked for before a clear with another list."""
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_0")}), BEFORE)
    os.utime(write_manifest(tmp_path, image("tsk_1", paid=0.05)), AFTER)
    assert totals(tmp_path) == {"paid_usd": 0.05, "bought": 1}


def test_what_a_task_bought_after_its_last_manifest_is_not_in_it(tmp_path: Path) -> None:
    os.utime(write_manifest(tmp_path, image("tsk_1")), BEFORE)
    os.utime(write_book(tmp_path, {f"{STEM}.g1": BookEntry("bought", "tsk_2")}), AFTER)
    assert totals(tmp_path) == {"paid_usd": 0.05, "of_which_listed_usd": 0.025, "bought": 1, "booked": 1}


def test_a_run_that_was_made_again_forgot_what_it_paid_and_its_book_did_not(tmp_path: Path) -> None:
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")}), BEFORE)
    os.utime(write_manifest(tmp_path, image(None, paid=0.0, reused=True)), AFTER)
    assert totals(tmp_path) == {**LISTED, "reused": 1}


def test_what_another_run_bought_and_never_reported_is_paid_by_that_run(tmp_path: Path) -> None:
    write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")}, buyer=BUYER.model_copy(update={"run_id": "killed"}))
    write_manifest(tmp_path, image("tsk_1", paid=0.0, shared=True))
    assert totals(tmp_path) == {**LISTED, "shared": 1}
    records, _ = read(tmp_path)
    assert {group.key: group.totals.paid for group in summarise(records, ["run"]).tables["run"].groups} == {
        ("kites", "killed"): 25_000,
        ("kites", "monday"): 0,
    }


def test_two_installations_may_write_one_manifest_and_the_one_that_is_gone_has_paid(tmp_path: Path) -> None:
    other = BUYER.model_copy(update={"namespace": "staging"})
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")}, buyer=other), BEFORE)
    os.utime(write_manifest(tmp_path, image("tsk_1", paid=0.0, shared=True)), AFTER)
    assert totals(tmp_path) == {**LISTED, "shared": 1}


def test_a_manifest_of_another_map_index_tells_nothing_of_a_book(tmp_path: Path) -> None:
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")}), BEFORE)
    os.utime(write_manifest(tmp_path, image("tsk_2"), map_index=4), AFTER)
    assert totals(tmp_path) == {"paid_usd": 0.05, "of_which_listed_usd": 0.025, "bought": 1, "booked": 1}


def test_two_books_of_one_purchase_count_once(tmp_path: Path) -> None:
    for name in ("a" * 32, "b" * 32):
        write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")}, name)
    assert totals(tmp_path) == LISTED


def test_an_image_that_was_downloaded_to_two_places_is_paid_once(tmp_path: Path) -> None:
    entry = {"id": "tsk_1", "status": "completed", "cost_usd": 0.025, "model": "nano_banana_2"}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        content = {**RUN, "task_id": f"land {name}", "images": [{"id": "tsk_1"}], "image_tasks": [entry]}
        (tmp_path / name / "manifest-x.json").write_text(json.dumps(content))
    assert totals(tmp_path / "one", tmp_path / "two") == {"paid_usd": 0.025, "bought": 1, "shared": 1}


def test_a_purchase_may_be_told_by_the_book_of_one_place_and_the_manifest_of_another(tmp_path: Path) -> None:
    write_book(tmp_path / "one", {CLAIM: BookEntry("bought", "tsk_1")})
    write_manifest(tmp_path / "two", image("tsk_1"))
    assert totals(tmp_path / "one", tmp_path / "two") == ONE


def test_a_copy_of_a_manifest_counts_nothing_and_is_named(tmp_path: Path) -> None:
    content = write_manifest(tmp_path, image(None, paid=0.025)).read_text()
    (tmp_path / "manifest-copy.json").write_text(content)
    records, skipped = read(tmp_path)
    assert summarise(records).totals.paid == 25_000
    assert skipped == ["manifest-kites.json: it is a copy of another manifest, which was counted"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is no JSON"),
        (b"{", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 10_000, "it is no JSON"),
        (b"[]", "it is no manifest"),
        (b'{"name": "of some other tool"}', "it is no manifest"),
        (json.dumps({**RUN, "version": 3}).encode(), "newer version of this provider (manifest, form 3"),
        (json.dumps({**RUN, "version": 0}).encode(), "of version 0"),
        (json.dumps({**RUN, "images": [image("tsk_2"), 7]}).encode(), "1 of its entries"),
        (json.dumps({**RUN, "images": {"a": 1}}).encode(), "1 of its entries"),
    ],
)
def test_what_is_damaged_or_foreign_is_named_and_the_rest_is_counted(tmp_path: Path, content: bytes, why: str) -> None:
    write_manifest(tmp_path, image("tsk_1"))
    (tmp_path / "manifest-bad.json").write_bytes(content)
    records, skipped = read(tmp_path)
    assert summarise(records).totals.paid in (25_000, 50_000)
    (line,) = skipped
    assert line.startswith("manifest-bad.json: ") and why in line


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, image("tsk_1"))
    (tmp_path / "manifest-folder.json").mkdir()
    (tmp_path / "manifest-gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "manifest-notes.txt").touch()
    _, skipped = read(tmp_path)
    assert [line.partition(":")[0] for line in skipped] == ["manifest-folder.json", "manifest-gone.json"]


def test_a_newer_book_is_named(tmp_path: Path) -> None:
    write(tmp_path, "books", "x.json", b'{"v": 2, "pages": {}}')
    assert read(tmp_path)[1] == ["x.json: it was written by a newer version of this provider"]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"v": 1, "entries": []}', b'{"v": 0, "entries": {}}', b"[" * 9_999])
def test_what_is_no_book_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "books", "x.json", content)
    assert read(tmp_path)[1] == ["x.json: it is no book of this provider, or damaged"]


def test_the_names_in_a_book_are_bounded(tmp_path: Path) -> None:
    write(tmp_path, "books", "x.json", json.dumps({"v": 1, "entries": {}, "by": {"dag": "d" * 10_000}}).encode())
    assert read(tmp_path)[1] == ["x.json: it is no book of this provider, or damaged"]


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    for number in range(3):
        write_manifest(tmp_path, image(f"tsk_{number}"), name=f"manifest-{number}")
    write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_1")}, buyer=Buyer(dag_id="x"))
    told: list[tuple[int, int]] = []
    reader = SpendReader([list_place(open_storage(tmp_path))], print, lambda done, of: told.append((done, of)))
    assert len(list(reader.records())) == 3
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (reader.manifests, reader.books) == (3, 1)


def test_a_place_where_nothing_is_has_no_records(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == ([], [])


# --- before Airflow 3.3: a try remembers no earlier one ------------------------------------------------------------

OTHER = "boat-5f0c6e9a1b"


def second_try(folder: Path, *images: Any) -> None:
    """Write the manifest of a second try that has no memory of the first."""
    os.utime(write_manifest(folder, *images, try_number=2, all_tries=False), AFTER)


def test_what_an_earlier_try_bought_and_the_last_one_does_not_name_counts_by_its_book(tmp_path: Path) -> None:
    """The task was cleared with another list."""
    os.utime(write_book(tmp_path, {f"{OTHER}.g0": BookEntry("bought", "tsk_0")}), BEFORE)
    second_try(tmp_path, image("tsk_1"))
    both = {"paid_usd": 0.05, "of_which_listed_usd": 0.025, "bought": 1, "booked": 1}
    assert totals(tmp_path) == both
    of_this_try = Buyer(**{**BUYER.model_dump(by_alias=True), "try": 2})
    os.utime(write_book(tmp_path, {f"{OTHER}.g1": BookEntry("bought", "tsk_2")}, "d" * 32, of_this_try), BEFORE)
    assert totals(tmp_path) == both, "a try sums up all that it paid itself"


def test_an_image_in_place_that_an_earlier_try_paid_for_counts_once(tmp_path: Path) -> None:
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_0")}), BEFORE)
    second_try(tmp_path, image(None))
    assert totals(tmp_path) == ONE
    other = image("tsk_0", 0.0, shared=True)
    write_manifest(tmp_path, other, name="manifest-other", run_id="tuesday")
    assert totals(tmp_path) == {**ONE, "shared": 1}, "also when another run shares it"


@pytest.mark.parametrize(("because", "booked"), [("failed", 0), ("expired", 1)])
def test_what_an_earlier_try_bought_and_was_refunded_costs_nothing(tmp_path: Path, because: str, booked: int) -> None:
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_0")}), BEFORE)
    write_claim(tmp_path, claim(n=1, because=because))
    second_try(tmp_path, image("tsk_1"))
    assert totals(tmp_path).get("booked", 0) == booked


def under_way(image_task_id: str, paid: float = 0.025, **changes: Any) -> dict[str, Any]:
    entry = {"id": image_task_id, "index": 0, "request": 1, "name": "boat", "model": "nano_banana_2"}
    return {**entry, "shared": False, "cost_usd": paid, "paid_usd": paid, "submitted_at": None, **changes}


def grow(folder: Path, *entries: Any) -> Path:
    paid = sum(entry["paid_usd"] for entry in entries)
    return write_manifest(folder, finished=False, under_way=list(entries), waiting=3, paid_usd=paid)


def test_what_a_task_at_work_has_under_way_counts_once(tmp_path: Path) -> None:
    os.utime(write_book(tmp_path, {"boat.g0": BookEntry("bought", "tsk_1")}), BEFORE)
    os.utime(grow(tmp_path, under_way("tsk_1"), under_way("tsk_2", 0.0, shared=True)), AFTER)
    assert totals(tmp_path) == {"paid_usd": 0.025, "missing": 1}


def test_what_is_booked_since_counts_beside_the_manifest_of_a_task_at_work(tmp_path: Path) -> None:
    # At one time by the store's clock: the book came later, as the manifest names what of it was before.
    os.utime(grow(tmp_path, under_way("tsk_1")), AFTER)
    os.utime(write_book(tmp_path, {"hat.g0": BookEntry("bought", "tsk_2")}), AFTER)
    assert totals(tmp_path) == {"paid_usd": 0.05, "of_which_listed_usd": 0.025, "missing": 1, "booked": 1}


def test_what_is_booked_before_is_in_the_sum_of_a_task_at_work(tmp_path: Path) -> None:
    # Such as an image task that was lost, and is named no more.
    os.utime(write_book(tmp_path, {"boat.g0": BookEntry("bought", "tsk_0")}), BEFORE)
    os.utime(grow(tmp_path, under_way("tsk_1", 0.05)), AFTER)
    assert totals(tmp_path) == {"paid_usd": 0.05, "missing": 1}


# --- a try that Airflow gave up lives on, and writes over the manifest of its own retry ------------------------------


def overtaken(folder: Path, *images: Any, finished: bool = True) -> None:
    path = write_manifest(folder, *images, try_number=1, all_tries=True, finished=finished, under_way=[])
    os.utime(path, AFTER)


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_later_try_bought_counts_beside_the_manifest_of_an_earlier_one(tmp_path: Path, finished: bool) -> None:
    second = Buyer(**{**BUYER.model_dump(by_alias=True), "try": 2})
    os.utime(write_book(tmp_path, {f"{OTHER}.g0": BookEntry("bought", "tsk_2")}, "d" * 32, second), BEFORE)
    os.utime(write_book(tmp_path, {f"{OTHER}.g1": BookEntry("bought", "tsk_0")}), BEFORE)
    overtaken(tmp_path, image("tsk_1"), finished=finished)
    both = {"paid_usd": 0.05, "of_which_listed_usd": 0.025, "bought": 1, "booked": 1}
    assert totals(tmp_path) == both, "what its own try bought is in its sum"
    overtaken(tmp_path, image("tsk_1"), image("tsk_2", request=1, name="boat"), finished=finished)
    assert totals(tmp_path) == {"paid_usd": 0.05, "bought": 2}, "what it names counts once"


def test_what_a_later_try_bought_and_was_refunded_costs_nothing(tmp_path: Path) -> None:
    second = Buyer(**{**BUYER.model_dump(by_alias=True), "try": 2})
    os.utime(write_book(tmp_path, {CLAIM: BookEntry("bought", "tsk_2")}, buyer=second), BEFORE)
    write_claim(tmp_path, claim(n=1, because="failed"))
    overtaken(tmp_path, image("tsk_1"))
    assert totals(tmp_path) == ONE
