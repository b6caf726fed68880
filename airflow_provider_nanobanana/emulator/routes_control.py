"""The control API under ``/emulator/``: read the books, programme faults, change settings. No key is asked for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_nanobanana.emulator.faults.rules import Rule
from airflow_provider_nanobanana.emulator.requests import read_json

if TYPE_CHECKING:
    from airflow_provider_nanobanana.emulator.service import EmulatedService


def routes(service: EmulatedService) -> list[Route]:
    """Return the control routes."""
    return [
        Route("/emulator/ledger", partial(ledger, service), methods=["GET"]),
        Route("/emulator/requests", partial(requests, service), methods=["GET"]),
        Route("/emulator/stats", partial(statistics, service), methods=["GET"]),
        Route("/emulator/faults", partial(faults, service), methods=["GET", "POST", "DELETE"]),
        Route("/emulator/settings", partial(settings, service), methods=["GET", "POST"]),
        Route("/emulator/complete", partial(complete, service), methods=["POST"]),
        Route("/emulator/reset", partial(reset, service), methods=["POST"]),
    ]


def stats(service: EmulatedService) -> dict[str, Any]:
    """Return counts of requests and of image tasks by status, and the prompts that are being accepted."""
    ledger = service.ledger.as_dict(service.clock())
    tasks = {name: ledger[name] for name in ("count", "by_status", "charged_usd", "refunded_usd", "net_usd")}
    return service.request_log.stats() | {"image_tasks": tasks, "pending": list(service.pending)}


async def ledger(service: EmulatedService, request: Request) -> Response:
    """Show every image task with what it cost."""
    return JSONResponse(service.ledger.as_dict(service.clock()))


async def requests(service: EmulatedService, request: Request) -> Response:
    """Show the newest requests."""
    return JSONResponse({"requests": service.request_log.as_list()})


async def statistics(service: EmulatedService, request: Request) -> Response:
    """Show the counts."""
    return JSONResponse(stats(service))


async def faults(service: EmulatedService, request: Request) -> Response:
    """Show, replace or delete the rules; a list that does not parse changes nothing."""
    if request.method == "DELETE":
        service.faults.rules = []
    elif request.method == "POST":
        try:
            given = read_json(await request.body())
            if not isinstance(given, list) or not all(isinstance(rule, dict) for rule in given):
                raise ValueError("send a list of rules, each an object with on, kind and parameters")
            service.faults.rules = [Rule.parse(rule) for rule in given]
        except ValueError as error:
            return _bad(error)
    return JSONResponse({"faults": [rule.as_dict() for rule in service.faults.rules]})


async def settings(service: EmulatedService, request: Request) -> Response:
    """Show or change the settings."""
    if request.method == "POST":
        try:
            changes = read_json(await request.body())
            if not isinstance(changes, dict):
                raise ValueError("send an object of settings")
            if "api_key" in changes:
                # Nobody is asked for it here: whoever reaches this port could shut out whoever started it.
                raise ValueError("api_key is set where the emulator is started")
            service.configure(**changes)
        except ValueError as error:
            return _bad(error)
    return JSONResponse(service.settings.as_dict())


async def complete(service: EmulatedService, request: Request) -> Response:
    """Let everything that runs be done now."""
    return JSONResponse({"completed": service.ledger.complete_all(service.clock())})


async def reset(service: EmulatedService, request: Request) -> Response:
    """Forget everything."""
    service.reset()
    return JSONResponse({"reset": True})


def _bad(error: ValueError) -> Response:
    return JSONResponse({"error": {"message": str(error)}}, status_code=400)
