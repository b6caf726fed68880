"""What a file on disk really is: one complete image within the limits, or ``ImageInvalid`` that says why not.

Magic bytes decide the format, never a suffix or a ``Content-Type`` (the service serves PNG behind ``.jpg`` and the
other way round). Pillow then parses the header with that one decoder, the pixel count is checked before any pixel is
decoded, and the image is decoded fully. Bytes are never rewritten: re-saving would drop C2PA provenance data.

Of an animated file (GIF, WebP, APNG) the first frame is decoded and the rest is kept as it came.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from airflow_provider_nanobanana.toapis.errors import ImageInvalid, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.ImageFile import ImageFile

log = logging.getLogger(__name__)

ImageFormat = Literal["png", "jpeg", "webp", "gif"]

MAX_PIXELS: Final = 20_000_000
"""Largest image taken, in pixels. The largest the model makes is 12288x1536 = 18.9 megapixels."""

MAX_REFERENCE_BYTES: Final = 10 * 1024 * 1024
"""Largest reference image sent, in bytes: the generous reading of the service's "10MB" (uploads page)."""

MAX_REFERENCE_PIXELS: Final = 80_000_000
"""Largest reference image taken, in pixels: cameras make more than the model does."""

SAFE_REFERENCE_BYTES: Final = 10_000_000
"""Above this a reference image may still be refused: the service does not say which megabyte it means."""

SUFFIXES: Final[dict[ImageFormat, str]] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif"}
"""The suffix of each format. GIF is last: the service accepts it as an upload and has not been seen to make one,
but a paid image is landed whatever it is."""

MIME_TYPES: Final[dict[ImageFormat, str]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
}

# Pillow does not miss the last bytes of a PNG, nor the end of a JPEG when something in the process (a DAG file, often)
# has set ``ImageFile.LOAD_TRUNCATED_IMAGES``. The pixels of neither format can hold its mark.
_END_MARKS: Final[dict[ImageFormat, bytes]] = {"png": b"IEND\xaeB`\x82", "jpeg": b"\xff\xd9"}

