"""Pictures that say what was asked for: a soft gradient from the prompt's hash, the prompt and a footer on it."""

from __future__ import annotations

import colorsys
import hashlib
import io
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from airflow_provider_nanobanana.emulator import png, typeface
from airflow_provider_nanobanana.emulator.faults import without_words

_INK = (255, 255, 255)
_DIMMED = [int(value * 0.45) for value in range(256)] * 3
_SHADOW = (24, 24, 40)
_LINE_HEIGHT = 1.28
_LONGEST = 1200  # characters; more would be too small to read


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """What one picture shows; equal specs give equal bytes on one machine."""

    prompt: str
    model: str
    ratio: str
    resolution: str
    width: int
    height: int
    image_task_id: str
    index: int
    format: str


def render(spec: PictureSpec) -> bytes:
    """Return the encoded picture (PNG, JPEG or WEBP)."""
    picture = _background(spec)
    canvas = ImageDraw.Draw(picture)
    foot = _footer(picture, canvas, spec)
    _prompt(canvas, without_words(spec.prompt), spec.width, spec.height - foot)
    if spec.format == "PNG":
        return png.encode(picture)
    out = io.BytesIO()
    options = {"JPEG": {"quality": 88}, "WEBP": {"quality": 85, "method": 1}}
    picture.save(out, spec.format, **options[spec.format])
    return out.getvalue()


def _background(spec: PictureSpec) -> Image.Image:
    """Return a mesh of related hues, blown up smoothly from a handful of pixels."""
    digest = hashlib.sha256(f"{spec.prompt}|{spec.index}".encode("utf-8", "replace")).digest()
    dice = random.Random(digest)
    hue, spread = dice.random(), dice.choice((-0.18, 0.10, 0.16, 0.24))
    columns, rows = _mesh(spec.width, spec.height)
    mesh = Image.new("RGB", (columns, rows))
    for place in range(columns * rows):
        row, column = divmod(place, columns)
        across = (column + row) / max(1, columns + rows - 2)
        tint = hue + spread * across + dice.uniform(-0.03, 0.03)
        shade = colorsys.hls_to_rgb(tint % 1, 0.30 + 0.22 * (1 - row / rows) + dice.uniform(-0.07, 0.07), 0.55)
        mesh.putpixel((column, row), (int(shade[0] * 255), int(shade[1] * 255), int(shade[2] * 255)))
    # Smooth at a quarter, then plain repetition: a step of one shade is invisible, and PNG packs it five times as fast.
    quarter = mesh.resize((max(1, spec.width // 4), max(1, spec.height // 4)), Image.Resampling.BICUBIC)
    return quarter.resize((spec.width, spec.height), Image.Resampling.NEAREST)


def _mesh(width: int, height: int) -> tuple[int, int]:
    short = 4
    if width >= height:
        return min(16, round(short * width / height)), short
    return short, min(16, round(short * height / width))


def _footer(picture: Image.Image, canvas: ImageDraw.ImageDraw, spec: PictureSpec) -> int:
    """Darken a strip at the bottom and write what the picture is; return the strip's height in pixels."""
    pixels = f"{spec.width}\u00d7{spec.height}"
    tail = f"{spec.image_task_id}" + (f" #{spec.index}" if spec.index else "")
    parts = [f"{spec.model}  \u00b7  {spec.ratio}  \u00b7  {spec.resolution}  \u00b7  {pixels}", tail]
    room = spec.width * 0.90
    size = max(9, round(math.sqrt(spec.width * spec.height) * 0.022))
    lines = ["    ".join(parts)] if typeface.text_width("    ".join(parts), size) <= room else parts
    widest = max(typeface.text_width(line, size) for line in lines)
    size = max(7, int(size * min(1.0, room / widest)))
    height = round(size * (1.5 * len(lines) + 1.0))
    strip = (0, spec.height - height, spec.width, spec.height)
    picture.paste(picture.crop(strip).point(_DIMMED), strip)
    for number, line in enumerate(lines):
        baseline = spec.height - height + size * (1.45 + 1.5 * number)
        typeface.draw(canvas, (spec.width * 0.05, baseline), line, size, (228, 228, 228))
    return height


def _prompt(canvas: ImageDraw.ImageDraw, text: str, width: int, height: int) -> None:
    """Write the prompt as large as it fits, in the middle of the free area."""
    room, tall = width * 0.88, height * 0.84
    text = " ".join(text.split())
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " \u2026"
    size, lines = _fitted(text, room, tall)
    depth = size * _LINE_HEIGHT
    top = (height - depth * len(lines)) / 2
    offset = max(1, size // 22)
    for number, line in enumerate(lines):
        left = (width - typeface.text_width(line, size)) / 2
        baseline = top + depth * number + size * 0.98
        typeface.draw(canvas, (left + offset, baseline + offset), line, size, _SHADOW)
        typeface.draw(canvas, (left, baseline), line, size, _INK)


def _fitted(text: str, room: float, tall: float) -> tuple[int, list[str]]:
    """Return the largest size at which the text fits, and its lines; what does not fit at 10 pixels is left out."""
    by_length = math.sqrt(room * tall / (0.6 * max(1, len(text))))  # a letter takes about half a square
    size = max(10, round(min(by_length, tall * 0.45, math.sqrt(room * tall) * 0.15)))
    longest = max(typeface.pieces(text), key=len, default="").strip()
    while size > 12 and typeface.text_width(longest, size) > room:
        size = max(12, int(size * 0.93))
    while True:
        lines = typeface.wrap(text, size, room)
        if len(lines) * size * _LINE_HEIGHT <= tall:
            return size, lines
        if size <= 10:
            kept = max(1, int(tall / (size * _LINE_HEIGHT)))
            return size, lines[:kept]
        size = max(10, int(size * 0.93))
