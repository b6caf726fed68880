"""LinkFetcher: fetches a result link without credentials, from checked addresses only, bounded in time and size.

Built on httpx's transport, not on its client: the transport knows no cookies, no ``.netrc``, no default headers and
no redirects, and does not log the URLs it asks for (result links are signed: whoever has one has the image); what
httpcore logs at DEBUG, redirects included, is held back while a link is fetched.
"""

from __future__ import annotations

import contextlib
import logging
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, BinaryIO, Final, Self
from urllib.parse import urljoin, urlsplit

from airflow_provider_nanobanana.landing.address_policy import (
    AddressPolicy,
    LinkTarget,
    Resolve,
    check_url,
    checked_addresses,
    system_resolve,
)
from airflow_provider_nanobanana.landing.image_file import MAX_BYTES
from airflow_provider_nanobanana.toapis.error_body import parse_retry_after
from airflow_provider_nanobanana.toapis.errors import DownloadFailed, ImageInvalid, UnsafeAddress
from airflow_provider_nanobanana.toapis.http import (
    USER_AGENT,
    ConnectionDeadline,
    httpx,
    in_words,
    open_transport,
    shared_ssl_context,
)
from airflow_provider_nanobanana.toapis.proxy import EnvironmentProxy, find_proxy

if TYPE_CHECKING:
    import ssl

    from airflow_provider_nanobanana.toapis.http import httpx

#: Redirects followed.
MAX_HOPS: Final = 5
#: Longest time for one link, all redirects included.
TOTAL_SECONDS: Final = 300.0
#: Largest decoded piece, in bytes: a few compressed bytes may stand for gigabytes.
_PIECE: Final = 64 * 1024
_MAX_ADDRESSES: Final = 4
_CONNECT_SECONDS: Final = 10.0
#: Names whose connections are kept: links of a sharded host each have another.
_MOST_TRANSPORTS: Final = 4
#: A cut connection looks like the end of the body: by then the deadline has passed.
_DEADLINE_SLACK: Final = 0.1
#: Loggers of httpcore that write headers at DEBUG.
_LOGGERS: Final = ("connection", "http11", "http2", "proxy", "socks")
_FETCHING: ContextVar[bool] = ContextVar("fetching a link", default=False)


