"""Reference images: checked by decoding before one is uploaded, and the name it is uploaded under."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Final

from airflow_provider_nanobanana.landing import decoder
from airflow_provider_nanobanana.landing.fit_reference import FORMATS, Change, FittedReference
from airflow_provider_nanobanana.landing.image_file import MAX_BYTES, detect_format, kind_of
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, InvalidRequest
from airflow_provider_nanobanana.toapis.line_logger import LineLogger

log = LineLogger(__name__)

#: Largest reference image sent, in bytes: the generous reading of the service's "10MB" (uploads page).
MAX_REFERENCE_BYTES: Final = 10 * 1024 * 1024
#: Above this a reference image may still be refused: the service does not say which megabyte it means.
SAFE_REFERENCE_BYTES: Final = 10_000_000
_IMAGE_SUFFIXES: Final = frozenset(
    ("png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "avif", "heic", "heif", "bmp", "tif", "tiff")
)
_JPEG_SUFFIXES: Final = ("jpg", "jpeg", "jpe", "jfif")
_LONGEST_NAME: Final = 80
_HEAD: Final = 1024
_IN_WORDS: Final[dict[Change, str]] = {
    "upright": "turned upright (its EXIF orientation)",
    "rgb": "converted from CMYK to RGB",
    "format": "converted to a format that its model takes",
    "smaller": "made smaller",
}


def check_reference(data: bytes, *, name: str = "reference image") -> str:
    """Check a reference image before it is uploaded, by decoding it, and return its MIME type.

    :param data: The content, or its beginning: one byte more than 10 MiB is enough.
    :param name: What the message calls it.
    :raises InvalidRequest: No whole JPEG, PNG or WebP, larger than 10 MiB (``docs/toapis.md``, "Uploads"), above 80
        megapixels, or one that takes more time or memory to decode than :func:`decode_reference` allows.
    :raises StorageFailed: This machine could not decode it now.
    """
    found = _check_kind(data, name)
    if len(data) > MAX_REFERENCE_BYTES:
        raise InvalidRequest(f"{name} has more than {MAX_REFERENCE_BYTES:,} bytes; at most 10 MB is allowed")
    if len(data) > SAFE_REFERENCE_BYTES:
        log.warning("%s has %s bytes: the service allows 10 MB and may refuse it", name, f"{len(data):,}")
    with _refused_as(name):
        decoder.decode_reference(data)
    return f"image/{found}"


def fit_reference(data: bytes, *, name: str = "reference image", formats: Collection[str] = FORMATS) -> FittedReference:
    """Check a reference image, and make it fit for the service where it is not: upright, RGB, at most 10 MB.

    :param data: The content, or its beginning: one byte more than 64 MiB is enough.
    :param name: What message and log call it.
    :param formats: Those that its model takes.
    :return: Without changes: the original bytes are sent.
    :raises InvalidRequest: As :func:`check_reference`, but of size only one of more than 64 MiB.
    :raises StorageFailed: This machine could not decode it now.
    """
    _check_kind(data, name)
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"{name} has more than {MAX_BYTES:,} bytes, which is the most that is made smaller")
    with _refused_as(name):
        fitted = decoder.fit_reference(data, formats)
    if fitted.changes:
        log.info("%s %s", name, changes_in_words(fitted, len(data)))
    return fitted


def changes_in_words(fitted: FittedReference, size: int) -> str:
    """Return what was done to a reference image, behind its name.

    :param size: Bytes of the original.
    """
    done = " and ".join(_IN_WORDS[change] for change in fitted.changes)
    facts = fitted.facts
    now = f"{facts.width}x{facts.height} {facts.format.upper()}, {len(fitted.content):,} bytes instead of {size:,}"
    return f"was {done} before it is sent ({now})"


def _check_kind(data: bytes, name: str) -> str:
    found = detect_format(data[:_HEAD])
    if found not in FORMATS:
        what = f"a {found.upper()}" if found else kind_of(data[:_HEAD])
        raise InvalidRequest(f"{name} must be JPEG, PNG or WebP of at most 10 MB; it is {what}")
    return found


@contextlib.contextmanager
def _refused_as(name: str) -> Iterator[None]:
    try:
        yield
    except ImageInvalid as invalid:
        raise InvalidRequest(
            f"{name} must be a whole JPEG, PNG or WebP: {invalid.message}. Nothing was sent and nothing charged."
        ) from invalid


def reference_name(uri: str, mime_type: str) -> str:
    """Return the file name under which a reference is uploaded: its own, with the suffix of what it really is.

    What follows a ``?`` may be a signature and stays here.
    """
    own = uri.partition("?")[0].rpartition("/")[2]
    stem, dot, suffix = own.rpartition(".")
    known = bool(dot) and suffix.lower() in _IMAGE_SUFFIXES
    found = mime_type.removeprefix("image/")
    if not known or suffix.lower() not in (_JPEG_SUFFIXES if found == "jpeg" else (found,)):
        suffix = "jpg" if found == "jpeg" else found
    return f"{(stem if known else own)[:_LONGEST_NAME] or 'reference'}.{suffix}"
