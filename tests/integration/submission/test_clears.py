"""Rows of docs/durability.md: what a user's clear buys, and what it reuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from tests.integration.submission.harness import SubmitTask
from tests.support.images import picture
from tests.support.text import flat


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture("png", (16, 16)))
    return path


DAY = 86_400.0


def test_r30_a_running_task_is_cleared(task: SubmitTask) -> None:
    """Airflow kills it and goes on as with a retry: ``max_tries`` stays."""
    task.attempt(crash_on="after submit")
    assert [task.attempt().result] == task.charges


def test_r31_a_running_task_is_cleared_with_another_request(recorded: SubmitTask) -> None:
    recorded.attempt(crash_on="after submit")
    recorded.options = {"prompt": "a blue kite"}
    assert [recorded.attempt().result] == recorded.charges, "as at a retry, what is paid wins"
    recorded.clear()
    run = recorded.attempt()
    assert recorded.charges[1:] == [run.result], "cleared once more, now that it is not running"


@pytest.mark.parametrize("changed", [False, True])
def test_r32_a_queued_submit_is_cleared(task: SubmitTask, changed: bool) -> None:
    task.harness.emulator.fault(on="submit", kind="rate_limit", retry_after=40, times=1)
    task.options = {"timeout": 0}
    assert task.attempt().error is not None
    task.clear()
    task.options = {"prompt": "a blue kite"} if changed else {}
    assert [task.attempt().result] == task.charges


def test_r33_a_failed_task_is_cleared(task: SubmitTask) -> None:
    """Failed in Airflow, after a submit whose outcome no attempt came to know."""
    task.harness.emulator.configure(lookup_delay=30)
    task.attempt(crash_on="submit under way")
    task.clear()
    assert [task.attempt().result] == task.charges


def test_r34_a_failed_task_is_cleared_with_another_request(task: SubmitTask) -> None:
    task.harness.emulator.configure(lookup_delay=30)
    task.attempt(crash_on="submit under way")
    task.clear()
    task.options = {"prompt": "a blue kite"}
    run = task.attempt()
    assert task.charges[1:] == [run.result]
    assert task.attempt().result == run.result
    assert len(task.charges) == 2


def test_r35_a_successful_task_is_cleared(task: SubmitTask) -> None:
    bought = task.attempt().result
    task.clear()
    assert [task.attempt().result] == [bought] == task.charges


def test_r36_a_successful_task_is_cleared_with_another_request(task: SubmitTask) -> None:
    abandoned = task.attempt().result
    task.harness.clock.sleep(600.0)
    task.clear()
    task.options = {"prompt": "a blue kite"}
    start = task.harness.clock.now
    run = task.attempt()
    assert task.charges == [abandoned, run.result]
    assert (task.seconds(start) == 0) == (task.store is not None), "nothing left after what is on record"


def test_r37_the_request_is_changed_back(task: SubmitTask) -> None:
    task.harness.emulator.configure(lookup_delay=30)
    first = task.attempt().result
    for prompt in ("a blue kite", "a red kite"):
        task.clear()
        task.options = {"prompt": prompt}
        run = task.attempt()
    assert run.result == first
    assert len(task.charges) == 2


def test_r38_a_clear_that_shall_not_reuse(task: SubmitTask) -> None:
    task.options = {"reuse_existing": False}
    first = task.attempt().result
    task.clear()
    second = task.bought_by(crash_on="after submit")[-1]
    assert task.attempt().result == second != first
    assert task.charges == [first, second]


def test_r39_a_clear_that_shall_not_reuse_before_anything_was_handed_on(recorded: SubmitTask) -> None:
    recorded.options = {"reuse_existing": False}
    recorded.attempt(crash_on="after submit")
    recorded.clear()
    assert [recorded.attempt().result] == recorded.charges


def test_r40_the_same_without_a_record(unrecorded: SubmitTask) -> None:
    unrecorded.options = {"reuse_existing": False}
    first = unrecorded.bought_by(crash_on="after submit")
    unrecorded.clear()
    run = unrecorded.attempt()
    assert unrecorded.charges == [*first, run.result]


def test_a_clear_after_the_reference_image_was_replaced_is_another_request(task: SubmitTask, photo: Path) -> None:
    """Its address is the same, what it shows is not; generate sees it likewise."""
    task.options = {"reference_images": [photo.as_uri()]}
    first = task.attempt().result
    task.clear()
    assert task.attempt().result == first
    photo.write_bytes(picture("png", (32, 32)))
    task.clear()
    again = task.attempt().result
    assert task.charges == [first, again]


def test_a_retry_after_the_reference_image_was_replaced_takes_what_is_paid(recorded: SubmitTask, photo: Path) -> None:
    recorded.options = {"reference_images": [photo.as_uri()]}
    recorded.attempt(crash_on="after submit")
    photo.write_bytes(picture("png", (32, 32)))
    assert [recorded.attempt().result] == recorded.charges


@pytest.mark.parametrize("cleared", [False, True])
def test_what_is_paid_is_found_though_the_reference_image_is_gone(
    recorded: SubmitTask, photo: Path, cleared: bool
) -> None:
    recorded.options = {"reference_images": [photo.as_uri()]}
    recorded.attempt(crash_on="after submit")
    photo.unlink()
    if cleared:
        recorded.clear()
    assert [recorded.attempt().result] == recorded.charges


def test_a_reference_image_that_is_not_there_is_named_before_anything_is_sent(task: SubmitTask, photo: Path) -> None:
    task.options = {"reference_images": [photo.as_uri()]}
    photo.unlink()
    run = task.attempt()
    assert isinstance(getattr(run.error, "error", None), InvalidRequest) and "photo.png" in flat(run.error)
    assert task.accepted == 0


@pytest.mark.parametrize("told", [{"on_expired": "resubmit"}, {"reuse_existing": False}])
@pytest.mark.parametrize("handed_on", [True, False])
def test_r41_a_task_whose_result_has_expired(task: SubmitTask, told: dict[str, object], handed_on: bool) -> None:
    """A month later, say with "upstream" ticked: nobody asked for the image itself."""
    bought = task.bought_by(crash_on="returned" if handed_on else "after submit")
    task.harness.clock.sleep(30 * DAY)
    for _ in range(2):
        task.clear()
        error = task.attempt().error
        assert isinstance(error, NanoBananaException)
        assert (error.charged, error.image_task_id) == ("yes", bought[0])
        assert "on_expired='resubmit'" in flat(error)
        assert "reuse_existing=False" in flat(error)
    assert task.charges == bought
    task.options = told
    task.clear()
    again = task.attempt().result
    assert task.charges == [*bought, again]
    assert task.attempt().result == again


def test_r42_a_task_whose_result_has_expired_with_another_request(task: SubmitTask) -> None:
    bought = task.bought_by(crash_on="returned")
    task.harness.clock.sleep(30 * DAY)
    task.options = {"prompt": "a blue kite"}
    task.clear()
    run = task.attempt()
    assert task.charges == [*bought, run.result]


@pytest.mark.parametrize(("before", "after"), [(3, 2), (3, 0), (2, 1), (1, 5)])
def test_r43_a_task_whose_retries_were_edited(recorded: SubmitTask, before: int, after: int) -> None:
    """A clear sets ``max_tries`` to the tries so far plus ``retries``: the same number again where that was lowered."""
    recorded.retries = recorded.max_tries = before
    first = recorded.attempt().result
    recorded.retries = after
    recorded.options = {"prompt": "a blue kite"}
    recorded.clear()
    run = recorded.attempt()
    assert recorded.charges == [first, run.result]
    assert recorded.attempt().result == run.result, "its retry is no clear"


def test_r44_a_task_whose_request_failed_again_and_again(task: SubmitTask) -> None:
    from airflow_provider_nanobanana.durable.reconcile import MAX_GENERATIONS

    task.retries = task.max_tries = 2 * MAX_GENERATIONS
    task.harness.emulator.fault(on="submit", kind="failed")
    for _ in range(MAX_GENERATIONS):
        task.attempt()
    error = task.attempt().error
    assert isinstance(error, NanoBananaException)
    assert "clear this task" in flat(error)
    assert task.accepted == MAX_GENERATIONS
    task.harness.emulator.clear_faults()
    task.clear()
    assert [task.attempt().result] == task.charges
