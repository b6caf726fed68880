"""What manifests and books tell of money, those of older versions and damaged ones too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.spend import SpendRecord, SpendTotals, summarise
from airflow_provider_nanobanana.batch.spend_records import NoManifest, booked_record, manifest_records
from airflow_provider_nanobanana.toapis.models import ImageRequest

PLACE = "s3://bucket/pictures"
RUN = {"version": 2, "dag_id": "kites", "run_id": "monday", "task_id": "generate", "map_index": -1}
IMAGE = {
    "id": "tsk_1",
    "index": 0,
    "request": 0,
    "name": "hero",
    "model": "nano_banana_2",
    "fields": {"prompt": "a red kite"},
    "cost_usd": 0.025,
    "paid_usd": 0.025,
    "lost_race": 0.0,
    "cost_is_listed": False,
    "reused": False,
    "shared": False,
    "times": {"submitted_at": "2026-11-26T13:14:33.000Z"},
    "uri": f"{PLACE}/hero-5f0c6e9a1b.png",
}
FAILURE = {
    "id": "tsk_2",
    "index": 0,
    "request": 1,
    "name": None,
    "model": "nano_banana_2",
    "fields": {"prompt": "a boat"},
    "charged": "no",
    "cost_usd": 0.0,
    "paid_usd": 0.0,
    "lost_race": 0.0,
    "cost_is_listed": False,
    "shared": False,
}
AT = 1795698873
OLD = ("paid_usd", "lost_race", "shared")


def manifest(*images: Any, failed: Any = (), paid: float = 0.0, **more: Any) -> dict[str, Any]:
    return {**RUN, "cost_usd": paid, "paid_usd": paid, "images": list(images), "failed": list(failed), **more}


def old(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an entry as it was written before it said what was paid."""
    return {key: value for key, value in entry.items() if key not in OLD} | changes


def records(content: Any) -> list[SpendRecord]:
    return manifest_records(content, PLACE).records


def totals(content: Any) -> dict[str, Any]:
    return {name: value for name, value in summarise(records(content)).totals.plain().items() if value}


def test_an_image_is_told_with_all_that_it_can_be_grouped_by() -> None:
    (record,) = records(manifest(IMAGE, paid=0.025))
    assert record == SpendRecord(
        *("bought", "tsk_1", PLACE, "kites", "monday", "generate", -1),
        *("2026-11-26", "nano_banana_2", "hero", 25_000, 0, 0),
    )


@pytest.mark.parametrize("moment", [1795698873.0, "2026-11-26T13:14:33.000Z", "2026-11-26T23:14:33+10:00"])
def test_both_versions_tell_the_day(moment: Any) -> None:
    content = manifest({**IMAGE, "times": {"submitted_at": moment}}, paid=0.025)
    assert [record.day for record in records({**content, "version": 1})] == ["2026-11-26"] == [records(content)[0].day]


def test_variants_of_a_row_are_images_of_their_own() -> None:
    variants = [{**IMAGE, "id": f"tsk_{k}", "key": f"hero-{k}", "variant": str(k)} for k in (1, 2, 3)]
    further = {**variants[0], "index": 1, "cost_usd": 0.0, "paid_usd": 0.0}
    assert totals(manifest(*variants, further, paid=0.075)) == {"paid_usd": 0.075, "bought": 3, "further": 1}


