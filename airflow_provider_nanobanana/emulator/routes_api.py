"""The API port: the routes of the service (``docs/toapis.md``)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_nanobanana.emulator import responses, routes_control
from airflow_provider_nanobanana.emulator.faults.effects import distorted, replacement
from airflow_provider_nanobanana.emulator.faults.kinds import COMPLETED_ONLY
from airflow_provider_nanobanana.emulator.faults.rules import Rule
from airflow_provider_nanobanana.emulator.ledger import ImageTask
from airflow_provider_nanobanana.emulator.requests import RequestRejected, parse, read_json
from airflow_provider_nanobanana.emulator.service import EmulatedService, Upload, failure_of

UPLOAD_LIMIT = 10_000_000
_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/gif": "gif"}


def build(gateway: EmulatedService) -> Starlette:
    """Return the application of the API port."""
    routes = [
        Route("/v1/images/generations", partial(submit, gateway), methods=["POST"]),
        Route("/v1/images/generations/{key}", partial(query, gateway), methods=["GET"]),
        Route("/v1/models", partial(models, gateway), methods=["GET"]),
        Route("/v1/balance", partial(balance, gateway), methods=["GET"]),
        Route("/v1/user/balance", partial(balance, gateway), methods=["GET"]),
        Route("/v1/uploads/images", partial(upload, gateway), methods=["POST"]),
        *routes_control.routes(gateway),
    ]
    return Starlette(routes=routes, exception_handlers={404: _invalid_url, 405: _invalid_url})


async def _invalid_url(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return responses.invalid_url(request.method, request.url.path)


def _stranger(gateway: EmulatedService, request: Request) -> bool:
    return request.headers.get("authorization") != f"Bearer {gateway.settings.api_key}"


async def _faulty(
    gateway: EmulatedService,
    point: str,
    subject: str,
    right: Callable[[], Awaitable[Response]],
    request: Request | None = None,
) -> Response:
    """Answer a request as the faults at its point will have it, else rightly."""
    rule = gateway.faults.take(point, subject, ("answer", "distort"))
    if rule is None:
        return await right()
    if rule.role == "answer":
        if rule["committed"]:
            await right()
        return replacement(rule)
    if rule.params.get("committed", True):
        return await distorted(rule, await right())
    late = await distorted(rule, Response())  # wait first; whoever hung up meanwhile has bought nothing
    gone = request is not None and await request.is_disconnected()
    return late if gone else await right()


async def submit(gateway: EmulatedService, request: Request) -> Response:
    """Accept and charge an image task, or refuse it."""
    raw = await request.body()
    if _stranger(gateway, request):
        return responses.refusal(401, "unauthorized", "Invalid API key", "authentication_error")
    if not gateway.submit_bucket.take(gateway.clock()):
        return responses.limited(gateway.submit_bucket.headers("async_submit"))
    try:
        body = read_json(raw)
    except ValueError:
        return responses.refusal(400, "invalid_request", "request body is not valid JSON")
    prompt = str(body.get("prompt", "")) if isinstance(body, dict) else ""

    async def right() -> Response:
        if await _hung_up(gateway, request, prompt):
            return Response()
        return await _accept(gateway, body)

    return await _faulty(gateway, "submit", prompt, right, request)


async def _hung_up(gateway: EmulatedService, request: Request, prompt: str) -> bool:
    """Take the time that accepting takes; say whether the client's going away undid the submit."""
    delay = gateway.commit_delay()
    if not delay:
        return False
    gateway.pending.append(prompt)
    await gateway.sleep(delay)
    gateway.pending.remove(prompt)
    return await request.is_disconnected() and gateway.rng.random() >= gateway.settings.orphan_share


async def _accept(gateway: EmulatedService, body: Any) -> Response:
    try:
        submission = parse(body, gateway.settings)
        shapes = gateway.faults.shapes("submit", submission.prompt)
        task = gateway.accept(submission, shapes)
    except RequestRejected as refused:
        if refused.code == "insufficient_quota":
            return responses.no_credits()
        if refused.code == "model_not_found":
            return responses.gateway_refusal(503, refused.code, refused.message)
        return responses.refusal(refused.status, refused.code, refused.message, param=refused.param)
    answer = responses.submitted(task, gateway.settings, shapes)
    if "already_completed" in shapes:
        answer |= await _status_body(gateway, task)
    return JSONResponse(answer)


async def query(gateway: EmulatedService, request: Request) -> Response:
    """Say where an image task stands, asked by its id or by its client id."""
    if _stranger(gateway, request):
        return responses.numbered_refusal(401, "Invalid API key", "authentication_error")
    if not gateway.query_bucket.take(gateway.clock()):
        return responses.limited(gateway.query_bucket.headers("async_query"))
    task = gateway.find(request.path_params["key"])

    async def right() -> Response:
        return responses.not_found() if task is None else await _known(gateway, task)

    return await _faulty(gateway, "status", task.prompt if task else "", right)


