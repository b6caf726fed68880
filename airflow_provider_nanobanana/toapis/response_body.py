"""ResponseBody: the body of an answer as it arrives, unpacked, and no more of it than whoever asked reads.

A hundred kilobytes of gzip may be a hundred megabytes of JSON: nothing is unpacked beyond the bound, not even once.
"""

from __future__ import annotations

import zlib
from typing import Final

#: A piece counts as so many bytes at least: each costs 15 µs of the event loop, however short it is.
_SHORTEST_PIECE: Final = 256
#: Values come as many as commas and opening brackets; a little more where a text holds some.
_VALUE_MARKS: Final = (b",", b"[", b"{")


class ResponseBody:
    """Collects the body of an answer.

    :param encoding: The answer's ``Content-Encoding``; what is neither gzip nor deflate is taken as it is.
    :param most_bytes: How many are kept.
    :param most_values: How many values of JSON are read.
    """

    def __init__(self, encoding: str, *, most_bytes: int, most_values: int) -> None:
        self._content = bytearray()
        self._most_bytes = most_bytes
        self._most_values = most_values
        self._wire_room = most_bytes
        self._packed = encoding.strip().lower() in ("gzip", "x-gzip", "deflate")
        self._inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # reads the headers of gzip and of zlib
        #: What came before anything was unpacked; None afterwards.
        self._head: bytes | None = b""
        self._too_long = False

    def __len__(self) -> int:
        """Return how many bytes were kept so far."""
        return len(self._content)

    @property
    def content(self) -> bytes | bytearray:
        """What was kept: no copy of it, as there may be a hundred megabytes."""
        return self._content

    @property
    def too_long(self) -> bool:
        """Whether there is more than is read: further bytes, or too many values."""
        return self._too_long or has_more_values(self._content, self._most_values)

    def add(self, piece: bytes) -> bool:
        """Add what has arrived; return whether more can be added.

        :raises zlib.error: It is not packed in the way that the answer says.
        """
        self._wire_room -= max(len(piece), _SHORTEST_PIECE)
        self._content += self._unpacked(piece) if self._packed else piece
        self._too_long = self._wire_room < 0 or len(self._content) > self._most_bytes
        del self._content[self._most_bytes :]
        return not self._too_long

    def _unpacked(self, piece: bytes) -> bytes:
        if self._inflater.eof:
            # It would keep what stands behind the end, and copy all of it for each piece.
            return b""
        # One byte beyond the bound tells that there is more.
        room = self._most_bytes - len(self._content) + 1
        try:
            out = self._inflater.decompress(piece, room)
        except zlib.error:
            if self._head is None:
                raise
            # Some servers send "deflate" without zlib's header, as it was once understood.
            self._inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            out = self._inflater.decompress(self._head + piece, room)
        if self._head is not None:
            self._head = None if out else self._head + piece
        return out


def has_more_values(content: bytes | bytearray, most: int) -> bool:
    """Whether JSON may hold more values than ``most``: what is a megabyte of them is a hundred in memory."""
    return len(content) > most and sum(content.count(mark) for mark in _VALUE_MARKS) > most
