"""The rows of the known models: their own rules, the documented samples of their bodies, prices, models without a row.

``golden/`` holds what the documentation says of each body, written by hand.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis.catalogue import (
    DEFAULT_MODEL,
    GUIDE_RATIOS,
    LIST_PRICES,
    MODELS,
    REFERENCE_RATIOS,
    Prices,
    list_price,
    merged_rows,
    no_row,
    resolution_of,
    row_for,
)
from airflow_provider_nanobanana.toapis.model_row import ModelRow
from airflow_provider_nanobanana.toapis.models import ImageRequest

STANDARD = MODELS["gemini-3.1-flash-image-preview"]
#: What one entry of section 12 of the contract, of the guide or of the API reference says must be there.
DOCUMENTED = [
    "nano_banana_2",
    *("gemini-3.1-flash-image-preview", "gemini-3.1-flash-image-preview-vip", "gemini-3.1-flash-image-official"),
    *("gemini-3.1-flash-image-preview-official", "nano-banana-2-official", "nano-banana-2-lite-official"),
    *("gemini-3-pro-image-preview", "gemini-2.5-flash-image-preview", "nano-banana", "nano-banana-pro"),
    *("gpt-image-2", "gpt-image-2-vip", "gpt-image-2.5-flare", "gpt-image-2.5-sunburst"),
    *("doubao-seedream-4-0", "doubao-seedream-4-5", "doubao-seedream-5-0", "doubao-seedream-5-0-pro"),
    *("qwen-image-3.0", "qwen-image-3.0-pro", "flux-2-flex", "flux-2-pro"),
    *("flux-kontext", "flux-kontext-pro", "flux-kontext-max"),
]

GOLDEN = {path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).with_name("golden").glob("*.json"))}
CASES = [
    pytest.param(model, case, id=f"{model}-{number}")
    for model, golden in GOLDEN.items()
    for number, case in enumerate(golden["cases"])
]


@pytest.mark.parametrize("model_id", DOCUMENTED)
def test_every_documented_model_has_a_row(model_id: str) -> None:
    assert model_id in MODELS


@pytest.mark.parametrize("model_id", MODELS)
def test_every_row_keeps_its_own_rules(model_id: str) -> None:
    row = MODELS[model_id]
    assert ModelRow.model_validate(row.model_dump()) == row, "as a user's row it would be taken, too"
    assert row.source and row.read[:4] == "2026"
    if row.sizes is not None:
        assert set(row.pixels) <= set(row.sizes)
    if row.resolutions is not None:
        assert {name for table in row.pixels.values() for name in table} <= set(row.resolutions)
        assert not isinstance(row.prices, dict) or set(row.prices) <= set(row.resolutions)


@pytest.mark.parametrize("model_id", MODELS)
def test_every_known_size_has_its_ratio_and_can_be_landed(model_id: str) -> None:
    for size, table in MODELS[model_id].pixels.items():
        wide, high = (int(part) for part in size.split(":"))
        for width, height in table.values():
            assert width / height == pytest.approx(wide / high, rel=0.04)
            assert width * height <= 20_000_000


@pytest.mark.parametrize("ratio", REFERENCE_RATIOS)
def test_resolutions_of_gemini_double(ratio: str) -> None:
    sizes = [STANDARD.pixels[ratio][resolution] for resolution in ("0.5K", "1K", "2K", "4K")]
    for small, large in itertools.pairwise(sizes):
        assert (large[0], large[1]) == (2 * small[0], 2 * small[1])


def test_a_tall_size_is_its_wide_one_turned() -> None:
    assert STANDARD.pixel_size("9:16", "1K") == (768, 1376) and STANDARD.pixel_size("16:9", "1K") == (1376, 768)


@pytest.mark.parametrize(
    ("model_id", "size", "resolution", "pixels"),
    [
        ("nano_banana_2", "16:9", "2K", (2752, 1536)),
        ("nano_banana_2", "3:2", "1K", None),
        ("nano_banana_2", "1:1", "0.5K", None),
        ("gemini-3-pro-image-preview", "2:3", "1K", (848, 1264)),
        ("gemini-2.5-flash-image-preview", "1:1", "1K", (1024, 1024)),
        ("gemini-2.5-flash-image-preview", "16:9", "1K", None),
        ("gpt-image-2", "9:21", "4K", (1648, 3840)),
        ("gpt-image-2", "1:1", "4K", (2880, 2880)),
        ("gpt-image-2", "1024x640", "1K", None),
        ("gpt-image-2-vip", "1024x640", "1K", (1024, 640)),
        ("gpt-image-2.5-flare", "1:1", "4K", (2880, 2880)),
        ("gpt-image-2.5-flare", "1:1", "1K", None),
        ("doubao-seedream-4-0", "16:9", "4K", (5404, 3040)),
        ("doubao-seedream-4-0", "auto", "4K", None),
        ("doubao-seedream-5-0", "16:9", "3K", (4096, 2304)),
        ("doubao-seedream-5-0-pro", "1:1", "2K", None),
        ("flux-2-pro", "2:3", "2K", (2048, 3072)),
        ("flux-2-pro", "16:9", "1K", None),
        ("flux-kontext-pro", "match_input_image", "1K", None),
        ("qwen-image-3.0", "1:1", "1K", None),
    ],
)
def test_pixels_are_known_only_where_they_are_documented(
    model_id: str, size: str, resolution: str, pixels: tuple[int, int] | None
) -> None:
    assert MODELS[model_id].pixel_size(size, resolution) == pixels


def test_sizes_of_the_two_documentations() -> None:
    assert (len(GUIDE_RATIOS), len(REFERENCE_RATIOS), DEFAULT_MODEL) == (5, 14, "nano_banana_2")


@pytest.mark.parametrize("model_id", ["gemini-3.2", "nano_banana_9", "x", ""])
def test_a_model_without_a_row_is_asked_for_its_dialect(model_id: str) -> None:
    assert row_for(model_id) is None
    assert f'{{"models":{{"{model_id}":{{"dialect":"reference"}}}}}}' in no_row(model_id)
    assert ("Did you mean nano_banana_2" in no_row(model_id)) == (model_id == "nano_banana_9")


def test_a_row_of_the_connection_comes_first() -> None:
    own = {"mine": ModelRow(dialect="guide"), "flux-2-pro": ModelRow(dialect="guide")}  # type: ignore[arg-type]
    assert row_for("mine", own) is own["mine"] and row_for("flux-2-pro", own) is own["flux-2-pro"]
    assert row_for("flux-2-pro") is MODELS["flux-2-pro"]


def test_a_row_may_change_a_part_of_a_known_one() -> None:
    given = merged_rows({"doubao-seedream-5-0-pro": {"reference_price": 0.002, "prices": {"2K": 0.04}}})
    row = ModelRow.model_validate(given["doubao-seedream-5-0-pro"])
    assert (row.dialect, row.free_references) == (MODELS["doubao-seedream-5-0-pro"].dialect, 1)
    assert list_price("doubao-seedream-5-0-pro", "2K", own={"doubao-seedream-5-0-pro": row}, references=3) == 0.044


@pytest.mark.parametrize("row", [{}, {"prices": 0.03}, "guide", None, [1]])
def test_a_row_of_an_unknown_model_needs_its_dialect(row: Any) -> None:
    with pytest.raises(ValueError, match="dialect"):
        merged_rows({"mine": row})


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_every_row_has_a_documented_sample_that_says_where_it_is_from() -> None:
    assert GOLDEN.keys() == MODELS.keys()
    assert all(golden["model"] == model and golden["source"] and golden["read"] for model, golden in GOLDEN.items())


@pytest.mark.parametrize(("model", "case"), CASES)
def test_the_body_is_the_documented_one(model: str, case: dict[str, Any]) -> None:
    """But for ``n``, which is left out: one request is one image; what is sent besides is said with its reason."""
    sent = ImageRequest.parse(case["request"], model).to_body()
    sample = {key: value for key, value in case["sample"].items() if key != "n"}
    assert sent == {**sample, **case.get("added", {})}
    assert "why" in case or "added" not in case


def test_the_default_models_body_is_byte_for_byte_the_one_of_before_there_were_rows() -> None:
    request = ImageRequest.parse(
        {"prompt": "a kite", "size": "16:9", "resolution": "2K", "reference_images": ["https://a/b"]}
    )
    assert json.dumps(request.to_body("nb-1")) == (
        '{"model": "nano_banana_2", "prompt": "a kite", "size": "16:9", "resolution": "2K", '
        '"reference_images": ["https://a/b"], "response_format": "url", "client_business_id": "nb-1"}'
    )
    assert json.dumps(ImageRequest.parse({"prompt": "a kite"}).to_body()) == (
        '{"model": "nano_banana_2", "prompt": "a kite", "size": "1:1", "resolution": "1K", "response_format": "url"}'
    )


# --- prices ----------------------------------------------------------------------------------------------------------


def test_prices() -> None:
    """``docs/toapis.md``, "Models and sizes"; what is not published is not guessed."""
    assert {**LIST_PRICES} == {"1K": 0.025, "2K": 0.030, "4K": 0.040}
    assert list_price(DEFAULT_MODEL, "0.5K") is None
    assert list_price(DEFAULT_MODEL, "1K", {"1K": 0.02}) == 0.02
    assert list_price(DEFAULT_MODEL, "2K", {"1K": 0.02}) == 0.030
    assert list_price(DEFAULT_MODEL, "0.5K", {"0.5K": 0.0}) == 0.0


@pytest.mark.parametrize(
    ("model_id", "usd"),
    [
        ("nano_banana_2", 0.030),
        ("gemini-3.1-flash-image-preview", 0.030),
        ("gpt-image-2.5-sunburst", 0.020),
        ("qwen-image-3.0", 0.03),
        ("gemini-3-pro-image-preview", None),
        ("gemini-3.1-flash-image-preview-vip", None),
        ("nano-banana-2-official", None),
        ("doubao-seedream-5-0-pro", None),
        ("gpt-image-2-vip", None),
        ("flux-kontext-pro", None),
        ("whatever-9", None),
        ("", None),
    ],
)
def test_no_model_is_priced_like_another(model_id: str, usd: float | None) -> None:
    assert list_price(model_id, "2K") == usd


def test_the_accounts_own_prices_are_by_resolution_for_every_model_or_by_model() -> None:
    own: Prices = {"1K": 0.01, "nano_banana_2": {"2K": 0.02}, "whatever-9": {"1K": 0.5}}
    asked = [(model, size) for model in ("nano_banana_2", "whatever-9", "x") for size in ("1K", "2K")]
    assert [list_price(model, size, own) for model, size in asked] == [0.01, 0.02, 0.5, None, 0.01, None]


@pytest.mark.parametrize(
    ("model_id", "own_prices", "usd"),
    [
        ("nano_banana_2", {}, [0.025, 0.025, 0.025]),
        ("qwen-image-3.0", {}, [0.03, 0.033, 0.036]),
        ("qwen-image-3.0", {"qwen-image-3.0": {"1K": 0.01}}, [0.01, 0.013, 0.016]),
        ("doubao-seedream-5-0-pro", {"1K": 0.03}, [0.03, 0.03, None]),
        ("doubao-seedream-5-0", {"1K": 0.03}, [0.03, 0.03, 0.03]),
    ],
)
def test_reference_images_are_priced_where_the_model_bills_them(
    model_id: str, own_prices: Prices, usd: list[float | None]
) -> None:
    assert [list_price(model_id, "1K", own_prices, references=number) for number in range(3)] == usd


def test_the_resolution_of_an_image_is_that_of_its_model() -> None:
    assert resolution_of("gpt-image-2", 2048, 1024) == "1K" and resolution_of("nano_banana_2", 2048, 1024) is None
    assert resolution_of("gemini-3.1-flash-image-preview", 2048, 512) == "1K" and resolution_of("x", 1024, 1024) is None
