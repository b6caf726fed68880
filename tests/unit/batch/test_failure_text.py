"""What a batch that lacks images says: its error, the table of what is missing, and what to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_nanobanana.batch.costs import Cost
from airflow_provider_nanobanana.batch.failure_text import BatchIncomplete
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome
from airflow_provider_nanobanana.exceptions import NanoBananaFailException, airflow_exception
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import SERVICE_FAILURE, ImageTaskFailure
from airflow_provider_nanobanana.toapis.text_lines import LINE_WIDTH
from tests.support.batch import failed, item, landed
from tests.support.reports import (
    LATE,
    LOST,
    OK,
    OVER,
    REFUSAL,
    REFUSED,
    REMOTE,
    UNSEEN,
    URI,
    error_of,
    report,
    verdict_of,
)

# --- success or error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "partial", "expected", "charged"),
    [
        ([OK], False, None, ""),
        ([OK, LATE], True, None, ""),
        ([OK, REFUSAL], True, None, ""),
        ([OK, OVER], True, None, ""),
        ([OK, REFUSAL], False, errors.ImageTaskFailed, "yes"),
        ([REFUSAL], True, errors.ImageTaskFailed, "no"),
        ([REFUSAL, OVER], True, errors.ImageTaskFailed, "no"),
        ([OK, REMOTE], False, BatchIncomplete, "yes"),
        ([REMOTE], True, BatchIncomplete, "no"),
        ([REFUSAL, REMOTE], True, BatchIncomplete, "no"),
        ([OK, LATE], False, errors.ImageTaskTimeout, "yes"),
        ([LATE, UNSEEN], True, errors.ImageTaskTimeout, "yes"),
        ([UNSEEN], True, errors.ImageTaskTimeout, "unknown"),
        ([LATE, REMOTE], True, BatchIncomplete, "yes"),
        ([LOST], True, errors.ResultExpired, "yes"),
        ([LOST, REFUSAL], True, errors.ImageTaskFailed, "yes"),
        ([OVER], True, errors.ImageTaskFailed, "no"),
        ([failed(1, "service_timeout")], True, BatchIncomplete, "no"),
        ([landed(0, reused=True, cost=Cost()), REFUSAL], False, errors.ImageTaskFailed, "no"),
    ],
)
def test_the_verdict(outcomes: list[Outcome], partial: bool, expected: type | None, charged: str) -> None:
    error = verdict_of(*outcomes, partial=partial)
    assert type(error) is (expected or type(None))
    if error is not None:
        assert error.charged == charged


@pytest.mark.parametrize(
    ("failure", "retried"), [(REFUSAL, False), (REMOTE, True), (LATE, True), (OVER, False), (LOST, False)]
)
def test_airflow_retries_as_long_as_a_retry_may_bring_an_image(failure: FailedItem, retried: bool) -> None:
    for others in ([], [OK], [REFUSAL]):
        exception = airflow_exception(error_of(*others, failure))
        assert isinstance(exception, NanoBananaFailException) != retried


def test_the_message_says_what_is_there_what_it_cost_and_what_a_retry_repeats() -> None:
    error = error_of(*(landed(n) for n in range(10, 27)), REFUSAL, REMOTE, LATE)
    assert error.first_step == "Change the refused prompts, then clear this task; the rest is retried."
    assert error.message.splitlines() == [
        "17 of 20 images are in place. The batch has cost $0.45, $0.025 of it at list price.",
        f"Listed in {URI}",
        "A retry, or a clear, keeps what is in place and submits 1 again for which nothing is paid, goes on with 1 "
        "that are paid, without buying them again.",
        "No retry changes 1 of them; a clear keeps what is in place.",
        "request  prompt     code                      money",
        "#1       picture 1  content_policy_violation  refunded",
        "  words of 1",
        "#2       picture 2  generation_failed         refunded",
        "  words of 2",
        "#3       picture 3  timeout                   paid",
        "  image task tsk_3: words of 3",
    ]
    assert error.image_task_id == "tsk_1" and error.code is None


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (REFUSAL, "Change the refused prompts, then clear this task."),
        (OVER, "Raise max_cost_usd, then clear this task."),
        (LOST, "No retry changes any of them; a clear keeps what is in place and buys again what expired."),
        (failed(1, "expired", rebuy_expired=True, cost=Cost(0.025)), "buys 1 again whose paid results are lost"),
        (UNSEEN, "finds out about 1 before it submits anything for them"),
        (FailedItem.from_error(item(), errors.InsufficientCredits("empty")), "Top up the account"),
        (
            FailedItem.from_error(item(), errors.InvalidRequest("size")),
            "Fix what the table names, then clear this task",
        ),
    ],
)
def test_the_advice_fits_the_failure(failure: FailedItem, words: str) -> None:
    error = error_of(OK, failure)
    assert words in f"{error.first_step}\n{error.message}"
    assert ("A retry" in error.message) == failure.retryable == error.retryable


@pytest.mark.parametrize(
    ("failures", "first_step"),
    [
        ([REMOTE], "Wait for the retry; if none is left, clear this task."),
        ([REFUSAL], "Change the refused prompts, then clear this task."),
        ([REFUSAL, OVER], "Change the refused prompts, raise max_cost_usd, then clear this task."),
        ([LOST], "Clear this task."),
        (
            [FailedItem.from_error(item(), errors.AuthenticationFailed("401", code="unauthorized"))],
            "Correct the API key (the connection's password), then clear this task.",
        ),
        ([LOST, REMOTE], "Clear this task; the rest is retried."),
    ],
)
def test_the_error_begins_with_what_to_do(failures: list[FailedItem], first_step: str) -> None:
    assert str(airflow_exception(error_of(OK, *failures))).startswith(f"{first_step}\n1 of ")


def test_the_table_names_the_first_twenty_and_counts_the_rest() -> None:
    table = report(
        *[failed(n) for n in range(1, 1001)], *[failed(n, REFUSED) for n in range(2000, 2020)]
    ).failure_table()
    rows = [line for line in table.splitlines() if line.startswith("#")]
    assert len(rows) == 20 and rows[-1].startswith("#20 ")
    assert table.splitlines()[-2:] == [
        "and 1,000 more in the manifest",
        "In all: 1,000 generation_failed, 20 content_policy_violation",
    ]
    assert report().failure_table() == ""
    assert all(part in report(OVER).failure_table() for part in ("not charged", "#4 "))


def test_words_that_the_row_before_has_are_not_said_again() -> None:
    same = [replace(failed(n, "timeout"), message="late") for n in (1, 2)]
    assert report(*same).failure_table().splitlines()[1:] == [
        "#1       picture 1  timeout  refunded",
        "  late",
        "#2       picture 2  timeout  refunded",
    ]


def test_a_row_names_the_image_and_the_beginning_of_its_prompt() -> None:
    long = item(7, prompt="espresso cup\non a café table, " * 9, name="SKU-007" + "n" * 60, variant="2026-11-26")
    refused = replace(
        FailedItem.from_error(long, errors.ContentRefused("no " * 99)), id="tsk_" + "7" * 30, charged="yes"
    )
    _, row, *words = report(refused).failure_table().splitlines()
    assert row.startswith("SKU-007nnn") and " espresso cup on a café table, esp" in row and row.endswith("  paid")
    assert words[0].startswith(f"  image task {refused.id}: no no")
    assert all(len(line) <= LINE_WIDTH for line in [row, *words])
    assert replace(long, name=None).label == "#7/2026-11-26"


@pytest.mark.parametrize(("bill", "charged"), [(Cost(0.025), "yes"), (Cost(0.0), "no"), (Cost(0.025, True), "no")])
def test_a_failed_image_task_that_is_billed_is_not_refunded(bill: Cost, charged: str) -> None:
    shown = ImageTaskFailure("tsk_1", SERVICE_FAILURE, "generation_failed", "no")
    failure = FailedItem.from_poll(item(1), shown, bill=bill)
    assert failure.charged == charged and failure.retryable
    error = error_of(failure)
    assert ("charged $0.025 although failed" in error.message) == (charged == "yes")
    assert ("submits, and pays, 1 again" in error.message) == (charged == "yes")
    assert ("refunded" in error.message) == (charged == "no")


@pytest.mark.parametrize("charged", ["yes", "unknown", "no"])
def test_the_table_names_the_image_task_of_what_may_be_paid(charged: errors.Charged) -> None:
    table = report(replace(REMOTE, charged=charged)).failure_table()
    assert ("tsk_2" in table) == (charged != "no")


@pytest.mark.parametrize(
    "failures",
    [
        [REFUSAL],
        [failed(1, rebuy_expired=False)],
        [LATE],
        [LOST],
        [OVER],
        [UNSEEN, LATE, REMOTE, REFUSAL, OVER, LOST],
        [FailedItem.from_error(item(), errors.AuthenticationFailed("The gateway answered 401. " * 9))],
        [FailedItem.from_error(item(), errors.StorageFailed("403 AccessDenied " * 20, image_task_id="t" * 128))],
        [failed(n, ("timeout", REFUSED, "generation_failed")[n % 3]) for n in range(2000)],
    ],
)
def test_no_line_of_an_exception_is_longer_than_a_log_pane_shows(failures: list[FailedItem]) -> None:
    """A word that is longer, as the URI of a manifest, stays whole: it is there to be copied."""
    exception = airflow_exception(error_of(OK, *failures))
    lines = f"{type(exception).__name__}: {exception}".splitlines()
    assert all(len(line) <= 110 for line in lines if " " in line.strip()), max(lines, key=len)
    assert len(lines) < 100
