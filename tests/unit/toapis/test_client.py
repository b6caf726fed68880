"""The two httpx shells against one scripted server: same traces, same results, nothing leaked, nothing followed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import gzip
import ipaddress
import json
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.toapis import client as client_module
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import AsyncToApisClient, ToApisClient
from airflow_provider_nanobanana.toapis.http import shared_ssl_context
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import MAX_POLLED_BYTES, ApiCall, status_call, submit_call
from airflow_provider_nanobanana.toapis.response_body import ResponseBody
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from airflow_provider_nanobanana.toapis.retry import NO_RETRY, RequestRetry
from tests.support.fresh_process import in_fresh_process
from tests.support.responses import (
    BALANCE,
    BALANCE_CALL,
    COMPLETED,
    ENVELOPES,
    FAILED,
    ID,
    KEY,
    MODEL_LIST,
    MODELS,
    REQUEST,
    RUNNING,
    STATUS,
    SUBMIT,
    SUBMITTED,
    UPLOAD,
    UPLOADED,
)
from tests.support.scripted_server import Request, ScriptedServer, Step, raw, reply, reset, silence

SHELLS = ("sync", "async")


@dataclass(frozen=True)
class Trace:
    """What one call did: its result or its error, the requests the server saw, the waits between them."""

    result: Any
    requests: list[Request]
    waits: list[float]


def call_once(
    shell: str, base_url: str, call: ApiCall[Any], key: str = KEY, retry: RequestRetry = NO_RETRY, **options: Any
) -> tuple[Any, list[float]]:
    """Return a call's result, or its error, and the waits it asked for; the asyncio client never repeats a call."""
    waits: list[float] = []

    async def go() -> Any:
        client = AsyncToApisClient(base_url, key, **options)
        try:
            return await client.call(call)
        finally:
            await client.aclose()

    try:
        if shell == "async":
            return asyncio.run(go()), waits
        client = ToApisClient(base_url, key, retry=retry, sleep=waits.append, **options)
        try:
            return client.call(call), waits
        finally:
            client.close()
    except errors.ToApisError as error:
        return error, waits


def trace(shell: str, steps: Sequence[Step], call: ApiCall[Any], **options: Any) -> Trace:
    random.seed(7)
    with ScriptedServer(steps) as server:
        result, waits = call_once(shell, f"http://{server.address}", call, **options)
    return Trace(result, server.requests, waits)


def shown(result: Any) -> Any:
    return type(result) if isinstance(result, errors.ToApisError) else result


def js(status: int, body: Any, **headers: str) -> Step:
    return reply(status, json.dumps(body), Content_Type="application/json", **headers)


