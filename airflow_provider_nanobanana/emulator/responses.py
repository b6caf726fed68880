"""The bodies of right answers and documented refusals, as ``docs/toapis.md`` has them."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse, Response

from airflow_provider_nanobanana.emulator.catalogue import CREDITS_PER_USD, MODELS, TEXT_MODELS, usd
from airflow_provider_nanobanana.emulator.faults.rules import Rule
from airflow_provider_nanobanana.emulator.ledger import ImageTask
from airflow_provider_nanobanana.emulator.settings import Settings

_QUEUED_BELOW = 10


def refusal(status: int, code: str, message: str, kind: str = "invalid_request_error", param: str = "") -> JSONResponse:
    """Return an error in the shape of the generation pages (E2: the code is a string)."""
    body = {"error": {"code": code, "message": message, "type": kind, "param": param}}
    return JSONResponse(body, status_code=status)


def numbered_refusal(status: int, message: str, kind: str) -> JSONResponse:
    """Return an error in the shape of the status and balance pages (E1: the code is a number)."""
    return JSONResponse({"error": {"code": status, "message": message, "type": kind}}, status_code=status)


def gateway_refusal(status: int, code: str, message: str) -> JSONResponse:
    """Return an error of the layer below (E4)."""
    text = f"{message} (request id: 20261107120000000000000emulator)"
    return JSONResponse({"error": {"message": text, "type": "new_api_error", "code": code}}, status_code=status)


def invalid_url(method: str, path: str) -> JSONResponse:
    """Return the answer to a path that does not exist."""
    body = {"message": f"Invalid URL ({method} {path})", "type": "invalid_request_error", "param": "", "code": ""}
    return JSONResponse({"error": body}, status_code=404)


def not_found(spelling: str = "404", status: int = 404) -> JSONResponse:
    """Return the answer for an unknown id: 404, or 400 ``task_not_exist``, also in the task layer's shape."""
    if spelling == "400":
        return refusal(400, "task_not_exist", "task_not_exist")
    if spelling == "E5":
        return JSONResponse({"code": "task_not_exist", "message": "task_not_exist", "data": None}, status_code=400)
    return refusal(status, "task_not_found", "Task not found", "not_found_error")


def limited(headers: dict[str, str], text: str = "Too many requests", code: str = "rate_limit_exceeded") -> Response:
    """Return the limiter's answer (E3: no type)."""
    return JSONResponse({"error": {"code": code, "message": text}}, status_code=429, headers=headers)


def no_credits(status: int = 402, text: str = "user quota is not enough") -> JSONResponse:
    """Return the answer of an empty account, in the spelling that goes with the status."""
    if status == 403:
        return gateway_refusal(403, "insufficient_user_quota", text)
    if status == 429:
        return refusal(429, "rate_limit_exceeded", text, "rate_limit_error")
    return refusal(status, "insufficient_quota", text, "payment_required")


def submitted(task: ImageTask, settings: Settings, shapes: dict[str, Rule]) -> dict[str, Any]:
    """Return the body of an accepted submit, bent by the shapes that struck."""
    body: dict[str, Any] = {
        "id": task.id,
        "object": "generation.task",
        "model": task.submission.model,
        "status": shapes["status_word"]["word"] if "status_word" in shapes else "queued",
        "progress": 0,
        "created_at": int(task.created),
        "metadata": {},
    }
    _echo(body, task, settings)
    if "no_id" in shapes:
        del body["id"]
    if "id_in_data" in shapes:
        place, value = shapes["id_in_data"]["field"], body.pop("id")
        if place == "list":
            return {"code": 200, "data": [{"task_id": value, "status": "submitted"}]}
        return body | ({"task_id": value} if place == "top" else {"data": {place: value}})
    return body


def status(
    task: ImageTask, now: float, settings: Settings, data: list[dict[str, Any]], shapes: dict[str, Rule]
) -> dict[str, Any]:
    """Return the status body of an image task.

    :param data: What ``result.data`` holds once it is completed.
    :param shapes: The faults that bend this body, by kind.
    """
    body: dict[str, Any] = {
        "id": task.id,
        "object": "generation.task",
        "model": task.submission.model,
        "created_at": int(task.created),
    }
    _echo(body, task, settings)
    state = task.state(now)
    if state == "running" or "stuck" in shapes or "status_word" in shapes:
        return body | _running(task, now, shapes)
    if state == "failed":
        return body | _failed(task, shapes)
    return _completed(body, task, settings, data, shapes)


