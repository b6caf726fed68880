"""What final records amount to: the error, what became of the money, and what to clear."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.polling.outcome_error import error_for
from airflow_provider_nanobanana.toapis import errors


def record(name: str, status: str, code: str | None = None) -> dict[str, Any]:
    error = {"code": code or status, "message": "m"} if status != "completed" else None
    return {"id": name, "status": status, "images": [], "expires_at": None, "cost_usd": None, "error": error}


A, B = record("a", "completed"), record("b", "completed")
F, T = record("f", "failed"), record("t", "timeout")


@pytest.mark.parametrize(
    ("records", "partial", "expected", "charged"),
    [
        ([A], False, None, ""),
        ([A, B], True, None, ""),
        ([A, F], True, None, ""),
        ([A, T], True, None, ""),
        ([A, F], False, errors.ImageTaskFailed, "yes"),
        ([A, T], False, errors.ImageTaskTimeout, "yes"),
        ([T], False, errors.ImageTaskTimeout, "yes"),
        ([T], True, errors.ImageTaskTimeout, "yes"),
        ([F], False, errors.ImageTaskFailed, "no"),
        ([F], True, errors.ImageTaskFailed, "no"),
        ([F, T], True, errors.ImageTaskFailed, "yes"),
        ([T, F, A], False, errors.ImageTaskFailed, "yes"),
        ([], False, errors.InvalidRequest, "no"),
        ([], True, errors.InvalidRequest, "no"),
    ],
)
def test_the_verdict(records: list[dict[str, Any]], partial: bool, expected: type | None, charged: str) -> None:
    error = error_for(records, allow_partial=partial)
    assert type(error) is (expected or type(None))
    if error is not None:
        assert error.charged == charged
        assert error.image_task_id == next((r["id"] for r in records if r is F), "t" if T in records else None)


def test_a_result_that_expired_at_the_service_is_lost_and_not_refunded() -> None:
    expired = record("e", "failed", "expired")
    error = error_for([expired], allow_partial=False)
    assert type(error) is errors.ResultExpired and error.charged == "yes"
    assert (
        "refunded" not in error.message and "clear the submit tasks concerned, then wait and download" in error.message
    )
    assert type(error_for([expired, F], allow_partial=False)) is errors.ImageTaskFailed


@pytest.mark.parametrize(
    ("status", "code", "charged", "clear_submit"),
    [
        ("failed", "generation_failed", "no", True),
        ("failed", "timeout", "no", True),
        ("failed", "not_seen", "no", True),
        ("failed", "expired", "yes", True),
        ("failed", "result_missing", "yes", False),
        ("failed", "task_not_found", "unknown", False),
        ("failed", "look_refused", "unknown", False),
        ("timeout", "timeout", "yes", False),
        ("timeout", "not_seen", "unknown", False),
    ],
)
def test_the_advice_is_true_for_each_kind(status: str, code: str, charged: str, clear_submit: bool) -> None:
    """A code that the service chose for its own failure changes nothing: what it failed is refunded."""
    error = error_for([record("x", status, code)], allow_partial=False)
    assert error is not None and error.charged == charged
    assert ("refunded" in error.message) == (charged == "no")
    assert ("clear the submit tasks concerned" in error.message) == clear_submit
    assert ("do not clear their submit tasks" in error.message) != clear_submit
    assert "clear this task" in error.message.lower() or clear_submit


def test_what_was_never_seen_is_listed_apart_from_what_goes_on() -> None:
    error = error_for([T, record("n", "timeout", "not_seen")], allow_partial=False)
    assert type(error) is errors.ImageTaskTimeout and error.charged == "yes"
    going_on, _, unseen = error.message.partition("Not seen in time")
    assert "t (timeout: m)" in going_on and "n (not_seen: m)" in unseen and "not_seen" not in going_on


def test_the_message_names_what_is_paid_and_what_to_clear() -> None:
    error = error_for([A, F, T], allow_partial=False)
    assert error is not None
    for part in (
        "1 of 3",
        "f (failed: m)",
        "refunded",
        "t (timeout: m)",
        "do not clear their submit",
        "Paid and completed",
        "lands them:\n  a",
    ):
        assert part in error.message


def test_a_thousand_records_make_a_short_message() -> None:
    records = [record(f"{status}-{n}", status) for n in range(1000) for status in ("completed", "failed", "timeout")]
    error = error_for(records, allow_partial=False)
    assert error is not None and len(error.message) < 2500 and "and 990 more" in error.message


def test_what_is_completed_without_an_image_at_the_deadline_may_still_come() -> None:
    undelivered = record("u", "timeout", "result_missing")
    error = error_for([A, undelivered], allow_partial=False)
    assert type(error) is errors.ImageTaskTimeout and error.charged == "yes" and error.retryable
    assert "Completed without an image so far, and paid" in error.message and "going on" not in error.message
    assert type(error_for([undelivered, F], allow_partial=False)) is errors.ImageTaskFailed


@pytest.mark.parametrize(
    ("codes", "first_step"),
    [
        ([T], "Clear this task, and the download task after it; no submit task."),
        ([A, F], "Clear submit, this task and download."),
        ([F, T], "Clear submit (where it says so), this task and download."),
        ([record("e", "failed", "expired")], "Set on_expired='resubmit'; clear submit, this task and download."),
        (
            [record("e", "failed", "expired"), T],
            "Set on_expired='resubmit'; clear submit (where it says so), this task and download.",
        ),
        ([], "Correct and clear the submit tasks, then this one."),
    ],
)
def test_the_error_begins_with_the_tasks_to_clear(codes: list[dict[str, Any]], first_step: str) -> None:
    error = error_for(codes, allow_partial=False)
    assert error is not None and error.first_step == first_step


def test_each_image_task_has_a_line_of_its_own() -> None:
    error = error_for([A, B, F, T], allow_partial=False)
    assert error is not None
    lines = error.message.splitlines()
    assert {"  f (failed: m)", "  t (timeout: m)", "  a, b"} <= set(lines)