_SENT_AS_REFERENCE: Final = ("png", "jpeg", "webp")
_IMAGE_SUFFIXES: Final = frozenset(
    ("png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "avif", "heic", "heif", "bmp", "tif", "tiff")
)
#: Suffixes besides our own that name the same format.
_SPELLINGS: Final = {".jpg": ("jpg", "jpeg", "jpe", "jfif")}
_LONGEST_NAME: Final = 80
#: Large reference images are decoded one after another: each takes hundreds of megabytes.
_ONE_AT_A_TIME: Final = threading.Lock()

_HEAD = 1024
_TAIL = 64 * 1024


@dataclass(frozen=True)
class ImageFacts:
    """What the bytes say: ``format``, its ``suffix`` (with the dot) and the size in pixels."""

    format: ImageFormat
    suffix: str
    width: int
    height: int


def sniff(head: bytes) -> ImageFormat | None:
    """Name the format of which ``head`` (at least 12 bytes) is the beginning, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return None


def inspect_image(path: str | os.PathLike[str]) -> ImageFacts:
    """Check that the file is one complete image and return its facts.

    :param path: A local file; it is only read.
    :raises ImageInvalid: Not an image, more than 20 megapixels (before any pixel is decoded), truncated or corrupt.
    :raises OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    found = sniff(head)
    if found is None:
        raise ImageInvalid(f"The file is no image but {_excerpt(head)}")
    with _decoder(path, found) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageInvalid(f"The image has {width}x{height} pixels; at most {MAX_PIXELS:,} pixels are taken")
        if found == "png":
            image.verify()  # every chunk's CRC, which decoding alone does not check
    if found in _END_MARKS and not _has_end(path, _END_MARKS[found]):
        raise ImageInvalid(f"The {found} image is truncated: it has no end mark")
    with _decoder(path, found) as image:
        image.load()
    return ImageFacts(format=found, suffix=SUFFIXES[found], width=width, height=height)


def check_reference(source: str | os.PathLike[str] | bytes, *, name: str = "reference image") -> str:
    """Check a reference image before it is uploaded, by decoding it, and return its MIME type.

    :param source: A local file, or the whole content.
    :param name: What the message calls it.
    :raises InvalidRequest: No whole JPEG, PNG or WebP, larger than 10 MiB (service docs, image generation page), or
        above 80 megapixels.
    :raises OSError: The file cannot be read, or no temporary one written.
    """
    if isinstance(source, bytes):
        with tempfile.NamedTemporaryFile(prefix="nanobanana-") as file:
            file.write(source[: MAX_REFERENCE_BYTES + 1])
            file.flush()
            return check_reference(file.name, name=name)
    size = os.stat(source).st_size
    with open(source, "rb") as opened:
        head = opened.read(_HEAD)
    found = sniff(head)
    if found not in _SENT_AS_REFERENCE:
        what = f"a {found.upper()}" if found else _kind(head)
        raise InvalidRequest(f"{name} must be JPEG, PNG or WebP of at most 10 MB; it is {what}")
    if size > MAX_REFERENCE_BYTES:
        raise InvalidRequest(f"{name} has {size:,} bytes; JPEG, PNG or WebP of at most 10 MB is allowed")
    if size > SAFE_REFERENCE_BYTES:
        log.warning("%s has %s bytes: the service allows 10 MB and may refuse it", name, f"{size:,}")
    try:
        _decode_reference(source, found)
    except ImageInvalid as invalid:
        words = invalid.message.replace(f" {str(source)!r}", "")
        raise InvalidRequest(
            f"{name} must be a whole JPEG, PNG or WebP: {words}. Nothing was sent and nothing charged."
        ) from invalid
    return MIME_TYPES[found]


def reference_name(uri: str, mime_type: str) -> str:
    """Return the file name under which a reference is uploaded: its own, with the suffix of what it really is.

    What follows a ``?`` may be a signature and stays here.
    """
    own = uri.partition("?")[0].rpartition("/")[2]
    stem, dot, suffix = own.rpartition(".")
    known = bool(dot) and suffix.lower() in _IMAGE_SUFFIXES
    right = next(SUFFIXES[kind] for kind, mime in MIME_TYPES.items() if mime == mime_type)
    if not known or suffix.lower() not in _SPELLINGS.get(right, (right[1:],)):
        suffix = right[1:]
    return f"{(stem if known else own)[:_LONGEST_NAME] or 'reference'}.{suffix}"


def _decode_reference(path: str | os.PathLike[str], found: ImageFormat) -> None:
    """Decode an image as results are; one with more pixels, such as a camera makes, in less memory and one at a time.

    :raises ImageInvalid: It cannot be decoded whole.
    """
    with _decoder(path, found) as image:
        width, height = image.size
    if width * height <= MAX_PIXELS:
        inspect_image(path)
        return
    if width * height > MAX_REFERENCE_PIXELS:
        raise ImageInvalid(f"it has {width}x{height} pixels; at most {MAX_REFERENCE_PIXELS:,} are taken")
    with _ONE_AT_A_TIME, _decoder(path, found) as image:
        image.draft("RGB", (width // 8, height // 8))  # a JPEG is read to its end at an eighth of its size
        image.load()


@contextlib.contextmanager
def _decoder(path: str | os.PathLike[str], image_format: ImageFormat) -> Iterator[ImageFile]:
    """Open the file with the one decoder its magic bytes name; whatever it rejects is ``ImageInvalid``."""
    from PIL import Image

    try:
        with Image.open(path, formats=[image_format.upper()]) as image:
            yield image
    except (ImageInvalid, MemoryError):
        raise
    except Exception as error:
        # Decoders fail on hostile bytes with nearly anything (SyntaxError, struct.error, IndexError, ...), so the
        # list stays open; an OSError that names an errno is the disk's, not the image's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ImageInvalid(f"The {image_format} image is truncated or corrupt ({_one_line(str(error))})") from error


def _has_end(path: str | os.PathLike[str], mark: bytes) -> bool:
    """Look for the mark from the end of the file backwards; a few bytes may follow an image (gain map, padding)."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _TAIL)
            file.seek(start)
            if mark in file.read(end - start + len(mark) - 1):
                return True
            end = start
    return False


def _kind(head: bytes) -> Literal["empty", "unknown bytes", "HTML or XML", "text"]:
    """Name what is no image without a word of its content: a reference may be any file of the worker."""
    if not head:
        return "empty"
    text = head.decode("utf-8", "replace")
    if sum(c != "\ufffd" and (c.isprintable() or c in "\r\n\t") for c in text) < 0.95 * len(text):
        return "unknown bytes"
    return "HTML or XML" if text.lstrip().startswith("<") else "text"


def _excerpt(head: bytes) -> str:
    """Say what came instead of an image, for a person: the first words of HTML or text, else the first bytes in hex."""
    kind = _kind(head)
    if kind == "empty":
        return kind
    if kind == "unknown bytes":
        return f"{kind} that begin with {head[:12].hex(' ')}"
    words = _one_line(re.sub(r"<[^>]*>?", " ", head.decode("utf-8", "replace")))
    return f"{kind}: {words!r}" if words else f"{kind} without words"


def _one_line(text: str) -> str:
    """Collapse white space, cut query strings of links (they are secrets) and keep at most 160 characters."""
    return re.sub(r"\?\S+", "?…", " ".join(text.split()))[:160]
