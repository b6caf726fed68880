"""What a file on disk really is: one complete image within the limits, or ``ImageInvalid`` that says why not.

Magic bytes decide the format, never a suffix or a ``Content-Type`` (the service serves PNG behind ``.jpg`` and the
other way round). What decides is the pixels: Pillow is given the image without its metadata, so that no text, profile,
EXIF block or second picture can refuse it or take memory; the pixel count is checked before any pixel is decoded, and
the image is decoded fully. The file itself is never rewritten: re-saving would drop C2PA provenance data.

Of an animated file (GIF, WebP, APNG) the first frame is decoded and the rest is kept as it came.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import io
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from airflow_provider_nanobanana.landing.file_signatures import image_of_another_kind, is_avif, is_text, suffix_of
from airflow_provider_nanobanana.landing.jpeg import Jpeg, parse_jpeg
from airflow_provider_nanobanana.landing.strip_metadata import bare_gif, bare_png, bare_webp, is_apng
from airflow_provider_nanobanana.landing.suspects import Look, empty_look
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly
from airflow_provider_nanobanana.toapis.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

ImageFormat = Literal["png", "jpeg", "webp", "gif", "avif"]

#: Largest image taken, in pixels. The largest the model makes is 12288x1536 = 18.9 megapixels.
MAX_PIXELS: Final = 20_000_000
#: Largest image taken, in bytes, from a link or as a file.
MAX_BYTES: Final = 64 * 1024 * 1024
#: Largest reference image taken, in pixels: cameras make more than the model does.
MAX_REFERENCE_PIXELS: Final = 80_000_000
#: The suffix of each format that is landed. The service has not been seen to make GIF or AVIF, but an edge in front of
#: it may, and a paid image is landed where Pillow decodes it. BMP, TIFF, JPEG 2000 and the like are not: no service
#: for the web answers with them, and their decoders are the ones with the most holes; they are kept in quarantine.
SUFFIXES: Final[dict[ImageFormat, str]] = {
    "png": ".png",
    "jpeg": ".jpg",
    "webp": ".webp",
    "gif": ".gif",
    "avif": ".avif",
}
_CHUNK: Final = 4 * 64 * 1024
_DATA_PREFIX: Final = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_ENDS: Final = " \t\r\n\"'"
_NOISE: Final = re.compile(r"\s+")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9+/]")
_URL_SAFE: Final = str.maketrans("-_", "+/")
#: What transports leave in a text; neither sign belongs to base64, so this is lossless.
_ESCAPES: Final = (
    ("\\n", ""), ("\\r", ""), ("\\t", ""), ("\\/", "/"), ("\\u002B", "+"), ("\\u002F", "/"), ("\\u003D", "="),
    ("%0A", ""), ("%0D", ""), ("%2B", "+"), ("%2F", "/"), ("%3D", "="),
)  # fmt: skip
#: One image is decoded at a time in a process: 20 megapixels of WebP take 390 MB while they are decoded (measured).
_DECODING: Final = threading.Lock()

_HEAD = 1024


@dataclass(frozen=True)
class ImageFacts:
    """What the bytes say: the format, the size in pixels, and whether the picture looks empty.

    :param thumbnail: The picture as a small WebP, where that was asked for and could be made.
    """

    format: ImageFormat
    width: int
    height: int
    look: Look | None = None
    thumbnail: bytes = field(default=b"", compare=False, repr=False)


def detect_format(head: bytes) -> ImageFormat | None:
    """Name the format of which ``head`` (at least 12 bytes) is the beginning, or None; of those the service knows."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return None


def suffix_for(data: bytes) -> str:
    """Return the suffix, with its dot, for a file that begins so, image or not; ``.bin`` where it is not known."""
    head = data[:_HEAD]
    found = _format(head)
    return SUFFIXES[found] if found else suffix_of(head)


def _format(head: bytes) -> ImageFormat | None:
    return "avif" if is_avif(head) else detect_format(head)


def inspect_bytes(data: bytes, use: Callable[[Image, ImageFormat], None] | None = None) -> ImageFacts:
    """Check that the content is one complete image and return its facts.

    :param use: Called with the decoded image, of which not everything may be checked yet.
    :raises ImageInvalid: Not an image, more than 20 megapixels (before any pixel is decoded), truncated or corrupt.
    :raises ImageTooCostly: It is made of more parts than any encoder writes.
    :raises MemoryError: There is too little memory to decode it.
    """
    found = _known_format(data)
    with _decoders():
        if found == "jpeg":
            return _decode_jpeg(parse_jpeg(data), use)
        bare, moves = _bare(data, found), is_apng(data)
        del data  # whoever gave it away has that much more memory for the decoder
        return _decode(bare, found, moves=moves, use=use)


