from __future__ import annotations

import io
import logging
import socket
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.link_fetcher import LinkFetcher
from airflow_provider_nanobanana.toapis.errors import (
    DownloadFailed,
)
from tests.support.link_server import (
    BODY,
    HERE,
    SECRET,
    Send,
    failure,
    fetch_link,
    fixed,
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
        assert fetch_link(server.url(), sink, HERE) is promised
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

    with serve(answer) as server, LinkFetcher(HERE) as fetcher:
        for _ in range(2):
            fetcher.fetch(server.url("/1"), io.BytesIO())
    assert len(server.requests) == 4
    for head in server.requests:
        names = {line.split(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names == {"host", "user-agent", "accept", "accept-encoding"}
        assert "accept-encoding: identity" in head.lower()


def test_signed_links_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serve(fixed(respond(200, b"x"))) as server:
        fetch_link(server.url("/a.png" + SECRET), io.BytesIO(), HERE)
    assert "s3cret" in server.requests[0]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 404, 408, 410, 429, 500, 502, 503])
def test_only_200_is_an_image(status: int) -> None:
    with serve(fixed(respond(status, b"" if status in (204, 304) else b"<html>s3cret</html>"))) as server:
        error = failure(server.url("/a.png" + SECRET))
    assert isinstance(error, DownloadFailed)
    assert error.http_status == status
    assert error.retryable
    assert "127.0.0.1/a.png" in error.message
    assert ("fresh one" in error.message) == (status in (403, 404, 410))


def test_retry_after_is_passed_on() -> None:
    with serve(fixed(respond(429, Retry_After="7"))) as server:
        assert failure(server.url()).retry_after == 7


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
        assert isinstance(failure(server.url("/a.png" + SECRET)), DownloadFailed)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(f"http://127.0.0.1:{port}/a.png{SECRET}")
    assert isinstance(error, DownloadFailed)
    assert error.charged == "yes"
