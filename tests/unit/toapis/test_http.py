"""A call ends with its time and its bytes, however the answer is spread out."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import time
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis import client as client_module
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.client import ToApisClient
from airflow_provider_nanobanana.toapis.retry import NO_RETRY
from tests.support.responses import KEY, STATUS, SUBMIT, SUBMITTED
from tests.support.scripted_server import Request, ScriptedServer, drip, read_request, reply, silence
from tests.unit.toapis.test_client import SHELLS, call_once

BODY = json.dumps({**SUBMITTED, "padding": "x" * 60}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n" % len(BODY)
#: gzip with a file name of 60 letters: bytes that decode to nothing for a long while.
NAMED = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff" + b"n" * 60 + b"\x00" + gzip.compress(BODY)[10:]


def pieces(content: bytes) -> list[bytes]:
    return [content[n : n + 1] for n in range(len(content))]


DRIPS: dict[str, list[bytes]] = {
    "body": [HEAD + b"\r\n", *pieces(BODY)],
    "headers": [HEAD, *pieces(b"X-Slow: " + b"x" * 60), b"\r\n\r\n" + BODY],
    "interim answers": [*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 60, HEAD + b"\r\n" + BODY],
    "gzip": [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(NAMED),
        *pieces(NAMED[:71]),
        NAMED[71:],
    ],
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("where", DRIPS)
def test_a_slow_drip_ends_with_the_call_s_time(shell: str, where: str) -> None:
    """Each piece comes long before a read times out; all of them would take six times the call's own 0.5 s.

    The client has to hang up midway, which the server sees. A client that waits for the end gets a whole answer.
    """
    sent: list[bytes] = []
    with ScriptedServer([drip(DRIPS[where], 0.04, sent)]) as server:
        result, _ = call_once(shell, f"http://{server.address}", SUBMIT, timeout=0.5)
        assert isinstance(result, errors.SubmissionUnknown)
    assert len(sent) < len(DRIPS[where])


def test_a_reused_connection_is_cut_too() -> None:
    """The second call meets no new connection that it could take note of."""
    sent: list[bytes] = []

    def step(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        second.append(read_request(connection))
        drip(DRIPS["headers"], 0.04, sent)(connection)

    second: list[Request | None] = []
    with ScriptedServer([step]) as server:
        client = ToApisClient(f"http://{server.address}", KEY, timeout=0.5, retry=NO_RETRY)
        with contextlib.closing(client):
            assert client.call(SUBMIT).id == SUBMITTED["id"]
            with pytest.raises(errors.SubmissionUnknown):
                client.call(SUBMIT)
    assert second == server.requests, "both came on one connection"
    assert len(sent) < len(DRIPS["headers"])


@pytest.mark.parametrize("shell", SHELLS)
def test_an_endless_answer_is_cut(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_RESPONSE_BYTES", 1_000_000)
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"x" * 65536))
    with ScriptedServer([drip(endless, 0.0, [])]) as server:
        result, _ = call_once(shell, f"http://{server.address}", STATUS)
    assert isinstance(result, errors.TransientFailure)


class SlowNames:
    """Name resolution that answers late, and notes that it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.late = iter(seconds)
        self.asked = 0
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        time.sleep(next(self.late, 0.0))
        return self._resolve(*args, **options)


def test_a_submit_whose_host_is_found_too_late_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name resolution has no timeout: what is connected afterwards would send a request that nobody waits for."""
    names = SlowNames(monkeypatch, 0.6)
    with ScriptedServer([reply(200, BODY), reply(200, BODY)]) as server:
        client = ToApisClient(f"http://{server.address}", KEY, timeout=0.3, retry=NO_RETRY)
        with contextlib.closing(client):
            with pytest.raises(errors.ConnectionFailed) as refused:
                client.call(SUBMIT)
            assert (server.requests, names.asked) == ([], 1)
            assert refused.value.charged == "no", "it is known that nothing left"
            # The time of the next call is its own.
            assert client.call(SUBMIT).id == SUBMITTED["id"]
    assert len(server.requests) == 1


def test_a_tls_handshake_begins_only_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = SlowNames(monkeypatch, 0.6)
    with ScriptedServer([silence]) as server:
        client = ToApisClient(f"https://{server.address}", KEY, timeout=0.3, retry=NO_RETRY)
        with contextlib.closing(client), pytest.raises(errors.ConnectionFailed) as refused:
            client.call(SUBMIT)
    assert (refused.value.charged, names.asked) == ("no", 1)
    assert server.requests == []


def test_a_process_that_stood_still_sends_nothing_on_a_connection_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timer stood still, too: the clock is looked at right before the first byte."""
    with ScriptedServer([drip([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY], 5, [])]) as server:
        client = ToApisClient(f"http://{server.address}", KEY, timeout=0.5, retry=NO_RETRY)
        with contextlib.closing(client):
            assert client.call(SUBMIT).id == SUBMITTED["id"]
            deadline = client._pool.made[0].deadline
            monkeypatch.setattr(deadline, "_clock", itertools.chain([0.0], itertools.repeat(0.6)).__next__)
            with pytest.raises(errors.ConnectionFailed) as refused:
                client.call(SUBMIT)
    assert refused.value.charged == "no"
    assert len(server.requests) == 1
