"""Reference images as the service can use them: what is changed, what is left as it is, and what it looks like then."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageOps

from airflow_provider_nanobanana.landing import decoder
from airflow_provider_nanobanana.landing.fit_reference import MOST_BYTES, fit_reference
from airflow_provider_nanobanana.toapis.errors import ImageInvalid
from tests.support.images import picture


def corners(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of which every turn differs: red, green and blue in three of its quarters."""
    image = Image.new("RGB", size, "white")
    for colour, (left, top) in {"red": (0, 0), "lime": (1, 0), "blue": (0, 1)}.items():
        image.paste(colour, (left * size[0] // 2, top * size[1] // 2, *((left + 1) * size[0] // 2, (top + 1) * size[1] // 2)))  # fmt: skip  # noqa: E501
    return image


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_lies_on_its_side_is_turned_upright(image_format: str, orientation: int) -> None:
    data = saved(corners(), image_format, exif=turned(orientation))
    fitted = fit_reference(data)
    assert fitted.changes == ("upright",) and fitted.facts.format == image_format
    with Image.open(io.BytesIO(fitted.content)) as found, Image.open(io.BytesIO(data)) as before:
        wanted = ImageOps.exif_transpose(before)
        assert found.size == wanted.size and found.getexif().get(0x0112, 1) == 1
        width, height = wanted.size
        for point in ((width // 4, height // 4), (3 * width // 4, height // 4), (width // 4, 3 * height // 4)):
            pairs = zip(found.convert("RGB").getpixel(point), wanted.convert("RGB").getpixel(point), strict=True)  # type: ignore[arg-type]
            assert all(abs(one - other) < 24 for one, other in pairs)


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_what_fits_is_left_as_it_is(image_format: str) -> None:
    for data in (picture(image_format), saved(corners(), image_format, exif=turned(1))):
        fitted = fit_reference(data)
        assert (fitted.changes, fitted.content) == ((), b"")


def test_colours_for_print_become_those_of_a_screen() -> None:
    fitted = decoder.fit_reference(saved(corners().convert("CMYK"), "jpeg"))
    assert fitted.changes == ("rgb",)
    with Image.open(io.BytesIO(fitted.content)) as found:
        assert found.mode == "RGB"
        red, green, blue = found.getpixel((8, 8))  # type: ignore[misc]
        assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(("mode", "sent"), [("RGB", "jpeg"), ("RGBA", "webp")])
def test_what_has_too_many_bytes_is_made_smaller(mode: str, sent: str) -> None:
    image = Image.effect_noise((2400, 2400), 100).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = saved(image, "png", compress_level=0)
    assert len(data) > MOST_BYTES
    fitted = decoder.fit_reference(data)
    assert fitted.changes == ("smaller",) and fitted.facts.format == sent
    assert 0 < len(fitted.content) <= MOST_BYTES
    with Image.open(io.BytesIO(fitted.content)) as found:
        assert found.size == (fitted.facts.width, fitted.facts.height)
        assert ("A" in found.getbands()) == (mode == "RGBA")


@pytest.mark.parametrize(
    ("mode", "formats", "sent"),
    [
        ("RGBA", ("jpeg", "png"), "png"),
        ("RGBA", ("jpeg",), "jpeg"),
        ("RGB", ("png",), "png"),
        ("RGB", ("webp", "png"), "webp"),
    ],
)
def test_what_is_made_smaller_is_in_a_format_that_the_model_takes(
    mode: str, formats: tuple[str, ...], sent: str
) -> None:
    image = Image.effect_noise((2400, 2400), 100).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    fitted = decoder.fit_reference(saved(image, "png", compress_level=0), formats)
    assert fitted.facts.format == sent and 0 < len(fitted.content) <= MOST_BYTES
    assert "smaller" in fitted.changes


@pytest.mark.parametrize(
    ("mode", "formats", "sent"),
    [
        ("RGB", ("jpeg", "png"), "jpeg"),
        ("RGBA", ("jpeg", "png"), "png"),
        ("RGBA", ("jpeg",), "jpeg"),
        ("RGB", ("png",), "png"),
    ],
)
def test_a_format_that_the_model_does_not_take_is_converted(mode: str, formats: tuple[str, ...], sent: str) -> None:
    image = corners().convert(mode)
    if mode == "RGBA":
        image.paste((0, 0, 0, 0), (40, 30, 64, 48))
    fitted = decoder.fit_reference(saved(image, "webp", lossless=True), formats)
    assert (fitted.changes, fitted.facts.format) == (("format",), sent)
    with Image.open(io.BytesIO(fitted.content)) as found:
        hidden = found.convert("RGBA").getpixel((50, 40))
        assert hidden == ((0, 0, 0, 0) if sent == "png" and mode == "RGBA" else (255, 255, 255, 255))
    assert fit_reference(saved(image, "webp"), formats=("webp",)).changes == ()


def test_half_an_image_is_refused_though_it_would_be_turned() -> None:
    data = saved(corners(), "jpeg", exif=turned(6))
    with pytest.raises(ImageInvalid):
        fit_reference(data[: len(data) // 2])


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_turns_nothing(exif: bytes) -> None:
    assert fit_reference(saved(corners(), "jpeg", exif=exif)).changes == ()
