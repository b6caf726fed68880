"""Image files: whether bytes are one complete image, and which."""

from __future__ import annotations

import base64
import contextlib
import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin, features

from airflow_provider_nanobanana.landing import image_file
from airflow_provider_nanobanana.landing.image_file import (
    MAX_PIXELS,
    ImageFacts,
    decode_b64,
    detect_format,
    inspect_bytes,
)
from airflow_provider_nanobanana.toapis.errors import ImageInvalid
from tests.support.images import (
    FORMATS,
    chunk,
    jpeg_with_provenance,
    picture,
    png_header,
    png_with_provenance,
)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageInvalid) as caught:
        inspect_bytes(data)
    return caught.value.message


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_bytes_decide(image_format: str) -> None:
    assert inspect_bytes(picture(image_format, (37, 21))) == ImageFacts(image_format, 37, 21)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("jpeg", {"progressive": True}),
        ("webp", {"lossless": True}),
        ("webp", {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}),
        ("png", {"interlace": True}),
    ],
)
def test_variants(image_format: str, options: dict[str, Any]) -> None:
    assert inspect_bytes(picture(image_format, **options)).width == 64


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_modes(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (30, 20)).save(buffer, "png")
    assert inspect_bytes(buffer.getvalue()).height == 20


def test_provenance_chunks_are_no_defect() -> None:
    assert inspect_bytes(png_with_provenance()).format == "png"
    assert inspect_bytes(jpeg_with_provenance()).format == "jpeg"


def test_bytes_after_a_jpeg_are_no_defect() -> None:
    assert inspect_bytes(picture("jpeg") + bytes(200_000)).format == "jpeg"


@pytest.mark.parametrize("image_format", ["png", "gif", "webp"])
def test_of_an_animation_the_first_frame_counts(image_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], duration=100)
    found = inspect_bytes(buffer.getvalue())
    assert (found.format, found.width, found.height) == (image_format, 20, 10)


