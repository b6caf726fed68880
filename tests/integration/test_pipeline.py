"""Submit, wait, land: what goes through each joint, and what is left when something fails in between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from PIL import Image

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from tests.support.images import pixels
from tests.support.task_runner import Run, attempt, land, wait
from tests.support.text import flat

Buy = Callable[..., str]


def submit(prompt: str = "a red kite", **options: Any) -> Run:
    return attempt(NanoBananaSubmitOperator(task_id="submit", prompt=prompt, **options))


def test_an_image_goes_from_prompt_to_verified_file(emulator: Emulator, folder: Path) -> None:
    image_task_id = submit(size="16:9", resolution="2K").result
    [entry] = wait(image_task_id).result
    [record] = land([entry], folder).result

    file = folder / Path(record["uri"]).name
    assert record["id"] == image_task_id == entry["id"]
    assert (record["width"], record["height"]) == (2752, 1536) == pixels(file)
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["bytes"] == file.stat().st_size
    assert entry["cost_usd"] == emulator.ledger()["charged_usd"] == 0.03


def test_a_wait_without_worker_is_one_trigger_whatever_the_number(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=3600)
    ids = [buy(f"picture {number}") for number in range(12)]
    run = wait(ids, at_deferral=emulator.complete_all)
    assert [entry["id"] for entry in run.result] == ids
    assert len(run.deferrals) == 1
    assert run.events[0]["counts"] == {"completed": 12}


def test_holes_and_repeats_in_the_ids_do_not_matter(emulator: Emulator, buy: Buy) -> None:
    first, second = buy("one"), buy("two")
    assert [entry["id"] for entry in wait([None, second, first, second, None]).result] == [second, first]


def test_one_failed_image_does_not_lose_the_others(emulator: Emulator, buy: Buy, folder: Path) -> None:
    good = [buy(f"good {number}") for number in range(3)]
    bad = buy("bad [[fail]]")
    run = wait([good[0], bad, *good[1:]])

    assert isinstance(run.error, AirflowFailException)
    for part in (bad, "generation_failed", "refunded", *good, "trigger_rule='all_done'"):
        assert part in flat(run.error)
    statuses = [entry["status"] for entry in run.ti.xcoms["return_value"]]
    assert statuses == ["completed", "failed", "completed", "completed"]
    landed = land(run.ti.xcoms["return_value"], folder).result
    assert [record["id"] for record in landed] == good
    assert emulator.ledger()["net_usd"] == pytest.approx(3 * 0.025)


@pytest.mark.parametrize("allow_partial", [False, True])
def test_one_refused_and_one_late_of_twenty(emulator: Emulator, buy: Buy, folder: Path, allow_partial: bool) -> None:
    """Three tasks lose no more than one task does: see the test of this name for Generate."""
    refused = submit("a picture [[refuse]]")
    assert isinstance(refused.error, AirflowFailException)
    good = [buy(f"picture {number}") for number in range(18)]
    late = buy("a picture [[slow=600]]")
    run = wait([*good[:9], refused.result, late, *good[9:]], timeout=3, allow_partial=allow_partial)
    assert (run.error is None) == allow_partial
    entries = run.result if allow_partial else run.ti.xcoms["return_value"]
    assert [entry["id"] for entry in entries if entry["status"] == "timeout"] == [late]
    landed = land(entries, folder)
    assert landed.error is None and [record["id"] for record in landed.result] == good
    assert len(list(folder.glob("*.png"))) == 18
    assert emulator.ledger()["net_usd"] == pytest.approx(19 * 0.025)


def test_partial_success_is_enough_when_allowed(emulator: Emulator, buy: Buy) -> None:
    run = wait([buy("good"), buy("bad [[fail]]")], allow_partial=True)
    assert run.error is None
    assert [entry["status"] for entry in run.result] == ["completed", "failed"]
    assert run.result[1]["error"]["code"] == "generation_failed"


def test_all_failed_is_failed_even_when_partial_is_allowed(emulator: Emulator, buy: Buy, folder: Path) -> None:
    run = wait([buy("bad [[fail]]"), buy("worse [[refuse-late]]")], allow_partial=True)
    assert isinstance(run.error, AirflowFailException)
    assert [entry["error"]["code"] for entry in run.ti.xcoms["return_value"]] == [
        "generation_failed",
        "content_policy_violation",
    ]
    nothing = land(run.ti.xcoms["return_value"], folder)
    assert isinstance(nothing.error, AirflowFailException)
    assert "None of 2 image tasks completed" in flat(nothing.error)


@pytest.mark.parametrize("ids", [[], None, [None, None]])
def test_nothing_to_wait_for_is_said(emulator: Emulator, ids: Any) -> None:
    assert "every submit failed or there was nothing to submit" in str(wait(ids).error)


@pytest.mark.parametrize(
    ("ids", "said"),
    [("['a', 'b']", ".output"), ("a, b", ".output"), ([""], "no image task id"), ([7], "no image task id"), (7, "int")],
)
def test_ids_of_a_wrong_form_fail_before_anything_is_asked(emulator: Emulator, ids: Any, said: str) -> None:
    run = wait(ids)
    assert isinstance(run.error, AirflowFailException)
    assert said in flat(run.error)
    assert emulator.requests() == []


def test_a_second_landing_downloads_nothing_and_overwrites_nothing(emulator: Emulator, buy: Buy, folder: Path) -> None:
    entries = wait([buy("one"), buy("two")]).result
    first = land(entries, folder).result
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    fetched = sum(request["kind"] == "files" for request in emulator.requests())

    assert land(entries, folder).result == first
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.png")} == written
    assert sum(request["kind"] == "files" for request in emulator.requests()) == fetched == 2


def test_the_manifest_names_images_costs_and_failures_but_no_links(emulator: Emulator, buy: Buy, folder: Path) -> None:
    entries = wait([buy("one"), buy("bad [[fail]]")], allow_partial=True).result
    land(entries, folder)
    [manifest] = folder.glob("manifest-*.json")
    content = json.loads(manifest.read_text())
    assert [image["id"] for image in content["images"]] == [entries[0]["id"]]
    assert content["image_tasks"][0]["model"] == "nano_banana_2"
    assert content["image_tasks"][0]["client_business_id"].startswith("nb-")
    assert content["image_tasks"][0]["completed_at"] >= content["image_tasks"][0]["created_at"] > "2023-11-14T22"
    assert [failure["code"] for failure in content["failed"]] == ["generation_failed"]
    assert content["image_tasks"][1]["error"]["code"] == "generation_failed"
    assert content["cost_usd"] == 0.025
    assert "http" not in manifest.read_text()


def test_base64_answers_are_landed_and_never_reach_xcom(emulator: Emulator, folder: Path) -> None:
    image_task_id = submit(response_format="b64_json").result
    run = wait(image_task_id)
    assert run.result[0]["images"] == [{"url": None}]
    assert len(json.dumps(run.result)) <= 600
    [record] = land(run.result, folder).result
    assert (record["width"], record["height"]) == (1024, 1024)
    assert not any(request["kind"] == "files" for request in emulator.requests())


def test_the_lists_of_several_mapped_sensors_are_landed_together(emulator: Emulator, buy: Buy, folder: Path) -> None:
    lists = [wait(buy("one")).result, None, wait(buy("two")).result]
    assert len(land(lists, folder).result) == 2


def test_storage_references_are_uploaded_and_links_pass_through(emulator: Emulator, tmp_path: Path) -> None:
    reference = tmp_path / "cup.png"
    Image.new("RGB", (64, 64), "teal").save(reference)
    run = submit(reference_images=["https://example.com/a.png?sig=1", f"file://{reference}"])
    assert run.error is None
    [bought] = emulator.ledger()["image_tasks"]
    assert bought["references"][0] == "https://example.com/a.png?sig=1"
    assert bought["references"][1].startswith(emulator.files_url)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"GIF89a" + b"0" * 50, "JPEG, PNG or WebP"), (b"<html>no</html>", "JPEG, PNG or WebP"), (None, "cannot be read")],
)
def test_an_unusable_reference_stops_before_anything_is_sent(
    emulator: Emulator, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "reference.png"
    if content is not None:
        path.write_bytes(content)
    run = submit(reference_images=[f"file://{path}"])
    assert isinstance(run.error, AirflowFailException)
    assert said in flat(run.error)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": "  "}, "prompt is blank"),
        ({"size": "21:9"}, "1:1, 16:9, 9:16, 4:3, 3:4"),
        ({"size": "1024x1024"}, "is no ratio"),
        ({"resolution": "1k"}, "allowed: 1K, 2K, 4K"),
        ({"resolution": "0.5K"}, "allowed: 1K, 2K, 4K"),
        ({"reference_images": ["data:image/png;base64,AAAA"]}, "data URI"),
        ({"reference_images": ["https://example.com/a.png"] * 15}, "at most 14"),
        ({"response_format": "png"}, "response_format"),
        ({"extra_body": {"when": {1, 2}}}, "is not JSON"),
        ({"on_unknown_submission": "ask"}, "'resubmit' or 'fail', not 'ask'"),
        ({"reuse_existing": "no"}, "True or False, not 'no'"),
    ],
)
def test_a_bad_request_fails_before_money_is_spent(emulator: Emulator, options: dict[str, Any], said: str) -> None:
    run = submit(**options)
    assert isinstance(run.error, AirflowFailException)
    assert said in flat(run.error)
    assert "Nothing was charged" in flat(run.error)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("adopt", "said"),
    [(["nb-1"], "adopt is a mapping"), ({"nb-1": 2}, "both texts"), ("None", "adopt is a mapping")],
)
def test_what_cannot_be_adopted_fails_before_money_is_spent(emulator: Emulator, adopt: Any, said: str) -> None:
    run = submit(adopt=adopt)
    assert isinstance(run.error, AirflowFailException)
    assert said in flat(run.error) and "nothing was charged" in flat(run.error)
    assert emulator.requests() == []


def test_the_gemini_spelling_is_chosen_by_the_model(emulator: Emulator) -> None:
    run = submit(model="gemini-3.1-flash-image-preview", size="21:9", resolution="0.5K")
    assert run.error is None
    [bought] = emulator.ledger()["image_tasks"]
    assert (bought["model"], bought["size"], bought["resolution"]) == ("gemini-3.1-flash-image-preview", "21:9", "0.5K")
