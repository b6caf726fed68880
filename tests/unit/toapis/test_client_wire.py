"""Whatever bytes come back: an answer or an error of the tree, from both clients, and nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.client import AsyncToApisClient, ToApisClient
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import ApiCall, status_call
from tests.support.responses import KEY, MODEL_LIST, RUNNING, STATUS, SUBMIT, UPLOAD
from tests.support.scripted_server import ScriptedServer, raw
from tests.unit.toapis.test_client import SHELLS, call_once, js, trace

BODY = b'{"id":"tsk_1","status":"completed","result":{"data":[{"url":"https://x.example/a.png"}]}}'
LOCATIONS = [
    b"https://xn--a/",
    b"https://xn--zzzzzz.com/",
    b"javascript:alert(1)",
    b"https:///x",
    b"https://a:99999/",
    "https://ä.example/".encode(),
    b"https://\xe4.example/",
    b"https://[::g]/",
    b"http://[bad",
    b"https://a/\x7f",
    "https://\u2488.com/".encode(),
    b"https://a/" + b"a" * 66000,
    b"data:,x",
    b"%",
]


def answer(status: bytes = b"200 OK", *headers: bytes, body: bytes = BODY) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


ANSWERS = [
    answer(),
    answer(b"200 OK", b"Content-Encoding: gzip", body=gzip.compress(BODY)),
    answer(b"200 OK", b"Content-Encoding: br", body=b"\x0b\x02\x80"),
    answer(b"429 X", b"Retry-After: -1e400, nan", body=b"{}"),
    answer(b"302 Found", b"Location: https://xn--a/", body=b""),
    answer(b"200 OK", b"Set-Cookie: a=b; Domain=\xff; Max-Age=99999999999999999999999999"),
    answer(b"200 OK", b"Content-Type: application/json; charset=utf-7"),
    answer(body=b"[" * 100_000),
    answer(body=b'{"id":' + b"9" * 5000 + b"}"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 3 + answer(),
    b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
]


def mutated(dice: random.Random) -> bytes:
    """An answer with a few bytes changed, lost, doubled or swapped."""
    content = bytearray(dice.choice(ANSWERS))
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(content[:300]) or 1)
        match dice.randrange(5):
            case 0:
                content[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del content[place : place + dice.randint(1, 9)]
            case 2:
                content[place:place] = dice.choice([b"\r\n", b"\x00", b"%", b"xn--", b"\xff", b"-1", b"9" * 30, b":"])
            case 3:
                del content[place + dice.randint(1, 200) :]
            case _:
                content[place:place] = bytes(content[:place][-20:])
    return bytes(content)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("call", [SUBMIT, STATUS, UPLOAD, MODEL_LIST], ids=lambda call: call.kind)
def test_mutated_answers_bring_a_result_or_an_error_of_the_tree(shell: str, call: ApiCall[Any]) -> None:
    dice = random.Random(20_261_126)
    steps = [raw(mutated(dice)) for _ in range(60)]
    with ScriptedServer(steps) as server:
        for _ in steps:
            result, _ = call_once(shell, f"http://{server.address}", call, timeout=5)
            # ``call_once`` returns the errors of the tree and no others.
            assert not isinstance(result, errors.ConnectionFailed), "a request that arrived was sent"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("call", [SUBMIT, STATUS], ids=lambda call: call.kind)
def test_wherever_a_redirect_leads_it_is_the_same_error(shell: str, call: ApiCall[Any]) -> None:
    said = set()
    for location in LOCATIONS:
        done = trace(shell, [raw(answer(b"302 Found", b"Location: " + location, body=b""))], call)
        said.add((type(done.result), done.result.message))
    assert len(said) == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_what_breaks_in_no_known_way_may_have_arrived(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr("httpx.Response.iter_bytes", broken)
    monkeypatch.setattr("httpx.Response.aiter_bytes", broken)
    done = trace(shell, [raw(answer())], SUBMIT)
    assert isinstance(done.result, errors.SubmissionUnknown) and isinstance(done.result.__cause__, LookupError)
    assert isinstance(trace(shell, [raw(answer())] * 9, STATUS).result, errors.TransientFailure)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("inf"), object(), {1, 2}])
def test_a_body_that_cannot_be_written_is_refused_unsent(shell: str, value: Any) -> None:
    call = ApiCall(SUBMIT.kind, SUBMIT.method, SUBMIT.path, SUBMIT.read, body={**(SUBMIT.body or {}), "prompt": value})
    done = trace(shell, [], call)
    assert (type(done.result), done.result.charged, done.requests) == (errors.InvalidRequest, "no", [])


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("image_task_id", ["\ud800", "a\udfffb", "\x00", "é", "x" * 5000, "\u2028"])
def test_any_id_can_be_asked_for(shell: str, image_task_id: str) -> None:
    done = trace(shell, [js(200, RUNNING)], status_call(image_task_id))
    assert isinstance(done.result, ImageTask | errors.ToApisError) and len(done.requests) == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_the_client_names_itself_and_keeps_no_cookies(shell: str) -> None:
    steps = [raw(answer(b"500 X", b"Set-Cookie: session=stolen; Path=/", body=b"{}")), js(200, RUNNING)]
    first, second = trace(shell, steps, STATUS).requests
    assert first.header("user-agent") == f"airflow-provider-nanobanana/{__version__}"
    assert second.header("cookie") is None


def test_connections_are_as_many_as_calls_at_once() -> None:
    """Threads come and go with each round of looks; what they opened is used again."""
    with _Answering() as base_url, contextlib.closing(ToApisClient(base_url, KEY)) as client:
        for _ in range(20):
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: client.call(STATUS), range(12)))
        assert 1 <= len(client._lines) <= 4
        assert sum(len(line.cutoff._sockets) for line in client._lines) <= 4


#: Of the image task that is asked for: an answer about another is not ours.
_ASKED = json.dumps({"id": STATUS.image_task_id, "status": "running"}).encode()


class _Answering:
    """A server that keeps connections open and answers every request on them."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while connection.recv(65536):
                connection.sendall(answer(body=_ASKED))


