"""Result images: the prompt on a gradient whose colours come from the prompt, and a caption that says what was asked.

:class:`ImageCache` draws them in a thread of its own; equal specs give equal bytes on one machine.
"""

from __future__ import annotations

import asyncio
import colorsys
import hashlib
import io
import math
import random
import struct
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from airflow_provider_nanobanana.emulator.catalogue import ImageFormat

_WHITE = (255, 255, 255)
_CAPTION_PAPER = (22, 22, 34)
_CAPTION_INK = (214, 214, 224)
_LONGEST_PROMPT = 1200  # characters; more would be too small to read
_SMALLEST_FONT = 8
_LETTER_WIDTH = 0.55  # of the font size, on average
_MESH = (4, 3)
_SAVE_OPTIONS: dict[ImageFormat, dict[str, int]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 88},
    "WEBP": {"quality": 85, "method": 1},
}
_CACHED_IMAGES = 32


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What one image shows.

    :param prompt: Written as large as it fits; it also decides the colours, together with ``index``.
    :param caption: Lines at the bottom of the image.
    :param width: In pixels.
    :param height: In pixels.
    :param index: Place among the images of one image task.
    """

    prompt: str
    caption: str
    width: int
    height: int
    format: ImageFormat = "PNG"
    index: int = 0


class ImageCache:
    """The newest images, drawn one at a time.

    One thread, because a 4K image takes some 150 MB while it is drawn, and because every further thread keeps the
    event loop waiting for the interpreter's lock.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-images")
        self._render = lru_cache(maxsize=_CACHED_IMAGES)(render)

    async def get(self, spec: ImageSpec) -> bytes:
        """Return the encoded image."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._render, spec)

    def close(self) -> None:
        """Stop the drawing thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def render(spec: ImageSpec) -> bytes:
    """Draw and encode an image."""
    image = _background(spec)
    canvas = ImageDraw.Draw(image)
    caption_height = _draw_caption(canvas, spec)
    _draw_prompt(canvas, spec.prompt, spec.width, spec.height - caption_height)
    out = io.BytesIO()
    image.save(out, spec.format, **_SAVE_OPTIONS[spec.format])
    return out.getvalue()


def _background(spec: ImageSpec) -> Image.Image:
    """Blow up a handful of related colours to a smooth gradient."""
    rng = random.Random(hashlib.sha256(f"{spec.prompt}|{spec.index}".encode("utf-8", "replace")).digest())
    hue = rng.random()
    mesh = Image.new("RGB", _MESH)
    for column in range(_MESH[0]):
        for row in range(_MESH[1]):
            tint = (hue + 0.06 * (column + row) + rng.uniform(-0.05, 0.05)) % 1
            lightness = 0.42 - 0.08 * row + rng.uniform(-0.05, 0.05)
            red, green, blue = colorsys.hls_to_rgb(tint, lightness, 0.55)
            mesh.putpixel((column, row), (int(red * 255), int(green * 255), int(blue * 255)))
    # Smooth at an eighth, then plain repetition: a step of one shade is invisible, and PNG packs it far faster.
    small = mesh.resize((max(1, spec.width // 8), max(1, spec.height // 8)), Image.Resampling.BICUBIC)
    return small.resize((spec.width, spec.height), Image.Resampling.NEAREST)


def _draw_caption(canvas: ImageDraw.ImageDraw, spec: ImageSpec) -> int:
    """Write the caption on a dark strip at the bottom; return the strip's height in pixels."""
    wanted = max(_SMALLEST_FONT, round(math.sqrt(spec.width * spec.height) * 0.022))
    length = canvas.multiline_textbbox((0, 0), spec.caption, font=ImageFont.load_default(wanted))[2]
    size = max(_SMALLEST_FONT, int(wanted * min(1.0, spec.width * 0.9 / length)))
    height = round(size * (1.4 * (spec.caption.count("\n") + 1) + 1))
    middle = (spec.width / 2, spec.height - height / 2)
    canvas.rectangle((0, spec.height - height, spec.width, spec.height), fill=_CAPTION_PAPER)
    font = ImageFont.load_default(size)
    canvas.multiline_text(middle, spec.caption, _CAPTION_INK, font, anchor="mm", align="center", spacing=size * 0.4)
    return height


def _draw_prompt(canvas: ImageDraw.ImageDraw, prompt: str, width: int, height: int) -> None:
    """Write the prompt as large as it fits, in the middle of the free area; what still does not fit is cut off."""
    text = " ".join(prompt.encode("utf-8", "replace").decode().split())[:_LONGEST_PROMPT]
    room = (width * 0.88, height * 0.84)
    area = room[0] * room[1]
    size = round(min(math.sqrt(area / (0.7 * max(1, len(text)))), 0.13 * math.sqrt(area)))
    while True:
        size = max(_SMALLEST_FONT, size)
        lines = textwrap.fill(text, max(1, int(room[0] / (size * _LETTER_WIDTH))))
        font = ImageFont.load_default(size)
        box = canvas.multiline_textbbox((0, 0), lines, font, spacing=size * 0.3)
        if (box[2] <= room[0] and box[3] <= room[1]) or size == _SMALLEST_FONT:
            break
        size = int(size * 0.93)
    middle = (width / 2, height / 2)
    canvas.multiline_text(middle, lines, _WHITE, font, anchor="mm", align="center", spacing=size * 0.3)


def png_claiming(width: int, height: int) -> bytes:
    """Return a well-formed PNG of one pixel whose header claims another size."""
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "PNG")
    content = bytearray(out.getvalue())
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]  # what follows the size stays
    content[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(content)
