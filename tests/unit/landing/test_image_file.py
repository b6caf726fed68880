from __future__ import annotations

import io
import logging
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from airflow_provider_nanobanana.landing.image_file import (
    MAX_PIXELS,
    ImageFacts,
    check_reference,
    detect_format,
    inspect_image,
)
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, InvalidRequest
from tests.support.images import (
    FORMATS,
    SUFFIX,
    chunk,
    jpeg_with_provenance,
    picture,
    png_header,
    png_with_provenance,
)


def facts(path: Path, data: bytes) -> ImageFacts:
    path.write_bytes(data)
    return inspect_image(path)


def refusal(path: Path, data: bytes) -> str:
    with pytest.raises(ImageInvalid) as caught:
        facts(path, data)
    return caught.value.message


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_bytes_decide_not_the_suffix(tmp_path: Path, image_format: str) -> None:
    for name in ("image.png", "image.jpg", "image.txt", "image"):
        found = facts(tmp_path / name, picture(image_format, (37, 21)))
        assert found == ImageFacts(image_format, SUFFIX[image_format], 37, 21)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("jpeg", {"progressive": True}),
        ("webp", {"lossless": True}),
        ("webp", {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}),
        ("png", {"interlace": True}),
    ],
)
def test_variants(tmp_path: Path, image_format: str, options: dict[str, Any]) -> None:
    assert facts(tmp_path / "x", picture(image_format, **options)).width == 64


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_modes(tmp_path: Path, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (30, 20)).save(buffer, "png")
    assert facts(tmp_path / "x", buffer.getvalue()).height == 20


def test_provenance_chunks_are_no_defect(tmp_path: Path) -> None:
    assert facts(tmp_path / "x", png_with_provenance()).format == "png"
    assert facts(tmp_path / "x", jpeg_with_provenance()).format == "jpeg"


def test_bytes_after_a_jpeg_are_no_defect(tmp_path: Path) -> None:
    assert facts(tmp_path / "x", picture("jpeg") + bytes(200_000)).format == "jpeg"


@pytest.mark.parametrize("image_format", ["png", "gif", "webp"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, image_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], duration=100)
    found = facts(tmp_path / "x", buffer.getvalue())
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
    tmp_path: Path, image_format: str, needless: int, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DAG files set this, for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = picture(image_format)
    cuts = {*range(1, 40), *range(40, len(data), 97)} - set(range(needless + 1))
    for cut in sorted(cuts):
        refusal(tmp_path / "x", data[:-cut])


def test_a_flipped_bit_in_a_png_is_invalid(tmp_path: Path) -> None:
    data = bytearray(picture("png"))
    for at in range(8, len(data), 101):
        data[at] ^= 1
        refusal(tmp_path / "x", bytes(data))
        data[at] ^= 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image_format=st.sampled_from(FORMATS),
    at=st.integers(0, 10_000),
    junk=st.binary(min_size=1, max_size=12),
    keep=st.booleans(),
)
def test_damage_is_found_or_harmless_and_never_another_error(
    tmp_path: Path, image_format: str, at: int, junk: bytes, keep: bool
) -> None:
    data = picture(image_format)
    at %= len(data)
    damaged = data[:at] + junk + data[at + len(junk) if keep else at :]
    try:
        found = facts(tmp_path / "x", damaged)
    except ImageInvalid:
        return
    assert found.width * found.height <= MAX_PIXELS


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_behind_magic_bytes_is_invalid(tmp_path: Path, junk: bytes) -> None:
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x01\x00\x00WEBP", b"GIF89a"):
        refusal(tmp_path / "x", magic + junk)


@pytest.mark.parametrize(("width", "height"), [(5000, 4001), (20_000_001, 1), (65_535, 65_535), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_from_the_header_alone(
    tmp_path: Path, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    before = Image.MAX_IMAGE_PIXELS
    refusal(tmp_path / "x", png_header(width, height))
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_largest_size_of_the_model_is_taken(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (12_288, 1_536)).save(buffer, "png")
    assert facts(tmp_path / "x", buffer.getvalue()).width == 12_288


def test_a_text_bomb_in_a_png_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png = picture("png")
    bomb = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(100_000_000)))
    at = png.index(b"IDAT") - 4
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", lambda data: pytest.fail("unpacked"))
    assert facts(tmp_path / "x", png[:at] + bomb + png[at:]).format == "png"


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
def test_what_is_no_image_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    message = refusal(tmp_path / "x", data)
    assert words in message
    assert len(message) < 300
    assert "s3cret" not in message


def test_svg_and_eps_never_reach_a_decoder(tmp_path: Path) -> None:
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg xmlns='x'></svg>", b"BM" + bytes(60)):
        refusal(tmp_path / "x", data)


def test_a_missing_file_is_not_an_invalid_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect_image(tmp_path / "nothing")


# --- reference images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_format", "mime"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")]
)
def test_reference_by_path_or_bytes(tmp_path: Path, image_format: str, mime: str) -> None:
    data = picture(image_format)
    (tmp_path / "x.dat").write_bytes(data)
    assert (
        check_reference(data) == check_reference(tmp_path / "x.dat") == check_reference(str(tmp_path / "x.dat")) == mime
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"<html>login</html>", "HTML or XML"),
        (b"root:x:0:0:root:/root:/bin/bash", "text"),
        (b"BM" + bytes(60), "unknown bytes"),
        (picture("gif"), "a GIF"),
    ],
)
def test_a_reference_of_another_kind_is_named_without_its_content(data: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_reference(data, name="s3://b/a.gif")
    assert refused.value.message == f"s3://b/a.gif must be JPEG, PNG or WebP of at most 10 MB; it is {kind}"


@pytest.mark.parametrize(
    ("size", "warned"), [(10_000_000, False), (10_000_001, True), (10_485_760, True), (10_485_761, None)]
)
def test_reference_size(tmp_path: Path, size: int, warned: bool | None, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(picture("png").ljust(size, b"\0"))
    with caplog.at_level(logging.WARNING):
        if warned is None:
            with pytest.raises(InvalidRequest, match="10,485,761 bytes"):
                check_reference(path)
        else:
            check_reference(path)
    assert ("may refuse" in caplog.text) == bool(warned)


def test_sniff_needs_the_whole_mark() -> None:
    assert detect_format(b"\x89PNG") is None
    assert detect_format(b"RIFF1234WAVE") is None
    assert detect_format(b"\xff\xd8\xff\xe0") == "jpeg"