async def _known(gateway: EmulatedService, task: ImageTask) -> Response:
    if task.hidden_polls > 0 or gateway.clock() < task.hidden_until:
        task.hidden_polls = max(0, task.hidden_polls - 1)
        return responses.not_found(task.hidden_spelling)
    return JSONResponse(await _status_body(gateway, task))


async def _status_body(gateway: EmulatedService, task: ImageTask) -> dict[str, Any]:
    now = gateway.clock()
    leave = frozenset() if task.state(now) == "completed" else COMPLETED_ONLY
    leave |= frozenset() if task.state(now) == "failed" else {"failure_word"}
    shapes = gateway.faults.shapes("status", task.prompt, leave)
    if "more_images" in shapes:
        task.served = max(task.served, shapes["more_images"]["images"])
    if "failed" in shapes:
        gateway.bank.fail(task, failure_of(shapes["failed"]), now)
    gateway.announce(task)
    data = await _data(gateway, task, shapes) if task.state(now) == "completed" else []
    return responses.status(task, now, gateway.settings, data, shapes)


async def _data(gateway: EmulatedService, task: ImageTask, shapes: dict[str, Rule]) -> list[dict[str, Any]]:
    if task.submission.response_format == "b64_json":
        return [{"b64_json": await _encoded(gateway, task, index, shapes)} for index in range(task.served)]
    if "url" in shapes:
        return [{"url": shapes["url"]["url"]}]
    suffix = shapes["wrong_suffix"]["suffix"] if "wrong_suffix" in shapes else ""
    return [{"url": gateway.link(task, index, suffix)} for index in range(task.served)]


async def _encoded(gateway: EmulatedService, task: ImageTask, index: int, shapes: dict[str, Rule]) -> str:
    text = base64.b64encode(await gateway.darkroom.develop(gateway.picture(task, index))).decode()
    bent = shapes["bad_b64"]["value"] if "bad_b64" in shapes else ""
    if bent == "data_uri":
        return f"data:image/{task.picture_format.lower()};base64,{text}"
    return "*not base64*" + text[:-3] if bent == "invalid" else text


async def models(gateway: EmulatedService, request: Request) -> Response:
    """List models; without ``type=image`` only the text models."""
    if _stranger(gateway, request):
        return responses.refusal(401, "unauthorized", "Invalid API key", "authentication_error")

    async def right() -> Response:
        return JSONResponse(responses.model_list(request.query_params.get("type")))

    return await _faulty(gateway, "models", "", right)


async def balance(gateway: EmulatedService, request: Request) -> Response:
    """Say how many credits are left."""
    if _stranger(gateway, request):
        return responses.numbered_refusal(401, "Invalid API key", "authentication_error")

    async def right() -> Response:
        return JSONResponse(responses.balance(gateway.settings.credits, gateway.bank.spent(gateway.clock())))

    return await _faulty(gateway, "balance", "", right)


async def upload(gateway: EmulatedService, request: Request) -> Response:
    """Keep a reference image and give it a public address."""
    if _stranger(gateway, request):
        return responses.refusal(401, "unauthorized", "Invalid API key", "authentication_error")
    try:
        async with request.form() as form:
            file = form.get("file")
            content = await file.read() if isinstance(file, UploadFile) else None
            name = file.filename or "" if isinstance(file, UploadFile) else ""
    except (MultiPartException, HTTPException):
        content, name = None, ""

    async def right() -> Response:
        return _stored(gateway, name, content)

    return await _faulty(gateway, "upload", name, right)


def _stored(gateway: EmulatedService, name: str, content: bytes | None) -> Response:
    if not content:
        return _upload_refused("file is required")
    if len(content) > UPLOAD_LIMIT:
        return _upload_refused("file size exceeds the 10MB limit")
    mime_type = image_type(content)
    if mime_type is None:
        return _upload_refused("unsupported file type, only JPEG, PNG, WebP and GIF are allowed")
    stamp, mark = int(gateway.clock()), secrets.token_hex(6)
    path = f"/uploads/7/{stamp}_{mark}.{_SUFFIXES[mime_type]}"
    gateway.keep_upload(path, Upload(name, mime_type, content))
    data = {"id": f"upload_{mark}", "url": gateway.files_url + path, "mime_type": mime_type, "size": len(content)}
    return JSONResponse({"success": True, "message": "", "data": data})


def _upload_refused(message: str) -> Response:
    return JSONResponse({"success": False, "message": message}, status_code=400)


def image_type(content: bytes) -> str | None:
    """Return the MIME type the first bytes speak of, among those the service takes."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if content.startswith((b"GIF87a", b"GIF89a")) else None
