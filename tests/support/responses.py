"""The documented answers (``docs/toapis.md``) and the calls that meet them."""

from __future__ import annotations

import json
from typing import Any, Final

from airflow_provider_nanobanana.toapis import protocol
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
from airflow_provider_nanobanana.toapis.responses import ApiResponse, Balance

NOW: Final = 1_790_000_100.0
KEY: Final = "sk-live-0123456789abcdefSECRET"
ID: Final = "tsk_img_01K"
URL: Final = "https://files.toapis.com/generated/1790000053_ab.jpg"

SUBMITTED: Final[dict[str, Any]] = {
    "id": "task_img_abc",
    "object": "generation.task",
    "model": "gemini-3.1-flash-image-preview",
    "status": "queued",
    "progress": 0,
    "created_at": 1790000000,
    "metadata": {},
}
RUNNING: Final[dict[str, Any]] = {
    "id": ID,
    "object": "generation.task",
    "model": "gemini-3.1-flash-image-preview",
    "status": "in_progress",
    "progress": 40,
    "created_at": 1790000000,
    "billing": {"status": "pending"},
}
COMPLETED: Final[dict[str, Any]] = {
    **RUNNING,
    "status": "completed",
    "progress": 100,
    "completed_at": 1790000053,
    "expires_at": 1790086453,
    "result": {"type": "image", "data": [{"url": URL}]},
    "billing": {"status": "settled", "credits": "5", "cost_usd": "0.025"},
}
FAILED: Final[dict[str, Any]] = {
    "id": ID,
    "object": "generation.task",
    "status": "failed",
    "progress": 0,
    "created_at": 1790000000,
    "error": {"code": "generation_failed", "message": "call upstream API failed: upstream returned status 422"},
    "billing": {"status": "refunded", "credits": "0", "cost_usd": "0"},
}
UPLOADED: Final[dict[str, Any]] = {
    "success": True,
    "message": "",
    "data": {
        "id": "upload_1",
        "url": "https://files.toapis.com/uploads/7/1_a.jpg",
        "mime_type": "image/jpeg",
        "size": 89234,
    },
}
BALANCE: Final[dict[str, Any]] = {
    "success": True,
    "remain_balance": 1.5,
    "used_balance": 0.5,
    "remain_credits": 300,
    "used_credits": 100,
    "credits_per_usd": 200,
    "unlimited_quota": False,
}
MODELS: Final[dict[str, Any]] = {
    "success": True,
    "object": "list",
    "data": [
        {"id": "nano_banana_2", "object": "model", "created": 1, "owned_by": "x", "supported_endpoint_types": ["image"]}
    ],
}

#: Section 6.1, one body for each envelope.
ENVELOPES: Final[dict[str, Any]] = {
    "E1": {"error": {"code": 401, "message": "bad key", "type": "authentication_error"}},
    "E2": {"error": {"code": "invalid_request", "message": "no", "type": "invalid_request_error", "param": "size"}},
    "E3": {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
    "E4": {"error": {"message": "no (request id: 2026)", "type": "new_api_error", "code": "model_not_found"}},
    "E5": {"code": "task_not_exist", "message": "task_not_exist", "data": None},
    "E6": {"success": False, "message": "not an image"},
    "E7": {"error": "something"},
    "E7b": {"message": "something"},
    "E8": {
        "code": "fail_to_fetch_task",
        "message": json.dumps({"error": {"code": "internal_error", "message": "upstream is down"}}),
        "data": None,
    },
}

REQUEST: Final = ImageRequest.parse({"prompt": "a red kite over dunes"})
SUBMIT: Final = protocol.submit_call(REQUEST, "nb-1")
STATUS: Final = protocol.status_call(ID)
UPLOAD: Final = protocol.upload_call(protocol.Upload("a.png", b"\x89PNG", "image/png"))
MODEL_LIST: Final = protocol.models_call()
BALANCE_CALL: Final = protocol.balance_call()

#: Every kind of call, what its result is, and the documented answers to it.
CALLS: Final[dict[str, tuple[protocol.ApiCall[Any], type, list[dict[str, Any]]]]] = {
    "submit": (SUBMIT, ImageTask, [SUBMITTED, COMPLETED, FAILED]),
    "status": (STATUS, ImageTask, [RUNNING, COMPLETED, FAILED]),
    "upload": (UPLOAD, str, [UPLOADED]),
    "models": (MODEL_LIST, list, [MODELS]),
    "balance": (BALANCE_CALL, Balance, [BALANCE]),
}


def response(status: int, body: Any = b"", **headers: str) -> ApiResponse:
    """Return an answer; a body that is no bytes is sent as JSON, header names are given with underscores."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def image_task(**changes: Any) -> ImageTask:
    """Return the completed sample with fields of its JSON changed."""
    return STATUS.parse(response(200, {**COMPLETED, **changes}), NOW)
