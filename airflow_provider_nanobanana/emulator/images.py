"""Pictures that say what was asked for: a soft gradient from the prompt's hash, the prompt and a footer on it."""

from __future__ import annotations

import asyncio
import colorsys
import hashlib
import io
import math
import random
import struct
import unicodedata
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby

from PIL import Image, ImageChops, ImageDraw, ImageFont

from airflow_provider_nanobanana.emulator.faults.rules import without_words

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


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BAND = 64  # rows
_UP = b"\x02"  # filter type 2: every byte minus the one above it


def encode(picture: Image.Image) -> bytes:
    """Return an RGB picture as PNG.

    Rows of our pictures mostly repeat the row above, so one fixed filter does; Pillow tries five on every row and
    takes more than twice as long. Band by band, so that a 4K picture does not need five copies of itself.
    """
    packer = zlib.compressobj(1)
    packed = [packer.compress(_rows(picture, top)) for top in range(0, picture.height, _BAND)]
    return _file(picture.width, picture.height, b"".join([*packed, packer.flush()]))


def _rows(picture: Image.Image, top: int) -> bytes:
    width, bottom = picture.width, min(top + _BAND, picture.height)
    above = picture.crop((0, top - 1, width, bottom - 1))  # beyond the edge it is black, as the format wants it
    rest = ImageChops.subtract_modulo(picture.crop((0, top, width, bottom)), above).tobytes()
    stride = width * 3
    return b"".join([_UP + rest[start : start + stride] for start in range(0, len(rest), stride)])


def claiming(width: int, height: int) -> bytes:
    """Return a well-formed little PNG whose header claims a picture of any size."""
    return _file(width, height, zlib.compress(bytes(1024)))


def _file(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bit RGB, not interlaced
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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
        return encode(picture)
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
    lines = ["    ".join(parts)] if text_width("    ".join(parts), size) <= room else parts
    widest = max(text_width(line, size) for line in lines)
    size = max(7, int(size * min(1.0, room / widest)))
    height = round(size * (1.5 * len(lines) + 1.0))
    strip = (0, spec.height - height, spec.width, spec.height)
    picture.paste(picture.crop(strip).point(_DIMMED), strip)
    for number, line in enumerate(lines):
        baseline = spec.height - height + size * (1.45 + 1.5 * number)
        draw(canvas, (spec.width * 0.05, baseline), line, size, (228, 228, 228))
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
        left = (width - text_width(line, size)) / 2
        baseline = top + depth * number + size * 0.98
        draw(canvas, (left + offset, baseline + offset), line, size, _SHADOW)
        draw(canvas, (left, baseline), line, size, _INK)


def _fitted(text: str, room: float, tall: float) -> tuple[int, list[str]]:
    """Return the largest size at which the text fits, and its lines; what does not fit at 10 pixels is left out."""
    by_length = math.sqrt(room * tall / (0.6 * max(1, len(text))))  # a letter takes about half a square
    size = max(10, round(min(by_length, tall * 0.45, math.sqrt(room * tall) * 0.15)))
    longest = max(pieces(text), key=len, default="").strip()
    while size > 12 and text_width(longest, size) > room:
        size = max(12, int(size * 0.93))
    while True:
        lines = wrap(text, size, room)
        if len(lines) * size * _LINE_HEIGHT <= tall:
            return size, lines
        if size <= 10:
            kept = max(1, int(tall / (size * _LINE_HEIGHT)))
            return size, lines[:kept]
        size = max(10, int(size * 0.93))


MAX_CACHED_BYTES = 64 * 1024 * 1024


class ImageCache:
    """A bounded cache of drawn pictures over one drawing thread.

    One, because a 4K picture takes some 150 MB while it is drawn, and because every further thread keeps the event
    loop waiting for the interpreter's lock.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-picture")
        self._cached: OrderedDict[PictureSpec, bytes] = OrderedDict()
        self._size = 0
        self._drawing: dict[PictureSpec, asyncio.Future[bytes]] = {}

    async def get(self, spec: PictureSpec) -> bytes:
        """Return the encoded picture; two requests for the same one draw it once."""
        if spec in self._cached:
            self._cached.move_to_end(spec)
            return self._cached[spec]
        if spec not in self._drawing:
            drawing = asyncio.get_running_loop().run_in_executor(self._pool, render, spec)
            self._drawing[spec] = drawing
            drawing.add_done_callback(lambda _: self._drawing.pop(spec, None))
        content = await asyncio.shield(self._drawing[spec])
        self._keep(spec, content)
        return content

    def clear(self) -> None:
        """Forget all pictures."""
        self._cached.clear()
        self._size = 0

    def close(self) -> None:
        """Let the drawing thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _keep(self, spec: PictureSpec, content: bytes) -> None:
        if spec in self._cached or len(content) > MAX_CACHED_BYTES // 2:
            return
        self._cached[spec] = content
        self._size += len(content)
        while self._size > MAX_CACHED_BYTES:
            _, dropped = self._cached.popitem(last=False)
            self._size -= len(dropped)
