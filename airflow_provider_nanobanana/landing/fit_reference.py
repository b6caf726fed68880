"""``fit_reference``: a reference image as the service can use it; runs in the decoder's process.

The service takes up to 10 MB, and says nothing of EXIF and CMYK: photos of a phone lie on their side where a reader
does not turn them, and pictures for print come out in wrong colours. Where none of that applies the bytes are sent as
they are. What is made anew, or not taken in its format, becomes one of those that the request's model takes. What a
request is, and whether it was bought before, is decided by the original content.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from airflow_provider_nanobanana.landing.image_file import (
    ImageFacts,
    announced_shape,
    detect_format,
    inspect_reference,
)
from airflow_provider_nanobanana.landing.picture_metadata import colour_profile, orientation
from airflow_provider_nanobanana.landing.picture_modes import plain_mode, screen_colours, upright
from airflow_provider_nanobanana.toapis.errors import ImageInvalid

if TYPE_CHECKING:
    from PIL.Image import Image

Change = Literal["upright", "rgb", "format", "smaller"]
CHANGES: Final[tuple[Change, ...]] = get_args(Change)

#: What a reference image may be, unless its model takes less.
FORMATS: Final = ("jpeg", "png", "webp")

#: Bytes that every reading of the service's "10 MB" allows.
MOST_BYTES: Final = 10_000_000
#: Pixels of the longer side of what is made smaller: the service itself makes no more at 4K.
MOST_SIDE: Final = 4096
_QUALITY: Final = 95
_LOWER_QUALITY: Final = 90
_SHRINK: Final = 0.7
_MOST_TRIES: Final = 8


@dataclass(frozen=True)
class FittedReference:
    """A reference image that is sent.

    :param facts: Of the content.
    :param changes: What was done; empty where the original bytes are sent.
    :param content: The new bytes; empty without changes.
    """

    facts: ImageFacts
    changes: tuple[Change, ...] = ()
    content: bytes = b""


def fit_reference(
    data: bytes, on_size: Callable[[int], None] | None = None, *, formats: Collection[str] = FORMATS
) -> FittedReference:
    """Check that the content is one complete image, and make it fit where it is not.

    :param formats: Those that its model takes; at least one.
    :param on_size: As :func:`inspect_reference` takes it; not called where the picture is made anew, which takes more.
    :raises ImageInvalid: As :func:`inspect_reference`.
    :raises MemoryError: There is too little memory.
    """
    turn = orientation(data)
    _, mode = announced_shape(data)
    too_large = len(data) > MOST_BYTES
    if turn == 1 and mode != "CMYK" and not too_large and detect_format(data) in formats:
        return FittedReference(inspect_reference(data, on_size))
    made: list[FittedReference] = []
    profile = colour_profile(data)

    def make(image: Image, image_format: str) -> None:
        made.append(_made(image, image_format, turn, profile, too_large=too_large, formats=formats))

    inspect_reference(data, use=make, most_side=MOST_SIDE if too_large else None)
    return made[-1]


def _made(
    image: Image, image_format: str, turn: int, profile: bytes | None, *, too_large: bool, formats: Collection[str]
) -> FittedReference:
    changes: list[Change] = []
    if turn != 1:
        image = upright(image, turn)
        changes.append("upright")
    if image.mode == "CMYK":
        image, profile = screen_colours(image, profile), None
        changes.append("rgb")
    image = plain_mode(image)
    options: dict[str, Any] = {"icc_profile": profile} if profile else {}
    content = b""
    if not too_large:
        if image_format not in formats:
            image_format = _first_of(("png", "webp", "jpeg") if _is_see_through(image) else ("jpeg", "png"), formats)
            changes.append("format")
        content = _encoded(image, image_format, _QUALITY, options)
    if not content or len(content) > MOST_BYTES:
        changes.append("smaller")
        image, image_format, content = _smaller(image, formats, options)
    facts = ImageFacts(image_format, *image.size)  # type: ignore[arg-type]
    return FittedReference(facts, tuple(changes), content)


def _smaller(image: Image, formats: Collection[str], options: dict[str, Any]) -> tuple[Image, str, bytes]:
    """Return the picture in at most 10 MB: JPEG, or WebP or PNG where it is see-through."""
    image_format = _first_of(("webp", "png", "jpeg") if _is_see_through(image) else ("jpeg", "webp"), formats)
    scale = min(1.0, MOST_SIDE / max(image.size))
    for _ in range(_MOST_TRIES):
        width, height = (max(1, round(side * scale)) for side in image.size)
        smaller = image if (width, height) == image.size else image.resize((width, height))
        content = _encoded(smaller, image_format, _LOWER_QUALITY, options)
        if len(content) <= MOST_BYTES:
            return smaller, image_format, content
        scale *= _SHRINK
    raise ImageInvalid("The image could not be made smaller than 10 MB")


def _is_see_through(image: Image) -> bool:
    return "A" in image.getbands()


def _first_of(preferred: tuple[str, ...], formats: Collection[str]) -> str:
    return next((one for one in (*preferred, *FORMATS) if one in formats), preferred[0])


def _encoded(image: Image, image_format: str, quality: int, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    if image_format == "jpeg" and _is_see_through(image):
        image = _on_white(image)
    # The quickest method of WebP: others took 36 s for 16 megapixels of noise, of the 40 that there are.
    lossy = {"png": {}, "jpeg": {"quality": quality}, "webp": {"quality": quality, "method": 1}}[image_format]
    image.save(buffer, image_format, **lossy, **options)
    return buffer.getvalue()


def _on_white(image: Image) -> Image:
    from PIL import Image as Images

    page = Images.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page
