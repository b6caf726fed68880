"""Models, ratios, pixel sizes and prices as the public pages give them (data, with sources).

Sources: ``docs/toapis.md``, "Models and sizes"; pixel sizes from Google's own table at
https://ai.google.dev/gemini-api/docs/image-generation#aspect_ratios_and_image_size (read 2026-11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["PNG", "JPEG", "WEBP"]
MIME_TYPES: dict[ImageFormat, str] = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

CREDITS_PER_USD = 200
MAX_REFERENCES = 14

_GUIDE_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4")
_ALL_RATIOS = (
    "1:1", "3:2", "2:3", "4:3", "3:4", "16:9", "9:16", "5:4", "4:5", "21:9", "1:4", "4:1", "1:8", "8:1",
)  # fmt: skip
_OFFICIAL_RATIOS = tuple(ratio for ratio in _ALL_RATIOS if ratio not in ("1:4", "1:8"))


@dataclass(frozen=True, slots=True)
class Model:
    """One sellable model: where its fields go and what they may hold.

    :param dialect: ``guide`` reads top-level ``resolution`` and ``reference_images``; ``reference`` reads
        ``metadata.resolution`` and ``image_urls``. What stands in the other place is ignored, without a word.
    """

    dialect: Literal["guide", "reference"]
    ratios: tuple[str, ...]
    resolutions: tuple[str, ...]
    max_count: int = 10


_OFFICIAL = Model("reference", _OFFICIAL_RATIOS, ("1K", "2K", "4K"), max_count=1)
_STANDARD = Model("reference", _ALL_RATIOS, ("0.5K", "1K", "2K", "4K"))

MODELS: dict[str, Model] = {
    "nano_banana_2": Model("guide", _GUIDE_RATIOS, ("1K", "2K", "4K")),
    "gemini-3.1-flash-image-preview": _STANDARD,
    "gemini-3.1-flash-image-preview-vip": _STANDARD,
    "gemini-3.1-flash-image-preview-official": _OFFICIAL,
    "gemini-3.1-flash-image-official": _OFFICIAL,
    "nano-banana-2-official": _OFFICIAL,
    "nano-banana-2-lite-official": _OFFICIAL,
}
TEXT_MODELS = ("gpt-5", "claude-sonnet-4-6", "gemini-3-pro-preview")

CREDITS = {"0.5K": 4, "1K": 5, "2K": 6, "4K": 8}

# 4K is twice 2K and 2K twice 1K for every ratio; 0.5K is not exactly half, so it has a column of its own.
_PIXELS_1K = {
    "1:1": (1024, 1024), "3:2": (1264, 848), "4:3": (1200, 896), "5:4": (1152, 928), "16:9": (1376, 768),
    "21:9": (1584, 672), "4:1": (2048, 512), "8:1": (3072, 384),
}  # fmt: skip
_PIXELS_HALF_K = {
    "1:1": (512, 512), "3:2": (632, 424), "4:3": (600, 448), "5:4": (576, 464), "16:9": (688, 384),
    "21:9": (792, 168), "4:1": (1024, 256), "8:1": (1536, 192),
}  # fmt: skip
_SCALE = {"1K": 1, "2K": 2, "4K": 4}


def pixel_size(ratio: str, resolution: str) -> tuple[int, int]:
    """Return width and height in pixels of a ratio at a resolution.

    :raises KeyError: The ratio or the resolution is unknown.
    """
    across, _, down = ratio.partition(":")
    upright = int(across) < int(down)
    landscape = f"{down}:{across}" if upright else ratio
    if resolution == "0.5K":
        width, height = _PIXELS_HALF_K[landscape]
    else:
        width, height = (side * _SCALE[resolution] for side in _PIXELS_1K[landscape])
    return (height, width) if upright else (width, height)


def usd(credits: float) -> str:
    """Return credits as USD in the decimal text the service uses, such as ``0.025``."""
    return f"{credits / CREDITS_PER_USD:.3f}"