SCRIPTS: dict[str, tuple[ApiCall[Any], list[Step], type]] = {
    "submit": (SUBMIT, [js(200, SUBMITTED)], object),
    "status": (STATUS, [js(200, COMPLETED)], object),
    "failed": (STATUS, [js(200, FAILED)], object),
    "models": (MODEL_LIST, [js(200, MODELS)], object),
    "balance": (BALANCE_CALL, [js(200, BALANCE)], object),
    "upload": (UPLOAD, [js(200, UPLOADED)], object),
    "submit, limited": (SUBMIT, [js(429, ENVELOPES["E3"], Retry_After="7"), reply(429), js(200, SUBMITTED)], object),
    "submit, always limited": (SUBMIT, [reply(429)] * 9, errors.RateLimited),
    "submit, limiter down": (
        SUBMIT,
        [js(503, {"error": {"code": "rate_limit_unavailable"}}), js(200, SUBMITTED)],
        object,
    ),
    "submit, 500": (SUBMIT, [reply(500)] * 9, errors.SubmissionUnknown),
    "submit, HTML": (SUBMIT, [reply(502, "<html>bad</html>", Content_Type="text/html")] * 9, errors.SubmissionUnknown),
    "submit, reset": (SUBMIT, [reset] * 9, errors.SubmissionUnknown),
    "submit, closed": (SUBMIT, [raw(b"")] * 9, errors.SubmissionUnknown),
    "submit, cut": (
        SUBMIT,
        [raw(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id"')] * 9,
        errors.SubmissionUnknown,
    ),
    "submit, no HTTP": (SUBMIT, [raw(b"SSH-2.0-OpenSSH\r\n\r\n")] * 9, errors.SubmissionUnknown),
    "submit, bad gzip": (SUBMIT, [reply(200, b"no gzip", Content_Encoding="gzip")] * 9, errors.SubmissionUnknown),
    "submit, 401": (SUBMIT, [js(401, ENVELOPES["E1"])] * 9, errors.AuthenticationFailed),
    "status, stumbling": (STATUS, [reset, reply(502), raw(b"x"), js(200, RUNNING)], object),
    "status, always broken": (STATUS, [reply(500)] * 9, errors.TransientFailure),
    "status, 404": (STATUS, [js(404, {"error": {"code": "task_not_found"}})] * 9, errors.ImageTaskNotFound),
    "upload, stumbling": (UPLOAD, [reset, js(200, UPLOADED)], object),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_call_comes_to_in_the_end(name: str) -> None:
    call, steps, expected = SCRIPTS[name]
    done = trace("sync", steps, call, retry=RequestRetry())
    assert isinstance(done.result, expected)
    assert isinstance(done.result, errors.ToApisError) == (expected is not object)
    assert len(done.requests) == len(done.waits) + 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_shells_do_the_same(name: str) -> None:
    call, steps, _ = SCRIPTS[name]
    sync, asyncio_ = (trace(shell, steps, call) for shell in SHELLS)
    assert shown(sync.result) == shown(asyncio_.result)
    assert sync.requests == asyncio_.requests and len(sync.requests) == 1


@pytest.mark.parametrize("name", [name for name in SCRIPTS if SCRIPTS[name][2] is errors.SubmissionUnknown])
def test_a_submit_that_may_have_been_accepted_is_sent_once(name: str) -> None:
    done = trace("sync", SCRIPTS[name][1], SUBMIT, retry=RequestRetry())
    assert len(done.requests) == 1 and done.result.charged == "unknown"


def test_the_waits_of_a_limited_submit() -> None:
    done = trace("sync", SCRIPTS["submit, limited"][1], SUBMIT, retry=RequestRetry())
    first, second = done.waits
    assert 7 <= first <= 8.75 and 2 <= second <= 2.5
    assert len(trace("sync", [reply(429)] * 9, SUBMIT, retry=RequestRetry()).waits) == 3
    assert trace("sync", [reply(429)] * 9, SUBMIT).waits == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_goes_over_the_wire(shell: str) -> None:
    (submit,) = trace(shell, [js(200, SUBMITTED)], SUBMIT).requests
    assert submit.line == "POST /v1/images/generations HTTP/1.1"
    assert submit.header("authorization") == f"Bearer {KEY}" and submit.header("content-type") == "application/json"
    assert json.loads(submit.body) == SUBMIT.body
    (models,) = trace(shell, [js(200, MODELS)], MODEL_LIST).requests
    assert models.line == "GET /v1/models?type=image HTTP/1.1" and models.body == b""
    (upload,) = trace(shell, [js(200, UPLOADED)], UPLOAD).requests
    assert b'name="file"; filename="a.png"' in upload.body and b"\x89PNG" in upload.body
    assert b'name="purpose"\r\n\r\ngeneration' in upload.body and b"Content-Type: image/png" in upload.body


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("image_task_id", ["a/../b", "a?b#c", "a%2Fb", "图", "a b", "..", "."])
def test_an_id_stays_one_segment_on_the_wire(shell: str, image_task_id: str) -> None:
    (request,) = trace(shell, [js(200, {**RUNNING, "id": image_task_id})], status_call(image_task_id)).requests
    path = request.line.split(" ")[1]
    assert path.startswith("/v1/images/generations/") and len(path.split("/")) == 5
    assert path.removeprefix("/v1/images/generations/") not in ("", ".", "..")


@pytest.mark.parametrize("shell", SHELLS)
def test_many_headers_are_walked_once(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look into httpx's headers walks all of them, and a dictionary of them looks once for each."""
    looks: list[str] = []
    look_up = httpx.Headers.__getitem__

    def counted(self: httpx.Headers, name: str) -> str:
        if len(self.raw) > 1_000:
            looks.append(name)
        return look_up(self, name)

    monkeypatch.setattr(httpx.Headers, "__getitem__", counted)
    many = {f"X-{number}": "" for number in range(3_000)}
    answer = answered(shell, js(200, RUNNING, Via="a", via="b", **many))
    assert looks == []
    assert answer.headers["via"] == "a, b" and answer.headers["content-type"] == "application/json"
    assert len(answer.headers) <= 100


def answered(shell: str, step: Step) -> Any:
    """Return the answer that a step is, as calls read it."""
    unread: Any = {"read": lambda answer: answer}
    with ScriptedServer([step]) as server:
        return call_once(shell, f"http://{server.address}", replace(STATUS, **unread))[0]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_base_path_is_kept(shell: str) -> None:
    with ScriptedServer([js(200, RUNNING)]) as server:
        call_once(shell, f"http://{server.address}/gateway", STATUS)
    assert server.requests[0].line.startswith("GET /gateway/v1/images/generations/")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_link_without_a_host_is_completed_with_the_connection_s(shell: str) -> None:
    body = {**COMPLETED, "result": {"data": [{"url": "/__files/x.png"}, {"url": "x.png"}]}}
    with ScriptedServer([js(200, body)]) as server:
        host = f"http://{server.address}"
        image_task, _ = call_once(shell, f"{host}/gateway", STATUS)
    assert [image.url for image in image_task.images] == [f"{host}/__files/x.png", f"{host}/gateway/x.png"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [SUBMIT, STATUS], ids=["submit", "status"])
def test_no_redirect_is_followed(shell: str, status: int, call: ApiCall[Any]) -> None:
    with ScriptedServer([js(200, COMPLETED)] * 9) as elsewhere:
        for location in (f"http://{elsewhere.address}/x", f"//{elsewhere.address}/x", "http://[bad", "/v1/other", ""):
            done = trace(shell, [reply(status, Location=location)] * 9, call)
            assert isinstance(done.result, errors.ToApisError) and len(done.requests) == 1
    assert elsewhere.requests == []


ECHOES: list[Callable[[str], Step]] = [
    lambda key: js(401, {"error": {"code": 401, "message": f"no such key: {key}", "type": "authentication_error"}}),
    lambda key: js(400, {"error": {"code": key, "message": f"Bearer {key}", "type": key}}),
    lambda key: reply(500, f"<html>Authorization: Bearer {key}</html>"),
    lambda key: reply(401, f"{key}", X_Echo=key, Retry_After=key),
    lambda key: js(200, {"id": ID, "status": "failed", "error": {"code": "e", "message": f"upstream said {key}"}}),
    lambda key: reply(401, '{"message": "bad key ' + key.replace("/", "\\/") + '"}'),
]
KEYS = [KEY, "sk-proj/AbCdEfGh+1234567=", "0a1b2c3d-4e5f/6789-abcdef"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("echo", range(len(ECHOES)))
@pytest.mark.parametrize("key", KEYS)
def test_an_echoed_key_is_never_shown(shell: str, echo: int, key: str) -> None:
    for call in (SUBMIT, STATUS):
        done = trace(shell, [ECHOES[echo](key)] * 9, call, key=key)
        text = repr(done.result) + repr(getattr(done.result, "__dict__", "")) + repr(getattr(done.result, "error", ""))
        for secret in (key, key[3:], key.rpartition("/")[2]):
            assert secret not in text


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("key", ["1", "test", "k", "generated", "https"])
def test_a_short_key_for_an_emulator_does_not_garble_answers(shell: str, key: str) -> None:
    """Developers type "test" into the password; blanking that inside answers breaks ids and links."""
    done = trace(shell, [js(200, {**COMPLETED, "id": "tsk_test_1k"})], status_call("tsk_test_1k"), key=key)
    assert (done.result.id, done.result.images[0].url) == ("tsk_test_1k", COMPLETED["result"]["data"][0]["url"])


@pytest.mark.parametrize("key", ["", " ", "schlüssel", "a\nb", "a\x00b", "密钥"])
@pytest.mark.parametrize("client_class", [ToApisClient, AsyncToApisClient])
def test_a_key_that_is_none_is_refused_without_being_shown(client_class: Any, key: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        client_class("https://toapis.com", key)
    assert not key.strip() or key not in caught.value.message


def test_a_closed_client_sends_nothing_and_the_tls_context_is_shared() -> None:
    with ScriptedServer([js(200, RUNNING)] * 9) as server:
        client = ToApisClient(f"http://{server.address}", KEY)
        client.call(STATUS)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.call(STATUS)
    assert len(server.requests) == 1
    assert shared_ssl_context() is shared_ssl_context() and KEY not in repr(client)
    assert issubclass(httpx.ConnectError, httpx.HTTPError) and submit_call(REQUEST).image_task_id is None


# --- whether bytes were sent: refused and broken connections, TLS, proxies -------------------------------------------


OK = reply(200, json.dumps(SUBMITTED))


def failure(shell: str, base_url: str, call: ApiCall[Any] = SUBMIT, **options: Any) -> errors.ToApisError:
    result, _ = call_once(shell, base_url, call, **options)
    assert isinstance(result, errors.ToApisError), result
    return result


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "loopback.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return path


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def deaf() -> Iterator[str]:
    """A port whose queue is full: the kernel drops every further connection attempt."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_refused_connection_was_not_sent(shell: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = failure(shell, f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert (type(error), error.charged) == (errors.ConnectionFailed, "no")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_that_does_not_resolve_was_not_sent(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert type(failure(shell, "http://gateway.invalid")) is errors.ConnectionFailed


@pytest.mark.parametrize("shell", SHELLS)
def test_a_connection_that_is_never_accepted_was_not_sent(shell: str) -> None:
    """Also where the whole call's time is no longer than the connection's: the POST cannot have left."""
    with deaf() as base_url:
        error = failure(shell, base_url, timeout=0.5)
    assert (type(error), error.charged) == (errors.ConnectionFailed, "no")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_server_without_tls_was_not_sent_anything(shell: str) -> None:
    with ScriptedServer([raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")]) as server:
        # The greeting of TLS holds no request; what answers it is not TLS.
        error = failure(shell, f"https://{server.address}", timeout=5)
    assert type(error) is errors.ConnectionFailed


@pytest.mark.parametrize("shell", SHELLS)
def test_an_untrusted_certificate_was_not_sent_anything(shell: str, certificate: Path) -> None:
    with ScriptedServer([OK], serving(certificate)) as server:
        error = failure(shell, f"https://{server.address}")
    assert (type(error), server.requests) == (errors.ConnectionFailed, [])
    assert "SSL_CERT_FILE" in error.message


@pytest.fixture
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    context = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(client_module, "shared_ssl_context", lambda: context)
    return certificate


def spoil(connection: socket.socket) -> None:
    """Write below the TLS layer: a record that no key ever sealed."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as bare:
        bare.sendall(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("call", "expected"),
    [(SUBMIT, errors.SubmissionUnknown), (STATUS, errors.TransientFailure)],
    ids=["submit", "status"],
)
def test_tls_that_breaks_after_the_request_may_have_been_accepted(
    shell: str, call: ApiCall[Any], expected: type, trusting: Path
) -> None:
    with ScriptedServer([spoil], serving(trusting)) as server:
        error = failure(shell, f"https://{server.address}", call)
    assert (type(error), len(server.requests)) == (expected, 1)


@pytest.mark.parametrize("shell", SHELLS)
def test_tls_that_works_is_used(shell: str, trusting: Path) -> None:
    with ScriptedServer([OK], serving(trusting)) as server:
        result, _ = call_once(shell, f"https://{server.address}", SUBMIT)
    assert result.id == SUBMITTED["id"]


@pytest.mark.parametrize("shell", SHELLS)
def test_silence_after_the_request_may_have_been_accepted(shell: str) -> None:
    with ScriptedServer([silence]) as server:
        error = failure(shell, f"http://{server.address}", timeout=0.3)
    assert (type(error), error.charged) == (errors.SubmissionUnknown, "unknown")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_proxy_that_refuses_was_sent_neither_request_nor_key(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([reply(403, "not through here")]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        error = failure(shell, "https://gateway.invalid")
    assert (type(error), error.charged) == (errors.ConnectionFailed, "no")
    assert "403" in error.message
    (request,) = proxy.requests
    assert request.line == "CONNECT gateway.invalid:443 HTTP/1.1"
    assert (request.header("authorization"), request.body) == (None, b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_compressed_answers_are_read(shell: str) -> None:
    body = gzip.compress(json.dumps(RUNNING).encode())
    with ScriptedServer([reply(200, body, Content_Encoding="gzip")]) as server:
        result, _ = call_once(shell, f"http://{server.address}", STATUS)
    assert result.wire_status == "in_progress"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("base_url", ["https://a\x00b.com", "https://xn--.com", "https://\u3002.com", "https://h/\x7f"])
def test_a_host_that_httpx_cannot_take_is_a_configuration_error(shell: str, base_url: str) -> None:
    """``normalise_host`` lets these through today; whichever of the two refuses them, it is the tree's error."""
    from airflow_provider_nanobanana.toapis.protocol import normalise_host

    with pytest.raises(errors.ConfigurationError):
        raise failure(shell, normalise_host(base_url))


# --- any bytes as a response: a result or an error of the tree, nothing left open ------------------------------------


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

    monkeypatch.setattr("httpx.Response.iter_raw", broken)
    monkeypatch.setattr("httpx.Response.aiter_raw", broken)
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


def test_the_client_names_itself_and_keeps_no_cookies() -> None:
    async def ask_twice(base_url: str) -> None:
        client = AsyncToApisClient(base_url, KEY)
        for _ in range(2):
            with contextlib.suppress(errors.TransientFailure):
                await client.call(STATUS)
        await client.aclose()

    steps = [
        raw(answer(b"500 X", b"Set-Cookie: session=stolen; Path=/", b"Connection: close", body=b"{}")),
        js(200, RUNNING),
    ]
    done = trace("sync", steps, STATUS, retry=RequestRetry()).requests
    with ScriptedServer(steps) as server:
        asyncio.run(ask_twice(f"http://{server.address}"))
    for first, second in (done, server.requests):
        assert first.header("user-agent") == f"airflow-provider-nanobanana/{__version__}"
        assert second.header("cookie") is None


def test_connections_are_as_many_as_calls_at_once() -> None:
    """Threads come and go with each round of looks; what they opened is used again."""
    with _Answering() as base_url, contextlib.closing(ToApisClient(base_url, KEY)) as client:
        for _ in range(20):
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: client.call(STATUS), range(12)))
        assert 1 <= len(client._pool.made) <= 4
        assert sum(len(line.deadline._sockets) for line in client._pool.made) <= 4


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


def test_whoever_waits_for_a_connection_that_is_made_goes_whatever_failed_meanwhile() -> None:
    async def go(base_url: str) -> list[Any]:
        client = AsyncToApisClient(base_url, KEY, concurrency=8)
        calls = [asyncio.create_task(client.call(STATUS)) for _ in range(3)]
        await asyncio.sleep(0)
        client._on_failure(httpx.ConnectError("of a call that left before"))
        said = await asyncio.gather(*calls, return_exceptions=True)
        await client.aclose()
        return said

    with _Answering() as base_url:
        assert {type(one) for one in asyncio.run(go(base_url))} == {ImageTask}


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


async def _order_of_answers(client: AsyncToApisClient, *, slow: str) -> list[str]:
    """Ask about a slow image task and then about others; return the ids in the order in which they were answered."""
    ended: list[str] = []

    async def ask(image_task_id: str) -> None:
        await client.call(status_call(image_task_id))
        ended.append(image_task_id)

    await asyncio.gather(*(ask(one) for one in (slow, "task_b", "task_c", "task_d")))
    return ended


@pytest.mark.parametrize("held_back", ["headers", "body"])
@pytest.mark.parametrize("before", ["a start", "a connection that could not be made"])
def test_nobody_waits_for_the_first_answer_of_another(before: str, held_back: str) -> None:
    """The first call tries to connect for all; that its answer is slow is no matter of the others."""
    slow, others = "task_slow", 3

    async def go() -> list[str]:
        answered = 0
        all_others = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal answered
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    asked = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().rpartition("/")[2]
                    whole = answer(body=json.dumps({"id": asked, "status": "running"}).encode())
                    if asked == slow:
                        head = 0 if held_back == "headers" else whole.index(b"\r\n\r\n") + 8
                        writer.write(whole[:head])
                        await all_others.wait()
                        whole = whole[head:]
                    writer.write(whole)
                    await writer.drain()
                    answered += asked != slow
                    if answered == others:
                        all_others.set()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = AsyncToApisClient(f"http://127.0.0.1:{port}", KEY, timeout=5.0, concurrency=8)
            if before != "a start":
                client._on_failure(httpx.ConnectError("refused"))
            try:
                return await _order_of_answers(client, slow=slow)
            finally:
                await client.aclose()

    ended = asyncio.run(go())
    assert ended[-1] == slow and len(ended) == 1 + others


@pytest.mark.parametrize("through", ["no TLS there", "a proxy that refuses"])
def test_a_host_is_reached_when_the_request_itself_can_leave(through: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TCP connection alone, or a proxy's, lets the others not go yet: none of them would come further."""

    async def go(base_url: str) -> list[Any]:
        client = AsyncToApisClient(base_url, KEY, concurrency=8, timeout=5.0)
        said = await asyncio.gather(*(client.call(STATUS) for _ in range(5)), return_exceptions=True)
        await client.aclose()
        return said

    with ScriptedServer([reply(403, "not through here")] * 5) as server:
        base_url = f"https://{server.address}"
        if through == "a proxy that refuses":
            monkeypatch.setenv("HTTPS_PROXY", f"http://{server.address}")
            base_url = "https://gateway.invalid"
        said = asyncio.run(go(base_url))
    assert {type(one) for one in said} == {errors.ConnectionFailed} and len(server.requests) == 1


def test_answers_are_shown_as_they_are_also_those_that_are_errors() -> None:
    steps = [
        js(429, {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, Retry_After="1"),
        js(200, COMPLETED),
    ]
    seen: list[ApiResponse] = []
    with ScriptedServer(steps) as server:
        client = ToApisClient(f"http://{server.address}", KEY, sleep=lambda seconds: None)
        client.on_answer = seen.append
        client.call(STATUS)
        client.close()
    assert [answer.status for answer in seen] == [429, 200]
    assert seen[0].headers["retry-after"] == "1"
    assert seen[1].json_object == COMPLETED


def test_a_submit_is_never_forgotten_because_its_answer_could_not_be_shown() -> None:
    with ScriptedServer([js(200, SUBMITTED)]) as server:
        client = ToApisClient(f"http://{server.address}", KEY)
        client.on_answer = lambda answer: json.loads("no JSON")
        with pytest.raises(errors.SubmissionUnknown):
            client.call(SUBMIT)
        client.close()


# --- long answers -----------------------------------------------------------------------------------------------------


def picture(length: int) -> bytes:
    """Return a completed answer with an image of so many characters in it."""
    return json.dumps({**COMPLETED, "result": {"data": [{"b64_json": "iVBORw0K" * (length // 8)}]}}).encode()


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_too_long_for_a_triggerer_a_worker_reads(packed: bool) -> None:
    content = picture(2_000_000)
    body = gzip.compress(content) if packed else content
    step = reply(200, body, **({"Content_Encoding": "gzip"} if packed else {}))
    told = trace("async", [step], STATUS).result
    assert isinstance(told, errors.ResponseTooLong) and told.charged == "yes"
    read = trace("sync", [step], STATUS).result
    assert len(read.images[0].b64_json) == 2_000_000


def test_of_a_bomb_a_triggerer_unpacks_no_more_than_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    class Noting(ResponseBody):
        def add(self, piece: bytes) -> bool:
            more = super().add(piece)
            kept.append(len(self.content))
            return more

    monkeypatch.setattr(client_module, "ResponseBody", Noting)
    lists = json.dumps(RUNNING)[:-1].encode() + b',"a":[' + b"[]," * 10_000_000 + b"[]]}"
    result = trace("async", [reply(200, gzip.compress(lists, 1), Content_Encoding="gzip")], STATUS).result
    assert isinstance(result, errors.ResponseTooLong) and max(kept) == MAX_POLLED_BYTES


def test_a_bomb_of_values_is_no_answer_to_a_worker_either() -> None:
    lists = json.dumps(RUNNING)[:-1].encode() + b',"a":[' + b"[]," * 200_000 + b"[]]}"
    assert type(trace("sync", [raw(answer(body=lists))], STATUS).result) is errors.ResponseTooLong
    assert isinstance(trace("sync", [raw(answer(body=lists))], SUBMIT).result, errors.SubmissionUnknown)


class _AnsweringAtLength(_Answering):
    """Answers with an image, and shortly where the image task is called short."""

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while asked := connection.recv(65536):
                connection.sendall(answer(body=_ASKED if b"/short" in asked else picture(2_000_000)))


def _reading(image_task_id: str, read: Callable[[ApiResponse], Any], kind: CallKind = CallKind.STATUS) -> ApiCall[Any]:
    return ApiCall(kind, "GET", f"/v1/images/generations/{image_task_id}", read)


def test_a_worker_reads_one_long_answer_at_a_time_until_it_is_parsed() -> None:
    with _AnsweringAtLength() as base_url, contextlib.closing(ToApisClient(base_url, KEY)) as client:
        seen: list[tuple[bool, bool]] = []
        client.on_answer = lambda answer: seen.append((client._long_answer.locked(), "json_object" in vars(answer)))
        for image_task_id in ("long", "short"):
            client.call(_reading(image_task_id, lambda response: True))
        assert seen == [(True, True), (False, False)] and not client._long_answer.locked()
        ended: list[str] = []

        def note(image_task_id: str, kind: CallKind) -> None:
            client.call(_reading(image_task_id, lambda response: True, kind))
            ended.append(f"{kind} {image_task_id}")

        with ThreadPoolExecutor(1) as pool:
            with client._long_answer:
                waiting = pool.submit(note, "long", CallKind.STATUS)
                note("short", CallKind.STATUS)
                note("long", CallKind.SUBMIT)
            waiting.result()
    assert ended == [f"{CallKind.STATUS} short", f"{CallKind.SUBMIT} long", f"{CallKind.STATUS} long"]


def test_a_long_answer_that_never_gets_its_turn_is_polled_again() -> None:
    with _AnsweringAtLength() as base_url, contextlib.closing(ToApisClient(base_url, KEY, timeout=0.5)) as client:
        with client._long_answer, pytest.raises(errors.TransientFailure):
            client.call(_reading("long", lambda response: True), NO_RETRY)
        assert client.call(_reading("long", lambda response: True))


@in_fresh_process
def test_a_triggerer_s_client_keeps_nothing_of_its_calls() -> None:
    """What a day of polls would leave behind; a long answer costs its connection, and is an error."""
    rounds = 200
    objects: list[int] = []

    async def go(base_url: str) -> None:
        client = AsyncToApisClient(base_url, KEY)
        for number in range(2 * rounds):
            if number % rounds == 0:
                gc.collect()
                objects.append(len(gc.get_objects()))
            assert await client.call(_reading("short", lambda response: response.status)) == 200
            with pytest.raises(errors.ResponseTooLong):
                await client.call(status_call("task_long"))
        gc.collect()
        objects.append(len(gc.get_objects()))
        await client.aclose()

    with _AnsweringAtLength() as base_url:
        asyncio.run(go(base_url))
    assert objects[2] - objects[1] < 0.25 * 2 * rounds


@pytest.mark.parametrize(("length", "here"), [(100, True), (20_000, False)])
def test_a_long_answer_is_parsed_off_the_event_loop(length: int, here: bool) -> None:
    threads: list[str] = []

    def read(response: ApiResponse) -> str:
        threads.append(threading.current_thread().name)
        return "read"

    call = ApiCall(CallKind.STATUS, "GET", "/v1/x", read)
    assert trace("async", [js(200, {"id": "x", "padding": "x" * length})], call).result == "read"
    assert (threads == [threading.current_thread().name]) is here


def test_an_answer_in_very_many_pieces_is_not_read_to_its_end_and_leaves_the_loop_to_others() -> None:
    """Each piece costs the loop some microseconds, and a read of 64 KiB may bring ten thousand of them at once."""
    chunks = b"".join(b"1\r\n%s\r\n" % letter for letter in [b"{", *[b" "] * 60_000])
    step = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    turns = 0

    async def go() -> Any:
        async def take_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        with ScriptedServer([step]) as server:
            client = AsyncToApisClient(f"http://{server.address}", KEY)
            other = asyncio.ensure_future(take_turns())
            try:
                return await client.call(STATUS)
            except errors.ToApisError as error:
                return error
            finally:
                other.cancel()
                await client.aclose()

    assert isinstance(asyncio.run(go()), errors.ResponseTooLong)
    assert turns >= MAX_POLLED_BYTES // 256 // 32