# The last two bytes of a JPEG and of a GIF hold no pixels.
@pytest.mark.parametrize(
    ("image_format", "needless", "lenient"),
    [
        (one, needless, lenient)
        for one, needless in (("png", 0), ("jpeg", 2), ("webp", 0), ("gif", 2))
        for lenient in (False, True)
    ],
)
def test_cut_anywhere_is_invalid(
    image_format: str, needless: int, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DAG files set this, for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = picture(image_format)
    cuts = {*range(1, 40), *range(40, len(data), 97)} - set(range(needless + 1))
    for cut in sorted(cuts):
        refusal(data[:-cut])


def test_a_flipped_bit_in_a_png_is_invalid() -> None:
    data = bytearray(picture("png"))
    for at in range(8, len(data), 101):
        data[at] ^= 1
        refusal(bytes(data))
        data[at] ^= 1


@settings(max_examples=60, deadline=None)
@given(
    image_format=st.sampled_from(FORMATS),
    at=st.integers(0, 10_000),
    junk=st.binary(min_size=1, max_size=12),
    keep=st.booleans(),
)
def test_damage_is_found_or_harmless_and_never_another_error(
    image_format: str, at: int, junk: bytes, keep: bool
) -> None:
    data = picture(image_format)
    at %= len(data)
    damaged = data[:at] + junk + data[at + len(junk) if keep else at :]
    try:
        found = inspect_bytes(damaged)
    except ImageInvalid:
        return
    assert found.width * found.height <= MAX_PIXELS


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_anything_behind_magic_bytes_is_invalid(junk: bytes) -> None:
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x01\x00\x00WEBP", b"GIF89a"):
        refusal(magic + junk)


@pytest.mark.parametrize(("width", "height"), [(5000, 4001), (20_000_001, 1), (65_535, 65_535), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_from_the_header_alone(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    before = Image.MAX_IMAGE_PIXELS
    refusal(png_header(width, height))
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_largest_size_of_the_model_is_taken() -> None:
    buffer = io.BytesIO()
    Image.new("L", (12_288, 1_536)).save(buffer, "png")
    assert inspect_bytes(buffer.getvalue()).width == 12_288


def test_a_text_bomb_in_a_png_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    png = picture("png")
    bomb = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(100_000_000)))
    at = png.index(b"IDAT") - 4
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", lambda data: pytest.fail("unpacked"))
    assert inspect_bytes(png[:at] + bomb + png[at:]).format == "png"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><head><title>504 Gateway</title></head>", "HTML or XML: '504 Gateway'"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
        (b'{"error": "link expired"}', "link expired"),
        ("链接已过期".encode(), "链接已过期"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "begin with 25 50 44 46"),
        (b"RIFF\x00\x00\x00\x00AVI ", "begin with 52 49 46 46"),
        (bytes(1000), "begin with 00 00"),
        (b"<html></html>", "without words"),
        (b"see https://h.example/p?signature=s3cret now", "see https://h.example/p?… now"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, words: str) -> None:
    message = refusal(data)
    assert words in message
    assert len(message) < 300
    assert "s3cret" not in message


def test_svg_and_eps_never_reach_a_decoder() -> None:
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg xmlns='x'></svg>", b"BM" + bytes(60)):
        refusal(data)


def test_sniff_needs_the_whole_mark() -> None:
    assert detect_format(b"\x89PNG") is None
    assert detect_format(b"RIFF1234WAVE") is None
    assert detect_format(b"\xff\xd8\xff\xe0") == "jpeg"


# --- images inside the response --------------------------------------------------------------------------------------


class Sink(io.BytesIO):
    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def write(self, piece: bytes) -> int:  # type: ignore[override]
        self.largest = max(self.largest, len(piece))
        return super().write(piece)


@given(
    st.integers(0, 5).map(lambda extra: bytes(range(256)) * 1000 + b"x" * extra) | st.binary(min_size=1, max_size=100),
    st.sampled_from(["", "data:image/png;base64,", "DATA:;base64,", "  data:image/webp;charset=x;base64, "]),
    st.sampled_from(["", "\n", " \r\n"]),
)
def test_round_trip_in_pieces(data: bytes, prefix: str, end: str) -> None:
    sink = Sink()
    assert decode_b64(prefix + base64.b64encode(data).decode() + end, sink) == len(data)
    assert sink.getvalue() == data
    assert sink.largest <= 256 * 1024


DATA = bytes(range(256)) * 2000 + b"\xfb\xff\xbf?>"


def lines(text: str, width: int = 76, end: str = "\r\n") -> str:
    return end.join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.parametrize("extra", [b"", b"x", b"xy"])
@pytest.mark.parametrize(
    "spelling",
    [
        lines,
        lambda text: lines(text, 1000, "\n\n \t"),
        lambda text: text.rstrip("="),
        lambda text: text + "=" * (-len(text) % 4),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: f'"{text}"\n',
        lambda text: "'data:image/png;base64," + text + "'",
        lambda text: text.replace("/", "\\/"),
        lambda text: lines(text, 64, "\\n"),
        lambda text: text.replace("/", "\\u002f").replace("+", "\\u002B").replace("=", "\\u003d"),
        lambda text: text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        lambda text: " \n" + lines(text) + "\n" * 300_000,
    ],
)
def test_whatever_loses_nothing_is_taken(spelling: Callable[[str], str], extra: bytes) -> None:
    sink = Sink()
    text = spelling(base64.b64encode(DATA + extra).decode())
    assert decode_b64(text, sink) == len(DATA + extra)
    assert sink.getvalue() == DATA + extra


@given(st.text(alphabet="ABCabc019+/=-_ \n\t.:,;dataimgbse64%\\u\u00e9\ud800", max_size=60))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    with contextlib.suppress(ImageInvalid):
        assert decode_b64(text, io.BytesIO()) > 0


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "data:image/png;base64,", "data:image/png,abcd", "a", "abcde", "ab=c", "====", "ab==ab==", "ab===",
        "ab\0cd", "ab.cd", "äbcd", "ab==x", "<html>", "https://files.toapis.com/a.png", "100%", "a\\xcd", '{"a":1}',
        "A" * 262_142 + "==" + "AAAA", "A" * 262_144 + "A", "A" * 262_144 + "!AAA",
    ],
)  # fmt: skip
def test_what_is_not_base64_is_invalid(text: str) -> None:
    with pytest.raises(ImageInvalid, match="b64_json"):
        decode_b64(text, io.BytesIO())


def test_size_is_bounded_before_anything_is_decoded() -> None:
    sink = Sink()
    limit = 3000
    assert decode_b64(base64.b64encode(bytes(limit)).decode(), sink, max_bytes=limit) == limit
    sink = Sink()
    with pytest.raises(ImageInvalid, match="3,000 bytes"):
        decode_b64(base64.b64encode(bytes(limit + 3)).decode(), sink, max_bytes=limit)
    assert sink.getvalue() == b""


# --- the pixels decide: metadata refuses no image, an end marker proves none -----------------------------------------


NOISE = random.Random(3).randbytes(1_200_000)
EOI = b"\xff\xd9"


def png_with(*chunks: bytes) -> bytes:
    png = picture("png")
    return png[:33] + b"".join(chunks) + png[33:]


def raw_chunk(name: bytes, data: bytes, *, crc: int = 1, length: int | None = None) -> bytes:
    """A chunk whose checksum is wrong, or its length."""
    return struct.pack(">I", len(data) if length is None else length) + name + data + struct.pack(">I", crc)