class LinkFetcher:
    """Fetches links one after another, reusing connections; a context manager, for one thread.

    :param policy: Where links may lead, from ``address_policy_for``.
    :param ssl_context: Shared TLS context; the process's own when absent.
    :param timeout: Seconds for one connect or one read.
    :param total: Seconds for one link in all.
    :param resolve: Host and port to addresses; each hop is looked up once.
    :param clock: Monotonic seconds.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = 30.0,
        total: float = TOTAL_SECONDS,
        max_bytes: int = MAX_BYTES,
        resolve: Resolve = system_resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._total = total
        self._max_bytes = max_bytes
        self._resolve = resolve
        self._clock = clock
        self._deadline = ConnectionDeadline()
        # One pool for each name: a pool reuses connections by address, and two names may share one (a CDN), while
        # only one of them was verified in the TLS handshake.
        self._transports: OrderedDict[tuple[str, str, int, EnvironmentProxy | None], httpx.HTTPTransport] = (
            OrderedDict()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        while self._transports:
            self._transports.popitem()[1].close()

    def fetch(self, url: str, sink: BinaryIO) -> bool:
        """Write what the link serves into ``sink``, in chunks; after a failure a seekable sink is as it was before.

        :return: Whether the server said where the body ends; without, a cut connection looks like the end.
        :raises UnsafeAddress: The link or a redirect leads where we never connect to, or there are too many redirects.
        :raises DownloadFailed: Not served, or not wholly; ``http_status`` is set where there was an answer (403, 404
            and 410: ask the service for a fresh link).
        :raises ImageInvalid: More than ``max_bytes``.
        :raises OSError: The sink does not take the bytes.
        """
        start = sink.tell() if sink.seekable() else None
        try:
            deadline = self._clock() + self._total
            with _unlogged(), self._deadline.limit(self._total + _DEADLINE_SLACK):
                return self._follow(url, sink, deadline)
        except BaseException:
            if start is not None:
                with contextlib.suppress(OSError):
                    sink.seek(start)
                    sink.truncate()
            raise

    def _follow(self, url: str, sink: BinaryIO, deadline: float) -> bool:
        for _ in range(MAX_HOPS + 1):
            url = url.strip()
            link = check_url(url, self._policy)
            where = f"{link.host}{urlsplit(url).path}"[:200]
            response = self._open(url, link, where, deadline)
            with contextlib.closing(response):
                target = _redirect_target(response.status_code, response.headers, url)
                if target is not None:
                    url = target
                    continue
                _check_status(response.status_code, response.headers, where)
                return self._read(response, sink, where, deadline)
        raise UnsafeAddress(f"The link was redirected more than {MAX_HOPS} times, last by {link.host}")

    def _open(self, url: str, link: LinkTarget, where: str, deadline: float) -> httpx.Response:
        """Connect to the checked addresses in turn until one takes the connection, and send the request there."""
        # A proxy looks the name up itself.
        proxy = find_proxy(link.scheme, link.host, link.port)
        addresses = (None,) if proxy else checked_addresses(link, self._policy, self._resolve)[:_MAX_ADDRESSES]
        transport = self._transport(link, proxy)
        for number, address in enumerate(addresses, 1):
            request = self._request(url, link, address, self._remaining(where, deadline))
            try:
                return transport.handle_request(request)
            except httpx.TransportError as error:
                unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not unconnected or number == len(addresses):
                    raise _failed(where, error) from error
            except (httpx.InvalidURL, ValueError) as error:  # of a name that is refused only here
                raise _failed(where, error) from error
        raise AssertionError("unreachable: the last address returns or raises")

    def _remaining(self, where: str, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise DownloadFailed(f"{where} was not served whole within {self._total:g} seconds")
        return left

    def _request(self, url: str, link: LinkTarget, address: str | None, left: float) -> httpx.Request:
        try:
            named = httpx.URL(url)
            target = named if address is None else named.copy_with(host=address)
        except (httpx.InvalidURL, ValueError) as error:  # UnicodeError, and so idna's own, is a ValueError
            raise UnsafeAddress(f"The link to {link.host} is not a URL") from error
        seconds = min(self._timeout, left)
        timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        extensions: dict[str, object] = {"timeout": timeout.as_dict(), "trace": self._deadline.trace}
        if address is not None and link.literal is None:
            extensions["sni_hostname"] = link.host  # the certificate is verified against the name
        return httpx.Request(
            "GET",
            target,
            headers={
                "Host": named.netloc.decode("ascii"),
                "User-Agent": USER_AGENT,
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            },
            extensions=extensions,
        )

    def _transport(self, link: LinkTarget, proxy: EnvironmentProxy | None) -> httpx.HTTPTransport:
        key = (link.scheme, link.host, link.port, proxy)
        if key not in self._transports:
            self._transports[key] = open_transport(
                httpx.HTTPTransport,
                proxy,
                self._ssl_context or shared_ssl_context(),
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=15.0),
            )
        self._transports.move_to_end(key)
        while len(self._transports) > _MOST_TRANSPORTS:
            self._transports.popitem(last=False)[1].close()
        return self._transports[key]

    def _read(self, response: httpx.Response, sink: BinaryIO, where: str, deadline: float) -> bool:
        declared = _declared_length(response.headers)
        if declared is not None and declared > self._max_bytes:
            raise ImageInvalid(f"{where} has {declared:,} bytes; at most {self._max_bytes:,} are taken, none kept")
        written = 0
        try:
            # Without a chunk size: a piece comes as soon as it arrives, so that a slow drip meets the deadline.
            for piece in _decoded(response.iter_raw(), response.headers.get("content-encoding", ""), where):
                self._remaining(where, deadline)
                written += len(piece)
                if written > self._max_bytes:
                    raise ImageInvalid(f"{where} has more than {self._max_bytes:,} bytes; no more are taken, none kept")
                sink.write(piece)
        except httpx.TransportError as error:
            raise _failed(where, error) from error
        self._remaining(where, deadline)
        if declared is not None and response.num_bytes_downloaded != declared:
            raise DownloadFailed(f"{where} ended after {response.num_bytes_downloaded:,} of {declared:,} bytes")
        # Chunks have an end of their own.
        return declared is not None or "transfer-encoding" in response.headers


def _redirect_target(status: int, headers: Mapping[str, str], url: str) -> str | None:
    """Return the absolute URL a redirect leads to, unchecked, or None where the answer is no redirect."""
    location = headers.get("location")
    if status not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise UnsafeAddress(f"{urlsplit(url).hostname} redirects to something that is not a URL") from error


def _check_status(status: int, headers: Mapping[str, str], where: str) -> None:
    """Take 200 and nothing else; ``DownloadFailed`` says the status, and how long the server asked to wait."""
    if status == 200:
        return
    hint = "; the link is dead or was taken back, a fresh one has to be asked for" if status in (403, 404, 410) else ""
    raise DownloadFailed(
        f"{where} answered {status}{hint}", http_status=status, retry_after=parse_retry_after(headers, time.time())
    )


def _declared_length(headers: Mapping[str, str]) -> int | None:
    """Return ``Content-Length`` in bytes, or None where there is none that can be read."""
    text = headers.get("content-length", "")
    # int() of some thousand digits is an error of its own.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _decoded(pieces: Iterable[bytes], encoding: str, where: str) -> Iterator[bytes]:
    """Undo a ``Content-Encoding`` (none was asked for; gzip and deflate are taken all the same), piece by piece."""
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
                out = inflater.decompress(rest, _PIECE)
                rest, full = inflater.unconsumed_tail, len(out) == _PIECE
                yield out
    except zlib.error as error:
        raise DownloadFailed(f"{where} is not in the encoding {name!r} it claims: {error}") from error
    if not inflater.eof:
        raise DownloadFailed(f"{where} ended inside its {name} encoding")


class _NoLinks(logging.Filter):
    """Keeps out what is logged while a link is fetched: headers of a redirect hold the signed link."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _FETCHING.get()


_NO_LINKS: Final = _NoLinks()


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    for name in _LOGGERS:
        logging.getLogger(f"httpcore.{name}").addFilter(_NO_LINKS)  # the same one twice counts once
    token = _FETCHING.set(True)
    try:
        yield
    finally:
        _FETCHING.reset(token)


def _failed(where: str, error: Exception) -> DownloadFailed:
    # The transport's own words name hosts and errnos, never the link.
    return DownloadFailed(f"{where} could not be fetched ({in_words(error)}); asking again is free")