def _running(task: ImageTask, now: float, shapes: dict[str, Rule]) -> dict[str, Any]:
    progress = task.progress(now)
    word = "queued" if progress < _QUEUED_BELOW else "in_progress"
    word = shapes["status_word"]["word"] if "status_word" in shapes else word
    return {"status": word, "progress": progress, "billing": {"status": "pending"}}


def _failed(task: ImageTask, shapes: dict[str, Rule]) -> dict[str, Any]:
    failure = task.failure
    assert failure is not None
    body: dict[str, Any] = {
        "status": shapes["failure_word"]["word"] if "failure_word" in shapes else "failed",
        "progress": 0,
        "completed_at": int(task.done),
        "billing": {"status": "refunded", "credits": "0", "cost_usd": "0"},
    }
    if failure.shape == "string":
        return body | {"error": failure.message}
    if failure.shape == "fail_reason":
        return body | {"fail_reason": failure.message}
    return body | {"error": {"code": failure.code, "message": failure.message}}


def _completed(
    body: dict[str, Any], task: ImageTask, settings: Settings, data: list[dict[str, Any]], shapes: dict[str, Rule]
) -> dict[str, Any]:
    word = shapes["success_word"]["word"] if "success_word" in shapes else "completed"
    body |= {"status": word, "progress": 100, "completed_at": int(task.done)}
    body["expires_at"] = int(task.done + settings.link_seconds)
    if "expires_at" in shapes:
        _bend_expiry(body, shapes["expires_at"]["value"])
    body |= _placed(data, shapes)
    billing = shapes["billing"]["value"] if "billing" in shapes else "settled"
    if billing == "settled":
        body["billing"] = {"status": "settled", "credits": str(task.credits), "cost_usd": usd(task.credits)}
    elif billing != "absent":
        body["billing"] = {"status": billing}
    return body


def _bend_expiry(body: dict[str, Any], value: Any) -> None:
    known = {"past": body["completed_at"] - 3600, "string": str(body["expires_at"]), "null": None}
    if value == "missing":
        del body["expires_at"]
    else:
        body["expires_at"] = known.get(value, value)


def _placed(data: list[dict[str, Any]], shapes: dict[str, Rule]) -> dict[str, Any]:
    """Return the results where the answer carries them: ``result.data`` unless a shape says otherwise."""
    if "no_url" in shapes:
        return {"result": {"type": "image", "data": []}}
    if "top_level_url" in shapes:
        return {"url": data[0].get("url")}
    if "result_shape" in shapes:
        return _shaped(data, shapes["result_shape"]["shape"])
    if "data_url" in shapes:
        return {"data": data}
    if "result_url" in shapes:
        return {"result": {"type": "image", "url": data[0].get("url")}}
    return {"result": {"type": "image", "data": data}}


def _shaped(data: list[dict[str, Any]], shape: str) -> dict[str, Any]:
    """Return the results in one of the places that live clients have seen them in."""
    values = [next(iter(one.values())) for one in data]
    shapes: dict[str, dict[str, Any]] = {
        "images": {"images": data},
        "result_images": {"result": {"images": [{"url": values}]}},
        "output": {"output": {"image_urls": values}},
        "results": {"results": data},
        "texts": {"result": values},
        "json_text": {"result": json.dumps({"type": "image", "data": data})},
    }
    return shapes[shape]


def _echo(body: dict[str, Any], task: ImageTask, settings: Settings) -> None:
    if task.submission.client_business_id and not settings.ignore_client_ids:
        body["client_business_id"] = task.submission.client_business_id


def model_list(kind: str | None) -> dict[str, Any]:
    """Return the model list; without ``type=image`` only text models are in it (``docs/toapis.md``, "Balance")."""
    names = tuple(MODELS) if kind == "image" else TEXT_MODELS if kind in (None, "", "text") else ()
    endpoint = "image-generation" if kind == "image" else "openai"
    shown = [
        {"id": name, "object": "model", "created": 1626777600, "owned_by": "custom",
         "supported_endpoint_types": [endpoint]}
        for name in names
    ]  # fmt: skip
    return {"success": True, "object": "list", "data": shown}


def balance(credits: float | None, spent: int) -> dict[str, Any]:
    """Return the balance of an account that started with so many credits (``None``: unlimited, shown as -1)."""
    remaining = None if credits is None else max(0.0, credits - spent)
    return {
        "success": True,
        "message": "",
        "remain_balance": -1 if remaining is None else remaining / CREDITS_PER_USD,
        "used_balance": spent / CREDITS_PER_USD,
        "remain_credits": -1 if remaining is None else remaining,
        "used_credits": spent,
        "credits_per_usd": CREDITS_PER_USD,
        "unlimited_quota": remaining is None,
    }
