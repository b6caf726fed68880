"""JPEGs of more parts than any encoder writes are refused in no time; of what encoders do write none is."""

from __future__ import annotations

import struct

import pytest

from airflow_provider_nanobanana.landing.image_file import inspect_bytes
from airflow_provider_nanobanana.landing.jpeg import parse_jpeg
from airflow_provider_nanobanana.toapis.errors import ImageInvalid
from dev.benchmarks.bombs import make
from tests.support.images import picture


@pytest.mark.parametrize("kind", ["jpeg-app", "jpeg-exif", "jpeg-icc", "jpeg-com", "jpeg-restarts", "jpeg-tables"])
def test_more_than_a_hundred_thousand_segments(kind: str) -> None:
    with pytest.raises(ImageInvalid, match=r"more than 100,000 segments; no encoder writes so many"):
        parse_jpeg(make(kind, 3))


def test_more_than_two_hundred_scans() -> None:
    with pytest.raises(ImageInvalid, match="more than 200 scans"):
        parse_jpeg(make("jpeg-scans", 1))


def test_scans_of_an_optimising_encoder() -> None:
    """Each coefficient and bit in a scan of its own."""
    data = picture("jpeg", (32, 32), progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[data.rindex(b"\xff\xc4", 0, last) : -2]
    assert inspect_bytes(data[:-2] + scan * 150 + b"\xff\xd9").width == 32


def test_sixty_megabytes_of_metadata_in_segments_as_large_as_they_may_be() -> None:
    data = picture("jpeg")
    segment = b"\xff\xeb" + struct.pack(">H", 65_535) + bytes(65_533)
    assert inspect_bytes(data[:2] + segment * 960 + data[2:]).width == 64
