"""The file port: result files and uploads, public, without any key."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from airflow_provider_nanobanana.emulator.catalogue import MIME_TYPES
from airflow_provider_nanobanana.emulator.faults.effects import distorted, replacement
from airflow_provider_nanobanana.emulator.faults.rules import Rule
from airflow_provider_nanobanana.emulator.images import ImageSpec, png_claiming
from airflow_provider_nanobanana.emulator.ledger import ImageTask
from airflow_provider_nanobanana.emulator.service import EmulatedService

_NAME = re.compile(r"\d+_(tsk_img_[0-9A-Z]+)_(\d{1,4})\.\w+")
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = re.compile(r"loop|\d{1,4}")
_CHUNK = 64 * 1024


def build(service: EmulatedService) -> Starlette:
    """Return the application of the file port."""
    routes = [
        Route("/generated/{name}", partial(result, service), methods=["GET"]),
        Route("/redirect/{hops}/{status:int}/{name}", partial(redirected, service), methods=["GET"]),
        Route("/uploads/7/{name}", partial(uploaded, service), methods=["GET"]),
    ]
    return Starlette(routes=routes)


def _find(service: EmulatedService, name: str) -> tuple[ImageTask, ImageSpec] | None:
    """Return whose file a name is and what it shows, ``None`` where there is none (any more)."""
    found = _NAME.fullmatch(name)
    task = service.ledger.image_tasks.get(found[1]) if found else None
    if found is None or task is None or int(found[2]) >= task.served:
        return None
    now = service.clock()
    alive = task.state(now) == "completed" and now < task.done + service.settings.link_seconds
    return (task, service.image_spec(task, int(found[2]))) if alive else None


async def result(service: EmulatedService, request: Request) -> Response:
    """Serve a result file as the faults will have it, else rightly."""
    name = request.path_params["name"]
    found = _find(service, name)
    if found is None:
        return _missing(404)
    task, spec = found
    rule = service.faults.take("result", task.prompt, ("answer", "distort", "picture"))
    if rule is None:
        return await _image(service, spec)
    if rule.definition.role == "answer":
        return replacement(rule)
    if rule.definition.role == "distort":
        return await distorted(rule, await _image(service, spec))
    return await _spoiled(service, rule, spec, name)


async def _spoiled(service: EmulatedService, rule: Rule, spec: ImageSpec, name: str) -> Response:
    if rule.kind == "expired":
        return _missing(rule["status"])
    if rule.kind == "redirect":
        hops = "loop" if rule["loop"] else rule["hops"] - 1
        return _moved(service, hops, rule["status"], name)
    if rule.kind == "bomb":
        return Response(png_claiming(rule["width"], rule["height"]), media_type="image/png")
    if rule.kind == "oversized":
        return _oversized(rule)
    if rule.kind == "wrong_format":
        # The label keeps saying what was asked for: only the bytes tell.
        answer = await _image(service, replace(spec, format=rule["format"]))
        answer.headers["content-type"] = MIME_TYPES[spec.format]
        return answer
    return await _image(service, replace(spec, width=rule["width"], height=rule["height"]))


async def redirected(service: EmulatedService, request: Request) -> Response:
    """Redirect so many more times, then serve the file; ``loop`` redirects to itself for ever."""
    hops = request.path_params["hops"]
    status = request.path_params["status"]
    name = request.path_params["name"]
    if status not in _REDIRECTS or not _HOPS.fullmatch(hops):
        return _missing(404)
    if hops == "loop":
        return _moved(service, hops, status, name)
    if int(hops) > 0:
        return _moved(service, int(hops) - 1, status, name)
    found = _find(service, name)
    return await _image(service, found[1]) if found else _missing(404)


async def uploaded(service: EmulatedService, request: Request) -> Response:
    """Serve an upload."""
    found = service.uploads.get(request.url.path)
    return Response(found.content, media_type=found.mime_type) if found else _missing(404)


async def _image(service: EmulatedService, spec: ImageSpec) -> Response:
    return Response(await service.images.get(spec), media_type=MIME_TYPES[spec.format])


def _missing(status: int) -> Response:
    return PlainTextResponse("the file does not exist or has expired", status_code=status)


def _moved(service: EmulatedService, hops: int | str, status: int, name: str) -> Response:
    location = f"{service.files_url}/redirect/{hops}/{status}/{name}"
    return Response(status_code=status, headers={"Location": location})


def _oversized(rule: Rule) -> Response:
    """Stream zeros behind a PNG signature; with gzip a few kilobytes unpack to the whole."""
    total: int = rule["bytes"]
    headers = {}
    if rule["gzip"]:
        headers["Content-Encoding"] = "gzip"
    elif rule["content_length"]:
        headers["Content-Length"] = str(total)
    return StreamingResponse(_zeros(total, rule["gzip"]), media_type="image/png", headers=headers)


async def _zeros(total: int, packed: bool) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    piece = b"\x89PNG\r\n\x1a\n"
    sent = 0
    while sent < total:
        piece = piece.ljust(_CHUNK, b"\0")[: total - sent]
        sent += len(piece)
        if out := packer.compress(piece) if packed else piece:
            yield out
        piece = b""
    if packed:
        yield packer.flush()
