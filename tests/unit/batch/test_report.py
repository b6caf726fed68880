"""What a batch amounts to: small in XCom, whole in the manifest, and an error that says what became of the money."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.costs import Cost, Spent, totals
from airflow_provider_nanobanana.batch.items import SkippedRow
from airflow_provider_nanobanana.batch.manifest import utc_text
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem
from airflow_provider_nanobanana.batch.report import BatchReport
from airflow_provider_nanobanana.landing.image_store import StoredImage
from airflow_provider_nanobanana.landing.storage.destination import MAX_DESTINATION
from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import (
    RESULT_MISSING,
    ImageTaskFailure,
)
from tests.support.batch import item, landed, spent_on
from tests.support.manifests import manifest_faults
from tests.support.reports import LATE, OK, REFUSAL, REFUSED, REMOTE, URI, error_of, report, verdict_of
from tests.support.responses import FAILED, ID, NOW, RUNNING, STATUS, response

RUN = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
WAIT = WaitWindow(NOW - 900, NOW)


def result_of(*outcomes: Outcome) -> dict[str, Any]:
    return report(*outcomes).result(URI)


def manifest_of(*outcomes: Outcome, destination: str = "s3://bucket") -> dict[str, Any]:
    content = report(*outcomes).manifest(run=RUN, destination=destination, now=NOW)
    assert manifest_faults(content) == []
    return content


# --- how an item ended ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "charged", "again"),
    [
        (FAILED, "generation_failed", "no", True),
        ({**FAILED, "error": {"code": "timeout", "message": "upstream"}}, "service_timeout", "no", True),
        ({**FAILED, "error": {"code": "content_policy", "message": "no"}}, REFUSED, "no", False),
        ({**FAILED, "status": "expired"}, "expired", "yes", False),
        (RUNNING, "timeout", "yes", True),
    ],
)
def test_what_the_last_poll_showed(body: dict[str, Any], code: str, charged: str, again: bool) -> None:
    shown = PollResult(ID, STATUS.parse(response(200, body), NOW)).failure(WAIT, NOW)
    assert shown is not None
    failure = FailedItem.from_poll(item(7), shown)
    assert (failure.code, failure.charged, failure.retryable) == (code, charged, again)
    assert failure.record()["request"] == 7 and failure.record()["id"] == ID
    resubmitted = FailedItem.from_poll(item(7), shown, rebuy_expired=True)
    assert resubmitted.retryable == (again or code == "expired")


@pytest.mark.parametrize(
    ("error", "code", "charged", "again"),
    [
        (errors.ContentRefused("no", code="moderation_blocked"), REFUSED, "no", False),
        (errors.InsufficientCredits("empty", code="quota_not_enough"), "insufficient_credits", "no", False),
        (errors.InvalidRequest("no"), "invalid_request", "no", False),
        (errors.ModelNotFound("no", code="model_not_found"), "model_not_found", "no", False),
        (errors.RateLimited("slow", code="rate_limit_exceeded"), "rate_limit_exceeded", "no", True),
        (errors.SubmissionUnknown("lost"), "submission_unknown", "unknown", True),
        (errors.SubmissionUnfindable("lost"), "submission_unfindable", "unknown", False),
        (errors.DownloadFailed("404"), "download_failed", "yes", True),
        (errors.StorageFailed("full"), "storage_failed", "yes", True),
        (errors.UnsafeAddress("inside"), "unsafe_address", "yes", False),
        (errors.ResultExpired("late"), "expired", "yes", False),
        (errors.ImageTaskFailed("25 times"), "image_task_failed", "no", False),
        (errors.RateLimited("x", charged="yes"), "rate_limited", "yes", True),
    ],
)
def test_what_an_error_amounts_to(error: errors.ToApisError, code: str, charged: str, again: bool) -> None:
    failure = FailedItem.from_error(item(), error)
    assert (failure.code, failure.charged, failure.retryable) == (code, charged, again)
    assert FailedItem.from_error(item(), error, rebuy_expired=True).retryable == (again or code == "expired")


def test_words_of_the_service_are_cut_and_cleaned() -> None:
    failure = FailedItem.from_error(item(), errors.InvalidRequest("坏\n" * 500 + "Bearer sk-abcdef", code="c" * 500))
    assert len(json.dumps(failure.message)) <= 162 and len(failure.code) <= 60 and "\n" not in failure.message


# --- through XCom ---------------------------------------------------------------------------------------------------


def test_the_result_lists_images_and_failures_in_the_order_of_the_requests() -> None:
    outcomes: list[Outcome] = [REMOTE, landed(9), REFUSAL, OK]
    small = result_of(*outcomes)
    assert [image["request"] for image in small["images"]] == [0, 9]
    money = {"cost_usd": 0.025, "paid_usd": 0.025, "reused": False, "shared": False}
    row = {"name": None, "variant": "", "version": 1, "meta": None, "prompt": "picture 0"}
    assert small["images"][0] == {**OK.image, "request": 0, **row, **money, "suspect": []}
    assert [failure["request"] for failure in small["failed"]] == [1, 2]
    assert small["failed"][0] == {
        "request": 1,
        "name": None,
        "variant": "",
        "meta": None,
        "prompt": "picture 1",
        "id": "tsk_1",
        "code": REFUSED,
        "message": "words of 1",
        "charged": "no",
    }
    rest = {key: value for key, value in small.items() if key not in ("images", "failed")}
    assert rest == {
        "quarantined": [],
        "abandoned": [],
        "count": 2,
        "failed_count": 2,
        "extra_count": 0,
        "skipped_count": 0,
        "cost_usd": 0.05,
        "paid_usd": 0.05,
        "shared": 0,
        "reused": 0,
        "lost_race": 0.0,
        "manifest": URI,
        "truncated": False,
    }
    assert json.loads(json.dumps(small)) == small


def test_above_five_hundred_requests_nothing_is_listed() -> None:
    outcomes: list[Outcome] = [OK, REFUSAL] * 250
    assert len(result_of(*outcomes)["images"]) == 250
    outcomes.append(REFUSAL)
    more = result_of(*outcomes)
    assert more["images"] == more["failed"] == [] and more["truncated"]
    assert (more["count"], more["failed_count"]) == (250, 251)
    assert len(json.dumps(more)) < 300


def longest(id_length: int, stem: str, folder: int = MAX_DESTINATION, **row: Any) -> StoredItem:
    """Return an image at a destination of so many bytes."""
    stored = StoredImage(
        uri=f"s3://{'x' * (folder - 5)}/{stem}.webp",
        id="A" * id_length,
        index=0,
        sha256="f" * 64,
        bytes=64 * 2**20,
        format="webp",
        width=12288,
        height=12288,
    )
    return StoredItem(item(19_999, **row), stored.record(), spent_on(Cost(0.123456, listed=True)))


@pytest.mark.parametrize("id_length", [0, 40, 128])
@pytest.mark.parametrize("stem", ["f" * 16 + "-0", "n" * 80, "n" * 100])
@pytest.mark.parametrize("folder", [20, 150, MAX_DESTINATION])
def test_no_record_is_over_600_bytes(id_length: int, stem: str, folder: int) -> None:
    """What makes room is never URI, id or name: without them a downstream task has nothing."""
    name = None if stem.startswith("f") else stem[:80]
    image = longest(id_length, stem, folder, name=name, prompt="坏" * 99, variant="v" * 300)
    image = replace(image, item=replace(image.item, meta={"sku": "A" * 500}))
    (record,) = result_of(image)["images"]
    assert len(json.dumps(record)) <= 600 and record["uri"] == image.image["uri"]
    assert (record["name"], record["request"], record["index"]) == (name, 19_999, 0)
    # The longest id of a service that was ever seen has 36 characters.
    assert record["id"] == image.image["id"] or id_length == 128


def test_a_usual_record_keeps_everything() -> None:
    image = longest(36, "SKU-007-" + "f" * 10, folder=60, name="SKU-007", prompt="a red kite", variant="2026-11")
    image = replace(image, item=replace(image.item, meta={"sku": 7}))
    assert result_of(image)["images"] == [image.record()]


def test_no_failure_is_over_600_bytes() -> None:
    named = item(prompt="p", name="n" * 80)
    failure = FailedItem.from_error(named, errors.InvalidRequest("坏" * 99, code="坏" * 99, image_task_id="\\" * 128))
    (record,) = result_of(failure)["failed"]
    assert len(json.dumps(record)) <= 600 and record["message"].startswith("坏") and record["code"].startswith("坏")
    assert record["name"] == "n" * 80 and record["id"] == "\\" * 128


# --- images beside the one that was asked for, and bytes in quarantine ------------------------------------------------

KEPT = {
    "uri": "s3://bucket/.nanobanana/quarantine/3.bin",
    "id": "tsk_3",
    "index": 0,
    "sha256": "e" * 64,
    "bytes": 9,
    "reason": "truncated",
}


def broken(index: int = 3, **changes: Any) -> FailedItem:
    error = errors.ImageInvalid("truncated", image_task_id=f"tsk_{index}")
    error.kept = KEPT
    return replace(FailedItem.from_error(item(index), error), spent=spent_on(Cost(0.025)), **changes)


def further(index: int = 1) -> StoredItem:
    image = {**OK.image, "uri": f"s3://bucket/0.{index}.png", "index": index}
    return replace(OK, image=image, spent=Spent(), extra=True)


def test_further_images_are_listed_and_counted_apart() -> None:
    outcomes: list[Outcome] = [further(1), further(2), OK]
    for whole in (
        result_of(*outcomes),
        manifest_of(*outcomes),
    ):
        assert [(image["request"], image["index"]) for image in whole["images"]] == [(0, 0), (0, 1), (0, 2)]
        assert (whole["count"], whole["extra_count"]) == (1, 2)
        assert sum(image["cost_usd"] for image in whole["images"]) == pytest.approx(0.025)


def test_further_images_count_for_what_fits_into_xcom() -> None:
    outcomes = [OK, *(further(index) for index in range(1, 500))]
    assert len(result_of(*outcomes)["images"]) == 500
    more = result_of(*outcomes, further(500))
    assert more["images"] == [] and more["truncated"] and (more["count"], more["extra_count"]) == (1, 500)


def test_a_further_image_that_is_lost_fails_the_task_and_says_that_a_clear_goes_on_without() -> None:
    lost = FailedItem.from_error(OK.item, errors.UnsafeAddress("inside", image_task_id="tsk_0"))
    lost = replace(lost, index=1, extra=True)
    error = error_of(OK, lost)
    assert "image 1: inside" in error.message and not error.retryable
    assert "No retry changes any of them; a clear keeps what is in place" in error.message
    assert "goes on without the further images" in error.message
    assert "buys again" not in error_of(OK, replace(lost, code="expired")).message
    assert verdict_of(OK, lost, partial=True) is None


def test_bytes_in_quarantine_are_listed_and_never_count_as_landed() -> None:
    outcomes: list[Outcome] = [OK, broken()]
    for whole in (
        result_of(*outcomes),
        manifest_of(*outcomes),
    ):
        assert whole["quarantined"] == [{**KEPT, "request": 3}]
        assert whole["count"] == 1 and whole["failed"][0]["code"] == "image_invalid"
        assert whole["failed"][0]["charged"] == "yes"
    assert f"Its bytes are kept: {KEPT['uri']}" in error_of(*outcomes).message
    assert verdict_of(*outcomes, partial=True) is None
    assert result_of(*[broken()] * 501)["quarantined"] == []


def test_no_record_of_quarantine_is_over_600_bytes() -> None:
    long = {**KEPT, "uri": f"s3://{'x' * 251}/.nanobanana/quarantine/{'n' * 90}", "id": "A" * 128, "reason": "坏" * 99}
    (record,) = result_of(broken(kept=long))["quarantined"]
    assert len(json.dumps(record)) <= 600 and record["uri"] == long["uri"] and record["request"] == 3


# --- money that a person has to know of ------------------------------------------------------------------------------


def test_an_answer_without_an_image_is_quoted_and_kept() -> None:
    text = json.dumps({"output": {"where": "https://files.example/a.png"}, "x": "y" * 3000})
    shown = [ImageTaskFailure(f"t{n}", RESULT_MISSING, "result_missing", "none", text) for n in range(5)]
    failures = [FailedItem.from_poll(item(n), each) for n, each in enumerate(shown)]
    error = error_of(*failures)
    assert error.message.count("https://files.example/a.png") == 3 and len(error.message) < 3000
    whole = manifest_of(*failures)
    assert [failure["answer"] for failure in whole["failed"]] == [text] * 5
    assert all(len(json.dumps(record)) <= 600 for record in result_of(*failures)["failed"])


# --- what every store takes ------------------------------------------------------------------------------------------


def test_nothing_that_postgresql_refuses_gets_into_result_or_manifest() -> None:
    named = item(0, name="cup")
    odd = FailedItem(named, "t\0", "c\0de", "a\0b \ud800", "yes", retryable=False, answer="\0{}", kept={"uri": "u\0"})
    for whole in (
        result_of(odd),
        manifest_of(odd, destination="s3://\0b"),
    ):
        text = json.dumps(whole, ensure_ascii=False)
        assert "\\u0000" not in text and "\0" not in text and text.encode()
        assert whole["failed"][0]["message"] == "ab ?"


# --- the manifest ---------------------------------------------------------------------------------------------------


def test_the_manifest_holds_request_cost_times_and_checks() -> None:
    image = landed(2, times={"submitted_at": 1.0})
    outcomes: list[Outcome] = [image, LATE, landed(0, reused=True, cost=Cost())]
    whole = manifest_of(*outcomes)
    assert (whole["version"], whole["form"], whole["destination"]) == (2, "generate", "s3://bucket")
    assert {key: whole[key] for key in RUN} == RUN and whole["written_at"] == utc_text(NOW)
    assert (whole["count"], whole["reused"], whole["unfinished"]) == (2, 1, 0)
    assert (whole["cost_usd"], whole["of_which_listed_usd"]) == (0.05, 0.025)
    entry = whole["images"][1]
    assert {key: entry[key] for key in image.image} == image.image
    assert entry["times"] == {"submitted_at": "1970-01-01T00:00:01.000Z", "completed_at": None}
    assert (entry["request"], entry["key"], entry["digest"]) == (2, image.item.key, image.item.fingerprint)
    assert (entry["model"], entry["cost_usd"], entry["cost_is_listed"]) == ("nano_banana_2", 0.025, False)
    assert entry["fields"]["prompt"] == entry["prompt"] == "picture 2" and entry["reused"] is False
    (failure,) = whole["failed"]
    assert (
        {key: failure[key] for key in LATE.record()} == LATE.record()
        and failure["retry_may_help"]
        and failure["cost_is_listed"]
    )
    assert failure["fields"]["prompt"] == "picture 3"
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_variants_of_a_row_stand_apart_each_with_its_further_images() -> None:
    one, two = (replace(landed(0), item=item(0, variant=variant)) for variant in ("1", "2"))
    beside = replace(one, image={**one.image, "index": 1}, spent=Spent(), extra=True)
    for outcomes in ([one, beside, two], [one, two, beside]):
        whole = manifest_of(*outcomes)
        assert [(image["variant"], image["index"]) for image in whole["images"]] == [("1", 0), ("1", 1), ("2", 0)]
        assert {image["request"] for image in whole["images"]} == {0} and (whole["count"], whole["extra_count"]) == (
            2,
            1,
        )


def test_rows_that_were_left_out_are_counted_and_listed() -> None:
    told = BatchReport([OK], totals([OK.spent]), skipped=[SkippedRow(3, None, "prompt: is blank")])
    whole = told.manifest(run=RUN, destination="s3://bucket", now=NOW)
    assert manifest_faults(whole) == []
    assert whole["skipped"] == [{"request": 3, "name": None, "message": "prompt: is blank"}]
    assert whole["skipped_count"] == told.result(URI)["skipped_count"] == 1
