"""Files of more parts than any encoder writes are refused in no time; of what encoders do write none is."""

from __future__ import annotations

import struct
import zlib

import pytest

from airflow_provider_nanobanana.landing.image_file import inspect_bytes
from airflow_provider_nanobanana.landing.strip_metadata import bare_gif, bare_png
from airflow_provider_nanobanana.toapis.errors import ImageInvalid
from dev.benchmarks.bombs import BOMBS, MIB, make
from tests.support.images import chunk, picture


@pytest.mark.parametrize("kind", ["png-private", "png-text", "png-private-behind", "png-empty-pixels", "webp-chunks"])
def test_more_than_a_hundred_thousand_chunks(kind: str) -> None:
    with pytest.raises(ImageInvalid, match=r"more than 100,000 chunks; no encoder writes so many"):
        inspect_bytes(make(kind, 4))


@pytest.mark.parametrize("kind", ["gif-comments", "gif-gce"])
def test_more_than_a_million_blocks_before_the_first_frame(kind: str) -> None:
    with pytest.raises(ImageInvalid, match=r"more than 1,000,000 blocks"):
        inspect_bytes(make(kind, 8))


def test_many_lengths_that_are_wrong() -> None:
    with pytest.raises(ImageInvalid, match="more than 8 chunks have a wrong length"):
        inspect_bytes(make("png-guesses", 1))


@pytest.mark.parametrize("kind", ["gif-comment1", "gif-xmp", "gif-noise", "jpeg-fill"])
def test_one_part_may_be_as_long_as_the_file(kind: str) -> None:
    assert inspect_bytes(make(kind, 63)).width == 8


OTHER_BOMBS = {"jpeg-scans", "jpeg-heavy-scans", "png-empty-blocks", "png-guesses"}


@pytest.mark.parametrize("kind", [kind for kind in BOMBS if kind not in OTHER_BOMBS and not kind.endswith("-large")])
def test_a_little_of_it_is_taken(kind: str) -> None:
    assert inspect_bytes(make(kind, 20_000 / MIB)).width == 8


def test_pixels_of_a_png_in_the_pieces_of_libpng() -> None:
    """64 MiB of pixels in chunks of 8 KiB."""
    raw = b"".join(b"\0" + bytes(4000 * 3) for _ in range(4000))
    data = zlib.compress(raw, 0)
    pieces = b"".join(chunk(b"IDAT", data[at : at + 8192]) for at in range(0, len(data), 8192))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 4000, 8, 2, 0, 0, 0))
    assert inspect_bytes(png + pieces + chunk(b"IEND", b"")).width == 4000


def test_a_gif_keeps_its_colours_its_control_block_and_all_from_the_first_frame_on() -> None:
    gif = picture("gif")
    at = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    control = b"\x21\xf9\x04\x01\x09\0\x05\0"
    comment = b"\x21\xfe\x03abc\x02,;\0"
    frame = gif.index(b",", at)
    assert bare_gif(gif[:at] + comment + control + comment + gif[frame:]) == gif[:at] + control + gif[frame:]


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", picture("gif")[:200], picture("gif")[:13] + b";", b"GIF89a" + b"!" * 99]
)
def test_a_gif_without_a_frame(data: bytes) -> None:
    with pytest.raises(ImageInvalid, match="holds no frame"):
        bare_gif(data)


def test_a_png_keeps_what_makes_its_pixels() -> None:
    png = picture("png")
    assert bare_png(png[:33] + chunk(b"tEXt", b"a\0b") + png[33:]) == png
