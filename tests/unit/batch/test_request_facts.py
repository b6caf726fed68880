"""What is said of a request: all of it in the manifest, its beginning in XCom, and no secret of a link anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.batch.request_facts import RequestFacts
from tests.support.batch import item

PUSHED = {
    "id": "tsk_1",
    "map_index": 4,
    "name": "SKU-007",
    "variant": "2026-11",
    "prompt": "a red kite",
    "meta": {"sku": 7},
    "model": "nano_banana_2",
    "size": "16:9",
    "resolution": "2K",
    "reference_images": ["https://h/a.png?X-Amz-Signature=S3CRET"],
    "pushed_by": "another version",
}


def test_all_of_a_prompt_is_in_the_manifest_and_its_beginning_in_xcom() -> None:
    facts = RequestFacts.of_item(replace(item(3, prompt="x" * 500, name="cup", variant="v"), meta={"sku": 7}))
    assert facts.brief() == {"name": "cup", "variant": "v", "meta": {"sku": 7}, "prompt": "x" * 80}
    assert facts.whole()["prompt"] == "x" * 500 and facts.whole()["request"] == 3


def test_what_a_submit_has_handed_on_is_told_in_the_same_keys() -> None:
    facts = RequestFacts.of_submit(PUSHED, "another")
    assert facts.brief() == {"name": "SKU-007", "variant": "2026-11", "meta": {"sku": 7}, "prompt": "a red kite"}
    whole = facts.whole()
    assert whole.keys() == RequestFacts.of_item(item()).whole().keys() and whole["model"] == "nano_banana_2"
    assert whole["fields"]["size"] == "16:9" and whole["fields"]["reference_images"] == ["https://h/a.png"]
    assert "pushed_by" not in whole["fields"] and whole["request"] == 4


@pytest.mark.parametrize(
    "pushed", [None, "a red kite", 7, [], {}, {"name": 7, "meta": "x", "prompt": None, "map_index": -1}]
)
def test_whatever_stands_in_xcom_is_no_reason_to_fail(pushed: Any) -> None:
    facts = RequestFacts.of_submit(pushed, "nano_banana_2")
    assert facts.brief() == dict.fromkeys(("name", "variant", "meta", "prompt")) and facts.model == "nano_banana_2"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://shop.example/p?id=7#top", "https://shop.example/p?id=7#top"),
        ("https://shop.example/p?b=2&a=1", "https://shop.example/p?b=2&a=1"),
        (
            "https://b.s3.amazonaws.com/a.png?v=2&X-Amz-Signature=f00&X-Amz-Date=1",
            "https://b.s3.amazonaws.com/a.png?v=2",
        ),
        ("why? because", "why? because"),
        ("http://[bad?sig=1", "http://[bad?sig=1"),
        (
            ["https://h/a?Signature=f00", {"deep": "https://h/a?Signature=f00"}],
            ["https://h/a", {"deep": "https://h/a"}],
        ),
        (None, None),
        (0.1, 0.1),
    ],
)
def test_the_data_of_a_row_stays_as_it_is_but_for_signatures(given: Any, kept: Any) -> None:
    facts = RequestFacts.of_item(replace(item(), meta={"cell": given}))
    assert facts.meta == {"cell": kept}
    assert RequestFacts.of_submit({"meta": {"cell": given}}).meta == {"cell": kept}


def test_no_secret_of_a_link_is_told() -> None:
    fields: dict[str, Any] = {
        "reference_images": ["https://u:p@h/a.png?X-Amz-Signature=S3CRET#S3CRET", " HTTP://h/b.png?S3CRET"],
        "extra_body": {"mask": {"urls": ["https://S3CRET@h/c.png?S3CRET", "http://[bad?S3CRET"]}, "text": "why? #1"},
        "prompt": "what is this? a #1 kite",
    }
    whole = RequestFacts.of_item(item(**fields)).whole()
    kept = whole["fields"]
    assert kept["reference_images"] == ["https://h/a.png", "HTTP://h/b.png"]
    assert kept["extra_body"]["mask"]["urls"][0] == "https://h/c.png" and kept["extra_body"]["text"] == "why? #1"
    assert kept["prompt"] == "what is this? a #1 kite"
    assert "S3CRET" not in json.dumps(whole) and "u:p" not in json.dumps(whole)


def test_a_store_s_key_with_a_question_mark_stays_whole() -> None:
    given = {"prompt": "a", "reference_images": ["s3://bucket/hat?.png"]}
    (taken,) = build_items(given, defaults={}, default_model="nano_banana_2", digest_of=lambda _: "0" * 64)
    assert RequestFacts.of_item(taken).whole()["fields"]["reference_images"] == ["s3://bucket/hat?.png"]
