"""What a retry, a clear and another run do about each item: only what is needed, and never paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch import report
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.landing.image_store import ImageStore
from tests.integration.batch.harness import GenerateTask
from tests.support.task_runner import Run
from tests.support.text import flat

PROMPTS = [f"picture {number}" for number in range(6)]


def codes(run: Run) -> dict[int, str]:
    assert run.ti.xcoms
    return {failed["request"]: failed["code"] for failed in run.ti.xcoms["return_value"]["failed"]}


def test_a_remote_failure_is_bought_again_by_a_retry_only(batch: GenerateTask) -> None:
    batch.emulator.fault(on="submit", kind="failed", times=1, match="picture 2")
    run = batch.attempt(requests=PROMPTS)
    assert "5 of 6" in flat(run.error) and codes(run) == {2: "generation_failed"}
    assert batch.posts == 6 and batch.charges == 5
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and again.result["count"] == 6
    assert (batch.posts, batch.charges) == (7, 6)


@pytest.mark.parametrize("code", ["expired", "task_not_found", "result_missing", "timeout"])
def test_a_failure_of_the_service_is_refunded_whatever_its_code(batch: GenerateTask, code: str) -> None:
    batch.emulator.fault(on="submit", kind="failed", times=1, code=code, match="picture 1")
    run = batch.attempt(requests=PROMPTS)
    (failed,) = run.ti.xcoms["return_value"]["failed"]
    assert (failed["code"], failed["charged"]) == (f"service_{code}", "no")
    assert "submits 1 again" in flat(run.error)
    assert batch.attempt(requests=PROMPTS).error is None and batch.charges == 6


def test_a_refused_prompt_is_never_sent_again_but_by_a_clear(batch: GenerateTask) -> None:
    requests = [*PROMPTS[:2], "[[refuse-late]] one", "[[fail]] two"]
    batch.attempt(requests=requests)
    assert batch.posts == 4
    batch.attempt(requests=requests)
    assert batch.posts == 5, "only what failed for another reason"
    if batch.store is None:
        return
    batch.clear()
    batch.attempt(requests=requests)
    assert batch.posts == 7
    batch.attempt(requests=requests)
    assert batch.posts == 8, "the retries of a clear leave it alone again"


def test_what_is_late_is_waited_for_by_the_retry(batch: GenerateTask) -> None:
    batch.emulator.fault(on="submit", kind="latency", seconds=100, match="picture 5")
    run = batch.attempt(requests=PROMPTS, timeout=60)
    assert codes(run) == {5: "timeout"} and len(batch.files) == 5
    assert "goes on with 1" in flat(run.error)
    again = batch.attempt(requests=PROMPTS, timeout=60)
    assert again.error is None and again.result["count"] == 6
    assert batch.posts == 6


def test_an_account_that_runs_dry_lands_what_runs(batch: GenerateTask) -> None:
    """402 in the middle: the rest is told, and bought after the account was topped up and the task cleared."""
    batch.emulator.fault(on="submit", kind="quota", skip=3)
    run = batch.attempt(requests=PROMPTS)
    assert isinstance(run.error, NanoBananaFailException)
    assert batch.charges == len(batch.files) == 3
    assert "3 of 6" in flat(run.error) and "Top up the account" in flat(run.error)
    assert set(codes(run).values()) == {"insufficient_credits"}
    assert run.ti.xcoms["return_value"]["cost_usd"] == pytest.approx(0.075)
    assert {failed["charged"] for failed in run.ti.xcoms["return_value"]["failed"]} == {"no"}
    batch.emulator.clear_faults()
    batch.clear()
    assert batch.attempt(requests=PROMPTS).result["count"] == 6
    assert batch.charges == 6


# --- the limit of cost ---------------------------------------------------------------------------------------------


def test_the_limit_stops_before_the_first_that_would_pass_it(batch: GenerateTask) -> None:
    run = batch.attempt(requests=PROMPTS, max_cost_usd=0.075)
    assert isinstance(run.error, NanoBananaFailException), "no retry can change it"
    assert batch.charges == len(batch.files) == 3
    assert codes(run) == dict.fromkeys((3, 4, 5), "max_cost_usd")
    batch.clear()
    partial = batch.attempt(requests=PROMPTS, max_cost_usd=0.1, allow_partial=True)
    assert partial.error is None and batch.charges == 4


def test_the_limit_counts_what_earlier_attempts_paid(with_store: GenerateTask) -> None:
    """Whatever the attempt before died of."""
    batch = with_store
    batch.attempt(requests=PROMPTS, max_cost_usd=0.1, crash_on=("submit under way", 3))
    assert batch.charges == 3
    batch.attempt(requests=PROMPTS[::-1], max_cost_usd=0.1)
    assert batch.charges == 4 and len(batch.files) == 4


def test_a_lost_image_counts_twice_when_it_is_bought_again(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS[:3], max_cost_usd=0.1)
    for path in batch.folder.glob("*.png"):
        path.unlink()
    batch.clock.sleep(100_000.0)
    run = batch.attempt(requests=PROMPTS[:3], max_cost_usd=0.1, on_expired="resubmit")
    assert batch.posts == 4, "0.075 is gone; one more fits into 0.1"
    value = run.ti.xcoms["return_value"]
    assert value["count"] == 1 and value["cost_usd"] == pytest.approx(0.1)


def test_what_is_paid_is_landed_though_an_item_before_it_cannot_be_paid_any_more(with_store: GenerateTask) -> None:
    """A refund let the second be bought; the first, to be bought again by the retry, no longer fits."""
    batch = with_store
    batch.emulator.fault(on="submit", kind="failed", times=1, match="first")
    batch.emulator.fault(on="submit", kind="latency", seconds=100, match="second")
    second = {"prompt": "second", "resolution": "4K"}
    options: dict[str, Any] = {"requests": ["first", second], "max_cost_usd": 0.05, "timeout": 60}
    run = batch.attempt(**options)
    assert codes(run) == {0: "generation_failed", 1: "timeout"} and batch.charges == 1
    run = batch.attempt(**options)
    assert codes(run) == {0: "max_cost_usd"}
    assert batch.charges == len(batch.files) == 1
    assert run.ti.xcoms["return_value"]["cost_usd"] == pytest.approx(0.04)


def test_a_refund_can_be_spent_again(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="failed", times=2)
    batch.attempt(requests=PROMPTS[:3], max_cost_usd=0.075)
    assert batch.charges == 1
    run = batch.attempt(requests=PROMPTS[:3], max_cost_usd=0.075)
    assert run.error is None and batch.charges == 3 and run.result["cost_usd"] == pytest.approx(0.075)


def test_a_clear_for_new_pictures_counts_the_old_ones(with_store: GenerateTask) -> None:
    batch = with_store
    options: dict[str, Any] = {"requests": PROMPTS[:2], "reuse_existing": False, "max_cost_usd": 0.1}
    assert batch.attempt(**options).result["cost_usd"] == pytest.approx(0.05)
    batch.clear()
    assert batch.attempt(**options).result["cost_usd"] == pytest.approx(0.1)
    assert batch.charges == 4 and len(batch.files) == 4
    batch.clear()
    assert batch.attempt(**options).error is not None
    assert batch.charges == 4


def test_a_poor_account_buys_nothing(real: GenerateTask) -> None:
    batch = real
    batch.emulator.configure(credits=20.0)
    run = batch.attempt(requests=PROMPTS, preflight_balance=True)
    assert isinstance(run.error, NanoBananaFailException) and batch.posts == 0
    assert "$0.15" in flat(run.error) and "$0.10" in flat(run.error)
    batch.emulator.configure(credits=1000.0)


def test_an_account_that_paid_already_needs_no_balance(batch: GenerateTask) -> None:
    """A retry after a kill: everything is bought, and there is nothing left."""
    batch.attempt(requests=PROMPTS, crash_on=("before land", 1))
    assert batch.posts == 6
    batch.emulator.configure(credits=0.0)
    again = batch.attempt(requests=PROMPTS, preflight_balance=True)
    batch.emulator.configure(credits=None)
    assert again.error is None and batch.charges == 6


# --- what is in place ----------------------------------------------------------------------------------------------


def test_another_run_pays_for_what_changed(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS)
    batch.next_run("second")
    again = batch.attempt(requests=PROMPTS[::-1])
    assert batch.posts == 6 and again.result["cost_usd"] == 0.0
    assert [image["request"] for image in again.result["images"]] == list(range(6))
    assert all(image["reused"] for image in again.result["images"])
    batch.next_run("third")
    changed = batch.attempt(requests=["another", *PROMPTS[1:]])
    assert batch.posts == 7 and changed.result["cost_usd"] == pytest.approx(0.025)


def test_a_kill_during_the_search_of_what_is_in_place_begins_it_again(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch.attempt(requests=PROMPTS)
    batch.next_run("second")
    monkeypatch.setattr(ImageStore, "find", batch.crash_points.around("find", ImageStore.find))
    batch.attempt(requests=[*PROMPTS, "new"], crash_on=("after find", 3))
    assert batch.posts == 6, "nothing is bought before the search is over"
    run = batch.attempt(requests=[*PROMPTS, "new"])
    assert run.error is None and run.result["count"] == 7 and batch.posts == 7


def test_a_broken_file_is_made_again(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS)
    victim = batch.folder / batch.files[2]
    victim.write_bytes(victim.read_bytes()[:-9])
    batch.next_run("second")
    assert batch.attempt(requests=PROMPTS).error is None
    assert batch.posts == len(batch.files) == 6


@pytest.mark.parametrize("change", [{"variant": "tuesday"}, {"reuse_existing": False}])
def test_a_new_picture_of_the_same_prompt(batch: GenerateTask, change: dict[str, Any]) -> None:
    batch.attempt(requests=PROMPTS[:2], **(change if "reuse_existing" in change else {}))
    batch.next_run("second")
    assert batch.attempt(requests=PROMPTS[:2], **change).error is None
    assert batch.posts == 4 and len(batch.files) == 4


def test_identical_requests_are_separate_images(batch: GenerateTask) -> None:
    batch.attempt(requests=["same"] * 3)
    assert batch.posts == len(batch.files) == 3
    batch.next_run("second")
    batch.attempt(requests=["same"] * 4)
    assert batch.posts == len(batch.files) == 4


def test_a_rerun_of_the_same_run_costs_nothing(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS)
    batch.clear()
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and again.result["count"] == 6 and batch.posts == 6


def test_a_deleted_file_is_landed_again_for_free(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS, crash_on=("after manifest", 1))
    (batch.folder / batch.files[0]).unlink()
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and len(batch.files) == 6 and batch.posts == 6


def test_a_request_that_got_another_name_is_another_file_and_leaves_the_first(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=[{"prompt": "hero", "name": "front"}])
    batch.clock.sleep(100_000.0)
    batch.clear()
    again = batch.attempt(requests=[{"prompt": "hero", "name": "banner"}])
    assert again.error is None and batch.posts == 2
    assert [name.partition("-")[0] for name in batch.files] == ["banner", "front"]
    assert Path(again.result["images"][0]["uri"]).name.startswith("banner-")


# --- requests that change ------------------------------------------------------------------------------------------


def test_a_retry_makes_what_the_first_try_was_asked_for(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS, crash_on=("submit under way", 4))
    again = batch.attempt(requests=[f"{prompt}, try 2" for prompt in PROMPTS])
    assert again.error is None and batch.posts == 6
    prompts = {image["fields"]["prompt"] for image in batch.manifest["images"]}
    assert prompts == set(PROMPTS)


def test_a_clear_makes_what_is_asked_for_by_then(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS)
    batch.clear()
    again = batch.attempt(requests=[*PROMPTS[3:], "new", *PROMPTS[:3]])
    assert again.error is None and again.result["count"] == 7 and batch.posts == 7
    assert [image["request"] for image in again.result["images"]] == list(range(7))


def test_a_reordered_upstream_changes_nothing(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS, crash_on=("submit under way", 4))
    again = batch.attempt(requests=PROMPTS[::-1])
    assert again.error is None and batch.posts == 6


# --- the form of the result ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_partial", [True, False])
def test_one_refused_and_one_late_of_twenty(batch: GenerateTask, allow_partial: bool) -> None:
    requests = [f"picture {number}" for number in range(18)] + ["[[refuse-late]] one", {"prompt": "[[stuck]] two"}]
    run = batch.attempt(requests=requests, timeout=60, allow_partial=allow_partial)
    assert len(batch.files) == 18
    assert (run.error is None) == allow_partial
    value = run.result if allow_partial else run.ti.xcoms["return_value"]
    assert value["count"] == 18 and value["cost_usd"] == pytest.approx(19 * 0.025)
    assert [(failed["request"], failed["code"], failed["charged"]) for failed in value["failed"]] == [
        (18, "content_policy_violation", "no"),
        (19, "timeout", "yes"),
    ]
    assert batch.manifest["count"] == 18 and len(batch.manifest["failed"]) == 2
    assert all(len(json.dumps(entry)) <= 600 for entry in value["images"] + value["failed"])


def test_all_failed_is_failed(batch: GenerateTask) -> None:
    run = batch.attempt(requests=["[[refuse-late]] one", "[[refuse]] two"], allow_partial=True)
    assert isinstance(run.error, NanoBananaFailException)
    assert run.ti.xcoms["return_value"]["count"] == 0
    assert "refunded" in flat(run.error) and "not charged" in flat(run.error)


def test_above_the_bound_the_lists_are_in_the_manifest_only(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report.MOST_IN_XCOM == 500
    monkeypatch.setattr(report, "MOST_IN_XCOM", 20)
    batch = with_store
    run = batch.attempt(requests=[f"picture {number}" for number in range(21)])
    assert run.result["truncated"] and run.result["images"] == [] and run.result["count"] == 21
    assert len(batch.manifest["images"]) == len(batch.files) == 21
    assert all(image["sha256"] and image["fields"]["prompt"] for image in batch.manifest["images"])
