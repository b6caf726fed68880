from __future__ import annotations

import gzip
import io
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.link_fetcher import LinkFetcher
from airflow_provider_nanobanana.toapis.errors import (
    DownloadFailed,
    ImageInvalid,
)
from tests.support.link_server import (
    BODY,
    HERE,
    Send,
    body_of,
    failure,
    fetch_link,
    fixed,
    respond,
    serve,
)


def test_declared_size_is_refused_before_reading() -> None:
    # No byte of the body is ever sent.
    with serve(fixed(respond(200, length=False, Content_Length="1001"))) as server:
        error = failure(server.url(), max_bytes=1000)
    assert isinstance(error, ImageInvalid)
    assert "1,001" in error.message


def test_undeclared_size_is_refused_while_reading() -> None:
    stopped = threading.Event()

    def endless(_: str, send: Send) -> None:
        try:
            send(respond(200, length=False, Connection="close"))
            while True:
                send(BODY)
        except OSError:
            stopped.set()

    with serve(endless) as server:
        assert isinstance(failure(server.url(), max_bytes=1_000_000), ImageInvalid)
        assert stopped.wait(10)


@pytest.mark.parametrize("size", [999, 1000])
def test_the_limit_itself_is_allowed(size: int) -> None:
    with serve(fixed(respond(200, b"x" * size))) as server:
        assert len(body_of(server.url(), max_bytes=1000)) == size


@pytest.mark.parametrize(
    ("name", "encode"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("Deflate", zlib.compress)]
)
def test_encodings_nobody_asked_for(name: str, encode: Callable[[bytes], bytes]) -> None:
    sink = io.BytesIO()
    with serve(fixed(respond(200, encode(BODY), Content_Encoding=name))) as server:
        fetch_link(server.url(), sink, HERE)
    assert sink.getvalue() == BODY


def test_broken_and_unknown_encodings() -> None:
    for name, body in (
        ("br", BODY),
        ("gzip, gzip", BODY),
        ("gzip", BODY),
        ("gzip", gzip.compress(BODY)[:-9]),
        ("gzip", b""),
    ):
        with serve(fixed(respond(200, body, Content_Encoding=name))) as server:
            assert isinstance(failure(server.url()), DownloadFailed)


def test_compressed_bomb_is_counted_decoded_and_in_pieces() -> None:
    pieces: list[int] = []

    class Sink(io.BytesIO):
        def write(self, piece: bytes) -> int:  # type: ignore[override]
            pieces.append(len(piece))
            return len(piece)

    answer = fixed(respond(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"))
    with serve(answer) as server, pytest.raises(ImageInvalid):
        fetch_link(server.url(), Sink(), HERE, max_bytes=1_000_000)
    assert sum(pieces) <= 1_000_000
    assert max(pieces) <= 65536


class Clock:
    """Monotonic seconds that rise by ``step`` with every look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_slow_drip_meets_the_total_bound() -> None:
    def drip(_: str, send: Send) -> None:
        send(respond(200, length=False, Content_Length="1000000"))
        while True:  # ends when the client hangs up
            send(b"x")

    with serve(drip) as server:
        error = failure(server.url(), total=300, clock=Clock(step=40))
    assert isinstance(error, DownloadFailed)
    assert "within 300 seconds" in error.message


def test_redirects_share_one_total_bound() -> None:
    with serve(fixed(respond(302, Location="/again"))) as server:
        error = failure(server.url(), total=300, clock=Clock(step=149))
    assert isinstance(error, DownloadFailed)
    assert len(server.requests) < 6


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", respond(200, length=False, Connection="close")])
def test_trickle_that_never_times_out_is_cut(start: bytes) -> None:
    """A byte now and then keeps every read timeout from firing; in the head no code of ours runs in between."""
    released = threading.Event()

    def trickle(_: str, send: Send) -> None:
        send(start)
        while not released.wait(0.02):
            send(b"x")

    with serve(trickle) as server:
        error = failure(server.url(), total=0.2, timeout=20)
        released.set()
    assert isinstance(error, DownloadFailed)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    total = 60 * 1024 * 1024
    block = bytes(64 * 1024)

    def large(_: str, send: Send) -> None:
        send(respond(200, length=False, Content_Length=str(total)))
        for _number in range(total // len(block)):
            send(block)

    with serve(large) as server, open(tmp_path / "image", "wb") as sink, LinkFetcher(HERE) as fetcher:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        fetcher.fetch(server.url(), sink)
        peak = tracemalloc.get_traced_memory()[1] - before
    assert (tmp_path / "image").stat().st_size == total
    assert peak < 4 * 1024 * 1024, f"{peak:,} bytes"


def test_errors_of_the_sink_are_its_own() -> None:
    class Full(io.BytesIO):
        def write(self, piece: bytes) -> int:  # type: ignore[override]
            raise OSError(28, "No space left on device")

    with serve(fixed(respond(200, BODY))) as server, pytest.raises(OSError, match="No space left"):
        fetch_link(server.url(), Full(), HERE)
