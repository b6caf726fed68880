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


def routes(gateway: EmulatedService) -> list[Route]:
    """Return the control routes."""
    return [
        Route("/emulator/ledger", partial(ledger, gateway), methods=["GET"]),
        Route("/emulator/requests", partial(requests, gateway), methods=["GET"]),
        Route("/emulator/stats", partial(statistics, gateway), methods=["GET"]),
        Route("/emulator/faults", partial(faults, gateway), methods=["GET", "POST", "DELETE"]),
        Route("/emulator/settings", partial(settings, gateway), methods=["GET", "POST"]),
        Route("/emulator/complete", partial(complete, gateway), methods=["POST"]),
        Route("/emulator/reset", partial(reset, gateway), methods=["POST"]),
    ]


def stats(gateway: EmulatedService) -> dict[str, Any]:
    """Return counts of requests and of image tasks by status, and the prompts that are being accepted."""
    books = gateway.bank.ledger(gateway.clock())
    tasks = {name: books[name] for name in ("count", "by_status", "charged_usd", "refunded_usd", "net_usd")}
    return gateway.journal.stats() | {"image_tasks": tasks, "pending": list(gateway.pending)}


async def ledger(gateway: EmulatedService, request: Request) -> Response:
    """Show every image task with what it cost."""
    return JSONResponse(gateway.bank.ledger(gateway.clock()))


async def requests(gateway: EmulatedService, request: Request) -> Response:
    """Show the newest requests."""
    return JSONResponse({"requests": gateway.journal.as_list()})


async def statistics(gateway: EmulatedService, request: Request) -> Response:
    """Show the counts."""
    return JSONResponse(stats(gateway))


async def faults(gateway: EmulatedService, request: Request) -> Response:
    """Show, replace or delete the rules; a list that does not parse changes nothing."""
    if request.method == "DELETE":
        gateway.faults.rules = []
    elif request.method == "POST":
        try:
            given = read_json(await request.body())
            if not isinstance(given, list) or not all(isinstance(rule, dict) for rule in given):
                raise ValueError("send a list of rules, each an object with on, kind and parameters")
            gateway.faults.rules = [Rule.parse(rule) for rule in given]
        except ValueError as error:
            return _bad(error)
    return JSONResponse({"faults": [rule.as_dict() for rule in gateway.faults.rules]})


async def settings(gateway: EmulatedService, request: Request) -> Response:
    """Show or change the settings."""
    if request.method == "POST":
        try:
            changes = read_json(await request.body())
            if not isinstance(changes, dict):
                raise ValueError("send an object of settings")
            if "api_key" in changes:
                # Nobody is asked for it here: whoever reaches this port could shut out whoever started it.
                raise ValueError("api_key is set where the emulator is started")
            gateway.configure(**changes)
        except ValueError as error:
            return _bad(error)
    return JSONResponse(gateway.settings.as_dict())


async def complete(gateway: EmulatedService, request: Request) -> Response:
    """Let everything that runs be done now."""
    return JSONResponse({"completed": gateway.bank.complete_all(gateway.clock())})


async def reset(gateway: EmulatedService, request: Request) -> Response:
    """Forget everything."""
    gateway.reset()
    return JSONResponse({"reset": True})


def _bad(error: ValueError) -> Response:
    return JSONResponse({"error": {"message": str(error)}}, status_code=400)
