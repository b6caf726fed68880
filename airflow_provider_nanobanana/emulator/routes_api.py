"""The API port: the routes of the service (``docs/toapis.md``)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_nanobanana.emulator import errors, responses, routes_control
from airflow_provider_nanobanana.emulator.faults.effects import distorted, replacement
from airflow_provider_nanobanana.emulator.faults.rules import Shapes, parameter
from airflow_provider_nanobanana.emulator.ledger import Failure, ImageTask
from airflow_provider_nanobanana.emulator.requests import RequestRejected, parse, read_json
from airflow_provider_nanobanana.emulator.service import EmulatedService, Upload

UPLOAD_LIMIT = 10_000_000
_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/gif": "gif"}

Endpoint = Callable[[EmulatedService, Request], Awaitable[Response]]


def build(service: EmulatedService) -> Starlette:
    """Return the application of the API port."""

    def route(path: str, point: str, endpoint: Endpoint, method: str = "GET") -> Route:
        async def authorized(request: Request) -> Response:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            request.state.account = service.settings.account_of(key) if scheme == "Bearer" else None
            if request.state.account is None:
                return errors.unauthorized(point)
            return await endpoint(service, request)

        return Route(path, authorized, methods=[method])

    routes = [
        route("/v1/images/generations", "submit", submit, "POST"),
        route("/v1/images/generations/{key}", "status", status),
        route("/v1/models", "models", models),
        route("/v1/balance", "balance", balance),
        route("/v1/user/balance", "balance", balance),
        route("/v1/uploads/images", "upload", upload, "POST"),
        *routes_control.routes(service),
    ]
    return Starlette(routes=routes, exception_handlers={404: _invalid_url, 405: _invalid_url})


async def _invalid_url(request: Request, exc: Exception) -> Response:
    return errors.error(404, "", f"Invalid URL ({request.method} {request.url.path})")


async def _with_faults(
    service: EmulatedService,
    request: Request,
    point: str,
    subject: str,
    respond: Callable[[], Awaitable[Response]],
) -> Response:
    """Answer a request as the faults at its point will have it, else with the right answer.

    :param respond: Does what was asked for and returns the right answer; not called where a fault leaves it undone.
    """
    rule = service.faults.take(point, subject, ("answer", "distort"))
    if rule is None:
        return await respond()
    if rule.definition.role == "answer":
        if rule["committed"]:
            await respond()
        return replacement(rule)
    if rule.params.get("committed", True):
        return await distorted(rule, await respond())
    late = await distorted(rule, Response())  # wait first; whoever hung up meanwhile has bought nothing
    return late if await request.is_disconnected() else await respond()


async def submit(service: EmulatedService, request: Request) -> Response:
    """Accept and charge an image task, or refuse it."""
    if not service.submit_limiter.take(service.clock()):
        return errors.rate_limited(service.limit_headers(service.submit_limiter, "async_submit"))
    try:
        body = read_json(await request.body())
    except ValueError:
        return errors.error(400, "invalid_request", "request body is not valid JSON")
    prompt = str(body.get("prompt", "")) if isinstance(body, dict) else ""

    async def respond() -> Response:
        if await _hung_up(service, request, prompt):
            return Response()
        return await _accept(service, body, request.state.account)

    return await _with_faults(service, request, "submit", prompt, respond)


async def _hung_up(service: EmulatedService, request: Request, prompt: str) -> bool:
    """Take the time that accepting takes; say whether the client's going away undid the submit."""
    delay = service.commit_delay()
    if not delay:
        return False
    service.pending.append(prompt)
    await service.sleep(delay)
    service.pending.remove(prompt)
    return await request.is_disconnected() and service.rng.random() >= service.settings.orphan_share


async def _accept(service: EmulatedService, body: Any, account: int) -> Response:
    try:
        submission = parse(body, service.settings)
        shapes = service.faults.shapes("submit", submission.prompt)
        task = service.accept(submission, shapes, account)
    except RequestRejected as rejected:
        return rejected.answer
    answer = responses.submitted(task, service.settings, shapes)
    if "already_completed" in shapes:
        answer |= await _status_body(service, task)
    return JSONResponse(answer)