def jpeg_with(*segments: tuple[int, bytes], **options: Any) -> bytes:
    jpeg = picture("jpeg", **options)
    between = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return jpeg[:2] + between + jpeg[2:]


def webp_with(*chunks: tuple[bytes, bytes], flags: int = 0x2C, size: int | None = None) -> bytes:
    """A WebP that announces a profile, EXIF and XMP, and has these chunks behind its pixels."""
    pixels = picture("webp")[12:]
    head = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + (63).to_bytes(3, "little")
    head += (47).to_bytes(3, "little")
    behind = b"".join(name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for name, body in chunks)
    body = b"WEBP" + head + pixels + behind
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def interlaced() -> bytes:
    raw = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        raw += b"".join(b"\0" + bytes(range(x0, 8, dx)) for _ in range(y0, 8, dy))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def rgb16() -> bytes:
    rows = zlib.compress(b"".join(b"\0" + NOISE[: 32 * 6] for _ in range(32)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animated(image_format: str) -> bytes:
    frames = [Image.frombytes("RGB", (32, 32), NOISE[n : n + 3072]) for n in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def broken_frames(png: bytes) -> bytes:
    at = png.rindex(b"fdAT") + 30
    return png[:at] + bytes(9) + png[at + 9 :]


WHOLE = {
    "long zTXt": png_with(chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"node " * 400_000))),
    "long compressed iTXt": png_with(chunk(b"iTXt", b"XML:xmp\0\1\0\0\0" + zlib.compress(b"x" * 1_500_000))),
    "long iCCP": png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(NOISE))),
    "broken iCCP": png_with(chunk(b"iCCP", b"p\0\0no zlib")),
    "many long tEXt": png_with(*(chunk(b"tEXt", b"k\0" + b"y" * 900_000) for _ in range(3))),
    "short pHYs, gAMA, cHRM, tRNS": png_with(*(chunk(name, b"\0") for name in (b"pHYs", b"gAMA", b"cHRM", b"tRNS"))),
    "broken eXIf": png_with(chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff")),
    "wrong checksum of a text": png_with(raw_chunk(b"tEXt", b"Software\0gateway")),
    "wrong checksum of a private chunk": png_with(raw_chunk(b"caBX", NOISE[:5000])),
    "length of a text too long": png_with(raw_chunk(b"tEXt", b"Software\0gateway", length=5_000_000)),
    "length of a text too short": png_with(raw_chunk(b"tEXt", b"Software\0gateway", length=3)),
    "name that is none": png_with(raw_chunk(b"\0\0\0\0", b"")),
    "text after the pixels": picture("png")[:-12] + raw_chunk(b"tEXt", b"a\0b") + picture("png")[-12:],
    "bytes after IEND": picture("png") + NOISE[:70_000],
    "another PNG after IEND": picture("png") + picture("png", (9, 9)),
    "a thumbnail of its own inside": png_with(raw_chunk(b"prVt", picture("png", (9, 9)))),
    "broken later frames of an APNG": broken_frames(animated("png")),
    "interlaced": interlaced(),
    "16 bits": rgb16(),
    "MPF that is nonsense": jpeg_with((0xE2, b"MPF\0II*\0\x08\0\0\0" + b"\xff" * 20)),
    "EXIF that is nonsense": jpeg_with((0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")),
    "ICC, one part of nine": jpeg_with((0xE2, b"ICC_PROFILE\0\x05\x09" + NOISE[:60_000])),
    "2 MB of APP11": jpeg_with(*((0xEB, NOISE[:65_533]) for _ in range(32))),
    "Photoshop block, comment": jpeg_with((0xED, b"Photoshop 3.0\0" + NOISE[:99]), (0xFE, b"\xff\xd9\xff\xda")),
    "XMP with a thumbnail JPEG": jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + picture("jpeg", (16, 16)))),
    "fill bytes before markers": picture("jpeg").replace(b"\xff\xda", b"\xff\xff\xff\xda", 1),
    "no end marker": picture("jpeg")[:-2],
    "half an end marker": picture("jpeg")[:-1],
    "no end marker, progressive": picture("jpeg", progressive=True)[:-2],
    "no end marker, restarts": picture("jpeg", restart_marker_rows=1)[:-2],
    "no end marker, zeros behind": picture("jpeg")[:-2] + bytes(4096),
    "no end marker, another JPEG behind": picture("jpeg")[:-2] + picture("jpeg", (16, 16)),
    "a gain map behind": picture("jpeg") + picture("jpeg", (16, 16)),
    "a video behind": picture("jpeg") + b"\0\0\0\x18ftypmp42" + NOISE[:99_000],
    "MPO": animated("mpo"),
    "XMP of a megabyte": webp_with((b"XMP ", NOISE[:1_000_001])),
    "ICC, EXIF that are nonsense": webp_with((b"ICCP", b"no"), (b"EXIF", b"\xff" * 9)),
    "announced, and not there": webp_with(),
    "RIFF length too short": webp_with(size=30),
    "RIFF length too long": webp_with(size=30_000_000),
    "XMP that is cut off": webp_with((b"XMP ", NOISE[:5000]))[:-3000],
    "bytes after a WebP": picture("webp") + NOISE[:9999],
    "zeros after a WebP": picture("webp") + bytes(9999),
    "animated WebP": animated("webp"),
    "bytes after a GIF": picture("gif") + NOISE[:999],
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_pixels_land_whatever_is_beside_them(name: str) -> None:
    assert inspect_bytes(WHOLE[name]).width in (8, 32, 64)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "RGB", "YCbCr"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (160, 120)])
