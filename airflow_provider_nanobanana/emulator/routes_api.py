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


def build(service: EmulatedService) -> Starlette:
    """Return the application of the API port."""
    routes = [
        Route("/v1/images/generations", partial(submit, service), methods=["POST"]),
        Route("/v1/images/generations/{key}", partial(query, service), methods=["GET"]),
        Route("/v1/models", partial(models, service), methods=["GET"]),
        Route("/v1/balance", partial(balance, service), methods=["GET"]),
        Route("/v1/user/balance", partial(balance, service), methods=["GET"]),
        Route("/v1/uploads/images", partial(upload, service), methods=["POST"]),
        *routes_control.routes(service),
    ]
    return Starlette(routes=routes, exception_handlers={404: _invalid_url, 405: _invalid_url})


async def _invalid_url(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return responses.invalid_url(request.method, request.url.path)


def _stranger(service: EmulatedService, request: Request) -> bool:
    return request.headers.get("authorization") != f"Bearer {service.settings.api_key}"


async def _faulty(
    service: EmulatedService,
    point: str,
    subject: str,
    right: Callable[[], Awaitable[Response]],
    request: Request | None = None,
) -> Response:
    """Answer a request as the faults at its point will have it, else rightly."""
    rule = service.faults.take(point, subject, ("answer", "distort"))
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


async def submit(service: EmulatedService, request: Request) -> Response:
    """Accept and charge an image task, or refuse it."""
    raw = await request.body()
    if _stranger(service, request):
        return responses.refusal(401, "unauthorized", "Invalid API key", "authentication_error")
    if not service.submit_bucket.take(service.clock()):
        return responses.limited(service.submit_bucket.headers("async_submit"))
    try:
        body = read_json(raw)
    except ValueError:
        return responses.refusal(400, "invalid_request", "request body is not valid JSON")
    prompt = str(body.get("prompt", "")) if isinstance(body, dict) else ""

    async def right() -> Response:
        if await _hung_up(service, request, prompt):
            return Response()
        return await _accept(service, body)

    return await _faulty(service, "submit", prompt, right, request)


async def _hung_up(service: EmulatedService, request: Request, prompt: str) -> bool:
    """Take the time that accepting takes; say whether the client's going away undid the submit."""
    delay = service.commit_delay()
    if not delay:
        return False
    service.pending.append(prompt)
    await service.sleep(delay)
    service.pending.remove(prompt)
    return await request.is_disconnected() and service.rng.random() >= service.settings.orphan_share


async def _accept(service: EmulatedService, body: Any) -> Response:
    try:
        submission = parse(body, service.settings)
        shapes = service.faults.shapes("submit", submission.prompt)
        task = service.accept(submission, shapes)
    except RequestRejected as refused:
        if refused.code == "insufficient_quota":
            return responses.no_credits()
        if refused.code == "model_not_found":
            return responses.gateway_refusal(503, refused.code, refused.message)
        return responses.refusal(refused.status, refused.code, refused.message, param=refused.param)
    answer = responses.submitted(task, service.settings, shapes)
    if "already_completed" in shapes:
        answer |= await _status_body(service, task)
    return JSONResponse(answer)


async def query(service: EmulatedService, request: Request) -> Response:
    """Say where an image task stands, asked by its id or by its client id."""
    if _stranger(service, request):
        return responses.numbered_refusal(401, "Invalid API key", "authentication_error")
    if not service.query_bucket.take(service.clock()):
        return responses.limited(service.query_bucket.headers("async_query"))
    task = service.find(request.path_params["key"])

    async def right() -> Response:
        return responses.not_found() if task is None else await _known(service, task)

    return await _faulty(service, "status", task.prompt if task else "", right)


async def _known(service: EmulatedService, task: ImageTask) -> Response:
    if task.hidden_polls > 0 or service.clock() < task.hidden_until:
        task.hidden_polls = max(0, task.hidden_polls - 1)
        return responses.not_found(task.hidden_spelling)
    return JSONResponse(await _status_body(service, task))


async def _status_body(service: EmulatedService, task: ImageTask) -> dict[str, Any]:
    now = service.clock()
    leave = frozenset() if task.state(now) == "completed" else COMPLETED_ONLY
    leave |= frozenset() if task.state(now) == "failed" else {"failure_word"}
    shapes = service.faults.shapes("status", task.prompt, leave)
    if "more_images" in shapes:
        task.served = max(task.served, shapes["more_images"]["images"])
    if "failed" in shapes:
        service.ledger.fail(task, failure_of(shapes["failed"]), now)
    service.announce(task)
    data = await _data(service, task, shapes) if task.state(now) == "completed" else []
    return responses.status(task, now, service.settings, data, shapes)


async def _data(service: EmulatedService, task: ImageTask, shapes: dict[str, Rule]) -> list[dict[str, Any]]:
    if task.submission.response_format == "b64_json":
        return [{"b64_json": await _encoded(service, task, index, shapes)} for index in range(task.served)]
    if "url" in shapes:
        return [{"url": shapes["url"]["url"]}]
    suffix = shapes["wrong_suffix"]["suffix"] if "wrong_suffix" in shapes else ""
    return [{"url": service.link(task, index, suffix)} for index in range(task.served)]


async def _encoded(service: EmulatedService, task: ImageTask, index: int, shapes: dict[str, Rule]) -> str:
    text = base64.b64encode(await service.images.get(service.image_spec(task, index))).decode()
    bent = shapes["bad_b64"]["value"] if "bad_b64" in shapes else ""
    if bent == "data_uri":
        return f"data:image/{task.picture_format.lower()};base64,{text}"
    return "*not base64*" + text[:-3] if bent == "invalid" else text


async def models(service: EmulatedService, request: Request) -> Response:
    """List models; without ``type=image`` only the text models."""
    if _stranger(service, request):
        return responses.refusal(401, "unauthorized", "Invalid API key", "authentication_error")

    async def right() -> Response:
        return JSONResponse(responses.model_list(request.query_params.get("type")))

    return await _faulty(service, "models", "", right)


async def balance(service: EmulatedService, request: Request) -> Response:
    """Say how many credits are left."""
    if _stranger(service, request):
        return responses.numbered_refusal(401, "Invalid API key", "authentication_error")

    async def right() -> Response:
        return JSONResponse(responses.balance(service.settings.credits, service.ledger.spent(service.clock())))

    return await _faulty(service, "balance", "", right)


async def upload(service: EmulatedService, request: Request) -> Response:
    """Keep a reference image and give it a public address."""
    if _stranger(service, request):
        return responses.refusal(401, "unauthorized", "Invalid API key", "authentication_error")
    try:
        async with request.form() as form:
            file = form.get("file")
            content = await file.read() if isinstance(file, UploadFile) else None
            name = file.filename or "" if isinstance(file, UploadFile) else ""
    except (MultiPartException, HTTPException):
        content, name = None, ""

    async def right() -> Response:
        return _stored(service, name, content)

    return await _faulty(service, "upload", name, right)


def _stored(service: EmulatedService, name: str, content: bytes | None) -> Response:
    if not content:
        return _upload_refused("file is required")
    if len(content) > UPLOAD_LIMIT:
        return _upload_refused("file size exceeds the 10MB limit")
    mime_type = image_type(content)
    if mime_type is None:
        return _upload_refused("unsupported file type, only JPEG, PNG, WebP and GIF are allowed")
    stamp, mark = int(service.clock()), secrets.token_hex(6)
    path = f"/uploads/7/{stamp}_{mark}.{_SUFFIXES[mime_type]}"
    service.keep_upload(path, Upload(name, mime_type, content))
    data = {"id": f"upload_{mark}", "url": service.files_url + path, "mime_type": mime_type, "size": len(content)}
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
