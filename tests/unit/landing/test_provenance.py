"""Marks of provenance survive landing: what is in the team's storage is, byte for byte, what the service sent.

C2PA keeps its manifest in a ``caBX`` chunk of a PNG, in APP11 segments of a JPEG and in a ``C2PA`` chunk of a WebP
(C2PA specification 2.1, embedding manifests); IPTC's "made by AI" is XMP text.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from airflow_provider_nanobanana.landing import ImageStore, find_existing
from tests.support.images import JUMBF, chunk, jpeg_with_provenance, picture, png_with_provenance

XMP = b"<x:xmpmeta><Iptc4xmpExt:DigitalSourceType>trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType></x:xmpmeta>"


def png_with_xmp() -> bytes:
    png = png_with_provenance()
    at = png.index(b"IEND") - 4
    return png[:at] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + png[at:]


def webp_with_provenance() -> bytes:
    """A WebP with a chunk of its own after the pixels; RIFF chunks have even lengths."""
    webp = picture("webp", xmp=XMP)
    body = webp[8:] + b"C2PA" + struct.pack("<I", len(JUMBF)) + JUMBF + bytes(len(JUMBF) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        yield name, data[at + 8 : at + 8 + length]
        at += 12 + length


def jpeg_segments(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every segment before the pixels."""
    at = 2
    while data[at : at + 2] != b"\xff\xda":
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        yield data[at : at + 2], data[at + 4 : at + 2 + length]
        at += 2 + length


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at < len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def marks(data: bytes) -> set[bytes]:
    """Return which marks a file bears, read as its format stores them."""
    readers = {b"\x89PN": png_chunks, b"\xff\xd8\xff": jpeg_segments, b"RIF": riff_chunks}
    kept = dict(readers[data[:3]](data))
    found = {name for name in (b"caBX", b"\xff\xeb", b"C2PA") if kept.get(name, b"").endswith(JUMBF)}
    return found | {b"XMP" for text in kept.values() if text.endswith(XMP)}


PICTURES = {
    "png": (png_with_xmp(), {b"caBX", b"XMP"}),
    "jpeg": (jpeg_with_provenance(), {b"\xff\xeb"}),
    "webp": (webp_with_provenance(), {b"C2PA", b"XMP"}),
}


@pytest.mark.parametrize("image_format", PICTURES)
def test_what_a_re_encoding_would_lose(image_format: str) -> None:
    """The control: these marks are real, and saving the picture anew drops them."""
    data, borne = PICTURES[image_format]
    anew = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.copy().save(anew, image_format)
    assert marks(data) == borne
    assert not marks(anew.getvalue()) & {b"caBX", b"\xff\xeb", b"C2PA"}


@pytest.mark.parametrize("image_format", PICTURES)
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_marks_survive_landing_and_reuse(scheme: str, image_format: str, tmp_path: Path) -> None:
    from airflow.sdk import ObjectStoragePath

    data, borne = PICTURES[image_format]
    landing = ImageStore(f"{scheme}://{tmp_path}/images")
    stored = landing.land("hero", "tsk_img_1", 0, lambda sink: sink.write(data))
    (found,) = find_existing(landing, [("k", "hero")]).values()
    # Past Airflow, which below 3.2 serves no path of a scheme that only fsspec knows.
    kept = fsspec.filesystem(scheme).cat_file(str(ObjectStoragePath(found.uri).path))
    assert marks(kept) == borne
    assert kept == data
    assert (stored.format, stored.sha256) == (image_format, found.sha256)
