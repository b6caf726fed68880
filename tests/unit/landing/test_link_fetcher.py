"""LinkFetcher: bounded downloads without credentials."""

from __future__ import annotations

import gzip
import io
import logging
import os
import random
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from airflow_provider_nanobanana.landing.address_policy import AddressPolicy
from airflow_provider_nanobanana.landing.link_fetcher import LinkFetcher
from airflow_provider_nanobanana.toapis.errors import (
    ConfigurationError,
    DownloadFailed,
    ImageInvalid,
    UnsafeAddress,
)
from tests.support.link_server import (
    BODY,
    LOOPBACK_POLICY,
    SECRET,
    Send,
    body_of,
    certificates,
    fetch_error,
    fetch_link,
    fixed,
    resolver,
    respond,
    serve,
)


@pytest.mark.parametrize(
    ("answer", "promised"),
    [
        (respond(200, b"hello world"), True),
        (respond(200, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", length=False, Transfer_Encoding="chunked"), True),
        (respond(200, b"hello world", length=False, Connection="close"), False),
    ],
)
def test_the_body_and_whether_its_end_was_promised(answer: bytes, promised: bool) -> None:
    sink = io.BytesIO()
    with serve(fixed(answer)) as server:
        assert fetch_link(server.url(), sink, LOOPBACK_POLICY) is promised
    assert sink.getvalue() == b"hello world"


def test_no_credentials_cookies_or_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\ndefault login me password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    def answer(path: str, send: Send) -> None:
        if path == "/1":
            send(respond(302, Location="/2", Set_Cookie="a=b; Path=/", Connection="close"))
        else:
            send(respond(200, b"x", Set_Cookie="a=b; Path=/", Connection="close"))

    with serve(answer) as server, LinkFetcher(LOOPBACK_POLICY) as fetcher:
        for _ in range(2):
            fetcher.fetch(server.url("/1"), io.BytesIO())
    assert len(server.requests) == 4
    for head in server.requests:
        names = {line.split(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names == {"host", "user-agent", "accept", "accept-encoding"}
        assert "accept-encoding: identity" in head.lower()


def test_signed_links_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serve(fixed(respond(200, b"x"))) as server:
        fetch_link(server.url("/a.png" + SECRET), io.BytesIO(), LOOPBACK_POLICY)
    assert "s3cret" in server.requests[0]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 404, 408, 410, 429, 500, 502, 503])
def test_only_200_is_an_image(status: int) -> None:
    with serve(fixed(respond(status, b"" if status in (204, 304) else b"<html>s3cret</html>"))) as server:
        error = fetch_error(server.url("/a.png" + SECRET))
    assert isinstance(error, DownloadFailed)
    assert error.http_status == status
    assert error.retryable
    assert "127.0.0.1/a.png" in error.message
    assert ("fresh one" in error.message) == (status in (403, 404, 410))


def test_retry_after_is_passed_on() -> None:
    with serve(fixed(respond(429, Retry_After="7"))) as server:
        assert fetch_error(server.url()).retry_after == 7


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"nonsense\r\n\r\n",
        respond(200, BODY[:-1], length=False, Content_Length=str(len(BODY))),
        respond(200, b"5\r\nhel", length=False, Transfer_Encoding="chunked"),
        respond(302),
        respond(200, b"x", length=False, Content_Length="-1"),
    ],
    ids=["nothing", "half a head", "no http", "short", "half a chunk", "redirect to nowhere", "negative length"],
)
def test_broken_answers(answer: bytes) -> None:
    with serve(fixed(answer)) as server:
        assert isinstance(fetch_error(server.url("/a.png" + SECRET)), DownloadFailed)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = fetch_error(f"http://127.0.0.1:{port}/a.png{SECRET}")
    assert isinstance(error, DownloadFailed)
    assert error.charged == "yes"


# --- bounds of size and time -----------------------------------------------------------------------------------------


def test_declared_size_is_refused_before_reading() -> None:
    # No byte of the body is ever sent.
    with serve(fixed(respond(200, length=False, Content_Length="1001"))) as server:
        error = fetch_error(server.url(), max_bytes=1000)
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
        assert isinstance(fetch_error(server.url(), max_bytes=1_000_000), ImageInvalid)
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
        fetch_link(server.url(), sink, LOOPBACK_POLICY)
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
            assert isinstance(fetch_error(server.url()), DownloadFailed)