def decode_small(data: bytes, use: Callable[[Image, ImageFormat], None], least_side: int) -> ImageFacts:
    """Decode what there is of a picture, complete or not, and return its facts.

    :param use: Called with the decoded image, of which a JPEG's may be smaller.
    :param least_side: Pixels of the longer side that ``use`` needs.
    :raises ImageInvalid: Not an image, more than 20 megapixels, or so broken that nothing can be seen.
    :raises ImageTooCostly: As :func:`inspect_bytes`.
    :raises MemoryError: There is too little memory to decode it.
    """
    found = _known_format(data)
    try:
        data = _bare_reference(data, found)
    except ImageTooCostly:
        raise
    except ImageInvalid:
        pass  # cut, or with parts that are none: Pillow may see something all the same
    with _decoders(strict=False), _decoder(data, found) as image:
        facts = ImageFacts(found, *image.size)
        part = max(1, max(image.size) // least_side)
        image.draft(None, (max(1, facts.width // part), max(1, facts.height // part)))
        image.load()
        use(image, found)
        return facts


def _known_format(data: bytes) -> ImageFormat:
    found = _format(data[:_HEAD])
    if found is None:
        raise ImageInvalid(f"The file is {_what_instead(data[:_HEAD])}")
    return found


def _bare(data: bytes, image_format: ImageFormat) -> bytes:
    if image_format == "png":
        return bare_png(data)
    if image_format == "webp":
        return bare_webp(data)
    if image_format == "gif":
        return bare_gif(data)
    if image_format == "avif" and not _decodes_avif():
        raise ImageInvalid(
            "The file is an AVIF image, and this worker's Pillow has no decoder for it (11.3 and newer do)"
        )
    return data


def _decode(
    data: bytes,
    image_format: ImageFormat,
    *,
    moves: bool,
    use: Callable[[Image, ImageFormat], None] | None = None,
) -> ImageFacts:
    """Decode the image fully and return its facts."""
    with _decoder(data, image_format) as image:
        image.load()
        facts = ImageFacts(image_format, *image.size, empty_look(image, moves=moves))
        if use is not None:
            use(image, image_format)
        return facts


def _announced(data: bytes, image_format: ImageFormat) -> tuple[tuple[int, int], str]:
    """Return the size that a reference image says it has, and its mode; what the decoder held is free again then."""
    with _decoder(data, image_format, MAX_REFERENCE_PIXELS) as image:
        return image.size, image.mode


def announced_shape(data: bytes) -> tuple[tuple[int, int], str]:
    """Return width and height of a reference image, and its mode as Pillow names it; no pixel is decoded.

    :raises ImageInvalid: As :func:`inspect_reference`.
    """
    found = _known_format(data)
    return _announced(_bare_reference(data, found), found)


def _bare_reference(data: bytes, image_format: ImageFormat) -> bytes:
    if image_format != "jpeg":
        return _bare(data, image_format)
    jpeg = parse_jpeg(data)
    return jpeg.bare + b"\xff\xd9" * jpeg.ended


def _decode_jpeg(jpeg: Jpeg, use: Callable[[Image, ImageFormat], None] | None = None) -> ImageFacts:
    """Decode a JPEG fully, of which the decoder would fill up missing pixels silently; return its facts."""
    pictures = set()
    facts: ImageFacts | None = None
    for variant in jpeg.variants():
        with _decoder(variant, "jpeg") as image:
            image.load()
            facts = facts or ImageFacts("jpeg", *image.size, empty_look(image))
            pictures.add(hashlib.sha256(image.tobytes()).digest())
            if use is not None:
                use(image, "jpeg")
                use = None
    if len(pictures) > 1:
        end = "although it has an end marker" if jpeg.ended else "and it has no end marker"
        raise ImageInvalid(f"The jpeg image is truncated: its pixels do not reach the last row, {end}")
    assert facts is not None
    return facts


def _decodes_avif() -> bool:
    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return False
    return bool(AvifImagePlugin.SUPPORTED)


def inspect_reference(
    data: bytes,
    on_size: Callable[[int], None] | None = None,
    *,
    use: Callable[[Image, ImageFormat], None] | None = None,
    most_side: int | None = None,
) -> ImageFacts:
    """Check that the content is one complete image of up to 80 megapixels and return its facts.

    One with more pixels than a result is read in less memory.

    :param on_size: Called with the number of pixels before any is decoded.
    :param use: Called with the decoded image, which has all its pixels then, or those of ``most_side`` at least.
    :param most_side: Pixels of the longer side that ``use`` needs, where not all.
    :raises ImageInvalid: Not an image, more than 80 megapixels, truncated or corrupt.
    :raises MemoryError: There is too little memory to decode it.
    """
    found = _known_format(data)
    bare = _bare_reference(data, found)
    (width, height), _ = _announced(bare, found)
    if on_size is not None:
        on_size(width * height)
    if width * height <= MAX_PIXELS:
        return inspect_bytes(data, use)
    # A JPEG is read to its end at an eighth of its size, or as large as it is needed.
    part = 8 if use is None else max(1, max(width, height) // (most_side or max(width, height)))
    with _decoders(), _decoder(bare, found, MAX_REFERENCE_PIXELS) as image:
        image.draft("RGB", (width // part, height // part))
        image.load()
        if use is not None:
            use(image, found)
    return ImageFacts(format=found, width=width, height=height)


@contextlib.contextmanager
def _decoder(data: bytes, image_format: ImageFormat, most: int = MAX_PIXELS) -> Iterator[ImageFile]:
    """Open the image with the one decoder its magic bytes name; whatever it rejects is ``ImageInvalid``."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=[image_format.upper()]) as image:
            width, height = image.size
            if width * height > most:
                raise ImageInvalid(f"The image has {width}x{height} pixels; at most {most:,} pixels are taken")
            yield image
    except (ImageInvalid, MemoryError):
        raise
    except Exception as error:
        # Decoders fail on hostile bytes with nearly anything (SyntaxError, struct.error, IndexError, ...).
        raise ImageInvalid(
            f"The {image_format} image is truncated or corrupt ({one_line(str(error), limit=160)})"
        ) from error


@contextlib.contextmanager
def _decoders(*, strict: bool = True) -> Iterator[None]:
    """Decode one image at a time, whatever a DAG file told Pillow of truncated images.

    :param strict: Whether they are refused; otherwise they are filled up.
    """
    from PIL import ImageFile

    with _DECODING:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = not strict
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _what_instead(head: bytes) -> str:
    """Say what came where an image that is landed should be."""
    if other := image_of_another_kind(head):
        return f"{other.words}, which is not landed (PNG, JPEG, WebP, GIF and AVIF are)"
    return f"no image but {_excerpt(head)}"


def kind_of(head: bytes) -> Literal["empty", "unknown bytes", "HTML or XML", "text"]:
    """Name what is no image without a word of its content: a reference may be any file of the worker."""
    if not head:
        return "empty"
    if not is_text(head):
        return "unknown bytes"
    return "HTML or XML" if head.lstrip().startswith(b"<") else "text"


def _excerpt(head: bytes) -> str:
    """Say what came instead of an image, for a person: the first words of HTML or text, else the first bytes in hex."""
    kind = kind_of(head)
    if kind == "empty":
        return kind
    if kind == "unknown bytes":
        return f"{kind} that begin with {head[:12].hex(' ')}"
    words = one_line(re.sub(r"<[^>]*>?", " ", head.decode("utf-8", "replace")), limit=160)
    return f"{kind}: {words!r}" if words else f"{kind} without words"


def decode_b64(text: str, sink: BinaryIO, *, max_bytes: int = MAX_BYTES) -> int:
    """Decode a ``b64_json`` value into ``sink``, piece by piece, and return the number of bytes written.

    Whatever loses nothing is taken: line breaks and blanks anywhere, padding or none, the URL-safe alphabet, quotes
    around it, a ``data:...;base64,`` prefix, escaped slashes and percent signs. Whether it is a picture is found out
    afterwards; what is not base64 at all is refused, because the service has been seen to send such values
    (``docs/toapis.md``, "Result links").

    :raises ImageInvalid: Not base64, empty, or more than ``max_bytes`` (nothing is decoded then).
    """
    text = _unescaped(text.strip(_ENDS))
    prefix = _DATA_PREFIX.match(text)
    start, end = prefix.end() if prefix else 0, len(text)
    padding = 0
    while end > start and (text[end - 1] == "=" or text[end - 1].isspace()):
        padding += text[end - 1] == "="
        end -= 1
    if start == end:
        raise ImageInvalid("The b64_json value is empty")
    if padding > 2:
        raise ImageInvalid("The b64_json value is not base64: too much padding")
    if (end - start - sum(text.count(blank) for blank in " \t\r\n")) // 4 * 3 - 2 > max_bytes:
        raise ImageInvalid(f"The b64_json value is larger than {max_bytes:,} bytes; nothing of it is kept")
    written, carried = 0, ""
    for at in range(start, end, _CHUNK):
        piece = carried + _NOISE.sub("", text[at : min(at + _CHUNK, end)]).translate(_URL_SAFE)
        if foreign := _FOREIGN.search(piece):
            raise ImageInvalid(f"The b64_json value is not base64: {foreign.group()!a} is no character of it")
        whole = len(piece) // 4 * 4
        written += sink.write(binascii.a2b_base64(piece[:whole]))
        carried = piece[whole:]
    if len(carried) == 1:
        raise ImageInvalid("The b64_json value is not base64: a character is missing or one too many")
    return written + sink.write(binascii.a2b_base64(carried + "=" * (-len(carried) % 4)))


def _unescaped(text: str) -> str:
    if "\\" in text or "%" in text:
        for escape, plain in _ESCAPES:
            text = text.replace(escape, plain).replace(escape.lower(), plain)
    return text
