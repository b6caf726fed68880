"""The pixels of a JPEG: the file without its metadata, and whether the compressed pixels reach the last row.

libjpeg fills up what is missing before an end marker with grey and says nothing, so half a JPEG with an end marker put
behind it decodes. Whether the pixels are whole is found out by putting other bytes behind them: what the decoder
needed no more changes nothing. Marker codes and parameters are those of ITU-T T.81, annex B.

A file may hold as many segments and scans as any encoder writes, and not as many as fit into it: each costs time.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly

_SOI, _EOI, _SOS, _DRI, _APP0, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xDD, 0xE0, 0xEE, 0xFE
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_ARITHMETIC: Final = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
#: JFIF and Adobe say how colours are meant; the other application segments and comments are no pixels.
_METADATA: Final = frozenset({*range(_APP0 + 1, 0xF0), _COM} - {_APP14})

#: A marker; any number of 0xFF may stand before it, and a zero byte stands behind a 0xFF that is data.
_MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
#: Compressed pixels end at a marker that is no restart.
_AFTER_PIXELS: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
#: Encoders write up to about a dozen; of a file with more than this only one decode is asked.
_MANY_SCANS: Final = 100
#: A scan of a few bytes costs a pass over all pixels. Optimising encoders write some dozens at most.
_MOST_SCANS: Final = 200
#: Markers looked at. Most metadata stands in segments of 64 KiB, of which a file of 64 MiB has a thousand.
_MOST_MARKERS: Final = 100_000
#: A run of zero bytes at the end of a file without an end marker is room that nothing was written into.
_ZERO_RUN: Final = 512
_FILLER: Final = bytes(byte for byte in hashlib.shake_128(b"nothing").digest(80) if byte not in (0x00, 0xFF))[:64]
#: Bytes that mean nothing, and the same with every bit turned: whatever the first missing bit was, one is wrong.
_FILLERS: Final = (_FILLER, bytes(byte ^ 0xFF for byte in _FILLER))


@dataclass
class Jpeg:
    """The first image of a file: ``bare`` from its start to the end of its last scan, without metadata."""

    bare: bytes = b""
    ended: bool = False
    frame: int = 0
    restarts: bool = False
    scans: int = 0
    missing: dict[int, set[int]] = field(default_factory=dict)

    def variants(self) -> Iterator[bytes]:
        """Yield files whose pixels are the same where nothing is missing of them, and otherwise differ."""
        if self.frame in _ARITHMETIC or self.scans > _MANY_SCANS:
            # An arithmetic decoder may run past the end by right (T.81, D.1.8), so other bytes there prove nothing.
            yield self.bare + b"\xff\xd9"
            return
        for filler in _FILLERS:
            behind = b"".join(filler + bytes([0xFF, 0xD0 + n]) for n in range(8)) if self.restarts else filler
            yield self.bare + behind + b"\xff\xd9"


def parse_jpeg(data: bytes) -> Jpeg:
    """Take the first image of a file apart.

    :raises ImageInvalid: There are no compressed pixels, or scans are missing at the end.
    :raises ImageTooCostly: There are more segments or scans than any encoder writes.
    """
    jpeg, pieces = Jpeg(), [b"\xff\xd8"]
    for marker, start, end in _segments(data):
        if marker == _EOI:
            jpeg.ended = True
        elif marker not in _METADATA:
            pieces.append(data[start:end])
            _note(jpeg, marker, data[start + 4 : end])
        if jpeg.scans > _MOST_SCANS:
            raise ImageTooCostly(f"The jpeg image has more than {_MOST_SCANS} scans; no encoder writes so many")
    if not jpeg.scans:
        raise ImageInvalid("The jpeg image is truncated or corrupt: it holds no pixels")
    if any(jpeg.missing.values()):
        raise ImageInvalid("The jpeg image is truncated: scans are missing at its end")
    if jpeg.frame in _ARITHMETIC and not jpeg.ended:
        raise ImageInvalid("The jpeg image is truncated: it has no end marker")
    if not jpeg.ended:
        pieces[-1] = _without_zero_run(pieces[-1])
    jpeg.bare = b"".join(pieces).rstrip(b"\xff")
    return jpeg


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to the image's end; that of a scan includes its pixels."""
    at = 2
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        at, marker = found.start(), data[found.start() + 1]
        if marker in _ALONE:
            at += 2
            continue
        if marker in (_SOI, _EOI):  # a second image begins, or this one is over
            if marker == _EOI:
                yield marker, at, at + 2
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            return
        if marker == _SOS:
            behind = _AFTER_PIXELS.search(data, end)
            end = behind.start() if behind else len(data)
        yield marker, at, end
        at = end
    raise ImageTooCostly(f"The jpeg image has more than {_MOST_MARKERS:,} segments; no encoder writes so many")


def _note(jpeg: Jpeg, marker: int, body: bytes) -> None:
    """Take down what a segment says about the pixels; ``missing`` are the coefficients of each component still due."""
    if marker in _FRAMES and len(body) >= 6:
        jpeg.frame = marker
        components = body[6 : 6 + 3 * body[5] : 3]
        jpeg.missing = {name: set(range(64)) for name in components}
    elif marker == _DRI and len(body) >= 2:
        (interval,) = struct.unpack_from(">H", body)
        jpeg.restarts = interval > 0
    elif marker == _SOS and body and len(body) >= (parameters := 1 + 2 * body[0]) + 3:
        jpeg.scans += 1
        first, last, approximation = body[parameters : parameters + 3]
        for name in body[1:parameters:2]:
            if jpeg.frame not in _PROGRESSIVE:
                jpeg.missing[name] = set()
            elif approximation & 15 == 0:
                jpeg.missing.get(name, set()).difference_update(range(first, last + 1))


def _without_zero_run(pixels: bytes) -> bytes:
    kept = pixels.rstrip(b"\0")
    return kept + b"\0" * kept.endswith(b"\xff") if len(pixels) - len(kept) > _ZERO_RUN else pixels
