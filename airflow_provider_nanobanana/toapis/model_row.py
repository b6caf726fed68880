"""``ModelRow``: what is known of one model at the gateway, as data, and ``Dialect``: how its requests are written.

The rows of the models that are documented are in ``catalogue``; a user adds rows of their own, or changes what a row
says, in the connection's extra ``models``, without a release. A row is checked when it is read; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")
#: The most reference images that any documented model takes (``gpt-image-2-official``, docs.toapis.com, read 2026-08).
MAX_REFERENCE_IMAGES: Final = 16
#: No image costs as much; what is far above is a slip of the pen.
MOST_USD: Final = 1000
#: A field of the body, or one of an object in it.
_PLACE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63})?")
#: Fields that are written the same way for every model.
_TAKEN: Final = ("model", "prompt", "size", "n", "response_format", "client_business_id", "callback_url")
_RATIO: Final = re.compile(r"[1-9][0-9]{0,3}:[1-9][0-9]{0,3}")
_PIXELS: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
#: What a request has that says no size or no resolution. A task's argument has them, too, so that nobody can tell
#: whether they were said.
UNSAID_SIZE: Final = "1:1"
UNSAID_RESOLUTION: Final = "1K"
#: Where some documented dialect puts reference images: ``extra_body`` may hold them at any of these.
_REFERENCE_FIELDS: Final = ("reference_images", "image_urls")

ImageFormat = Literal["jpeg", "png", "webp"]
Pixels = tuple[int, int]


class Dialect(BaseModel):
    """How the requests of a model are written; ``model``, ``prompt`` and ``size`` are the same for all.

    :param resolution: Where the resolution goes: a field, or a field of an object (``metadata.resolution``); None for a
        model that takes none.
    :param resolution_case: ``upper`` for ``2K``, ``lower`` for ``2k``.
    :param references: Where the links of reference images go, as for ``resolution``.
    :param reference_items: ``text`` for a list of links, ``object`` for a list of ``{"url": ...}``.
    :param response_format: ``always`` where the documented sample sends it, ``asked`` where only ``b64_json`` is sent.
    """

    model_config = _FROZEN

    resolution: str | None = "resolution"
    resolution_case: Literal["upper", "lower"] = "upper"
    references: str = "reference_images"
    reference_items: Literal["text", "object"] = "text"
    response_format: Literal["always", "asked"] = "asked"

    @field_validator("resolution", "references")
    @classmethod
    def _a_place(cls, place: str | None) -> str | None:
        if place is not None and (not _PLACE.fullmatch(place) or place.partition(".")[0] in _TAKEN):
            raise ValueError(
                f"{place!r:.80} is no place of its own in a request; use a field such as 'resolution', or one of an "
                "object such as 'metadata.resolution'"
            )
        return place

    @model_validator(mode="after")
    def _apart(self) -> Dialect:
        first, second = f"{self.resolution}.", f"{self.references}."
        if self.resolution is not None and (first.startswith(second) or second.startswith(first)):
            raise ValueError("resolution and references share a place; give each its own")
        return self

    def write(self, body: dict[str, Any], resolution: str, references: tuple[str, ...], response_format: str) -> None:
        """Add to the body of a submit what is written differently from model to model."""
        if self.resolution is not None:
            _put(body, self.resolution, resolution.lower() if self.resolution_case == "lower" else resolution)
        if references:
            as_objects = self.reference_items == "object"
            _put(body, self.references, [{"url": link} if as_objects else link for link in references])
        if self.response_format == "always" or response_format != "url":
            body["response_format"] = response_format

    def read_resolution(self, body: Mapping[str, Any]) -> str | None:
        """Return the resolution that a body holds, spelled as in a request; None where it holds none."""
        metadata = body.get("metadata")
        inner = metadata.get("resolution") if isinstance(metadata, Mapping) else None
        said = body.get("resolution", inner)
        if said is None and self.resolution is not None:
            said = _get(body, self.resolution)
        if said is None:
            return None
        return str(said).upper() if self.resolution_case == "lower" else str(said)

    def count_references(self, body: Mapping[str, Any]) -> int:
        """Return how many reference images a body holds, wherever ``extra_body`` put them."""
        held = (_get(body, place) for place in {*_REFERENCE_FIELDS, self.references})
        return sum(len(links) if isinstance(links, list) else 1 for links in held if links)


#: Dialects by a name of their own, for the rows; what each is documented for: ``docs/toapis.md``, "Models and sizes".
DIALECTS: Final[Mapping[str, Dialect]] = {
    "guide": Dialect(response_format="always"),
    "reference": Dialect(resolution="metadata.resolution", references="image_urls"),
    "gpt-image-2": Dialect(resolution_case="lower", response_format="always"),
    "gpt-image-2.5": Dialect(),
    "qwen-image": Dialect(references="image_urls"),
    "flux-kontext": Dialect(resolution=None, references="image_urls"),
}


class ModelRow(BaseModel):
    """What is known of one model; a user's row gives at least its dialect.

    :param dialect: One of :data:`DIALECTS` by name, or a mapping of the fields of :class:`Dialect`.
    :param sizes: The values of ``size``, ratios and words; None where any is sent and the service decides.
    :param pixel_sizes: Whether ``size`` may be pixels, too, such as ``1536x1024``.
    :param resolutions: The values of ``resolution``; None where any is sent, empty where the model takes none. The
        first is sent for a request that says none, where 1K is not among them.
    :param pixels: Width and height by size and resolution, where they are known; only those are compared with images.
    :param max_references: The most reference images.
    :param warn_references: Above so many a warning is logged, since sources differ; None for none.
    :param reference_formats: What reference images may be.
    :param files: The most files that one image task brings, layers included; more are landed all the same, and told.
    :param prices: USD an image, by resolution or for all; empty where none is known.
    :param reference_price: USD for each reference image that is not free; None where it is billed, and not known.
    :param free_references: How many reference images cost nothing.
    :param source: Where that was read.
    :param read: When, as ``2026-08`` or ``2026-08-20``.
    """

    model_config = _FROZEN

    dialect: Dialect
    sizes: tuple[str, ...] | None = None
    pixel_sizes: bool = False
    resolutions: tuple[str, ...] | None = None
    pixels: Mapping[str, Mapping[str, Pixels]] = Field(default_factory=dict)
    max_references: int = Field(default=14, ge=0, le=MAX_REFERENCE_IMAGES)
    warn_references: int | None = Field(default=None, ge=0)
    reference_formats: tuple[ImageFormat, ...] = ("jpeg", "png", "webp")
    files: int = Field(default=1, ge=1, le=16)
    prices: float | Mapping[str, float] = Field(default_factory=dict)
    reference_price: float | None = 0.0
    free_references: int = Field(default=0, ge=0)
    source: str = ""
    read: str = ""

    @field_validator("dialect", mode="before")
    @classmethod
    def _by_name(cls, dialect: Any) -> Any:
        if not isinstance(dialect, str):
            return dialect
        if dialect not in DIALECTS:
            raise ValueError(f"{dialect!r:.80} is no dialect; {dialect_choices()}")
        return DIALECTS[dialect]

    @field_validator("sizes", "resolutions", "reference_formats", mode="before")
    @classmethod
    def _no_single_text(cls, values: Any) -> Any:
        if isinstance(values, str):
            raise ValueError("is one text; give a list")
        return values

    @field_validator("pixels", mode="before")
    @classmethod
    def _from_texts(cls, pixels: Any) -> Any:
        if not isinstance(pixels, Mapping) or not all(isinstance(of_size, Mapping) for of_size in pixels.values()):
            return pixels
        return {size: {name: _as_pixels(given) for name, given in table.items()} for size, table in pixels.items()}

    @field_validator("pixels")
    @classmethod
    def _real_pixels(cls, pixels: Mapping[str, Mapping[str, Pixels]]) -> Mapping[str, Mapping[str, Pixels]]:
        if not all(0 < side < 100_000 for table in pixels.values() for sides in table.values() for side in sides):
            raise ValueError('holds a size that is none; use a form like {"16:9": {"1K": "1376x768"}}')
        return pixels

    @field_validator("prices", "reference_price")
    @classmethod
    def _real_prices(cls, prices: Any) -> Any:
        every = prices.values() if isinstance(prices, Mapping) else () if prices is None else (prices,)
        if not all(0 <= price <= MOST_USD for price in every):
            raise ValueError(f"holds a price that is none (0 to {MOST_USD} USD)")
        return prices

    @model_validator(mode="after")
    def _says_one_thing_of_resolutions(self) -> ModelRow:
        takes_none = self.dialect.resolution is None
        if self.resolutions is not None and takes_none == bool(self.resolutions):
            raise ValueError(
                "resolutions and dialect contradict each other: a model that takes none has resolutions [] and a "
                "dialect with resolution null"
            )
        return self

    @property
    def ratios(self) -> tuple[str, ...]:
        """The sizes that are ratios."""
        return tuple(size for size in self.sizes or () if _RATIO.fullmatch(size))

    def faults(self, model_id: str, size: str | None, resolution: str | None, references: int) -> list[str]:
        """Return why this model cannot make such an image, with what is allowed; None is not judged."""
        faults = []
        if size is not None and self.sizes is not None and not self._takes_size(size):
            allowed = ", ".join((*self.sizes, *(("pixels such as 1536x1024",) if self.pixel_sizes else ())))
            what = "ratio" if self.ratios == self.sizes and not self.pixel_sizes else "size"
            unsaid = " (the default)" if size == UNSAID_SIZE else ""
            faults.append(f"size {size!r:.40}{unsaid} is no {what} of {model_id}; allowed: {allowed}")
        if resolution is not None and not self._takes_resolution(resolution):
            allowed = ", ".join(self.resolutions or ()) or "none, leave it out"
            faults.append(f"resolution {resolution!r:.40} is not offered by {model_id}; allowed: {allowed}")
        if faults:
            # It may have been sent before there were rows, and with another request everything is bought again.
            faults[-1] += '. Keep what was made of it before: docs/requests.md, "A model of your own"'
        if references > self.max_references:
            faults.append(
                f"reference_images has {references} entries; at most {self.max_references} are taken by {model_id}"
            )
        return faults

    def _takes_size(self, size: str) -> bool:
        return size in (self.sizes or ()) or (self.pixel_sizes and _PIXELS.fullmatch(size) is not None)

    def _takes_resolution(self, resolution: str) -> bool:
        if resolution == UNSAID_RESOLUTION:
            return True
        return self.dialect.resolution is not None and (self.resolutions is None or resolution in self.resolutions)

    def sent_resolution(self, resolution: str) -> str:
        """Return the resolution that is sent: the model's first one where none was said and it has no 1K.

        The request stays what it is, and so does what was bought for it.
        """
        if resolution == UNSAID_RESOLUTION and self.resolutions and resolution not in self.resolutions:
            return self.resolutions[0]
        return resolution

    def pixel_size(self, size: str, resolution: str) -> Pixels | None:
        """Return the pixels (width, height) of a size at a resolution, or None where they are not known."""
        if self.pixel_sizes and (sides := _PIXELS.fullmatch(size)):
            return int(sides[1]), int(sides[2])
        return self.pixels.get(size, {}).get(resolution)

    def resolution_of(self, width: int, height: int) -> str | None:
        """Return the resolution that gives images of so many pixels, or None where none is known to."""
        found = (name for table in self.pixels.values() for name, pixels in table.items() if pixels == (width, height))
        return next(found, None)

    def price(self, resolution: str) -> float | None:
        """Return the list price of an image in USD, without its reference images; None where none is known."""
        return self.prices.get(resolution) if isinstance(self.prices, Mapping) else self.prices

    def billed_references(self, references: int) -> int:
        """Return how many of so many reference images are billed."""
        return 0 if self.reference_price == 0 else max(0, references - self.free_references)


def dialect_choices() -> str:
    """Return in words what a row's ``dialect`` may be."""
    return f"use one of {', '.join(DIALECTS)}, or a mapping of {', '.join(Dialect.model_fields)}"


def _as_pixels(given: Any) -> Any:
    sides = _PIXELS.fullmatch(given) if isinstance(given, str) else None
    return (int(sides[1]), int(sides[2])) if sides else given


def _put(body: dict[str, Any], place: str, value: Any) -> None:
    outer, _, inner = place.partition(".")
    if inner:
        body.setdefault(outer, {})[inner] = value
    else:
        body[outer] = value


def _get(body: Mapping[str, Any], place: str) -> Any:
    outer, _, inner = place.partition(".")
    value = body.get(outer)
    if not inner:
        return value
    return value.get(inner) if isinstance(value, Mapping) else None
