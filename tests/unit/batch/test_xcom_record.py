"""A record in XCom: at most 600 bytes of JSON, given up in the documented order, URI, id and name never."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.xcom_record import fit_record

RECORD: dict[str, Any] = {
    "uri": "s3://bucket/pictures/SKU-007-5f0c6e9a1b.png",
    "id": "tsk_img_01K3V8Q6ZP0D3S9M2B7C4N5XYZ",
    "index": 0,
    "sha256": "f" * 64,
    "request": 7,
    "name": "SKU-007",
    "variant": "2026-11",
    "meta": {"sku": 7},
    "prompt": "a red kite",
    "version": 1,
}
KEPT = ("uri", "id", "name")


def room(**changes: Any) -> int:
    return 600 - len(json.dumps({**RECORD, **changes}))


def test_a_record_that_fits_is_left_alone() -> None:
    exact = {**RECORD, "meta": {"sku": "x" * room(meta={"sku": ""})}}
    assert len(json.dumps(exact)) == 600 and fit_record(exact) is exact


def test_meta_is_given_up_first_and_whole() -> None:
    fitted = fit_record({**RECORD, "meta": {"sku": "x" * (room(meta={"sku": ""}) + 1)}})
    assert fitted == {**RECORD, "meta": None}


def test_then_the_prompt_loses_its_end_as_much_as_it_must() -> None:
    fitted = fit_record({**RECORD, "prompt": "坏" * 99})
    assert fitted["prompt"] and set(fitted["prompt"]) == {"坏"} and 594 < len(json.dumps(fitted)) <= 600
    assert {**fitted, "prompt": "", "meta": 0} == {**RECORD, "prompt": "", "meta": 0}


def test_then_the_variant_and_the_hash_then_words_and_at_last_keys() -> None:
    assert fit_record({**RECORD, "variant": "v" * 600})["variant"].startswith("vvv")
    tight = fit_record({**RECORD, "uri": "s3://" + "x" * 362})
    assert (tight["prompt"], tight["variant"], tight["sha256"]) == ("", "", None) and tight.keys() == RECORD.keys()
    words = fit_record({"uri": "x" * 300, "id": "i", "name": "n", "reason": "y" * 600, "sha256": "f" * 64})
    assert words["sha256"] is None and words["reason"].endswith("yyy...") and len(json.dumps(words)) == 600
    tightest = fit_record({**RECORD, "uri": "s3://" + "x" * 465})
    assert len(json.dumps(tightest)) <= 600 and all(tightest[key] for key in KEPT) and "sha256" not in tightest


@given(
    uri=st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=370),
    image_task_id=st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=64),
    name=st.none() | st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=80),
    variant=st.text(max_size=300),
    prompt=st.text(max_size=80),
    meta=st.none() | st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5),
    message=st.text(max_size=160),
)
def test_every_record_fits(
    uri: str, image_task_id: str, name: str | None, variant: str, prompt: str, meta: Any, message: str
) -> None:
    whole = {**RECORD, "uri": uri, "id": image_task_id, "name": name, "variant": variant, "prompt": prompt}
    fitted = fit_record({**whole, "meta": meta, "message": message})
    assert len(json.dumps(fitted)) <= 600
    assert (fitted["uri"], fitted["id"], fitted["name"]) == (uri, image_task_id, name)
    assert prompt.startswith(fitted.get("prompt", "")) and fitted.get("meta") in (None, meta)