def test_compressed_bomb_is_counted_decoded_and_in_pieces() -> None:
    pieces: list[int] = []

    class Sink(io.BytesIO):
        def write(self, piece: bytes) -> int:  # type: ignore[override]
            pieces.append(len(piece))
            return len(piece)

    answer = fixed(respond(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"))
    with serve(answer) as server, pytest.raises(ImageInvalid):
        fetch_link(server.url(), Sink(), LOOPBACK_POLICY, max_bytes=1_000_000)
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
        error = fetch_error(server.url(), total=300, clock=Clock(step=40))
    assert isinstance(error, DownloadFailed)
    assert "within 300 seconds" in error.message


def test_redirects_share_one_total_bound() -> None:
    with serve(fixed(respond(302, Location="/again"))) as server:
        error = fetch_error(server.url(), total=300, clock=Clock(step=149))
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
        error = fetch_error(server.url(), total=0.2, timeout=20)
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

    with serve(large) as server, open(tmp_path / "image", "wb") as sink, LinkFetcher(LOOPBACK_POLICY) as fetcher:
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
        fetch_link(server.url(), Full(), LOOPBACK_POLICY)


# --- addresses, redirects and headers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "https://xn--a/", "https://xn--zzzzzz.com/", "javascript:alert(1)", "http://127.0.0.1:0/", "http://127.0.0.1:99999/",
        "http://127.0.0.1:8o/", "http://[::1]:x/", "http://[v1.a]/", "http://\xe4.example/", "http://a..b/", "http:///x",
        "http://" + "a" * 64 + ".example/", "http://127.0.0.1\\@evil/", "http://127.0.0.1%2f@evil/", "mailto:x@y",
        "http:", "http://kubernetes.default.svc/", "http://api.x.cluster/", "//", "http://169.254.169.254.",
        "http://x/" + "a" * 60_000,
    ],
)  # fmt: skip
def test_any_redirect_ends_in_the_tree(location: str) -> None:
    with serve(fixed(respond(302, Location=location))) as server:
        error = fetch_error(server.url(), AddressPolicy(allow_http=True, reach="loopback"), timeout=2)
    assert isinstance(error, UnsafeAddress | DownloadFailed)


def test_blanks_around_a_link_are_no_part_of_it() -> None:
    with serve(fixed(respond(200, BODY))) as server:
        assert body_of(f"  {server.url()} \n") == BODY


def test_mutated_links_end_in_the_tree() -> None:
    """A short form of a campaign of 600,000; nothing is connected to: no name resolves."""
    rng = random.Random(3)
    signs = "@:/\\#?[]%.\t\n\r \x00aA0x-_~!$&'()*+,;=\u3002\uff0e\u2024\u00ad\u200d\ufeff\ud800|<>^`{}\""
    hosts = (
        "example.com",
        "xn--a",
        "xn--zzzzzz.com",
        "127.1",
        "[::1]",
        "[fe80::1%eth0]",
        "user@h.example",
        "a..b",
        "ä.com",
    )
    paths = ("", "/", "/a b", "/ä", "?x=1", "#f", "/\ud800", "/%zz", "\\x", "/" + "a" * 70_000)

    def resolve(host: str, port: int) -> list[str]:
        host.encode("idna")  # as the system's own resolver does
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with LinkFetcher(AddressPolicy(allow_http=True, reach="public"), resolve=resolve) as fetcher:
        for _ in range(3_000):
            url = list(rng.choice(("https://", "http://", "//", " https://", "ftp://", "")) + rng.choice(hosts))
            url += rng.choice(("", ":443", ":0", ":x")) + rng.choice(paths)
            for _ in range(rng.randrange(3)):
                url.insert(rng.randrange(len(url) + 1), rng.choice(signs))
            with pytest.raises((UnsafeAddress, DownloadFailed)):
                fetcher.fetch("".join(url), io.BytesIO())


