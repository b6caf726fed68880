"""``SmallPicture``: a decoded picture at the size of a thumbnail; runs in the decoder's process.

It is taken from a picture while that is being checked, so that nothing is decoded twice. Nothing is caught here: what
goes wrong with it would look like a fault of the picture, so :mod:`decoder` has any fault confirmed without one.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.landing.picture_metadata import colour_profile, orientation
from airflow_provider_nanobanana.landing.picture_modes import plain_mode, screen_colours, upright

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pixels of a thumbnail's longer side.
SIDE: Final = 320
#: Bytes of a thumbnail at most; noise with transparency takes about 160 kB, a picture 12 kB.
MOST_BYTES: Final = 256 * 1024
#: WebP's quality, and the method that takes half the time of its default for 3 % more bytes.
_QUALITY: Final = 75
_METHOD: Final = 2
#: Of the wanted size, to which a picture is shrunk by whole numbers first.
_GAP: Final = 2
#: A colour profile of more bytes is left out: the profiles of screens have some hundred.
_LONGEST_PROFILE: Final = 4096
_WITH_PALETTE: Final = {"P": "RGB", "PA": "RGBA", "1": "L"}


class SmallPicture:
    """The thumbnail of one file."""

    def __init__(self) -> None:
        self._turn = 1
        self._profile: bytes | None = None
        self._image: Image | None = None

    def read_metadata(self, data: bytes) -> None:
        """Take down how the pixels of the file are meant."""
        self._turn = orientation(data)
        self._profile = colour_profile(data)

    def take(self, image: Image, image_format: str) -> None:
        """Take the decoded picture at its small size; it stays as it is."""
        small = _shrunk(image)
        if small.mode == "CMYK":
            small = screen_colours(small, self._profile)
            self._profile = None
        # Pillow says the turn of an AVIF, which is no metadata there, as an orientation.
        turn = image.getexif().get(0x0112, 1) if image_format == "avif" else self._turn
        self._image = upright(plain_mode(small), turn)

    def content(self) -> bytes:
        """Return it as WebP; nothing where there is none."""
        if self._image is None:
            return b""
        buffer = io.BytesIO()
        profile = self._profile if self._profile and len(self._profile) <= _LONGEST_PROFILE else None
        options = {"icc_profile": profile} if profile else {}
        self._image.save(buffer, "webp", quality=_QUALITY, method=_METHOD, **options)
        return buffer.getvalue() if buffer.tell() <= MOST_BYTES else b""


def _shrunk(image: Image) -> Image:
    """Return the picture with at most :data:`SIDE` pixels a side, and none smaller than it was."""
    from PIL import Image as Images

    image = _blendable(image)
    factor = max(image.size) // (_GAP * SIDE)
    if factor > 1:
        image = image.reduce(factor)
    scale = min(1.0, SIDE / max(image.size))
    size = [max(1, round(side * scale)) for side in image.size]
    return image.resize(size, Images.Resampling.BILINEAR)


def _blendable(image: Image) -> Image:
    """Return the picture in a mode whose pixels can be averaged."""
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode.startswith("I;16"):
        return image.convert("I")
    mode = _WITH_PALETTE.get(image.mode)
    return image.convert(mode) if mode else image
