"""Reference images: which are sent, and what is said of the others."""

from __future__ import annotations

import io
import logging

import pytest
from PIL import Image

from airflow_provider_nanobanana.landing.reference_image import check_reference
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from tests.support.images import picture


@pytest.mark.parametrize(
    ("image_format", "mime"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")]
)
def test_the_mime_type_of_a_reference(image_format: str, mime: str) -> None:
    assert check_reference(picture(image_format)) == mime


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
def test_reference_size(size: int, warned: bool | None, caplog: pytest.LogCaptureFixture) -> None:
    data = picture("png").ljust(size, b"\0")
    with caplog.at_level(logging.WARNING):
        if warned is None:
            with pytest.raises(InvalidRequest, match="more than 10,485,760 bytes"):
                check_reference(data)
        else:
            check_reference(data)
    assert ("may refuse" in caplog.text) == bool(warned)


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("jpeg", {"progressive": True, "subsampling": 0}),
        ("png", {"compress_level": 1}),
        ("webp", {"method": 0}),
    ],
)
def test_a_camera_s_eighty_megapixels_are_taken(image_format: str, options: dict[str, object]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (10_000, 7_990), "teal").save(buffer, image_format, **options)
    assert check_reference(buffer.getvalue()) == f"image/{image_format}"
    with pytest.raises(InvalidRequest, match="truncated"):
        check_reference(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def test_more_pixels_are_not() -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 8_001)).save(buffer, "png")
    with pytest.raises(InvalidRequest, match="at most 80,000,000 pixels are taken"):
        check_reference(buffer.getvalue())