def test_connections_of_a_few_hosts_are_kept() -> None:
    """Links of a sharded host each have another name."""
    with (
        serve(fixed(respond(200, BODY)), keep_alive=True) as server,
        LinkFetcher(LOOPBACK_POLICY, resolve=resolver("127.0.0.1")) as fetcher,
    ):
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        for number in range(40):
            fetcher.fetch(server.url(host=f"shard{number}.example"), io.BytesIO())
        fetcher.fetch(server.url(host="shard39.example"), io.BytesIO())
        after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        assert len(server.peers) == 40, "the last one was still connected"
        assert len(fetcher._transports) == 4
        assert len(fetcher._deadline._sockets) <= 5
    assert after - before <= 25, "both ends of the kept ones, and what the server has not closed yet"


def test_no_log_line_holds_a_signed_link(caplog: pytest.LogCaptureFixture) -> None:
    """httpcore writes the headers of every answer at DEBUG; a redirect's name the link."""

    def answer(path: str, send: Send) -> None:
        send(respond(200, BODY) if path.startswith("/real") else respond(302, Location="/real.png" + SECRET))

    with serve(answer) as server, caplog.at_level(logging.DEBUG):
        assert body_of(server.url("/a.png" + SECRET)) == BODY
        assert "s3cret" not in caplog.text
        with httpx.Client() as client:
            client.get(server.url("/real.png"))
    assert "receive_response_headers.complete" in caplog.text, "others see theirs"


# --- where links may lead --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://10.0.0.1/", "//169.254.1.1/x",
        "file:///etc/passwd", "http://metadata.google.internal/", "http://2130706433/", "http://[::1", "gopher://x/",
        "http://user:s3cret@127.0.0.1/",
    ],
)  # fmt: skip
def test_redirects_are_judged_like_links(location: str) -> None:
    with serve(fixed(respond(302, Location=location))) as server:
        assert isinstance(fetch_error(server.url()), UnsafeAddress)
    assert len(server.requests) == 1


def test_https_does_not_fall_back_to_http(tmp_path: Path) -> None:
    tls = certificates(tmp_path, "files.example")
    with serve(fixed(respond(200, b"x"))) as plain:
        redirect = fixed(respond(302, Location=plain.url(host="files.example")))
        with serve(redirect, tls=tls.server) as server:
            policy = AddressPolicy(allow_http=False, reach="loopback")
            url = server.url(host="files.example", scheme="https")
            error = fetch_error(url, policy, ssl_context=tls.client, resolve=resolver("127.0.0.1"))
    assert isinstance(error, UnsafeAddress)
    assert plain.peers == []


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:169.254.169.254"], ["nonsense"]])
def test_a_name_is_refused_for_any_address_it_has(addresses: list[str]) -> None:
    error = fetch_error("https://files.example/a.png" + SECRET, AddressPolicy(), resolve=resolver(*addresses))
    assert isinstance(error, UnsafeAddress)
    assert "files.example" in error.message


def test_rebinding_the_checked_address_is_the_one_connected_to() -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(f"{host}:{port}")
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    with serve(fixed(respond(200, BODY))) as server:
        assert body_of(server.url(host="rebind.example"), resolve=resolve) == BODY
    assert asked == [f"rebind.example:{server.port}"]
    assert server.peers == ["127.0.0.1"]
    assert f"\r\nHost: rebind.example:{server.port}\r\n" in server.requests[0]


def test_every_hop_is_looked_up_again() -> None:
    with serve(fixed(respond(200, b"x"))) as inner:
        target = inner.url(host="second.example")
        with serve(fixed(respond(307, Location=target))) as outer:
            table = {"first.example": "127.0.0.1", "second.example": "10.0.0.7"}
            error = fetch_error(outer.url(host="first.example"), resolve=lambda host, _: [table[host]])
    assert isinstance(error, UnsafeAddress)
    assert "second.example" in error.message
    assert inner.peers == []


def test_relative_redirects_and_their_number() -> None:
    def answer(path: str, send: Send) -> None:
        left = int(path[1:])
        send(respond(302, Location=f"/{left - 1}") if left else respond(200, BODY))

    sink = io.BytesIO()
    with serve(answer) as server:
        fetch_link(server.url("/5"), sink, LOOPBACK_POLICY)
        error = fetch_error(server.url("/6"))
    assert sink.getvalue() == BODY
    assert isinstance(error, UnsafeAddress)
    assert "more than 5" in error.message