def test_whole_jpegs_of_every_kind(mode: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """Flat pictures too: the last bytes of their pixels may be zeros."""
    for image in (Image.linear_gradient("L").resize(size), Image.new("L", size, 130)):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, "jpeg", **options)
        assert inspect_bytes(buffer.getvalue()).width == inspect_bytes(buffer.getvalue()[:-2]).width == size[0]


CUT = [
    {}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 2},
    {"progressive": True, "restart_marker_blocks": 5},
]  # fmt: skip


@pytest.mark.parametrize("options", CUT)
@pytest.mark.parametrize("lenient", [False, True])
def test_part_of_a_jpeg_with_an_end_marker_stuck_on(
    options: dict[str, Any], lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = picture("jpeg", **options)
    first = data.index(b"\xff\xda") + 20
    for cut in {*range(first, len(data) - 2, 211), *range(len(data) - 20, len(data) - 3)}:
        for end in (EOI, b"", bytes(9000)):
            with pytest.raises(ImageInvalid, match=r"truncated|corrupt"):
                inspect_bytes(data[:cut] + end)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_jpeg_whose_last_scans_are_missing() -> None:
    """Cut between two scans nothing runs dry: the picture is there, but blurred."""
    data = picture("jpeg", progressive=True)
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 4
    for start in starts[1:]:
        tables = data.rindex(b"\xff\xc4", 0, start)
        for cut in (tables, start):
            with pytest.raises(ImageInvalid, match="truncated"):
                inspect_bytes(data[:cut] + EOI)


@pytest.mark.parametrize(
    "data",
    [
        picture("png")[:-12], picture("png")[:-4],
        png_with(raw_chunk(b"PLTE", b"\0\0\0")),
        picture("png").replace(b"IEND", b"IENE"),
        picture("png")[:33] + chunk(b"IEND", b""),
        picture("webp").replace(b"VP8 ", b"VP8?"),
        webp_with()[:1500],
        picture("jpeg")[:300] + EOI,
        b"\xff\xd8\xff\xd9", b"\xff\xd8\xff" + b"\xff" * 99,
    ],
)  # fmt: skip
def test_what_lacks_pixels_is_refused(data: bytes) -> None:
    with pytest.raises(ImageInvalid):
        inspect_bytes(data)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_lands_where_pillow_decodes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture("avif")
    found = inspect_bytes(data)
    assert (found.format, found.width, found.height) == ("avif", 64, 48)
    with pytest.raises(ImageInvalid, match="truncated or corrupt"):
        inspect_bytes(data[: len(data) // 2])
    monkeypatch.setattr(image_file, "_decodes_avif", lambda: False)
    with pytest.raises(ImageInvalid, match="Pillow has no decoder"):
        inspect_bytes(data)


def test_what_others_told_pillow_stays() -> None:
    before = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS)
    inspect_bytes(WHOLE["long zTXt"])
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS)


def test_mutated_images_end_in_the_tree() -> None:
    """A short form of a campaign of 120,000; seeded, so that it fails everywhere or nowhere."""
    rng = random.Random(9)
    seeds = [picture(one, (32, 24)) for one in ("png", "jpeg", "webp", "gif")] + [
        picture("jpeg", (32, 24), progressive=True), picture("webp", (32, 24), lossless=True), interlaced(),
        *map(animated, ("gif", "webp", "png", "mpo")),
    ]  # fmt: skip
    refused = 0
    for _ in range(1_500):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
                case 2:
                    del data[at : at + rng.randrange(1, 50)]
                case _:
                    data[at:at] = data[max(0, at - 40) : at]
            data = data or bytearray(1)
        try:
            inspect_bytes(bytes(data))
        except ImageInvalid:
            refused += 1
    assert refused > 500
