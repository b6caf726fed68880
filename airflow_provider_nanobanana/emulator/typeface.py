"""Text of any script on a machine with any fonts: the first font that has the glyph, else a coloured tile."""

from __future__ import annotations

import colorsys
import unicodedata
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, groupby

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Ink = tuple[int, int, int]

# Pillow brings one Latin font; these are common names of fonts with wider or East Asian coverage.
_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)  # fmt: skip
_ABSENT = "\U0010fffe"
_PROBE_SIZE = 24
_TILE_WIDTH = 0.86


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size=size)


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    found = [""]
    for name in _SYSTEM_FONTS:
        try:
            _font(name, _PROBE_SIZE)
        except OSError:
            continue
        found.append(name)
    return tuple(found)


@lru_cache(maxsize=64)
def _blank(name: str) -> bytes:
    return _shape(name, _ABSENT)


def _shape(name: str, character: str) -> bytes:
    mask = _font(name, _PROBE_SIZE).getmask(character)
    return repr(mask.size).encode() + bytes(mask)


@lru_cache(maxsize=4096)
def font_name(character: str) -> str | None:
    """Return the name of the first font that has the glyph (empty: Pillow's own), ``None`` where none has."""
    if character.isspace():
        return ""
    return next((name for name in _names() if _shape(name, character) != _blank(name)), None)


def runs(text: str) -> list[tuple[str | None, str]]:
    """Return the text as runs of one font each."""
    return [(name, "".join(characters)) for name, characters in groupby(text, font_name)]


@lru_cache(maxsize=16_384)
def text_width(text: str, size: int) -> float:
    """Return the width of one line in pixels."""
    return sum(_run_width(name, run, size) for name, run in runs(text))


def _run_width(name: str | None, run: str, size: int) -> float:
    return size * len(run) if name is None else float(_font(name, size).getlength(run))


def draw(canvas: ImageDraw.ImageDraw, start: tuple[float, float], text: str, size: int, ink: Ink) -> None:
    """Draw one line from ``start``, the left end of its baseline."""
    left, baseline = start
    for name, run in runs(text):
        if name is None:
            for place, character in enumerate(run):
                _tile(canvas, (left + place * size, baseline), character, size, ink)
        else:
            canvas.text((left, baseline), run, font=_font(name, size), fill=ink, anchor="ls")
        left += _run_width(name, run, size)


def _tile(canvas: ImageDraw.ImageDraw, start: tuple[float, float], character: str, size: int, ink: Ink) -> None:
    side = size * _TILE_WIDTH
    left, top = start[0] + (size - side) / 2, start[1] - side * 0.9
    box = (left, top, left + side, top + side)
    canvas.rounded_rectangle(box, radius=side * 0.22, fill=_tile_colour(character) if min(ink) > 128 else ink)


def _tile_colour(character: str) -> Ink:
    hue = zlib.crc32(character.encode("utf-8", "replace")) % 360 / 360
    red, green, blue = colorsys.hls_to_rgb(hue, 0.86, 0.75)
    return int(red * 255), int(green * 255), int(blue * 255)


def pieces(text: str) -> list[str]:
    """Return the parts between which a line may break: words with the space before them, wide characters alone."""
    parts: list[str] = []
    for character in text:
        wide = unicodedata.east_asian_width(character) in "WF"
        starts = not parts or character == " " or wide or unicodedata.east_asian_width(parts[-1][-1]) in "WF"
        if starts:
            parts.append(character)
        else:
            parts[-1] += character
    return parts


def wrap(text: str, size: int, room: float) -> list[str]:
    """Return the text as lines no wider than ``room`` pixels; a word that is too long alone is split."""
    lines, used = [""], 0.0
    for part in chain.from_iterable(_split(part, size, room) for part in pieces(text)):
        needed = text_width(part, size)
        if used and used + needed > room:
            lines.append("")
            used = 0.0
        lines[-1] += part
        used += needed
    return [line.strip() for line in lines]


def _split(part: str, size: int, room: float) -> Iterator[str]:
    """Yield a part in pieces that each fit on a line."""
    if len(part.strip()) > 1 and text_width(part.strip(), size) > room:
        kept = _longest(part, size, room)
        yield part[:kept]
        yield from _split(part[kept:], size, room)
    else:
        yield part


def _longest(line: str, size: int, room: float) -> int:
    """Return how many characters fit; at least one, at most all but one."""
    low, high = 1, len(line) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(line[:middle], size) <= room else (low, middle - 1)
    return low
