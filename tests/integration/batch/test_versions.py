"""A new version of one image: bought once for the run that wants it, current until it is rejected, and never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.versions import reject, split_stem
from tests.integration.batch.harness import GenerateTask
from tests.support.text import flat

CATALOGUE = [{"prompt": f"a mug, number {number}", "name": f"SKU-00{number}"} for number in range(4)]


def files_of(run: Any) -> dict[str, str]:
    """Return the file that a run uses of each name."""
    assert run.error is None, run.error
    return {CATALOGUE[image["request"]]["name"]: Path(image["uri"]).stem for image in run.result["images"]}


def versions_of(run: Any) -> dict[str, int]:
    return {name: split_stem(stem)[1] for name, stem in files_of(run).items()}


def reject_file(batch: GenerateTask, stem: str) -> None:
    reject(ImageStore(batch.folder.as_uri()), stem, by="ada", comment="the handle", now=batch.clock.now)


def only(name: str, number: int) -> dict[str, int]:
    return {entry["name"]: number if entry["name"] == name else 1 for entry in CATALOGUE}


def test_a_run_makes_one_again_and_pays_for_that_one(batch: GenerateTask) -> None:
    first = files_of(batch.attempt(requests=CATALOGUE))
    batch.next_run("second")
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    assert versions_of(run) == only("SKU-002", 2)
    assert files_of(run)["SKU-002"] == f"{first['SKU-002']}-v2"
    assert batch.charges == 5 and run.result["paid_usd"] == pytest.approx(0.025)
    assert sum(image["reused"] for image in run.result["images"]) == 3


def test_a_clear_and_a_retry_of_that_run_buy_none(batch: GenerateTask) -> None:
    batch.attempt(requests=CATALOGUE)
    batch.next_run("second")
    batch.attempt(requests=CATALOGUE, redo=["SKU-002"], crash_on=("before land", 1))
    assert batch.charges == 5
    batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    batch.clear()
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    assert versions_of(run) == only("SKU-002", 2) and batch.charges == 5


def test_a_second_redo_in_a_new_run_buys_one(batch: GenerateTask) -> None:
    batch.attempt(requests=CATALOGUE)
    for number, run_id in enumerate(("second", "third"), 2):
        batch.next_run(run_id)
        run = batch.attempt(requests=CATALOGUE, redo="SKU-002")
        assert versions_of(run) == only("SKU-002", number)
    assert batch.charges == 6


def test_the_newest_is_current_for_later_runs_and_for_earlier_ones_that_are_cleared(batch: GenerateTask) -> None:
    batch.attempt(requests=CATALOGUE)
    first = batch.store, batch.tries
    batch.next_run("second")
    batch.attempt(requests=CATALOGUE, redo=[2])
    batch.next_run("third")
    assert versions_of(batch.attempt(requests=CATALOGUE)) == only("SKU-002", 2)
    batch.next_run("run")
    batch.store, batch.tries = first
    batch.clear()
    assert versions_of(batch.attempt(requests=CATALOGUE)) == only("SKU-002", 2)
    assert batch.charges == 5


def test_a_rejected_version_is_used_by_nobody(batch: GenerateTask) -> None:
    first = files_of(batch.attempt(requests=CATALOGUE))
    batch.next_run("second")
    batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    reject_file(batch, f"{first['SKU-002']}-v2")
    batch.next_run("third")
    assert versions_of(batch.attempt(requests=CATALOGUE)) == only("SKU-002", 1)
    assert batch.charges == 5


def test_where_all_are_rejected_the_next_run_makes_a_new_one_once(batch: GenerateTask) -> None:
    first = files_of(batch.attempt(requests=CATALOGUE))
    reject_file(batch, first["SKU-001"])
    for run_id in ("second", "third"):
        batch.next_run(run_id)
        assert versions_of(batch.attempt(requests=CATALOGUE)) == only("SKU-001", 2)
        batch.clear()
        assert versions_of(batch.attempt(requests=CATALOGUE)) == only("SKU-001", 2)
    assert batch.charges == 5


def test_a_broken_newest_version_gives_way_to_the_one_before(batch: GenerateTask) -> None:
    batch.attempt(requests=CATALOGUE)
    batch.next_run("second")
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    (batch.folder / f"{files_of(run)['SKU-002']}.png").write_bytes(b"\x89PNG\r\n\x1a\n, cut")
    batch.next_run("third")
    assert versions_of(batch.attempt(requests=CATALOGUE)) == only("SKU-002", 1)
    assert batch.charges == 5


def test_a_redo_of_what_never_was_makes_the_first_version(batch: GenerateTask) -> None:
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    assert versions_of(run) == only("SKU-002", 1)
    batch.clear()
    assert versions_of(batch.attempt(requests=CATALOGUE, redo=["SKU-002"])) == only("SKU-002", 1)
    assert batch.charges == 4


@pytest.mark.parametrize("then", ["another run", "the same run"])
def test_a_redo_of_what_was_deleted_makes_another_picture(with_store: GenerateTask, then: str) -> None:
    """The claim on the first one is still there, and so is the link of its image task."""
    batch = with_store
    first = files_of(batch.attempt(requests=CATALOGUE))
    (batch.folder / f"{first['SKU-002']}.png").unlink()
    batch.next_run("second") if then == "another run" else batch.clear()
    asked: dict[str, Any] = {"requests": CATALOGUE, "redo": ["SKU-002"]}
    assert versions_of(batch.attempt(**asked)) == only("SKU-002", 2) and batch.charges == 5
    batch.clear()
    assert versions_of(batch.attempt(**asked)) == only("SKU-002", 2) and batch.charges == 5


def test_what_was_deleted_comes_back_for_free_without_a_redo(with_store: GenerateTask) -> None:
    batch = with_store
    first = files_of(batch.attempt(requests=CATALOGUE))
    (batch.folder / f"{first['SKU-002']}.png").unlink()
    batch.next_run("second")
    assert files_of(batch.attempt(requests=CATALOGUE)) == first and batch.charges == 4


def test_one_variant_by_the_name_that_the_log_gives_it(batch: GenerateTask) -> None:
    asked: dict[str, Any] = {"requests": CATALOGUE[:2], "variants": 3}
    batch.attempt(**asked)
    batch.next_run("second")
    run = batch.attempt(**asked, redo=["SKU-001/2"])
    made = {(image["name"], image["variant"]) for image in run.result["images"] if not image["reused"]}
    assert made == {("SKU-001", "2")} and batch.charges == 7


def test_by_uri_by_position_and_without_names(batch: GenerateTask) -> None:
    prompts = ["a kite", "a boat", "a kite"]
    first = batch.attempt(requests=prompts)
    by_request = {image["request"]: image["uri"] for image in first.result["images"]}
    batch.next_run("second")
    run = batch.attempt(requests=prompts, redo=[by_request[2], "1"])
    numbers = {image["request"]: split_stem(Path(image["uri"]).stem)[1] for image in run.result["images"]}
    assert sorted(numbers.values()) == [1, 2, 2] and numbers[1] == 2 and batch.charges == 5
    batch.next_run("third")
    again = batch.attempt(requests=prompts, redo=[image["uri"] for image in run.result["images"]])
    assert again.error is None and batch.charges == 8
    numbers = {image["request"]: split_stem(Path(image["uri"]).stem)[1] for image in again.result["images"]}
    assert sorted(numbers.values()) == [2, 3, 3]


@pytest.mark.parametrize("redo", [["SKU-009"], [9], ["s3://bucket/SKU-009.png"], {"SKU-001": 1}, [None], True, 1.5])
def test_what_names_nothing_is_refused_before_money(batch: GenerateTask, redo: Any) -> None:
    run = batch.attempt(requests=CATALOGUE, redo=redo)
    assert isinstance(run.error, NanoBananaFailException) and "redo" in flat(run.error)
    assert batch.posts == 0


@pytest.mark.parametrize("redo", [None, "", [], "[]", "  "])
def test_nothing_to_make_again(batch: GenerateTask, redo: Any) -> None:
    batch.attempt(requests=CATALOGUE)
    batch.next_run("second")
    assert batch.attempt(requests=CATALOGUE, redo=redo).error is None and batch.charges == 4


def test_redo_and_all_anew_are_one_too_many(batch: GenerateTask) -> None:
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-001"], reuse_existing=False)
    assert isinstance(run.error, NanoBananaFailException) and batch.posts == 0


def test_two_tasks_of_a_run_share_its_version(batch: GenerateTask) -> None:
    batch.attempt(requests=CATALOGUE)
    for map_index in (0, 1):
        batch.next_run("second")
        batch.map_index = map_index
        assert versions_of(batch.attempt(requests=CATALOGUE, redo=["SKU-002"])) == only("SKU-002", 2)
    assert batch.charges == 5


def test_a_crash_at_any_step_of_a_redo_pays_once(quick: GenerateTask) -> None:
    batch, requests = quick, CATALOGUE[:1]
    batch.attempt(requests=requests)
    batch.next_run("second")
    batch.attempt(requests=requests, redo=["SKU-000"])
    steps = len(batch.crash_points.passed)
    # Every one was tried (a minute); a stride that meets each kind of step in one of the two is enough for each day.
    for step in range(1 + (batch.store is None), steps + 1, 4):
        batch.begin_again()
        batch.attempt(requests=requests)
        batch.next_run("second")
        batch.attempt(requests=requests, redo=["SKU-000"], crash_at=step)
        run = batch.attempt(requests=requests, redo=["SKU-000"])
        while run.error is not None and batch.tries < 6:
            run = batch.attempt(requests=requests, redo=["SKU-000"])
        assert run.error is None and versions_of(run) == {"SKU-000": 2}, step
        assert batch.charges == 2, step
    assert steps > 10


def test_the_file_of_a_version_says_whose_it_is(batch: GenerateTask) -> None:
    batch.attempt(requests=CATALOGUE)
    batch.next_run("second")
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-002"])
    path = batch.folder / ".nanobanana" / "versions" / f"{files_of(run)['SKU-002']}.json"
    assert json.loads(path.read_text())["run"][-1] == "second"


def test_a_file_in_place_of_our_folder_stops_no_batch(batch: GenerateTask) -> None:
    """Nothing of ours can be kept there: neither claims nor versions; pictures can."""
    batch.folder.mkdir()
    (batch.folder / ".nanobanana").touch()
    assert batch.attempt(requests=CATALOGUE).error is None and batch.charges == 4
    batch.next_run("second")
    run = batch.attempt(requests=CATALOGUE, redo=["SKU-001"])
    assert run.error is not None and batch.charges == 4
