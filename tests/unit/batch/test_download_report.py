"""What a download amounts to: records and manifest in the shape of generate's, with what the submit tasks handed on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.download_report import DownloadReport
from airflow_provider_nanobanana.toapis import errors
from tests.support.batch import landed
from tests.support.manifests import manifest_faults
from tests.support.reports import OK, REFUSAL, report
from tests.support.responses import NOW

RUN = {"dag_id": "d", "run_id": "r", "task_id": "land", "map_index": -1}
ENTRY = {"id": "tsk_0", "status": "completed", "images": [], "expires_at": NOW + 60, "cost_usd": 0.025, "error": None}
FACTS = {"model": "nano_banana_2", "created_at": NOW - 30, "completed_at": NOW, "client_business_id": "nb-1"}
REQUEST = {
    "id": "tsk_0",
    "name": "SKU-007",
    "variant": "v",
    "meta": {"sku": 7},
    "prompt": "a kite " * 50,
    "size": "1:1",
}
IMAGE = dict(landed(0).image)


def told(*entries: Any, images: Any = (IMAGE,), lost: Any = (), requests: Any = None) -> DownloadReport:
    return DownloadReport(entries or (ENTRY,), images, lost, facts={"tsk_0": FACTS}, requests=requests)


def manifest_of(download: DownloadReport) -> dict[str, Any]:
    content = download.manifest(run=RUN, destination="s3://bucket", now=NOW)
    assert manifest_faults(content) == []
    return content


def test_each_image_has_the_row_that_its_submit_handed_on() -> None:
    download = told(requests={"tsk_0": REQUEST})
    (record,) = download.result()
    assert record == {
        **IMAGE,
        **{"name": "SKU-007", "variant": "v", "meta": {"sku": 7}, "prompt": ("a kite " * 50)[:80], "suspect": []},
    }
    (image,) = manifest_of(download)["images"]
    assert image["prompt"] == "a kite " * 50 and image["meta"] == {"sku": 7} and image["fields"]["variant"] == "v"
    assert image["times"] == {"submitted_at": "2026-09-21T14:14:30.000Z", "completed_at": "2026-09-21T14:15:00.000Z"}


def test_without_a_request_the_keys_are_all_there() -> None:
    (record,) = told().result()
    assert [record[key] for key in ("name", "variant", "meta", "prompt")] == [None] * 4


def test_both_forms_have_the_same_keys() -> None:
    failure = {"id": "tsk_9", "status": "failed", "error": {"code": "generation_failed", "message": "no"}}
    one = manifest_of(told(ENTRY, failure))
    other = report(OK, REFUSAL).manifest(run=RUN, destination="s3://bucket", now=NOW)
    assert one.keys() - other.keys() == {"image_tasks", "not_landed"}
    assert other.keys() - one.keys() == {"prepared_references"}, "submits said theirs in their own logs"
    for name in ("images", "failed"):
        assert one[name][0].keys() == other[name][0].keys()


def test_what_cannot_be_known_of_the_money_is_null() -> None:
    content = manifest_of(told())
    assert content["cost_usd"] == content["images"][0]["cost_usd"] == 0.025
    assert [content[key] for key in ("paid_usd", "lost_race", "shared", "reused")] == [None] * 4
    unknown = manifest_of(told({**ENTRY, "cost_usd": None}))
    assert unknown["cost_usd"] is None and unknown["unpriced"] == 1


def test_further_images_cost_nothing() -> None:
    content = manifest_of(told(images=[IMAGE, {**IMAGE, "index": 1}]))
    assert [image["cost_usd"] for image in content["images"]] == [0.025, 0.0]
    assert (content["count"], content["extra_count"], content["cost_usd"]) == (1, 1, 0.025)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"status": "failed", "error": {"code": "generation_failed"}, "cost_usd": 0.0}, ("no", False)),
        ({"status": "failed", "error": {"code": "generation_failed"}, "cost_usd": 0.025}, ("yes", False)),
        ({"status": "failed", "error": {"code": "expired"}}, ("yes", False)),
        ({"status": "failed", "error": {"code": "task_not_found"}}, ("unknown", False)),
        ({"status": "timeout", "error": {"code": "timeout"}}, ("yes", True)),
        ({"status": "timeout", "error": {"code": "not_seen"}}, ("unknown", True)),
        ({"status": "failed", "error": None, "cost_usd": None}, ("no", False)),
    ],
)
def test_an_image_task_without_image_is_among_the_failed(entry: dict[str, Any], expected: tuple[str, bool]) -> None:
    content = manifest_of(told({**ENTRY, **entry}, images=[], requests={"tsk_0": REQUEST}))
    (failure,) = content["failed"]
    assert (failure["charged"], failure["retry_may_help"]) == expected
    assert failure["name"] == "SKU-007" and failure["prompt"] == "a kite " * 50
    assert content["unfinished"] == expected[1]


def test_an_image_that_was_not_landed_is_among_the_failed_and_paid() -> None:
    error = errors.ImageInvalid("truncated")
    error.kept = {"uri": "s3://bucket/.nanobanana/quarantine/x", "id": "tsk_0", "index": 0, "sha256": "f", "bytes": 3}
    content = manifest_of(told(images=[], lost=[({"id": "tsk_0", "index": 0}, error)], requests={"tsk_0": REQUEST}))
    (failure,) = content["failed"]
    assert (failure["code"], failure["charged"], failure["name"]) == ("image_invalid", "yes", "SKU-007")
    assert content["not_landed"] == [{"id": "tsk_0", "index": 0, "error": "truncated"}]
    assert content["quarantined"] == [{**error.kept, "reason": None, "request": None}]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"id": None, "status": "completed"},
        {"id": ["a"], "status": 7, "cost_usd": "a lot", "error": "x", "expires_at": "soon"},
        {"id": 7, "status": "failed", "cost_usd": float("nan"), "error": {"code": ["x"], "message": None}},
        {"id": "x", "status": "timeout", "expires_at": 1e300, "error": {"answer": "{}", "trace": "secret"}},
    ],
    ids=range(5),
)
def test_an_entry_that_is_none_makes_no_manifest_that_is_none(entry: dict[str, Any]) -> None:
    content = manifest_of(told(ENTRY, entry))
    assert len(content["image_tasks"]) == 2 and json.loads(json.dumps(content, allow_nan=False)) == content


def test_no_record_is_over_600_bytes() -> None:
    long = {**REQUEST, "name": "n" * 80, "prompt": "坏" * 900, "meta": {"a": "x" * 900}, "variant": "v" * 900}
    image = {**IMAGE, "uri": f"s3://{'x' * 250}/{'n' * 89}.png"}
    (record,) = told(images=[image], requests={"tsk_0": long}).result()
    assert len(json.dumps(record)) <= 600 and (record["uri"], record["name"]) == (image["uri"], "n" * 80)
