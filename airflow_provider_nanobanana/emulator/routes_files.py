"""The file port: result pictures and uploads, public, without any key."""

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

from airflow_provider_nanobanana.emulator import images
from airflow_provider_nanobanana.emulator.faults.effects import distorted, replacement
from airflow_provider_nanobanana.emulator.faults.kinds import REDIRECTS
from airflow_provider_nanobanana.emulator.faults.rules import Rule
from airflow_provider_nanobanana.emulator.images import ImageSpec
from airflow_provider_nanobanana.emulator.ledger import ImageTask
from airflow_provider_nanobanana.emulator.service import EmulatedService

_NAME = re.compile(r"\d+_(tsk_img_[0-9A-Z]+)_(\d{1,4})\.\w+")
_MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_CHUNK = 64 * 1024


def build(service: EmulatedService) -> Starlette:
    """Return the application of the file port."""
    routes = [
        Route("/generated/{name}", partial(result, service), methods=["GET"]),
        Route("/hop/{hops:int}/{status:int}/{name}", partial(hop, service), methods=["GET"]),
        Route("/loop/{status:int}/{name}", partial(loop, service), methods=["GET"]),
        Route("/uploads/7/{name}", partial(uploaded, service), methods=["GET"]),
    ]
    return Starlette(routes=routes)


def _asked(service: EmulatedService, name: str) -> tuple[ImageTask, int] | None:
    found = _NAME.fullmatch(name)
    task = service.ledger.image_tasks.get(found[1]) if found else None
    if found is None or task is None or int(found[2]) >= task.served:
        return None
    now = service.clock()
    alive = task.state(now) == "completed" and now < task.done + service.settings.link_seconds
    return (task, int(found[2])) if alive else None


async def result(service: EmulatedService, request: Request) -> Response:
    """Serve a result picture as the faults will have it, else rightly."""
    name = request.path_params["name"]
    asked = _asked(service, name)
    if asked is None:
        return _missing(404)
    task, index = asked
    rule = service.faults.take("result", task.prompt, ("answer", "distort", "picture"))
    spec = service.image_spec(task, index)
    if rule is None:
        return await _picture(service, spec)
    if rule.role == "answer":
        return replacement(rule)
    if rule.role == "distort":
        return await distorted(rule, await _picture(service, spec))
    return await _spoiled(service, rule, spec, name)


async def _spoiled(service: EmulatedService, rule: Rule, spec: ImageSpec, name: str) -> Response:
    if rule.kind == "expired":
        return _missing(rule["status"])
    if rule.kind == "redirect":
        place = f"loop/{rule['status']}" if rule["loop"] else f"hop/{rule['hops'] - 1}/{rule['status']}"
        return _moved(f"{service.files_url}/{place}/{name}", rule["status"])
    if rule.kind == "bomb":
        return Response(images.png_claiming(rule["width"], rule["height"]), media_type="image/png")
    if rule.kind == "oversized":
        return _oversized(rule)
    if rule.kind == "wrong_format":
        # The label keeps saying what was asked for: only the bytes tell.
        answer = await _picture(service, replace(spec, format=rule["format"]))
        answer.headers["content-type"] = _MIME_TYPES[spec.format]
        return answer
    return await _picture(service, replace(spec, width=rule["width"], height=rule["height"]))


async def hop(service: EmulatedService, request: Request) -> Response:
    """Redirect so many more times, then serve the picture."""
    hops, status, name = (request.path_params[part] for part in ("hops", "status", "name"))
    if status not in REDIRECTS:
        return _missing(404)
    if hops > 0:
        return _moved(f"{service.files_url}/hop/{hops - 1}/{status}/{name}", status)
    asked = _asked(service, name)
    return await _picture(service, service.image_spec(*asked)) if asked else _missing(404)


async def loop(service: EmulatedService, request: Request) -> Response:
    """Redirect to itself for ever."""
    status, name = request.path_params["status"], request.path_params["name"]
    if status not in REDIRECTS:
        return _missing(404)
    return _moved(f"{service.files_url}/loop/{status}/{name}", status)


async def uploaded(service: EmulatedService, request: Request) -> Response:
    """Serve an upload."""
    found = service.uploads.get(request.url.path)
    return Response(found.content, media_type=found.mime_type) if found else _missing(404)


async def _picture(service: EmulatedService, spec: ImageSpec) -> Response:
    return Response(await service.images.get(spec), media_type=_MIME_TYPES[spec.format])


def _missing(status: int) -> Response:
    return PlainTextResponse("the file does not exist or has expired", status_code=status)


def _moved(url: str, status: int) -> Response:
    return Response(status_code=status, headers={"Location": url})


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
    sent, head = 0, b"\x89PNG\r\n\x1a\n"
    while sent < total:
        piece = (head + bytes(_CHUNK - len(head)))[: total - sent]
        sent, head = sent + len(piece), b""
        out = packer.compress(piece) if packed else piece
        if out:
            yield out
    if packed:
        yield packer.flush()
