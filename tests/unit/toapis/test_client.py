"""The two httpx shells against one scripted server: same traces, same results, nothing leaked, nothing followed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.client import AsyncToApisClient, ToApisClient
from airflow_provider_nanobanana.toapis.http import shared_ssl_context
from airflow_provider_nanobanana.toapis.protocol import NO_RETRY, ApiCall, RequestRetry, status_call, submit_call
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
from tests.support.scripted_server import Request, ScriptedServer, Step, raw, reply, reset

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
