"""A picture at the size of a thumbnail: upright, in its colours, of the first frame, whatever kind of file it is."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, ImageOps, features

from airflow_provider_nanobanana.landing.image_file import MAX_PIXELS, decode_small, inspect_bytes
from airflow_provider_nanobanana.landing.shrink_picture import MOST_BYTES, SIDE, SmallPicture
from airflow_provider_nanobanana.toapis.errors import ImageInvalid
from tests.support.images import corners, grey_pictures, odd_pictures, picture, png_header, saved, turned

ODD = odd_pictures()
GREY = grey_pictures()
COLOURS = {(1, 1): (255, 0, 0), (3, 1): (0, 255, 0), (1, 3): (0, 0, 255), (3, 3): (255, 255, 255)}


def checked(data: bytes) -> bytes:
    """The thumbnail that is made with a check."""
    small = SmallPicture()
    small.read_metadata(data)
    inspect_bytes(data, small.take)
    return small.content()


def alone(data: bytes) -> bytes:
    """The thumbnail that is made without one."""
    small = SmallPicture()
    small.read_metadata(data)
    decode_small(data, small.take, SIDE)
    return small.content()


def shown(content: bytes) -> Image.Image:
    """The picture that a browser shows, on black."""
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "WEBP"
        return image.convert("RGB")


def is_near(one: object, other: object) -> bool:
    assert isinstance(one, tuple) and isinstance(other, tuple)
    return all(abs(a - b) <= 8 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("way", [checked, alone])
@pytest.mark.parametrize("name", ODD)
def test_every_kind_of_picture_keeps_its_colours(name: str, way: object) -> None:
    image = shown(way(ODD[name]))  # type: ignore[operator]
    assert image.size == (320, 240)
    for (column, row), colour in COLOURS.items():
        assert is_near(image.getpixel((80 * column, 60 * row)), colour), (column, row)


@pytest.mark.parametrize("way", [checked, alone])
@pytest.mark.parametrize("name", GREY)
def test_pictures_without_colours_keep_black_and_white(name: str, way: object) -> None:
    image = shown(way(GREY[name]))  # type: ignore[operator]
    assert is_near(image.getpixel((80, 120)), (0, 0, 0))
    assert is_near(image.getpixel((240, 120)), (255, 255, 255))


def test_sixteen_bits_are_scaled_not_cut() -> None:
    deep = Image.new("I;16", (400, 400), 32896)
    assert is_near(shown(checked(saved(deep, "png"))).getpixel((9, 9)), (128, 128, 128))


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_lies_on_its_side_is_upright(image_format: str, orientation: int) -> None:
    data = saved(corners((800, 600)), image_format, exif=turned(orientation))
    with Image.open(io.BytesIO(data)) as before:
        wanted = ImageOps.exif_transpose(before).convert("RGB").resize((320, 240) if orientation < 5 else (240, 320))
    for content in (checked(data), alone(data)):
        image = shown(content)
        assert image.size == wanted.size
        with Image.open(io.BytesIO(content)) as file:
            assert file.getexif().get(0x0112, 1) == 1
        for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)):
            point = (x * image.width // 4, y * image.height // 4)
            assert is_near(image.getpixel(point), wanted.getpixel(point)), point


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_upright_too(orientation: int) -> None:
    data = saved(corners((800, 600)), "avif", exif=turned(orientation), quality=90)
    with Image.open(io.BytesIO(data)) as before:
        wanted = ImageOps.exif_transpose(before).convert("RGB")
    image = shown(checked(data))
    assert image.size == wanted.resize((320, 240) if wanted.width > wanted.height else (240, 320)).size
    for x, y in ((1, 1), (3, 1), (1, 3), (3, 3)):
        point = (x * image.width // 4, y * image.height // 4)
        assert is_near(image.getpixel(point), wanted.getpixel((x * wanted.width // 4, y * wanted.height // 4)))


def test_what_cannot_be_seen_stays_so_and_its_colours_do_not_shine_through() -> None:
    image = Image.new("RGBA", (640, 640), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (320, 0, 640, 640))
    for data in (saved(image, "png"), saved(image, "webp", lossless=True, exact=True)):
        with Image.open(io.BytesIO(checked(data))) as small:
            assert small.mode == "RGBA"
            assert [small.getpixel((x, 160))[3] for x in (80, 240)] == [0, 255]  # type: ignore[index]
            assert is_near(small.getpixel((165, 160))[:3], (0, 0, 255))  # type: ignore[index]


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((1, 1), (1, 1)), ((64, 48), (64, 48)), ((320, 320), (320, 320)), ((321, 1), (320, 1)), ((1, 5000), (1, 320)),
        ((6144, 768), (320, 40)),
    ],
)  # fmt: skip
def test_sizes(size: tuple[int, int], small: tuple[int, int]) -> None:
    for image_format in ("png", "jpeg"):
        data = saved(Image.new("RGB", size, "teal"), image_format)
        assert shown(checked(data)).size == small
        assert shown(alone(data)).size == small


def test_noise_is_no_larger_than_a_thumbnail_may_be() -> None:
    """As large as one comes: with transparency, whose plane WebP keeps without loss."""
    noise = Image.frombytes("RGBA", (SIDE, SIDE), random.Random(3).randbytes(SIDE * SIDE * 4))
    assert 0 < len(checked(saved(noise, "png"))) <= MOST_BYTES


def test_a_screen_s_profile_stays_and_a_printer_s_is_left_out() -> None:
    for profile, kept in ((ODD_PROFILE, True), (bytes(9000), False)):
        data = saved(corners(), "png", icc_profile=profile)
        with Image.open(io.BytesIO(checked(data))) as small:
            assert ("icc_profile" in small.info) is kept


with Image.open(io.BytesIO(ODD["png-profile"])) as _image:
    ODD_PROFILE = _image.info["icc_profile"]


def test_the_check_says_the_same_with_and_without_a_thumbnail() -> None:
    rng = random.Random(5)
    seeds = [*odd_pictures((40, 30)).values(), *grey_pictures((40, 30)).values()]
    compared = 0
    for _ in range(400):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        outcomes: list[object] = []
        for use in (None, SmallPicture().take):
            try:
                outcomes.append(inspect_bytes(cut, use))
            except ImageInvalid as invalid:
                outcomes.append(invalid.message.partition("0x")[0])
        assert outcomes[0] == outcomes[1]
        compared += 1
    assert compared == 400


def test_metadata_that_is_none_says_nothing() -> None:
    rng = random.Random(9)
    seeds = [ODD["png-profile"], saved(corners(), "jpeg", exif=turned(6)), saved(corners(), "webp", exif=turned(6))]
    for _ in range(300):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 30)):
            data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
        small = SmallPicture()
        small.read_metadata(bytes(data))
        assert small.content() == b""


def test_a_bomb_is_not_decoded() -> None:
    for width, height in ((30_000, 30_000), (MAX_PIXELS + 1, 1)):
        with pytest.raises(ImageInvalid):
            alone(png_header(width, height))


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_of_a_cut_picture_the_part_that_is_there_is_seen(image_format: str) -> None:
    """As it came and was kept in quarantine: whoever decides about it looks at it."""
    data = saved(
        Image.effect_noise((800, 600), 60).convert("RGB"),
        image_format,
        **({"quality": 95} if image_format != "png" else {}),
    )
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(ImageInvalid):
        checked(cut)
    small = shown(alone(cut))
    assert small.size == (320, 240)
    assert len(small.crop((0, 0, 320, 100)).getcolors(32_000) or ()) > 50


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", picture("jpeg")[:30], picture("webp")[:900]])
def test_where_nothing_can_be_seen_there_is_none(data: bytes) -> None:
    with pytest.raises(ImageInvalid):
        alone(data)
