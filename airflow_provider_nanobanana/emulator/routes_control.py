"""The control API under ``/emulator/``: read the ledger, program faults, change settings. No key is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_nanobanana.emulator.requests import read_json
from airflow_provider_nanobanana.emulator.service import EmulatedService


def routes(service: EmulatedService) -> list[Route]:
    """Return the control routes."""

    def faults() -> dict[str, Any]:
        return {"faults": service.faults.as_list()}

    def replace_faults(rules: Any) -> dict[str, Any]:
        service.faults.replace(rules)
        return faults()

    def clear_faults() -> dict[str, Any]:
        service.faults.clear()
        return faults()

    def settings() -> dict[str, Any]:
        return service.settings.as_dict()

    def change_settings(changes: Any) -> dict[str, Any]:
        if not isinstance(changes, dict):
            raise ValueError("send an object of settings")
        if keys := changes.keys() & {"api_key", "second_api_key"}:
            # Nobody is asked for them here: whoever reaches this port could shut out whoever started it.
            raise ValueError(f"{min(keys)} is set where the emulator is started")
        service.configure(**changes)
        return settings()

    def reset() -> dict[str, Any]:
        service.reset()
        return {"reset": True}

    return [
        _route("ledger", "GET", service.ledger_dict),
        _route("requests", "GET", lambda: {"requests": service.request_log.as_list()}),
        _route("stats", "GET", service.stats),
        _route("faults", "GET", faults),
        _route("faults", "DELETE", clear_faults),
        _route_with_body("faults", replace_faults),
        _route("settings", "GET", settings),
        _route_with_body("settings", change_settings),
        _route("complete", "POST", lambda: {"completed": service.complete_all()}),
        _route("reset", "POST", reset),
    ]


def _route(name: str, method: str, act: Callable[[], dict[str, Any]]) -> Route:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(act())

    return Route(f"/emulator/{name}", endpoint, methods=[method])


def _route_with_body(name: str, act: Callable[[Any], dict[str, Any]]) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(act(read_json(await request.body())))
        except ValueError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)

    return Route(f"/emulator/{name}", endpoint, methods=["POST"])
