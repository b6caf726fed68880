"""What a file server answered: its status, where it redirects to, the body as pieces of bounded size."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

from airflow_provider_nanobanana.toapis.complaint import read_retry_after
from airflow_provider_nanobanana.toapis.errors import DownloadFailed, UnsafeAddress

PIECE: Final = 64 * 1024
"""Largest decoded piece, in bytes: a few compressed bytes may stand for gigabytes."""

_MOST_DIGITS: Final = 18  # of a length in bytes; int() of some thousand digits is an error of its own


def redirect_target(status: int, headers: Mapping[str, str], url: str) -> str | None:
    """Return the absolute URL a redirect leads to, unchecked, or None where the answer is no redirect.

    :raises UnsafeAddress: It leads to something that is not a URL.
    """
    location = headers.get("location")
    if status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise UnsafeAddress(f"{urlsplit(url).hostname} redirects to something that is not a URL") from error


def check_status(status: int, headers: Mapping[str, str], where: str) -> None:
    """Take 200 and nothing else.

    :raises DownloadFailed: With ``http_status``, and ``retry_after`` where the server asked to wait.
    """
    if status == 200:
        return
    hint = "; the link is dead or was taken back, a fresh one has to be asked for" if status in (403, 404, 410) else ""
    raise DownloadFailed(
        f"{where} answered {status}{hint}", http_status=status, retry_after=read_retry_after(headers, time.time())
    )


def declared_length(headers: Mapping[str, str]) -> int | None:
    """Return ``Content-Length`` in bytes, or None where there is none that can be read."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def decoded(pieces: Iterable[bytes], encoding: str, where: str) -> Iterator[bytes]:
    """Undo a ``Content-Encoding`` (none was asked for; gzip and deflate are taken all the same), piece by piece.

    :raises DownloadFailed: Another encoding, or a body that is not in it.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        yield from pieces
        return
    if name not in ("gzip", "x-gzip", "deflate"):
        raise DownloadFailed(f"{where} came in the encoding {name[:40]!r}, which was not asked for")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # reads the headers of gzip and of zlib
    try:
        for piece in pieces:
            rest, full = piece, False
            while (rest or full) and not inflater.eof:
                out = inflater.decompress(rest, PIECE)
                rest, full = inflater.unconsumed_tail, len(out) == PIECE
                yield out
    except zlib.error as error:
        raise DownloadFailed(f"{where} is not in the encoding {name!r} it claims: {error}") from error
    if not inflater.eof:
        raise DownloadFailed(f"{where} ended inside its {name} encoding")