def test_without_a_name_a_request_is_told_by_the_beginning_of_its_prompt() -> None:
    (record,) = records(manifest({**IMAGE, "name": None, "fields": {"prompt": "x" * 5_000}}, paid=0.025))
    assert record.request == "x" * 60


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, {"bought": 1, "paid_usd": 0.025}),
        ({"cost_is_listed": True}, {"bought": 1, "paid_usd": 0.025, "of_which_listed_usd": 0.025}),
        ({"shared": True, "paid_usd": 0.0}, {"shared": 1}),
        ({"reused": True, "id": None, "cost_usd": 0.0, "paid_usd": 0.0}, {"reused": 1}),
        # Beside another's picture: what was paid for nothing.
        (
            {"reused": True, "id": None, "cost_usd": 0.0, "lost_race": 0.025},
            {"reused": 1, "paid_usd": 0.025, "lost_race_usd": 0.025},
        ),
        # An earlier attempt of the task had bought what this one found in place.
        ({"reused": True, "id": None}, {"reused": 1, "paid_usd": 0.025}),
        # Expired and bought again: two image tasks, one image.
        ({"cost_usd": 0.05, "paid_usd": 0.05}, {"bought": 1, "paid_usd": 0.05}),
        ({"cost_usd": None, "paid_usd": None, "cost_is_listed": True}, {"bought": 1, "unpriced": 1}),
        ({"paid_usd": -1.0}, {"bought": 1, "unpriced": 1}),
        ({"paid_usd": "free"}, {"bought": 1, "unpriced": 1}),
    ],
)
def test_what_an_image_says_of_money(image: dict[str, Any], expected: dict[str, Any]) -> None:
    paid = image.get("paid_usd", 0.025)
    assert totals(manifest({**IMAGE, **image}, paid=paid if isinstance(paid, float) and paid > 0 else 0.0)) == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, {"bought": 1, "paid_usd": 0.025}),
        ({"reused": True, "id": None, "cost_usd": 0.0}, {"reused": 1}),
        # No version wrote such an entry: what is reused was never paid by its run.
        ({"reused": True, "id": None}, {"reused": 1}),
    ],
)
def test_manifests_from_before_paid_usd_say_it_by_cost_and_reused(
    image: dict[str, Any], expected: dict[str, Any]
) -> None:
    content = manifest(old(IMAGE, **image))
    del content["paid_usd"]
    content["cost_usd"] = expected.get("paid_usd", 0.0)
    assert totals(content) == expected


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ({}, {"refunded": 1}),
        ({"id": None}, {"failed": 1}),
        ({"charged": "yes", "paid_usd": 0.025}, {"missing": 1, "paid_usd": 0.025}),
        (
            {"charged": "unknown", "paid_usd": 0.025, "cost_is_listed": True},
            {"missing": 1, "paid_usd": 0.025, "of_which_listed_usd": 0.025},
        ),
        ({"charged": "unknown", "paid_usd": None}, {"missing": 1, "unpriced": 1}),
        # The service refunded the last of two image tasks, and not the first.
        ({"paid_usd": 0.025}, {"missing": 1, "paid_usd": 0.025}),
        # Another run paid it.
        ({"charged": "yes", "shared": True, "cost_usd": 0.025}, {"failed": 1}),
        # An image beside the first one.
        ({"charged": "yes", "index": 1}, {"missing": 1}),
    ],
)
def test_what_a_request_without_an_image_says_of_money(failure: dict[str, Any], expected: dict[str, Any]) -> None:
    paid = failure.get("paid_usd") or 0.0
    assert totals(manifest(failed=[{**FAILURE, **failure}], paid=paid)) == expected


def test_further_images_of_an_image_task_cost_nothing_and_share_no_money_with_it() -> None:
    further = {**IMAGE, "index": 1, "cost_usd": 0.0, "paid_usd": 0.0}
    lost = {**FAILURE, "id": "tsk_1", "request": 0, "index": 2, "charged": "yes"}
    content = manifest(IMAGE, further, failed=[lost], paid=0.025)
    assert totals(content) == {"paid_usd": 0.025, "bought": 1, "further": 1, "missing": 1}


def test_what_a_clear_left_of_an_earlier_list_is_told_with_its_day() -> None:
    left = {
        "id": "tsk_3",
        "key": "k",
        "name": "old",
        "cost_usd": 0.025,
        "paid_usd": 0.025,
        "expires_at": "2026-11-27T13:14:33.000Z",
    }
    landed = {**left, "id": "tsk_4", "uri": f"{PLACE}/old-1.png"}
    content = manifest(abandoned=[left], former=[landed], paid=0.05)
    missing, bought = sorted(records(content), key=lambda record: record.outcome, reverse=True)
    assert (missing.outcome, missing.day, missing.request) == ("missing", "2026-11-26", "old")
    assert (bought.outcome, bought.paid) == ("bought", 25_000)


def test_what_was_paid_for_requests_that_are_listed_no_more_is_a_sum_of_its_own() -> None:
    content = manifest(IMAGE, paid=0.095, of_which_listed_usd=0.03)
    assert totals(content) == {
        "paid_usd": 0.095,
        "of_which_listed_usd": 0.03,
        "earlier_usd": 0.07,
        "bought": 1,
    }
    assert {record.day for record in records(content)} == {"2026-11-26"}


@pytest.mark.parametrize(
    ("image_task", "expected"),
    [
        ({}, {"bought": 1, "paid_usd": 0.025}),
        ({"id": "tsk_9"}, {"missing": 1, "paid_usd": 0.025}),
        ({"id": "tsk_9", "status": "failed", "cost_usd": None}, {"refunded": 1}),
        ({"id": "tsk_9", "status": "failed", "cost_usd": 0.0}, {"refunded": 1}),
        # Failed, and charged all the same.
        ({"id": "tsk_9", "status": "failed"}, {"missing": 1, "paid_usd": 0.025}),
        # Estimated: by the pixels of the image, and where there is none at the lowest price.
        ({"cost_usd": None}, {"bought": 1, "paid_usd": 0.03, "of_which_listed_usd": 0.03}),
        (
            {"id": "tsk_9", "status": "timeout", "cost_usd": None},
            {"missing": 1, "paid_usd": 0.025, "of_which_listed_usd": 0.025},
        ),
        (
            {"id": "tsk_9", "status": "failed", "cost_usd": None, "error": {"code": "expired"}},
            {"missing": 1, "paid_usd": 0.025, "of_which_listed_usd": 0.025},
        ),
        ({"cost_usd": None, "model": "never-heard-of"}, {"bought": 1, "unpriced": 1}),
    ],
)
def test_what_a_download_says_of_money(image_task: dict[str, Any], expected: dict[str, Any]) -> None:
    entry = {
        "id": "tsk_1",
        "status": "completed",
        "cost_usd": 0.025,
        "model": "nano_banana_2",
        "created_at": "2026-11-26T13:14:33.000Z",
    }
    landed = {"id": "tsk_1", "index": 0, "width": 1536, "height": 2752}
    content = {**RUN, "images": [landed], "image_tasks": [{**entry, **image_task}], "cost_usd": 0.025}
    (record,) = records(content)
    assert record.day == "2026-11-26"
    assert totals(content) == expected


