"""Which pictures look empty, and which merely look so."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from PIL import Image, ImageDraw

from airflow_provider_nanobanana.landing.decoder_messages import from_json, to_json
from airflow_provider_nanobanana.landing.image_file import inspect_bytes
from airflow_provider_nanobanana.landing.suspects import (
    PromptsByBytes,
    in_order,
    is_other_size,
    same_for_other_prompts,
)


def saved(image: Image.Image, image_format: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def noisy(levels: int, colour: int = 200, side: int = 400) -> Image.Image:
    rng = random.Random(5)
    data = bytes(colour + rng.randint(-levels, levels) for _ in range(side * side * 3))
    return Image.frombytes("RGB", (side, side), data)


def with_mark(image: Image.Image, fill: Any) -> Image.Image:
    """Put a small thing into a picture."""
    ImageDraw.Draw(image).rectangle((30, 30, 36, 36), fill=fill)
    return image


def moving(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), colour) for colour in colours]


PLAIN = Image.new("RGB", (256, 256), "white")
SHAPE = with_mark(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), (0, 0, 0, 255))
SEEN_THROUGH = Image.merge("RGBA", (*noisy(50, 100, 64).split(), Image.new("L", (64, 64), 0)))


@pytest.mark.parametrize(
    ("data", "look"),
    [
        (saved(Image.new("RGB", (1, 1))), "one_pixel"),
        (saved(Image.new("RGBA", (64, 64), (9, 9, 9, 0))), "transparent"),
        (saved(SEEN_THROUGH), "transparent"),
        (saved(SEEN_THROUGH, "webp", lossless=True, exact=True), "transparent"),
        (saved(PLAIN), "one_colour"),
        (saved(PLAIN, "jpeg"), "one_colour"),
        (saved(PLAIN, "webp"), "one_colour"),
        (saved(PLAIN, "gif"), "one_colour"),
        (saved(PLAIN.convert("L")), "one_colour"),
        (saved(PLAIN.convert("1")), "one_colour"),
        (saved(PLAIN.convert("P")), "one_colour"),
        (saved(PLAIN.convert("CMYK"), "jpeg"), "one_colour"),
        (saved(Image.new("I;16", (64, 64), 40_000)), "one_colour"),
        (saved(Image.new("RGBA", (64, 64), (9, 9, 9, 255))), "one_colour"),
        (saved(noisy(1)), "one_colour"),
        (saved(noisy(2)), "one_colour"),
        *((saved(noisy(2), "jpeg", quality=quality), "one_colour") for quality in (70, 85, 95)),
    ],
)
def test_what_looks_empty(data: bytes, look: str) -> None:
    facts = inspect_bytes(data)
    assert facts.look == look
    assert from_json(to_json(facts)) == facts


PALETTE_SHAPE = SHAPE.convert("RGBA").quantize(4)
PALETTE_HOLE = Image.new("P", (64, 64), 0)
PALETTE_HOLE.putpalette([0, 0, 0, 0, 0, 0])
with_mark(PALETTE_HOLE, 1)


@pytest.mark.parametrize(
    "data",
    [
        saved(with_mark(PLAIN.copy(), "grey")),
        saved(with_mark(PLAIN.copy(), "grey"), "jpeg", quality=60),
        saved(with_mark(Image.new("1", (256, 256)), 1)),
        saved(with_mark(Image.new("L", (4000, 4000), 255), 0)),
        saved(SHAPE),
        saved(PALETTE_SHAPE),
        saved(PALETTE_HOLE, transparency=bytes([0, 255])),
        saved(with_mark(PLAIN.copy(), "red").convert("P")),
        saved(with_mark(Image.new("I;16", (64, 64), 40_000), 20_000)),
        saved(Image.linear_gradient("L").point(lambda value: 200 + value // 16)),
        saved(with_mark(Image.new("RGB", (40, 40), "white"), "black").resize((16, 16))),
        saved(Image.frombytes("L", (2, 1), b"\0\xff")),
        saved(moving("black", "red")[0], "gif", save_all=True, append_images=moving("black", "red")[1:]),
        saved(moving("black", "red")[0], "webp", save_all=True, append_images=moving("black", "red")[1:]),
        saved(moving("black", "red")[0], "png", save_all=True, append_images=moving("black", "red")[1:]),
    ],
)
def test_what_is_no_empty_picture(data: bytes) -> None:
    assert inspect_bytes(data).look is None


def test_the_same_bytes_are_suspect_for_other_prompts_only() -> None:
    assert same_for_other_prompts([("a", "x"), ("a", "x"), ("b", "x"), ("b", "y"), (None, "y"), ("c", None)]) == {"b"}
    seen = PromptsByBytes([("a", "x"), (None, "y")])
    assert seen.judge("a", "x") == () and seen.judge("a", None) == ()
    assert seen.judge("a", "y") == ("same_bytes",) and seen.judge("b", "y") == ()


def test_another_size_is_known_where_both_are() -> None:
    assert is_other_size(8, 8, (1024, 1024)) and is_other_size(1024, 1023, (1024, 1024))
    assert not is_other_size(1024, 1024, (1024, 1024))
    assert not is_other_size(8, 8, None) and not is_other_size(None, None, (8, 8))


def test_codes_are_told_in_the_order_of_the_table() -> None:
    assert in_order(["other_size", "same_bytes", "one_colour", "same_bytes", "junk"]) == (
        "one_colour", "same_bytes", "other_size",
    )  # fmt: skip
