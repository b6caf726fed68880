"""The models that are known: one row each, with the source and the day it was read. Data, not code.

Models and prices rot: a connection's own rows (extra ``models``) come before these. A model without a row is refused
before money, since how its requests are written would be a guess. What the sources say, and where they contradict each
other: ``docs/toapis.md``, "Models and sizes".
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_nanobanana.toapis.model_row import DIALECTS, ModelRow, Pixels, dialect_choices

DEFAULT_MODEL: Final = "nano_banana_2"

#: A connection's own prices: by resolution, for whatever model is asked for, or by model and resolution.
Prices = Mapping[str, float | Mapping[str, float]]
#: A connection's own rows.
Rows = Mapping[str, ModelRow]
_NO_ROWS: Final[Rows] = {}

# --- sizes -----------------------------------------------------------------------------------------------------------

#: Ratios of the model guide "nano_banana_2" (toapis.com/en/model-guide/nano_banana_2, read 2026-08).
GUIDE_RATIOS: Final = ("1:1", "16:9", "9:16", "4:3", "3:4")
#: The 14 ratios of the API reference "gemini-3.1-flash" (docs.toapis.com, read 2026-08).
REFERENCE_RATIOS: Final = (
    *("1:1", "3:2", "2:3", "4:3", "3:4", "16:9", "9:16"),
    *("5:4", "4:5", "21:9", "1:4", "4:1", "1:8", "8:1"),
)
_OFFICIAL_RATIOS: Final = tuple(ratio for ratio in REFERENCE_RATIOS if ratio not in ("1:4", "1:8"))
_PHOTO_RATIOS: Final = ("1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3")
_SEEDREAM_RATIOS: Final = (*_PHOTO_RATIOS, "21:9", "9:21")
_GPT_RATIOS: Final = (
    *("1:1", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5"),
    *("16:9", "9:16", "2:1", "1:2", "21:9", "9:21"),
)


def _both_ways(wide: Mapping[str, Mapping[str, Pixels]]) -> dict[str, dict[str, Pixels]]:
    """Return a table of wide sizes with their tall ones, which are the same turned."""
    tall = {
        ":".join(reversed(ratio.split(":"))): {name: (height, width) for name, (width, height) in sizes.items()}
        for ratio, sizes in wide.items()
    }
    return {ratio: dict(sizes) for ratio, sizes in {**tall, **wide}.items()}


def _without(pixels: Mapping[str, Mapping[str, Pixels]], *names: str) -> dict[str, dict[str, Pixels]]:
    return {
        ratio: {name: sides for name, sides in sizes.items() if name not in names} for ratio, sizes in pixels.items()
    }


def _of(ratios: tuple[str, ...], pixels: Mapping[str, Mapping[str, Pixels]]) -> dict[str, Mapping[str, Pixels]]:
    return {ratio: pixels[ratio] for ratio in ratios if ratio in pixels}


#: Source: Google's table of output sizes (ai.google.dev/gemini-api/docs/image-generation, read 2026-11), but for 21:9
#: at 0.5K, where it prints 792x168, which is no 21:9.
_GEMINI_3: Final = _both_ways(
    {
        "1:1": {"0.5K": (512, 512), "1K": (1024, 1024), "2K": (2048, 2048), "4K": (4096, 4096)},
        "3:2": {"0.5K": (632, 424), "1K": (1264, 848), "2K": (2528, 1696), "4K": (5056, 3392)},
        "4:3": {"0.5K": (600, 448), "1K": (1200, 896), "2K": (2400, 1792), "4K": (4800, 3584)},
        "5:4": {"0.5K": (576, 464), "1K": (1152, 928), "2K": (2304, 1856), "4K": (4608, 3712)},
        "16:9": {"0.5K": (688, 384), "1K": (1376, 768), "2K": (2752, 1536), "4K": (5504, 3072)},
        "21:9": {"0.5K": (792, 336), "1K": (1584, 672), "2K": (3168, 1344), "4K": (6336, 2688)},
        "4:1": {"0.5K": (1024, 256), "1K": (2048, 512), "2K": (4096, 1024), "4K": (8192, 2048)},
        "8:1": {"0.5K": (1536, 192), "1K": (3072, 384), "2K": (6144, 768), "4K": (12288, 1536)},
    }
)
_GEMINI_3_FROM_1K: Final = _without(_GEMINI_3, "0.5K")
#: The size reference of the page "gpt-image-2".
_GPT_IMAGE_2: Final = _both_ways(
    {
        "1:1": {"1K": (1024, 1024), "2K": (2048, 2048), "4K": (2880, 2880)},
        "3:2": {"1K": (1536, 1024), "2K": (2048, 1360), "4K": (3520, 2336)},
        "4:3": {"1K": (1024, 768), "2K": (2048, 1536), "4K": (3312, 2480)},
        "5:4": {"1K": (1280, 1024), "2K": (2560, 2048), "4K": (3216, 2576)},
        "16:9": {"1K": (1536, 864), "2K": (2048, 1152), "4K": (3840, 2160)},
        "2:1": {"1K": (2048, 1024), "2K": (2688, 1344), "4K": (3840, 1920)},
        "21:9": {"1K": (2016, 864), "2K": (2688, 1152), "4K": (3840, 1648)},
    }
)
#: What the pages of Seedream print; other ratios are not in them.
_SEEDREAM_4: Final[Mapping[str, Mapping[str, Pixels]]] = {
    "1:1": {"1K": (1024, 1024), "2K": (2048, 2048), "4K": (4096, 4096)},
    "16:9": {"1K": (1280, 720), "2K": (2560, 1440), "4K": (5404, 3040)},
}
_SEEDREAM_5: Final[Mapping[str, Mapping[str, Pixels]]] = {
    "1:1": {"2K": (2048, 2048), "3K": (3072, 3072)},
    "16:9": {"2K": (2848, 1600), "3K": (4096, 2304)},
}
#: The page prints 1365, 1820, 2730 and 3640 pixels for the other ratios: a calculation, which no image need keep to.
_FLUX_2: Final = _both_ways(
    {
        "1:1": {"1K": (1024, 1024), "2K": (2048, 2048)},
        "3:2": {"1K": (1536, 1024), "2K": (3072, 2048)},
    }
)

# --- prices ----------------------------------------------------------------------------------------------------------

#: USD per image of Nano Banana 2 at ToAPIs by resolution (model guide, read 2026-08). 0.5K has no published price.
#: Accounts differ: an estimate. Newer docs call the model by its Gemini id; no other tier has a known price.
LIST_PRICES: Final[Mapping[str, float]] = {"1K": 0.025, "2K": 0.030, "4K": 0.040}
_GPT_IMAGE_2_5_PRICES: Final[Mapping[str, float]] = {"1K": 0.015, "2K": 0.020, "4K": 0.025}

# --- rows ------------------------------------------------------------------------------------------------------------

_PAGES: Final = "docs.toapis.com/docs/en/api-reference/images"
_GUIDE: Final = "toapis.com/en/model-guide/nano_banana_2"
#: Newer pages of the same documentation, of which other projects hold copies.
_NEWER: Final = "docs.toapis.com (copies of newer pages)"
_FROM_1K: Final = ("1K", "2K", "4K")


def _row(dialect: str, source: str, read: str, **facts: Any) -> ModelRow:
    return ModelRow(dialect=DIALECTS[dialect], source=source, read=read, **facts)


_NANO_BANANA_2: Final = _row(
    *("guide", _GUIDE, "2026-08"),
    sizes=GUIDE_RATIOS,
    resolutions=_FROM_1K,
    pixels=_of(GUIDE_RATIOS, _GEMINI_3_FROM_1K),
    warn_references=6,
    prices=LIST_PRICES,
)
_STANDARD: Final = _row(
    *("reference", f"{_PAGES}/gemini-3.1-flash", "2026-08"),
    sizes=REFERENCE_RATIOS,
    resolutions=("0.5K", *_FROM_1K),
    pixels=_of(REFERENCE_RATIOS, _GEMINI_3),
    warn_references=6,
    prices=LIST_PRICES,
)
_OFFICIAL: Final = _row(
    *("reference", f"{_PAGES}/gemini-3.1-flash-official", "2026-08"),
    sizes=_OFFICIAL_RATIOS,
    resolutions=_FROM_1K,
    pixels=_of(_OFFICIAL_RATIOS, _GEMINI_3_FROM_1K),
)
_PRO_RATIOS: Final = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_PRO: Final = _row(
    *("reference", f"{_PAGES}/gemini-3-pro-image", "2026-08"),
    sizes=_PRO_RATIOS,
    resolutions=_FROM_1K,
    pixels=_of(_PRO_RATIOS, _GEMINI_3_FROM_1K),
)
#: Its page and Google's own print different pixels for all sizes but the square.
_FLASH_2_5: Final = _row(
    *("reference", f"{_PAGES}/gemini-2.5-flash", "2026-08"),
    sizes=_PHOTO_RATIOS,
    resolutions=("1K",),
    pixels={"1:1": {"1K": (1024, 1024)}},
)
_GPT_2: Final = _row(
    *("gpt-image-2", f"{_PAGES}/gpt-image-2", "2026-08"),
    sizes=_GPT_RATIOS,
    resolutions=_FROM_1K,
    pixels=_GPT_IMAGE_2,
)
#: Of its pixel table one entry is known; ratios and the most references are not.
_GPT_2_5: Final = _row(
    *("gpt-image-2.5", _NEWER, "2026-09-09"),
    resolutions=_FROM_1K,
    pixels={"1:1": {"4K": (2880, 2880)}},
    prices=_GPT_IMAGE_2_5_PRICES,
)
_SEEDREAM_4_0: Final = _row(
    *("reference", f"{_PAGES}/seedream-4.0", "2026-08"),
    sizes=(*_SEEDREAM_RATIOS, "auto"),
    resolutions=_FROM_1K,
    pixels=_SEEDREAM_4,
    max_references=10,
    reference_formats=("jpeg", "png"),
)
_SEEDREAM_4_5: Final = _SEEDREAM_4_0.model_copy(
    update={
        "source": f"{_PAGES}/seedream-4.5",
        "sizes": _SEEDREAM_RATIOS,
        "resolutions": ("2K", "4K"),
        "pixels": _without(_SEEDREAM_4, "1K"),
    }
)
_SEEDREAM_5_0: Final = _SEEDREAM_4_5.model_copy(
    update={"source": f"{_PAGES}/seedream-5.0", "resolutions": ("2K", "3K"), "pixels": _SEEDREAM_5}
)
#: With ``layer_decomposition`` it brings a picture and its layers. All reference images but the first are billed.
_SEEDREAM_5_0_PRO: Final = _SEEDREAM_4_5.model_copy(
    update={
        "source": f"{_PAGES}/seedream-5.0-pro",
        "resolutions": ("1K", "2K"),
        "pixels": {},
        "files": 16,
        "reference_price": None,
        "free_references": 1,
    }
)
_QWEN: Final = _row(
    *("qwen-image", _NEWER, "2026-11-26"),
    max_references=3,
    prices=0.03,
    reference_price=0.003,
)
_FLUX: Final = _row(
    *("reference", f"{_PAGES}/flux-2", "2026-08"),
    sizes=_PHOTO_RATIOS,
    resolutions=("1K", "2K"),
    pixels=_FLUX_2,
    max_references=8,
)
_KONTEXT: Final = _row(
    *("flux-kontext", f"{_PAGES}/flux-kontext", "2026-08"),
    sizes=(*_SEEDREAM_RATIOS, "match_input_image"),
    resolutions=(),
    max_references=1,
)

MODELS: Final[Mapping[str, ModelRow]] = {
    "nano_banana_2": _NANO_BANANA_2,
    "nano-banana-2": _NANO_BANANA_2.model_copy(update={"source": "toapis.com/zh-TW/model-guide/nano-banana-2"}),
    "gemini-3.1-flash-image-preview": _STANDARD,
    "gemini-3.1-flash-image-preview-vip": _STANDARD.model_copy(
        update={"source": _NEWER, "read": "2026-11-26", "warn_references": None, "prices": {}}
    ),
    "gemini-3.1-flash-image-preview-official": _OFFICIAL,
    "gemini-3.1-flash-image-official": _OFFICIAL,
    "nano-banana-2-official": _OFFICIAL,
    "nano-banana-2-lite-official": _OFFICIAL,
    "gemini-3-pro-image-preview": _PRO,
    "nano-banana-pro": _PRO,
    "gemini-2.5-flash-image-preview": _FLASH_2_5,
    "nano-banana": _FLASH_2_5,
    "gpt-image-2": _GPT_2,
    "gpt-image-2-vip": _GPT_2.model_copy(update={"source": f"{_PAGES}/gpt-image-2-vip", "pixel_sizes": True}),
    "gpt-image-2.5-flare": _GPT_2_5,
    "gpt-image-2.5-sunburst": _GPT_2_5,
    "doubao-seedream-4-0": _SEEDREAM_4_0,
    "doubao-seedream-4-5": _SEEDREAM_4_5,
    "doubao-seedream-4.5": _SEEDREAM_4_5.model_copy(update={"source": _NEWER, "read": "2026-11-26"}),
    "doubao-seedream-5-0": _SEEDREAM_5_0,
    "doubao-seedream-5-0-pro": _SEEDREAM_5_0_PRO,
    "qwen-image-3.0": _QWEN,
    "qwen-image-3.0-pro": _QWEN,
    "flux-2-flex": _FLUX,
    "flux-2-pro": _FLUX,
    "flux-kontext": _KONTEXT.model_copy(update={"source": _NEWER, "read": "2026-11-26"}),
    "flux-kontext-pro": _KONTEXT,
    "flux-kontext-max": _KONTEXT,
}


def row_for(model_id: str, own: Rows | None = None) -> ModelRow | None:
    """Return what is known of a model id, a connection's own row first; None where there is none."""
    return (own or _NO_ROWS).get(model_id) or MODELS.get(model_id)


