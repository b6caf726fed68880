"""A contact sheet: every image of a run on one page, with what was asked and what it became."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

CELL = 440
GAP = 32
HEAD = 116
CAPTION = 136
PAPER = "#f6f4ef"
FRAME = "#e6e1d6"
INK = "#22201c"
FAINT = "#857f73"
ALARM = "#b3261e"


@dataclass(frozen=True)
class Picture:
    """One image of the sheet; ``path`` is ``None`` where it is missing. ``details`` are up to two short lines."""

    path: Path | None
    caption: str
    details: tuple[str, ...] = ()


def draw_sheet(pictures: Sequence[Picture], target: Path, *, title: str, subtitle: str = "") -> Path:
    """Draw all pictures into a PNG grid, at most four in a row, each scaled to fit and never cropped.

    :return: ``target``.
    """
    columns = max(1, min(4, math.ceil(math.sqrt(len(pictures)))))
    rows = [[(picture, _thumbnail(picture)) for picture in row] for row in _rows(pictures, columns)]
    heights = [max(thumbnail.height for _, thumbnail in row) for row in rows]
    size = (GAP + columns * (CELL + GAP), HEAD + sum(heights) + len(rows) * CAPTION)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 28), title, fill=INK, font=_font(36))
    pen.text((GAP, 74), subtitle, fill=FAINT, font=_font(18))
    top = HEAD
    for row, height in zip(rows, heights, strict=True):
        for column, (picture, thumbnail) in enumerate(row):
            left = GAP + column * (CELL + GAP)
            corner = (left + (CELL - thumbnail.width) // 2, top + height - thumbnail.height)
            sheet.paste(thumbnail, corner, _rounded(thumbnail.size))
            _write(pen, left, top + height + 12, picture)
        top += height + CAPTION
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
    return target


def _rows(pictures: Sequence[Picture], columns: int) -> Iterator[Sequence[Picture]]:
    return (pictures[start : start + columns] for start in range(0, len(pictures), columns))


def _thumbnail(picture: Picture) -> Image.Image:
    if picture.path is None:
        blank = Image.new("RGB", (CELL, CELL // 2), FRAME)
        middle = (CELL // 2, CELL // 4)
        ImageDraw.Draw(blank).text(middle, "missing", fill=ALARM, font=_font(30), anchor="mm")
        return blank
    with Image.open(picture.path) as opened:
        return ImageOps.contain(opened.convert("RGB"), (CELL, CELL), Image.Resampling.LANCZOS)


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, picture: Picture) -> None:
    for line in _wrap(picture.caption, _font(19), most=2):
        pen.text((left, top), line, fill=INK, font=_font(19))
        top += 25
    for detail in picture.details:
        pen.text((left, top + 2), _shorten(detail, _font(15)), fill=FAINT, font=_font(15))
        top += 20


def _wrap(text: str, font: Font, most: int) -> list[str]:
    """Break a text into at most this many lines as wide as a cell; the last one is shortened where more follows."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= CELL or len(lines) == most or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_shorten(line, font) for line in lines]


def _shorten(text: str, font: Font) -> str:
    """Take so much out of the middle that the text is no wider than a cell."""
    keep = len(text)
    shown = text
    while font.getlength(shown) > CELL and keep > 2:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}...{text[len(text) - keep // 2 :]}"
    return shown


def _rounded(size: tuple[int, int]) -> Image.Image:
    """Give a mask with smooth round corners."""
    mask = Image.new("L", (size[0] * 2, size[1] * 2), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] * 2 - 1, size[1] * 2 - 1), radius=20, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
