"""A row as a user writes it, and the bodies that a dialect of their own gives."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.model_row import DIALECTS, ModelRow
from airflow_provider_nanobanana.toapis.models import ImageRequest

LINK = "https://example.com/a.png"


def row(**fields: Any) -> ModelRow:
    return ModelRow.model_validate({"dialect": "reference", **fields})


def body(own: ModelRow, **fields: Any) -> dict[str, Any]:
    return ImageRequest.parse({"prompt": "a kite", **fields}, "mine", models={"mine": own}).to_body()


def test_a_dialect_is_named_or_spelled_out() -> None:
    assert row(dialect={"resolution": "metadata.resolution", "references": "image_urls"}) == row()
    assert {name: row(dialect=name).dialect for name in DIALECTS} == DIALECTS


@pytest.mark.parametrize(
    ("dialect", "written"),
    [
        ({}, {"resolution": "2K", "reference_images": [LINK]}),
        ({"resolution_case": "lower"}, {"resolution": "2k", "reference_images": [LINK]}),
        ({"resolution": "config.quality", "references": "config.from"}, {"config": {"quality": "2K", "from": [LINK]}}),
        (
            {"references": "image_urls", "reference_items": "object"},
            {"resolution": "2K", "image_urls": [{"url": LINK}]},
        ),
        (
            {"response_format": "always"},
            {"resolution": "2K", "reference_images": [LINK], "response_format": "url"},
        ),
    ],
)
def test_a_dialect_of_their_own_is_written_as_it_says(dialect: dict[str, Any], written: dict[str, Any]) -> None:
    sent = body(row(dialect=dialect), size="5:7", resolution="2K", reference_images=[LINK])
    assert sent == {"model": "mine", "prompt": "a kite", "size": "5:7", **written}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dialect": "gemini"}, "'gemini' is no dialect; use one of guide, reference"),
        ({"dialect": {"resolution": "prompt"}}, "no place of its own"),
        ({"dialect": {"resolution": "a.b.c"}}, "no place of its own"),
        ({"dialect": {"references": "size.links"}}, "no place of its own"),
        ({"dialect": {"resolution": "metadata", "references": "metadata.links"}}, "share a place"),
        ({"dialect": {"resolution": "same", "references": "same"}}, "share a place"),
        ({"dialect": {"where": "top"}}, "where"),
        ({"dialect": 3}, "dialect"),
        ({"ratios": ["1:1"]}, "ratios"),
        ({"sizes": "1:1"}, "give a list"),
        ({"resolutions": "1K"}, "give a list"),
        ({"resolutions": []}, "contradict each other"),
        ({"dialect": "flux-kontext", "resolutions": ["1K"]}, "contradict each other"),
        ({"pixels": {"1:1": {"1K": "big"}}}, "pixels"),
        ({"pixels": {"1:1": {"1K": [0, 5]}}}, "holds a size that is none"),
        ({"pixels": {"1:1": "1024x1024"}}, "pixels"),
        ({"max_references": 17}, "max_references"),
        ({"max_references": -1}, "max_references"),
        ({"reference_formats": ["gif"]}, "reference_formats"),
        ({"prices": -1}, "price"),
        ({"prices": {"1K": 1001}}, "price"),
        ({"prices": {"1K": float("nan")}}, "price"),
        ({"prices": "cheap"}, "prices"),
        ({"reference_price": -0.1}, "price"),
        ({"files": 0}, "files"),
    ],
)
def test_a_faulty_row_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        row(**fields)
    assert said in str(caught.value)


def test_pixels_are_texts_or_pairs() -> None:
    assert row(pixels={"1:1": {"1K": "1024x1024"}}) == row(pixels={"1:1": {"1K": [1024, 1024]}})


def test_what_a_row_leaves_out_is_not_judged_and_not_known() -> None:
    request = ImageRequest.parse({"prompt": "x", "size": "7:5", "resolution": "9K"}, "mine", models={"mine": row()})
    assert request.expected_pixels() is None and request.list_price() is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": "7:5"}, "size '7:5' is no ratio of mine; allowed: 1:1"),
        ({"resolution": "2K"}, "resolution '2K' is not offered by mine; allowed: none, leave it out"),
        ({"reference_images": [LINK, LINK]}, "has 2 entries; at most 1 are taken by mine"),
        ({"extra_body": {"image_urls": [LINK, LINK]}}, "has 2 entries; at most 1 are taken by mine"),
        (
            {"reference_images": [LINK], "extra_body": {"reference_images": [LINK]}},
            "has 2 entries; at most 1 are taken by mine",
        ),
    ],
)
def test_what_a_row_says_is_kept_before_money(fields: dict[str, Any], said: str) -> None:
    own = row(dialect="flux-kontext", sizes=["1:1"], max_references=1)
    with pytest.raises(InvalidRequest) as caught:
        body(own, **fields)
    assert said in caught.value.message and "Nothing was charged" in caught.value.message
    assert body(own)["size"] == "1:1"


def test_a_default_that_a_row_does_not_allow_is_called_the_default() -> None:
    with pytest.raises(InvalidRequest, match=r"size '1:1' \(the default\) is no ratio of mine; allowed: 16:9"):
        body(row(sizes=["16:9"]))


def test_the_first_resolution_of_a_row_without_1k_is_sent_where_none_is_said() -> None:
    assert body(row(resolutions=["4K", "2K"]))["metadata"] == {"resolution": "4K"}
    assert body(row(resolutions=["2K", "1K"]))["metadata"] == {"resolution": "1K"}
    assert body(row())["metadata"] == {"resolution": "1K"}


@pytest.mark.parametrize(
    ("references", "extra_body", "number"),
    [
        ([LINK], {}, 1),
        ([], {"image_urls": [LINK] * 4}, 4),
        ([LINK], {"image_urls": [LINK] * 4}, 4),
        ([LINK], {"reference_images": [LINK] * 2}, 3),
        ([], {"image_urls": LINK}, 1),
        ([LINK], {"image_urls": []}, 0),
        ([LINK], {"image_urls": None}, 0),
        ([LINK], {"metadata": {"watermark": False}}, 1),
        ([], {"own": {"links": [{"url": LINK}] * 2}}, 2),
    ],
)
def test_reference_images_count_wherever_they_are(
    references: list[str], extra_body: dict[str, Any], number: int
) -> None:
    place = "own.links" if "own" in extra_body else "image_urls"
    own = row(dialect={"references": place}, prices=0.03, reference_price=0.003)
    asked = {"prompt": "x", "reference_images": references, "extra_body": extra_body}
    request = ImageRequest.parse(asked, "mine", models={"mine": own})
    assert (request.sent_references, request.list_price()) == (number, round(0.03 + 0.003 * number, 6))
    assert request.billed_as == (f"mine 1K {number}" if number else "mine 1K")


def test_a_stored_request_is_written_as_the_connection_says_by_now() -> None:
    asked = ImageRequest.parse({"prompt": "x"}, "mine", models={"mine": row()})
    stored = ImageRequest.model_validate(asked.model_dump())
    assert stored.fingerprint() == asked.fingerprint()
    assert "resolution" in stored.with_models({"mine": row(dialect="guide")}).to_body()
    with pytest.raises(InvalidRequest, match=r'"mine":\{"dialect"'):
        stored.to_body()
    assert (stored.expected_pixels(), stored.list_price(), stored.sent_resolution) == (None, None, "1K")


def test_prices_follow_the_resolution_as_it_is_sent() -> None:
    own = {"mine": row(dialect="gpt-image-2", prices={"1K": 0.01, "4K": 0.05}, pixels={"1:1": {"4K": "2880x2880"}})}
    asked = {"prompt": "x", "extra_body": {"resolution": "4k"}}
    request = ImageRequest.parse(asked, "mine", models=own)
    assert (request.sent_resolution, request.list_price(), request.expected_pixels()) == ("4K", 0.05, (2880, 2880))


@pytest.mark.parametrize(
    ("extra_body", "images"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": "2"}, "2"),
        ({"metadata": {"sequential_image_generation": "disabled"}}, 1),
        ({"metadata": {"sequential_image_generation": "auto"}}, 15),
        (
            {
                "metadata": {
                    "sequential_image_generation": "auto",
                    "sequential_image_generation_options": {"max_images": 4},
                }
            },
            4,
        ),
    ],
)
def test_images_that_one_submit_asks_for(extra_body: dict[str, Any], images: Any) -> None:
    assert ImageRequest.parse({"prompt": "x", "extra_body": extra_body}).asked_images == images