def no_row(model_id: str, own: Rows | None = None) -> str:
    """Return in words that a model has no row, and how to give it one."""
    known = difflib.get_close_matches(model_id, [*(own or _NO_ROWS), *MODELS], n=2)
    near = f" Did you mean {' or '.join(known)}?" if known else ""
    # Without blanks: lines of a log are broken at those.
    example = json.dumps({"models": {model_id[:60]: {"dialect": "reference"}}}, separators=(",", ":"))
    return (
        f"how to write a request for model {model_id!r:.60} is not known, and is not guessed.{near} Say it in the "
        f"connection's extra: {example} (docs/requests.md). Dialects: {', '.join(DIALECTS)}"
    )


def merged_rows(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection's rows with what they leave out of models that are known; each is then to be validated.

    :raises ValueError: A row is no mapping, or one of an unknown model has no dialect.
    """
    return {model_id: _merged(model_id, row) for model_id, row in given.items()}


def _merged(model_id: str, row: Any) -> Any:
    if isinstance(row, ModelRow):
        return row
    if not isinstance(row, Mapping):
        raise ValueError(f'{model_id!r:.60} is no row; use a form like {{"my-model": {{"dialect": "reference"}}}}')
    known = MODELS.get(model_id)
    if known is None and "dialect" not in row:
        raise ValueError(f"{model_id!r:.60} is not known, so its row needs a dialect; {dialect_choices()}")
    return {**({} if known is None else dict(known)), **row}


def list_price(
    model_id: str,
    resolution: str,
    overrides: Prices | None = None,
    *,
    own: Rows | None = None,
    references: int = 0,
) -> float | None:
    """Return the list price in USD of one image, or None where none is known: no model is priced like another.

    :param overrides: The connection's own ``prices``, without reference images: those of the model come first, then
        those of the resolution.
    :param own: The connection's own rows.
    :param references: How many reference images the request has.
    """
    row = row_for(model_id, own)
    price = _price_of_image(model_id, resolution, overrides or {}, row)
    billed = 0 if row is None else row.billed_references(references)
    if price is None or not billed or row is None:
        return price
    return None if row.reference_price is None else round(price + billed * row.reference_price, 6)


def _price_of_image(model_id: str, resolution: str, overrides: Prices, row: ModelRow | None) -> float | None:
    of_model = overrides.get(model_id)
    for price in (of_model.get(resolution) if isinstance(of_model, Mapping) else None, overrides.get(resolution)):
        if isinstance(price, (int, float)):
            return price
    return None if row is None else row.price(resolution)


def resolution_of(model_id: str, width: int, height: int) -> str | None:
    """Return the resolution that gives images of so many pixels of a model, or None where none is known to."""
    row = MODELS.get(model_id)
    return None if row is None else row.resolution_of(width, height)
