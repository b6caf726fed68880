"""Models, ratios, pixel sizes and prices as the public pages give them (data, with sources).

Sources: ``docs/toapis.md``, "Models and sizes"; pixel sizes from Google's own table at
https://ai.google.dev/gemini-api/docs/image-generation#aspect_ratios_and_image_size (read 2026-11).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

ImageFormat = Literal["PNG", "JPEG", "WEBP"]
MIME_TYPES: dict[ImageFormat, str] = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

CREDITS_PER_USD = 200

_GUIDE_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4")
_ALL_RATIOS = (
    "1:1", "3:2", "2:3", "4:3", "3:4", "16:9", "9:16", "5:4", "4:5", "21:9", "1:4", "4:1", "1:8", "8:1",
)  # fmt: skip
_OFFICIAL_RATIOS = tuple(ratio for ratio in _ALL_RATIOS if ratio not in ("1:4", "1:8"))
_PRO_RATIOS = tuple(ratio for ratio in _OFFICIAL_RATIOS if ratio not in ("4:1", "8:1"))
_PHOTO_RATIOS = ("1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3")
_SEEDREAM_RATIOS = (*_PHOTO_RATIOS, "21:9", "9:21")
_GPT_RATIOS = (
    "1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "16:9", "9:16", "2:1", "1:2", "21:9", "9:21",
)  # fmt: skip
_RATIO = re.compile(r"([1-9]\d{0,2}):([1-9]\d{0,2})")
_WIDTH_HEIGHT = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")

CREDITS = {"0.5K": 4, "1K": 5, "2K": 6, "3K": 7, "4K": 8}

# 4K is twice 2K and 2K twice 1K for every ratio; 0.5K is not exactly half, so it has a column of its own.
_PIXELS_1K = {
    "1:1": (1024, 1024), "3:2": (1264, 848), "4:3": (1200, 896), "5:4": (1152, 928), "16:9": (1376, 768),
    "21:9": (1584, 672), "4:1": (2048, 512), "8:1": (3072, 384),
}  # fmt: skip
_PIXELS_HALF_K = {
    "1:1": (512, 512), "3:2": (632, 424), "4:3": (600, 448), "5:4": (576, 464), "16:9": (688, 384),
    "21:9": (792, 168), "4:1": (1024, 256), "8:1": (1536, 192),
}  # fmt: skip
_SCALE = {"0.5K": 0.5, "1K": 1, "2K": 2, "3K": 3, "4K": 4}


def pixel_size(ratio: str, resolution: str) -> tuple[int, int]:
    """Return width and height in pixels of a ratio at a resolution, as Gemini makes them.

    :raises KeyError: The ratio or the resolution is unknown.
    """
    across, _, down = ratio.partition(":")
    upright = int(across) < int(down)
    landscape = f"{down}:{across}" if upright else ratio
    if resolution == "0.5K":
        width, height = _PIXELS_HALF_K[landscape]
    else:
        scale = int(_SCALE[resolution])
        width, height = (side * scale for side in _PIXELS_1K[landscape])
    return (height, width) if upright else (width, height)


#: Sizes of other models as their pages print them, wide ones only, by resolution.
_GPT_PIXELS = {
    "1K": {"1:1": "1024x1024", "3:2": "1536x1024", "4:3": "1024x768", "5:4": "1280x1024", "16:9": "1536x864",
           "2:1": "2048x1024", "21:9": "2016x864"},
    "2K": {"1:1": "2048x2048", "3:2": "2048x1360", "4:3": "2048x1536", "5:4": "2560x2048", "16:9": "2048x1152",
           "2:1": "2688x1344", "21:9": "2688x1152"},
    "4K": {"1:1": "2880x2880", "3:2": "3520x2336", "4:3": "3312x2480", "5:4": "3216x2576", "16:9": "3840x2160",
           "2:1": "3840x1920", "21:9": "3840x1648"},
}  # fmt: skip
_SEEDREAM_4_PIXELS = {
    "1K": {"1:1": "1024x1024", "16:9": "1280x720"},
    "2K": {"1:1": "2048x2048", "16:9": "2560x1440"},
    "4K": {"1:1": "4096x4096", "16:9": "5404x3040"},
}
_SEEDREAM_5_PIXELS = {
    "2K": {"1:1": "2048x2048", "16:9": "2848x1600"},
    "3K": {"1:1": "3072x3072", "16:9": "4096x2304"},
}
_FLUX_PIXELS = {
    "1K": {"1:1": "1024x1024", "4:3": "1365x1024", "16:9": "1820x1024", "3:2": "1536x1024"},
    "2K": {"1:1": "2048x2048", "4:3": "2730x2048", "16:9": "3640x2048", "3:2": "3072x2048"},
}
_FLASH_2_5_PIXELS = {"1K": {"1:1": "1024x1024", "16:9": "1792x1024", "4:3": "1365x1024", "3:2": "1536x1024"}}


@dataclass(frozen=True, slots=True)
class Model:
    """One sellable model: where its fields go and what they may hold. What stands in another place is ignored.

    :param resolution: Where the resolution is read: ``top``, ``metadata``, or nowhere.
    :param references: The fields that reference images are read from.
    :param sizes: None takes any ratio.
    :param resolutions: As they are written in a request; empty where it takes none.
    :param default: The resolution of a request that says none.
    :param formats: Suffixes of reference images that it takes.
    :param layers: Whether it takes an image apart into several files.
    :param pixels: Width and height by resolution and wide ratio, as its page prints them; others are calculated.
    """

    resolution: Literal["top", "metadata", "nowhere"]
    references: tuple[str, ...]
    sizes: tuple[str, ...] | None
    resolutions: tuple[str, ...]
    default: str = "1K"
    max_count: int = 10
    max_references: int = 14
    formats: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    pixel_sizes: bool = False
    layers: bool = False
    credits: Mapping[str, int] = field(default_factory=lambda: CREDITS)
    reference_credits: float = 0
    free_references: int = 0
    pixels: Mapping[str, Mapping[str, str]] | None = None

    def takes_size(self, size: object) -> bool:
        """Whether ``size`` may be that."""
        if not isinstance(size, str):
            return False
        if self.pixel_sizes and _WIDTH_HEIGHT.fullmatch(size):
            return True
        return size in self.sizes if self.sizes is not None else _RATIO.fullmatch(size) is not None

    def price(self, resolution: str, count: int, references: int) -> float:
        """Return the credits that so many images with so many reference images cost."""
        each = self.credits[resolution] + self.reference_credits * max(0, references - self.free_references)
        return round(each * count, 3)

    def pixel_size(self, size: str, resolution: str) -> tuple[int, int]:
        """Return width and height of an image: as its page prints them, else calculated from the ratio."""
        if sides := _WIDTH_HEIGHT.fullmatch(size):
            return int(sides[1]), int(sides[2])
        sides = _RATIO.fullmatch(size)
        across, down = (int(sides[1]), int(sides[2])) if sides else (1, 1)
        if self.pixels is None and sides:
            return pixel_size(size, resolution)
        wide = f"{max(across, down)}:{min(across, down)}"
        printed = (self.pixels or {}).get(resolution, {}).get(wide)
        if printed:
            width, height = (int(side) for side in printed.split("x"))
        else:
            stretch = math.sqrt(max(across, down) / min(across, down))
            width, height = (round(64 * _SCALE[resolution] * part) * 16 for part in (stretch, 1 / stretch))
        return (height, width) if across < down else (width, height)


_FROM_1K = ("1K", "2K", "4K")
_GUIDE = ("reference_images",)
_REFERENCE = ("image_urls",)
_OFFICIAL = Model("metadata", _REFERENCE, _OFFICIAL_RATIOS, _FROM_1K, max_count=1)
_STANDARD = Model("metadata", _REFERENCE, _ALL_RATIOS, ("0.5K", *_FROM_1K))
_PRO = Model("metadata", _REFERENCE, _PRO_RATIOS, _FROM_1K, max_count=1)
_FLASH_2_5 = Model("metadata", _REFERENCE, _PHOTO_RATIOS, ("1K",), max_count=1, pixels=_FLASH_2_5_PIXELS)
_NANO_BANANA_2 = Model("top", _GUIDE, _GUIDE_RATIOS, _FROM_1K)
#: ``image_urls`` is the older name there, and taken for the newer one.
_GPT_2 = Model("top", (*_GUIDE, *_REFERENCE), _GPT_RATIOS, ("1k", "2k", "4k"), default="1k", pixels=_GPT_PIXELS)
_GPT_2_5 = replace(_GPT_2, sizes=None, resolutions=_FROM_1K, default="1K", credits={"1K": 3, "2K": 4, "4K": 5})
_SEEDREAM_4_0 = Model(
    "metadata",
    _REFERENCE,
    (*_SEEDREAM_RATIOS, "auto"),
    _FROM_1K,
    default="2K",
    max_count=15,
    max_references=10,
    formats=("jpg", "jpeg", "png"),
    pixels=_SEEDREAM_4_PIXELS,
)
_SEEDREAM_4_5 = replace(_SEEDREAM_4_0, sizes=_SEEDREAM_RATIOS, resolutions=("2K", "4K"))
_SEEDREAM_5 = replace(_SEEDREAM_4_5, resolutions=("2K", "3K"), pixels=_SEEDREAM_5_PIXELS)
_SEEDREAM_5_PRO = replace(
    _SEEDREAM_4_5,
    resolutions=("1K", "2K"),
    max_count=10,
    layers=True,
    reference_credits=1,
    free_references=1,
    pixels={},
)
_QWEN = Model(
    "top",
    _REFERENCE,
    None,
    _FROM_1K,
    max_references=3,
    credits=dict.fromkeys(_FROM_1K, 6),
    reference_credits=0.6,
    pixels={},
)
_FLUX = Model("metadata", _REFERENCE, _PHOTO_RATIOS, ("1K", "2K"), max_references=8, pixels=_FLUX_PIXELS)
_KONTEXT = Model(
    "nowhere", _REFERENCE, (*_SEEDREAM_RATIOS, "match_input_image"), (), max_count=1, max_references=1, pixels={}
)

MODELS: dict[str, Model] = {
    "nano_banana_2": _NANO_BANANA_2,
    "nano-banana-2": _NANO_BANANA_2,
    "gemini-3.1-flash-image-preview": _STANDARD,
    "gemini-3.1-flash-image-preview-vip": _STANDARD,
    "gemini-3.1-flash-image-preview-official": _OFFICIAL,
    "gemini-3.1-flash-image-official": _OFFICIAL,
    "nano-banana-2-official": _OFFICIAL,
    "nano-banana-2-lite-official": _OFFICIAL,
    "gemini-3-pro-image-preview": _PRO,
    "nano-banana-pro": _PRO,
    "gemini-2.5-flash-image-preview": _FLASH_2_5,
    "nano-banana": _FLASH_2_5,
    "gpt-image-2": _GPT_2,
    "gpt-image-2-vip": replace(_GPT_2, pixel_sizes=True),
    "gpt-image-2.5-flare": _GPT_2_5,
    "gpt-image-2.5-sunburst": _GPT_2_5,
    "doubao-seedream-4-0": _SEEDREAM_4_0,
    "doubao-seedream-4-5": _SEEDREAM_4_5,
    "doubao-seedream-4.5": _SEEDREAM_4_5,
    "doubao-seedream-5-0": _SEEDREAM_5,
    "doubao-seedream-5-0-pro": _SEEDREAM_5_PRO,
    "qwen-image-3.0": _QWEN,
    "qwen-image-3.0-pro": _QWEN,
    "flux-2-flex": _FLUX,
    "flux-2-pro": _FLUX,
    "flux-kontext": _KONTEXT,
    "flux-kontext-pro": _KONTEXT,
    "flux-kontext-max": _KONTEXT,
}
TEXT_MODELS = ("gpt-5", "claude-sonnet-4-6", "gemini-3-pro-preview")


def model_of(name: str) -> Model:
    """Return the model of a name; one that nobody sells is taken for the default one."""
    return MODELS.get(name, _NANO_BANANA_2)


def usd(credits: float) -> str:
    """Return credits as USD in the decimal text the service uses, such as ``0.025``."""
    return f"{credits / CREDITS_PER_USD:.3f}"