def test_next_address_when_one_takes_no_connection() -> None:
    with serve(fixed(respond(200, BODY))) as server:
        # The server listens on IPv4 only.
        assert body_of(server.url(host="two.example"), resolve=resolver("::1", "127.0.0.1")) == BODY


@pytest.mark.parametrize("resolved", [[], None])
def test_no_such_host(resolved: list[str] | None) -> None:
    def resolve(host: str, port: int) -> list[str]:
        if resolved is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolved

    error = fetch_error("https://files.example/a.png" + SECRET, AddressPolicy(), resolve=resolve)
    assert isinstance(error, DownloadFailed)
    assert error.retryable


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_certificate_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    tls = certificates(tmp_path, "files.example")
    policy = AddressPolicy(reach="loopback")
    with serve(fixed(respond(200, BODY)), tls=tls.server) as server:
        body = body_of(
            server.url(host="files.example", scheme="https"),
            policy,
            ssl_context=tls.client,
            resolve=resolver("127.0.0.1"),
        )
        assert (body, server.names) == (BODY, ["files.example"])
        for host in ("other.example", "127.0.0.1"):
            error = fetch_error(
                server.url("/a" + SECRET, host=host, scheme="https"),
                policy,
                ssl_context=tls.client,
                resolve=resolver("127.0.0.1"),
            )
            assert isinstance(error, DownloadFailed)
            assert "certificate" in error.message
        assert isinstance(
            fetch_error(server.url(host="files.example", scheme="https"), policy, resolve=resolver("127.0.0.1")),
            DownloadFailed,
        )
    assert len(server.requests) == 1


def test_connections_are_reused_for_one_name_only(tmp_path: Path) -> None:
    tls = certificates(tmp_path, "files.example")
    with (
        serve(fixed(respond(200, BODY)), tls=tls.server, keep_alive=True) as server,
        LinkFetcher(AddressPolicy(reach="loopback"), ssl_context=tls.client, resolve=resolver("127.0.0.1")) as fetcher,
    ):
        for _ in range(3):
            fetcher.fetch(server.url(host="files.example", scheme="https"), io.BytesIO())
        assert len(server.peers) == 1
        # Same address and port, another name: it must not ride on the verified connection of the first.
        with pytest.raises(DownloadFailed, match="certificate"):
            fetcher.fetch(server.url(host="other.example", scheme="https"), io.BytesIO())
    assert len(server.requests) == 3


# --- proxies of the environment ------------------------------------------------------------------------------------


def test_proxy_of_the_environment_resolves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("nobody here resolves behind a proxy")

    with serve(fixed(respond(200, BODY))) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        assert body_of("http://files.example/a.png", resolve=resolve) == BODY
        assert isinstance(fetch_error("http://169.254.169.254/latest/"), UnsafeAddress)
        assert isinstance(fetch_error("http://localhost/", AddressPolicy(allow_http=True)), UnsafeAddress)
    assert [head.splitlines()[0] for head in proxy.requests] == ["GET http://files.example/a.png HTTP/1.1"]


def test_https_goes_through_the_proxy_as_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(fixed(respond(403, b"not that host"))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pw@127.0.0.1:{proxy.port}")
        error = fetch_error("https://files.example/a.png" + SECRET, AddressPolicy())
    assert isinstance(error, DownloadFailed)
    head = proxy.requests[0]
    assert head.startswith("CONNECT files.example:443 HTTP/1.1")
    assert "proxy-authorization: basic" in head.lower()


def test_no_proxy_means_direct_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "files.example")
    with serve(fixed(respond(200, BODY))) as server:
        url = server.url(host="files.example")
        assert body_of(url, resolve=resolver("127.0.0.1")) == BODY
        assert isinstance(fetch_error(url, resolve=resolver("10.0.0.1")), UnsafeAddress)


def test_unusable_proxy_says_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "ftp://me:s3cret@127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "ftp://me:s3cret@127.0.0.1:9")
    error = fetch_error("http://files.example/")
    assert isinstance(error, ConfigurationError)
    assert "http_proxy" in error.message
