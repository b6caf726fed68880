"""The service's error answers, as ``docs/toapis.md``, "Errors" shows them."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

_REQUEST_ID = "(request id: 20261107120000000000000emulator)"


def error(
    status: int,
    code: str | int,
    message: str,
    *,
    shape: str = "E2",
    kind: str = "invalid_request_error",
    param: str = "",
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Return an error in one of the shapes that ``docs/toapis.md``, "Errors", numbers.

    E1 is that of the status and balance pages, E2 of the generation pages, E3 of the rate limiter, E4 of the layer
    below, E5 of the task layer.
    """
    inner = {"error": {"code": code, "message": message}}
    bodies: dict[str, dict[str, Any]] = {
        "E1": {"error": {"code": code, "message": message, "type": kind}},
        "E2": {"error": {"code": code, "message": message, "type": kind, "param": param}},
        "E3": inner,
        "E4": {"error": {"message": f"{message} {_REQUEST_ID}", "type": "new_api_error", "code": code}},
        "E5": {"code": code, "message": message, "data": None},
        "E6": {"success": False, "message": message},
        "E7": {"error": message},
        "E7m": {"message": message},
        "E8": {"code": "fail_to_fetch_task", "message": json.dumps(inner), "data": None},
    }
    return JSONResponse(bodies[shape], status_code=status, headers=headers)


def unauthorized(point: str) -> JSONResponse:
    """Return the answer to another key, in the shape of the point's page."""
    if point in ("status", "balance"):
        return error(401, 401, "Invalid API key", shape="E1", kind="authentication_error")
    return error(401, "unauthorized", "Invalid API key", kind="authentication_error")


def not_found(spelling: str = "404", status: int = 404) -> JSONResponse:
    """Return the answer for an unknown id: 404, or 400 ``task_not_exist``, also in the task layer's shape."""
    if spelling == "404":
        return error(status, "task_not_found", "Task not found", kind="not_found_error")
    return error(400, "task_not_exist", "task_not_exist", shape="E5" if spelling == "E5" else "E2")


def rate_limited(headers: dict[str, str]) -> JSONResponse:
    """Return the rate limiter's answer."""
    return error(429, "rate_limit_exceeded", "Too many requests", shape="E3", headers=headers)


def repeated_client_id() -> JSONResponse:
    """Return the answer to a submit whose client id was used before; assumed (docs/toapis.md, "Client ids")."""
    return error(409, "duplicate_client_business_id", "client_business_id already exists", param="client_business_id")


def no_credits(status: int = 402, text: str = "user quota is not enough") -> JSONResponse:
    """Return the answer of an empty account, in the spelling that goes with the status."""
    if status == 403:
        return error(403, "insufficient_user_quota", text, shape="E4")
    if status == 429:
        return error(429, "rate_limit_exceeded", text, kind="rate_limit_error")
    return error(status, "insufficient_quota", text, kind="payment_required")
