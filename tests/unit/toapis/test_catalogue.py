"""The catalogue's data against its own rules."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_nanobanana.toapis.catalogue import (
    DEFAULT_MODEL,
    GUIDE_RATIOS,
    LIST_PRICES,
    MODELS,
    REFERENCE_RATIOS,
    Prices,
    list_price,
    model_for,
    pixel_size,
)

RESOLUTIONS = ("0.5K", "1K", "2K", "4K")


@pytest.mark.parametrize("ratio", REFERENCE_RATIOS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_every_offered_size_is_known_and_has_its_ratio(ratio: str, resolution: str) -> None:
    size = pixel_size(ratio, resolution)
    assert size is not None
    wide, high = (int(part) for part in ratio.split(":"))
    assert size[0] / size[1] == pytest.approx(wide / high, rel=0.03)


@pytest.mark.parametrize("ratio", REFERENCE_RATIOS)
def test_resolutions_double_and_stay_landable(ratio: str) -> None:
    sizes = [size for resolution in RESOLUTIONS if (size := pixel_size(ratio, resolution))]
    for small, large in itertools.pairwise(sizes):
        assert (large[0], large[1]) == (2 * small[0], 2 * small[1])
    assert sizes[-1][0] * sizes[-1][1] <= 20_000_000


def test_a_tall_size_is_its_wide_one_turned() -> None:
    assert pixel_size("9:16", "1K") == (768, 1376) and pixel_size("16:9", "1K") == (1376, 768)


@pytest.mark.parametrize(
    ("ratio", "resolution"), [("7:5", "1K"), ("1:1", "8K"), ("", "1K"), ("1", "1K"), ("a:b:c", "")]
)
def test_an_unknown_size_is_none(ratio: str, resolution: str) -> None:
    assert pixel_size(ratio, resolution) is None


@pytest.mark.parametrize("model_id", MODELS)
def test_every_model_is_complete(model_id: str) -> None:
    model = model_for(model_id)
    assert set(GUIDE_RATIOS) <= set(model.ratios) <= set(REFERENCE_RATIOS)
    assert {"1K", "2K", "4K"} <= set(model.resolutions)


def test_sizes_of_the_two_documentations() -> None:
    assert (len(GUIDE_RATIOS), len(REFERENCE_RATIOS), DEFAULT_MODEL) == (5, 14, "nano_banana_2")


@pytest.mark.parametrize("model_id", ["gemini-3.2", "nano-banana-2", "x", ""])
def test_an_unknown_model_is_never_refused_here(model_id: str) -> None:
    model = model_for(model_id)
    assert set(model.ratios) == set(REFERENCE_RATIOS)
    assert model.request_format == ("reference" if model_id.startswith("gemini-") else "guide")


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
        ("gemini-3-pro-image-preview", None),
        ("gemini-3.1-flash-image-preview-vip", None),
        ("nano-banana-2-official", None),
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