async def status(service: EmulatedService, request: Request) -> Response:
    """Say where an image task stands, asked by its id or by its client id."""
    if not service.query_limiter.take(service.clock()):
        return errors.rate_limited(service.limit_headers(service.query_limiter, "async_query"))
    task = service.find(request.path_params["key"], request.state.account)

    async def respond() -> Response:
        if task is None:
            return errors.not_found()
        if task.hidden_polls > 0 or service.clock() < task.hidden_until:
            task.hidden_polls = max(0, task.hidden_polls - 1)
            return errors.not_found(task.hidden_spelling)
        return JSONResponse(await _status_body(service, task))

    return await _with_faults(service, request, "status", task.prompt if task else "", respond)


async def _status_body(service: EmulatedService, task: ImageTask) -> dict[str, Any]:
    now = service.clock()
    shapes = service.faults.shapes("status", task.prompt, task.state(now))
    task.served = max(task.served, parameter(shapes, "more_images", "images", 0))
    if "failed" in shapes:
        service.ledger.fail(task, Failure(**shapes["failed"].params), now)
    service.announce(task)
    data = await _data(service, task, shapes) if task.state(now) == "completed" else []
    return responses.status(task, now, service.settings, data, shapes)


async def _data(service: EmulatedService, task: ImageTask, shapes: Shapes) -> responses.Images:
    if task.submission.response_format == "b64_json":
        return [{"b64_json": await _encoded(service, task, index, shapes)} for index in range(task.served)]
    if "url" in shapes:
        return [{"url": shapes["url"]["url"]}]
    suffix = parameter(shapes, "wrong_suffix", "suffix", "")
    return [{"url": service.link(task, index, suffix)} for index in range(task.served)]


async def _encoded(service: EmulatedService, task: ImageTask, index: int, shapes: Shapes) -> str:
    text = base64.b64encode(await service.images.get(service.image_spec(task, index))).decode()
    spoiled = parameter(shapes, "bad_b64", "value", "")
    if spoiled == "data_uri":
        return f"data:image/{task.image_format.lower()};base64,{text}"
    return "*not base64*" + text[:-3] if spoiled == "invalid" else text


async def models(service: EmulatedService, request: Request) -> Response:
    """List models; without ``type=image`` only the text models."""

    async def respond() -> Response:
        return JSONResponse(responses.model_list(request.query_params.get("type")))

    return await _with_faults(service, request, "models", "", respond)


async def balance(service: EmulatedService, request: Request) -> Response:
    """Say how many credits are left."""

    async def respond() -> Response:
        return JSONResponse(responses.balance(service.settings.credits, service.ledger.spent(service.clock())))

    return await _with_faults(service, request, "balance", "", respond)


async def upload(service: EmulatedService, request: Request) -> Response:
    """Keep a reference image and give it a public address."""
    name = ""
    content = b""
    try:
        async with request.form() as form:
            file = form.get("file")
            if isinstance(file, UploadFile):
                name = file.filename or ""
                content = await file.read()
    except (MultiPartException, HTTPException):
        pass  # answered like a form without a file

    async def respond() -> Response:
        return _stored(service, content)

    return await _with_faults(service, request, "upload", name, respond)


def _stored(service: EmulatedService, content: bytes) -> Response:
    mime_type = image_type(content)
    if not content:
        return _upload_refused("file is required")
    if len(content) > UPLOAD_LIMIT:
        return _upload_refused("file size exceeds the 10MB limit")
    if mime_type is None:
        return _upload_refused("unsupported file type, only JPEG, PNG, WebP and GIF are allowed")
    mark = secrets.token_hex(6)
    path = f"/uploads/7/{int(service.clock())}_{mark}.{_SUFFIXES[mime_type]}"
    service.keep_upload(path, Upload(mime_type, content))
    data = {"id": f"upload_{mark}", "url": service.files_url + path, "mime_type": mime_type, "size": len(content)}
    return JSONResponse({"success": True, "message": "", "data": data})


def _upload_refused(message: str) -> Response:
    return errors.error(400, "", message, shape="E6")


def image_type(content: bytes) -> str | None:
    """Return the MIME type the first bytes speak of, among those the service takes."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if content.startswith((b"GIF87a", b"GIF89a")) else None