def test_while_a_host_cannot_be_reached_one_call_tries_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked up in the event loop's few threads; fifty that take seconds would hold up every trigger."""
    asked: list[str] = []
    away = True
    look_up = socket.getaddrinfo

    def nowhere(host: Any, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        if away:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)

    async def looks(client: AsyncToApisClient) -> list[Any]:
        calls = (client.call(STATUS) for _ in range(50))
        return await asyncio.gather(*calls, return_exceptions=True)

    async def go(port: int) -> None:
        nonlocal away
        client = AsyncToApisClient(f"http://gateway.invalid:{port}", KEY, concurrency=50)
        for round_ in (1, 2, 3):
            said = await looks(client)
            assert {type(one) for one in said} == {errors.ConnectionFailed} and len(asked) == round_
        away = False
        assert {type(one) for one in await looks(client)} == {ImageTask}
        await client.aclose()

    with _Answering() as base_url:
        asyncio.run(go(int(base_url.rpartition(":")[2])))


def test_a_call_that_is_cancelled_while_it_tries_for_all_leaves_the_others_their_turn() -> None:
    async def go(base_url: str) -> list[Any]:
        client = AsyncToApisClient(base_url, KEY, concurrency=8)
        calls = [asyncio.create_task(client.call(STATUS)) for _ in range(5)]
        await asyncio.sleep(0)
        calls[0].cancel()
        said = await asyncio.gather(*calls, return_exceptions=True)
        await client.aclose()
        return said

    with _Answering() as base_url:
        first, *others = asyncio.run(go(base_url))
    assert isinstance(first, asyncio.CancelledError) and {type(one) for one in others} == {ImageTask}
