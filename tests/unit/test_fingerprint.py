"""What makes two requests the same one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.models import ImageRequest

GEMINI = "gemini-3.1-flash-image-preview"
REFERENCES = ("https://h/a.png", "s3://bucket/key.png")
BASE: dict[str, Any] = {"prompt": "x", "reference_images": list(REFERENCES), "extra_body": {"a": {"b": 1}}}


def fingerprint(**fields: Any) -> str:
    return ImageRequest.parse({**BASE, **fields}).fingerprint()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "y"},
        {"prompt": "x "},
        {"size": "16:9"},
        {"resolution": "2K"},
        {"model": GEMINI},
        {"variant": "2026-11-01"},
        {"extra_body": {"a": {"b": 2}}},
        {"extra_body": {"a": {"b": "1"}}},
        {"extra_body": {}},
        {"reference_images": []},
        {"reference_images": list(REFERENCES[::-1])},
        {"reference_images": ["http://h/a.png", REFERENCES[1]]},
        {"reference_images": ["https://h/b.png", REFERENCES[1]]},
        {"reference_images": [REFERENCES[0], "gs://bucket/key.png"]},
        {"reference_images": [REFERENCES[0], "s3://other/key.png"]},
        {"reference_images": [*REFERENCES, REFERENCES[0]]},
    ],
)
def test_every_field_changes_the_fingerprint(fields: dict[str, Any]) -> None:
    assert fingerprint(**fields) != fingerprint()


def test_a_re_signed_link_is_the_same_reference() -> None:
    signed = ["https://h/a.png?X-Amz-Signature=1&Expires=2", REFERENCES[1]]
    assert fingerprint(reference_images=signed) == fingerprint()


@pytest.mark.parametrize("mark", ["#", "?"])
def test_two_objects_of_a_store_are_two_references(mark: str) -> None:
    """``#`` and ``?`` are ordinary characters of an object's key: two pictures of one folder are two requests."""
    one, two = (fingerprint(reference_images=[f"s3://bucket/hat{mark}{n}.png"]) for n in (1, 2))
    assert one != two


def test_the_fingerprint_ignores_the_order_of_keys_and_spells_out_the_default() -> None:
    assert fingerprint(extra_body={"p": 1, "q": 2}) == fingerprint(extra_body={"q": 2, "p": 1})
    assert fingerprint(model=None) == fingerprint(model="nano_banana_2") != ImageRequest(**BASE).fingerprint()


@given(st.text(min_size=1).filter(str.strip), st.text(max_size=5))
def test_the_fingerprint_is_a_function_of_the_request(prompt: str, variant: str) -> None:
    assert fingerprint(prompt=prompt, variant=variant) == fingerprint(variant=variant, prompt=prompt)


def test_the_form_of_the_answer_is_not_part_of_the_picture() -> None:
    assert fingerprint(response_format="b64_json") == fingerprint()
