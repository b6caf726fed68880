"""Requests: what is refused before money is spent, in which words, and what makes two of them the same."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from enum import Enum
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
from airflow_provider_nanobanana.toapis.settings import ToApisSettings
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus, parse_status

GEMINI = "gemini-3.1-flash-image-preview"
LINKS = ["https://cdn.example.com/a.png"] * 14


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        ImageRequest.parse({"prompt": "a kite", **fields})
    assert (caught.value.charged, caught.value.retryable) == ("no", False)
    return caught.value.message


def test_defaults() -> None:
    request = ImageRequest.parse({"prompt": "a kite"})
    assert request == ImageRequest(prompt="a kite", size="1:1", resolution="1K", model="nano_banana_2")
    assert request.reference_images == () and request.extra_body == {} and request.response_format == "url"


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "\u3000"])
def test_a_blank_prompt_is_refused(prompt: str) -> None:
    assert "prompt is blank" in refusal(prompt=prompt)


def test_the_address_that_a_lost_xcom_leaves_is_no_prompt() -> None:
    """XComObjectStorageBackend gives it in place of a value whose object is gone: a picture of it would be bought."""
    said = refusal(prompt="s3://key:secret@bucket/xcom/shop/run/task/0c9d")
    assert "prompt is the address" in said
    assert "secret" not in said


@pytest.mark.parametrize("prompt", ["x", "  x  ", "风筝", "🪁", "x" * 100_000])
def test_any_other_prompt_goes_out_verbatim(prompt: str) -> None:
    assert ImageRequest.parse({"prompt": prompt}).prompt == prompt


@pytest.mark.parametrize("size", ["1024x1024", "auto", "16:10", "1 : 1", "21:9", "1:8", 969])
def test_an_unknown_ratio_names_the_allowed_ones(size: str) -> None:
    assert "allowed: 1:1, 16:9, 9:16, 4:3, 3:4" in refusal(size=size)


@pytest.mark.parametrize(
    ("model", "size", "allowed"),
    [
        ("nano_banana_2", "3:2", False),
        (GEMINI, "3:2", True),
        (GEMINI, "1:8", True),
        ("gemini-3.1-flash-image-preview-vip", "8:1", True),
        ("gemini-3.1-flash-image-preview-official", "1:8", False),
        ("nano-banana-2-official", "1:4", False),
        ("nano-banana-2-official", "8:1", True),
        ("gemini-3-pro-image-preview", "21:9", True),
        ("some-model-of-next-year", "1:1", False),
    ],
)
def test_ratios_follow_the_model(model: str, size: str, allowed: bool) -> None:
    if allowed:
        assert ImageRequest.parse({"prompt": "x", "size": size, "model": model}).size == size
    else:
        assert model in refusal(size=size, model=model)


#: What 33a6c5a, before there were rows, made of these: names of files are from them.
@pytest.mark.parametrize(
    ("model", "fingerprint", "sent"),
    [
        ("doubao-seedream-4-5", "b804918f", "2K"),
        ("doubao-seedream-5-0", "6146c25f", "2K"),
        ("gpt-image-2", "ceba98ed", "1K"),
        ("nano-banana-2", "6888f36f", "1K"),
    ],
)
def test_a_request_that_says_no_resolution_is_what_it_was_with_any_model(
    model: str, fingerprint: str, sent: str
) -> None:
    said_by_the_task = ImageRequest.parse({"prompt": "x", "model": model, "resolution": "1K"})
    request = ImageRequest.parse({"prompt": "x", "model": model})
    assert request == said_by_the_task
    assert (request.fingerprint()[:8], request.sent_resolution) == (fingerprint, sent)
    assert request.billed_as == f"{model} {sent}"


@pytest.mark.parametrize(
    ("fields", "row", "fingerprint"),
    [
        (
            {"model": "flux-kontext-pro", "resolution": "2K"},
            {"dialect": "reference", "resolutions": None},
            "1869b832",
        ),
        ({"model": "nano-banana", "resolution": "2K"}, {"resolutions": None}, "8eb70325"),
        ({"model": "gemini-3-pro-image-preview", "size": "1:4"}, {"sizes": None}, "0af9e7fd"),
        ({"model": "my-own"}, {"dialect": "guide"}, "8305d5dd"),
    ],
)
def test_a_row_keeps_what_was_made_before_there_were_rows(
    fields: dict[str, Any], row: dict[str, Any], fingerprint: str
) -> None:
    assert "docs/requests.md" in refusal(**fields)
    settings = ToApisSettings.model_validate(
        {"api_key": "k", "base_url": "https://x.example", "models": {fields["model"]: row}}
    )
    request = ImageRequest.parse({"prompt": "x", **fields}, models=settings.models)
    assert request.fingerprint()[:8] == fingerprint


@pytest.mark.parametrize(
    ("model", "resolution", "allowed"),
    [
        ("nano_banana_2", "0.5K", False),
        ("nano_banana_2", "4K", True),
        (GEMINI, "0.5K", True),
        (GEMINI, "512", False),
        (GEMINI, "1k", False),
        ("gemini-3.1-flash-image-official", "0.5K", False),
        ("nano_banana_2", "8K", False),
    ],
)
def test_resolutions_follow_the_model(model: str, resolution: str, allowed: bool) -> None:
    if allowed:
        assert ImageRequest.parse({"prompt": "x", "resolution": resolution, "model": model}).resolution == resolution
    else:
        assert "allowed:" in (message := refusal(resolution=resolution, model=model)) and "1K" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "7:5", "extra_body": {"size": "7:5"}},
        {"resolution": "8K", "extra_body": {"resolution": "8K"}},
        {"resolution": "8K", "extra_body": {"metadata": {"resolution": "8K"}}},
    ],
)
def test_extra_body_lifts_the_check_of_its_own_field(fields: dict[str, Any]) -> None:
    assert ImageRequest.parse({"prompt": "x", **fields}).extra_body == fields["extra_body"]


def test_extra_body_lifts_no_other_check() -> None:
    assert "7:5" in refusal(size="7:5", extra_body={"resolution": "8K", "metadata": 3})


@pytest.mark.parametrize("reference", ["data:image/png;base64,AAAA", " DATA:image/png,x", "data:"])
def test_a_data_uri_is_refused_with_the_way_out(reference: str) -> None:
    message = refusal(reference_images=["https://a/b.png", reference])
    assert "entry 1 is a data URI" in message and "s3://" in message


@pytest.mark.parametrize("between", [", ", ",", "; ", ";", "|", " ", "\n", "\r\n"])
@pytest.mark.parametrize("second", ["https://h/b.png", "s3://b/b.png"])
def test_two_references_in_one_text_are_not_one(between: str, second: str) -> None:
    with pytest.raises(InvalidRequest, match="several addresses in one text; give a list"):
        ImageRequest.parse({"prompt": "a", "reference_images": [f"https://h/a.png{between}{second}"]})


def test_a_blank_in_a_link_is_refused_and_one_in_a_key_is_not() -> None:
    with pytest.raises(InvalidRequest, match="write it as %20"):
        ImageRequest.parse({"prompt": "a", "reference_images": ["https://h/my kite.png"]})
    fine = [
        "s3://b/my kite, red; blue.png",
        "https://h/a,b;c.png?u=https://h/d.png",
        "https://web/2020/https://h/a.png",
    ]
    assert ImageRequest.parse({"prompt": "a", "reference_images": fine}).reference_images == tuple(fine)


def test_fourteen_references_are_the_most() -> None:
    assert len(ImageRequest.parse({"prompt": "x", "reference_images": LINKS}).reference_images) == 14
    assert "has 15 entries; at most 14" in refusal(reference_images=[*LINKS, LINKS[0]])


def test_a_single_text_is_no_list_of_references() -> None:
    assert "give a list of URLs" in refusal(reference_images="https://a/b.png")
    assert "entry 0 is blank" in refusal(reference_images=["  "])


@pytest.mark.parametrize("field", ["reference_images", "extra_body", "model"])
def test_none_stands_for_the_default_as_in_the_operators(field: str) -> None:
    """The operators' own default of these arguments is None."""
    assert ImageRequest.parse({"prompt": "x", field: None}) == ImageRequest.parse({"prompt": "x"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": True}, "prompt Input should be a valid string"),
        ({"prompt": None}, "prompt Field required"),
        ({"prompt": ["a", "b"]}, "prompt is list, not one text; several pictures are several requests"),
        ({"prompt": b"x"}, "prompt is bytes, not one text"),
        ({"prompt": 19.5}, "prompt Input should be a valid string"),
        ({"size": 1}, "size '1' is no ratio"),
        ({"size": "\ud800"}, "size holds half a character"),
        ({"model": True}, "model Input should be a valid string"),
        ({"response_format": "png"}, "'url' or 'b64_json'"),
        ({"reference_images": 3}, "reference_images"),
        ({"reference_images": [3]}, "reference_images.0 Input should be a valid string"),
        ({"reference_images": ["https://a/b.png", float("nan")]}, "entry 1 is blank"),
        ({"reference_images": [None]}, "entry 0 is blank"),
        ({"reference_images": {"https://a/b.png"}}, "is a set, which has no order"),
        ({"extra_body": [1]}, "extra_body Input should be a valid dictionary"),
        ({"variant": datetime.date(2026, 11, 26)}, "variant is date, not one text"),
        ({"variant": 2.0**60}, "variant Input should be a valid string"),
        ({"variant": float("inf")}, "variant Input should be a valid string"),
        ({"extra_body": {"model": 3}}, "extra_body holds a model that is int, not a text"),
        ({"extra_body": {"client_business_id": "mine"}}, "extra_body holds client_business_id"),
        ({"extra_body": {"metadata": {"client_business_id": "mine"}}}, "extra_body holds client_business_id"),
        ({"promt": "x"}, "'promt' is no field of an image request; allowed: prompt, size, resolution"),
        ({"n": 2}, "'n' is no field"),
        ({1: 2}, "Keys should be strings"),
    ],
)
def test_every_fault_is_named(fields: dict[Any, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ImageRequest.parse({"prompt": "x", **fields})
    assert said in caught.value.message and "Nothing was charged" in caught.value.message


def test_all_faults_are_told_at_once() -> None:
    message = refusal(prompt=" ", reference_images=["data:x"], wrong=1)
    assert "blank" in message and "data URI" in message and "'wrong'" in message
    assert "no ratio" in (message := refusal(size="a", resolution="b")) and "not offered" in message


@pytest.mark.parametrize("value", [None, "a kite", 3, ["a"], [("prompt", "x")], b"x"])
def test_only_a_mapping_is_a_request(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="is a mapping with a 'prompt'"):
        ImageRequest.parse(value)


class Ratio(Enum):
    WIDE = "16:9"


class Missing:
    """As pandas' NA: no comparison of it is true or false."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("blank", [None, float("nan"), Decimal("NaN"), Missing(), "", "  ", "\n"])
@pytest.mark.parametrize("field", sorted(set(ImageRequest.model_fields) - {"prompt"}))
def test_an_empty_cell_is_not_given(field: str, blank: Any) -> None:
    assert ImageRequest.parse({"prompt": "x", field: blank}) == ImageRequest.parse({"prompt": "x"})


@pytest.mark.parametrize("number", [1984, 1984.0, Decimal(1984), Decimal("1984.00")])
@pytest.mark.parametrize("field", ["prompt", "variant", "model"])
def test_a_whole_number_where_a_text_belongs_is_its_text(field: str, number: Any) -> None:
    assert getattr(ImageRequest.model_validate({"prompt": "x", field: number}), field) == "1984"


def test_a_choice_of_a_class_is_its_value() -> None:
    assert ImageRequest.parse({"prompt": "x", "size": Ratio.WIDE}).size == "16:9"


@pytest.mark.parametrize("character", ["\0", "\x01", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\x9b"])
@pytest.mark.parametrize(
    "field",
    [
        lambda text: {"prompt": text},
        lambda text: {"variant": text},
        lambda text: {"model": text},
        lambda text: {"reference_images": [f"s3://b/{text}.png"]},
        lambda text: {"extra_body": {"metadata": {"notes": ["fine", text]}}},
        lambda text: {"extra_body": {"metadata": {text: 1}}},
    ],
)
def test_a_control_character_is_refused_wherever_it_stands(field: Any, character: str) -> None:
    assert f"holds the control character U+{ord(character):04X}" in refusal(**field(f"a{character}b"))


def test_lines_and_tabs_are_fine_in_a_text_and_not_in_an_address() -> None:
    text = "one\n\ttwo\r\nthree"
    request = ImageRequest.parse({"prompt": text, "variant": text, "extra_body": {"note": text}})
    assert (request.prompt, request.variant, request.extra_body) == (text, text, {"note": text})
    assert "U+000A" in refusal(reference_images=["https://a/b\n.png"])


def test_path_objects_are_references() -> None:
    given = [Path("/a/b.png"), PurePosixPath("c d.png"), " https://h/a.png "]
    assert ImageRequest.parse({"prompt": "x", "reference_images": given}).reference_images == (
        *("/a/b.png", "c d.png", "https://h/a.png"),
    )


def test_references_without_an_end_come_to_one() -> None:
    assert "has 17 entries; at most 16" in refusal(reference_images=repeat("https://a/b.png"))


def test_references_that_fail_on_the_way_are_refused() -> None:
    def faulty() -> Any:
        yield "https://a/b.png"
        raise LookupError("row 2")

    with pytest.raises(InvalidRequest, match=r"reference_images cannot be read \(LookupError: row 2\)"):
        ImageRequest.parse({"prompt": "x", "reference_images": faulty()})


def wide(levels: int) -> list[Any]:
    """Few objects that are many values."""
    value: list[Any] = [1] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE


@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), float("inf"), {1}, b"x", object(), {(1, 2): 3}, 10**5000, CIRCLE, wide(12)),
        *(datetime.date(2026, 1, 1), Decimal(3)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_extra_body_must_be_json(value: Any) -> None:
    assert "extra_body is not JSON" in refusal(extra_body={"x": value})


def deep(levels: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for _ in range(levels):
        body = {"x": body}
    return body


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"x": "\ud800"}},
        {"extra_body": {"\udfff": 1}},
        {"extra_body": deep(400)},
        {"extra_body": deep(40)},
        {"extra_body": {"x": [[[[[[[[1]]]]]]]] * 9}},
        {"extra_body": deep(100_000)},
        {"prompt": "a \ud800 kite"},
        {"model": "m\udc00"},
        {"variant": "\ud83d"},
        {"reference_images": ["https://[bad/a.png"]},
        {"reference_images": ["https://a/\ud800.png"]},
    ],
    ids=[
        "surrogate",
        "surrogate key",
        "deep",
        "less deep",
        "wide",
        "very deep",
        "prompt",
        "model",
        "variant",
        "no URL",
        "surrogate in URL",
    ],
)
def test_what_cannot_be_hashed_or_sent_is_refused_before_sending(fields: dict[str, Any]) -> None:
    """Whatever passes must be hashable and sendable: httpx encodes JSON as UTF-8 and fails on a lone surrogate."""
    try:
        request = ImageRequest.parse({"prompt": "x", **fields})
    except InvalidRequest as error:
        assert "Nothing was charged" in error.message
        return
    assert len(request.fingerprint()) == 64
    json.dumps(request.model_dump(mode="json"), ensure_ascii=False).encode()


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ImageRequest.parse({"prompt": "x"}).prompt = "y"
    with pytest.raises(ValidationError):
        ImageTask(id="x", status=ImageTaskStatus.RUNNING).status = ImageTaskStatus.FAILED


@pytest.mark.parametrize("word", ["expired", "TASK_EXPIRED", "generation.expired", "已过期"])
def test_whatever_is_read_as_expired_is_paid_and_lost(word: str) -> None:
    assert parse_status(word) is ImageTaskStatus.FAILED
    assert ImageTask(id="i", status=ImageTaskStatus.FAILED, wire_status=word).expired_at_service
