"""A decoded picture the right way up, in the colours of a screen, and in a mode that every format can hold."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def upright(image: Image, turn: int) -> Image:
    """Return the picture as it is meant to be seen.

    :param turn: Its EXIF orientation, 1 to 8; the picture itself is returned where that is 1.
    """
    from PIL import Image as Images

    turns = Images.Transpose
    # EXIF 2.32, 4.6.4: what has to be done to the stored rows and columns.
    how = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90,
    }.get(turn)  # fmt: skip
    return image if how is None else image.transpose(how)


def screen_colours(image: Image, profile: bytes | None) -> Image:
    """Return a picture for print in the colours of a screen, by its profile where it has a readable one."""
    if profile is not None:
        with contextlib.suppress(ImportError, OSError, ValueError, TypeError):
            from PIL import ImageCms

            with contextlib.suppress(ImageCms.PyCMSError):
                target = ImageCms.createProfile("sRGB")
                made = ImageCms.profileToProfile(image, io.BytesIO(profile), target, outputMode="RGB")
                if made is not None:
                    return made
    return image.convert("RGB")


def plain_mode(image: Image) -> Image:
    """Return the picture in a mode that each of the formats can hold."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
