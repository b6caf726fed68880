"""What is known of each model: format of the request, ratios, resolutions, pixel sizes, list prices. Data, not code.

Every table names its source and the day it was read; models and prices rot, so an unknown model id is never refused
here (the service answers 503 ``model_not_found``), only ratios and resolutions that no model of its family takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

DEFAULT_MODEL: Final = "nano_banana_2"
MAX_REFERENCE_IMAGES: Final = 14

#: Ratios of the model guide "nano_banana_2" (toapis.com/en/model-guide/nano_banana_2, read 2026-08).
GUIDE_RATIOS: Final = ("1:1", "16:9", "9:16", "4:3", "3:4")

#: Long side first ratios and pixel sizes per resolution, as (width, height) of the wide form.
#: Source: Google's table of output sizes (ai.google.dev/gemini-api/docs/image-generation, read 2026-11), but for 21:9
#: at 0.5K, where it prints 792x168, which is no 21:9.
_WIDE_PIXELS: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = {
    "1:1": {"0.5K": (512, 512), "1K": (1024, 1024), "2K": (2048, 2048), "4K": (4096, 4096)},
    "3:2": {"0.5K": (632, 424), "1K": (1264, 848), "2K": (2528, 1696), "4K": (5056, 3392)},
    "4:3": {"0.5K": (600, 448), "1K": (1200, 896), "2K": (2400, 1792), "4K": (4800, 3584)},
    "5:4": {"0.5K": (576, 464), "1K": (1152, 928), "2K": (2304, 1856), "4K": (4608, 3712)},
    "16:9": {"0.5K": (688, 384), "1K": (1376, 768), "2K": (2752, 1536), "4K": (5504, 3072)},
    "21:9": {"0.5K": (792, 336), "1K": (1584, 672), "2K": (3168, 1344), "4K": (6336, 2688)},
    "4:1": {"0.5K": (1024, 256), "1K": (2048, 512), "2K": (4096, 1024), "4K": (8192, 2048)},
    "8:1": {"0.5K": (1536, 192), "1K": (3072, 384), "2K": (6144, 768), "4K": (12288, 1536)},
}

#: The 14 ratios of the API reference "gemini-3.1-flash" (docs.toapis.com, read 2026-08).
REFERENCE_RATIOS: Final = (
    *("1:1", "3:2", "2:3", "4:3", "3:4", "16:9", "9:16"),
    *("5:4", "4:5", "21:9", "1:4", "4:1", "1:8", "8:1"),
)

#: USD per image of Nano Banana 2 at ToAPIs by resolution (model guide, read 2026-08). 0.5K has no published price.
#: Accounts differ: an estimate.
LIST_PRICES: Final[Mapping[str, float]] = {"1K": 0.025, "2K": 0.030, "4K": 0.040}
_GPT_IMAGE_2_5: Final[Mapping[str, float]] = {"1K": 0.015, "2K": 0.020, "4K": 0.025}
#: Which price list is that of which model: newer docs call Nano Banana 2 by its Gemini id; GPT Image 2.5 as of its
#: price list (2026-09-09). A model that is not here (the VIP and official tiers, too) has no known price.
_PRICES: Final[Mapping[str, Mapping[str, float]]] = {
    "nano_banana_2": LIST_PRICES,
    "nano-banana-2": LIST_PRICES,
    "gemini-3.1-flash-image-preview": LIST_PRICES,
    "gpt-image-2.5-flare": _GPT_IMAGE_2_5,
    "gpt-image-2.5-sunburst": _GPT_IMAGE_2_5,
}
#: A connection's own prices: by resolution, for whatever model is asked for, or by model and resolution.
Prices = Mapping[str, float | Mapping[str, float]]


#: How a family writes a request. ``guide``: top-level ``resolution``, ``reference_images`` and ``response_format``;
#: ``reference``: ``metadata.resolution`` and ``image_urls``, and no ``response_format``.
RequestFormat = Literal["guide", "reference"]


@dataclass(frozen=True)
class Model:
    """One model family: how its requests are written and what they may hold."""

    request_format: RequestFormat
    ratios: tuple[str, ...]
    resolutions: tuple[str, ...]


_OFFICIAL_RATIOS: Final = tuple(ratio for ratio in REFERENCE_RATIOS if ratio not in ("1:4", "1:8"))
_OFFICIAL: Final = Model("reference", _OFFICIAL_RATIOS, ("1K", "2K", "4K"))

MODELS: Final[Mapping[str, Model]] = {
    "nano_banana_2": Model("guide", GUIDE_RATIOS, ("1K", "2K", "4K")),
    "gemini-3.1-flash-image-preview": Model("reference", REFERENCE_RATIOS, ("0.5K", "1K", "2K", "4K")),
    "gemini-3.1-flash-image-preview-official": _OFFICIAL,
    "gemini-3.1-flash-image-official": _OFFICIAL,
    "nano-banana-2-official": _OFFICIAL,
    "nano-banana-2-lite-official": _OFFICIAL,
}

_UNKNOWN_GEMINI: Final = MODELS["gemini-3.1-flash-image-preview"]
_UNKNOWN_GUIDE: Final = Model("guide", REFERENCE_RATIOS, ("0.5K", "1K", "2K", "4K"))


def model_for(model_id: str) -> Model:
    """Return what is known of a model id; an unknown id takes the widest table of its request format."""
    known = MODELS.get(model_id)
    if known is not None:
        return known
    return _UNKNOWN_GEMINI if model_id.startswith("gemini-") else _UNKNOWN_GUIDE


def validation_errors(model_id: str, size: str | None, resolution: str | None) -> list[str]:
    """Return why no model of this family takes a ratio or resolution, with what is allowed; None is not judged."""
    model, faults = model_for(model_id), []
    if size is not None and size not in model.ratios:
        faults.append(f"size {size!r} is no ratio of {model_id}; allowed: {', '.join(model.ratios)}")
    if resolution is not None and resolution not in model.resolutions:
        faults.append(
            f"resolution {resolution!r} is not offered by {model_id}; allowed: {', '.join(model.resolutions)}"
        )
    return faults


def pixel_size(size: str, resolution: str) -> tuple[int, int] | None:
    """Return the pixels (width, height) that a ratio and a resolution stand for, or None for one we do not know."""
    wide = _WIDE_PIXELS.get(size)
    if wide is not None:
        return wide.get(resolution)
    flipped = _WIDE_PIXELS.get(":".join(reversed(size.split(":"))), {}).get(resolution)
    return None if flipped is None else (flipped[1], flipped[0])


def list_price(model_id: str, resolution: str, overrides: Prices | None = None) -> float | None:
    """Return the list price in USD of one image, or None where none is known: no model is priced like another.

    :param overrides: The connection's own ``prices``: those of the model come first, then those of the resolution.
    """
    own = overrides or {}
    of_model = own.get(model_id)
    for price in (of_model.get(resolution) if isinstance(of_model, Mapping) else None, own.get(resolution)):
        if isinstance(price, (int, float)):
            return price
    return _PRICES.get(model_id, {}).get(resolution)


def resolution_of(width: int, height: int) -> str | None:
    """Return the resolution that gives images of so many pixels, or None where none is known to."""
    wide = (max(width, height), min(width, height))
    found = (name for sizes in _WIDE_PIXELS.values() for name, pixels in sizes.items() if pixels == wide)
    return next(found, None)