@pytest.mark.parametrize("listed", ["images", "failed"])
@pytest.mark.parametrize(
    ("model", "fields", "micro_usd"),
    [
        # Its table has no pixels of these.
        ("gpt-image-2.5-flare", {"resolution": "2K"}, 20_000),
        ("gpt-image-2.5-flare", {}, 15_000),
        ("gpt-image-2.5-flare", None, 15_000),
        ("gpt-image-2.5-flare", {"resolution": 2, "reference_images": "x"}, 15_000),
        ("qwen-image-3.0", {"resolution": "1K", "reference_images": ["https://h/a.png"] * 2}, 36_000),
    ],
)
def test_an_image_task_is_priced_by_its_request_where_the_submit_told_it(
    listed: str, model: str, fields: Any, micro_usd: int
) -> None:
    image_task = {"id": "tsk_1", "status": "completed", "cost_usd": None, "model": model}
    entry = {"id": "tsk_1", "index": 0, "width": 2048, "height": 2048, "fields": fields}
    (record,) = records({**RUN, listed: [entry], "image_tasks": [image_task]})
    assert (record.outcome, record.paid) == ("bought" if listed == "images" else "missing", micro_usd)


def test_only_what_a_manifest_says_it_did_not_pay_is_remembered_as_in_place() -> None:
    reused = {**IMAGE, "reused": True, "id": None, "paid_usd": 0.0}
    found = manifest_records(manifest(reused, {**IMAGE, "request": 1, "reused": True}), PLACE)
    assert found.reused == {"hero-5f0c6e9a1b"}
    assert manifest_records(manifest({**IMAGE, "reused": True}), PLACE).reused == set()


def test_a_purchase_in_a_book_counts_at_list_price() -> None:
    base = SpendRecord("booked", "", PLACE, "kites", "monday", "generate", 3)
    record = booked_record("tsk_1", "hero-5f0c6e9a1b", "nano_banana_2", at=1795698873.0, base=base)
    assert record == replace(
        base,
        image_task_id="tsk_1",
        day="2026-11-26",
        model="nano_banana_2",
        request="hero-5f0c6e9a1b",
        paid=25_000,
        listed=25_000,
    )
    assert booked_record("tsk_1", "hero", "never-heard-of", at=None, base=base).paid is None
    dear = booked_record("tsk_1", "hero", "nano_banana_2 4K", at=None, base=base)
    assert (dear.model, dear.paid) == ("nano_banana_2", 40_000)
    billed = ImageRequest.parse(
        {"prompt": "x", "reference_images": ["https://h/a.png"] * 2}, "qwen-image-3.0"
    ).billed_as
    assert billed == "qwen-image-3.0 1K 2"
    spaced = booked_record("tsk_1", "hero", "my qwen 1K 2", at=None, base=base)
    assert (spaced.model, booked_record("tsk_1", "hero", "my qwen 1K", at=None, base=base).model) == ("my qwen",) * 2
    assert booked_record("tsk_1", "hero", billed, at=None, base=base).paid == 36_000
    assert ImageRequest.parse({"prompt": "x", "reference_images": ["https://h/a.png"]}).billed_as == "nano_banana_2 1K"


@pytest.mark.parametrize(
    "content",
    [None, 3, "text", [], {}, {"dag_id": "kites"}, {**RUN, "version": 3}, {**RUN, "dag_id": 7}, {**RUN, "version": {}}],
)
def test_what_is_no_manifest_is_refused(content: Any) -> None:
    with pytest.raises(NoManifest):
        manifest_records(content, PLACE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*IMAGE, *FAILURE, "expires_at", "status", "error", "width", "height", "created_at"])
ENTRIES = st.lists(st.dictionaries(NAMES, JSON, max_size=8) | JSON, max_size=3) | JSON


@given(
    st.fixed_dictionaries(
        {"dag_id": st.text(max_size=5)},
        optional={
            **dict.fromkeys(("images", "failed", "former", "abandoned", "image_tasks"), ENTRIES),
            "version": st.sampled_from([1, 2]),
            **dict.fromkeys(("run_id", "task_id", "map_index", "cost_usd", "paid_usd", "lost_race"), JSON),
        },
    )
)
def test_whatever_stands_in_a_manifest_is_counted_or_named_and_never_breaks_the_sums(content: dict[str, Any]) -> None:
    found = manifest_records({"version": 2, **content}, PLACE)
    for record in found.records:
        assert record.paid is None or 0 <= record.listed <= record.paid or record.outcome == "earlier"
        assert record.paid is None or record.paid >= 0
    totals = summarise(found.records, ["dag", "day", "model", "run", "request"]).totals
    assert totals.paid >= totals.earlier >= 0
    assert isinstance(totals, SpendTotals)
