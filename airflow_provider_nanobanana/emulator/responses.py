"""The bodies of right answers, as ``docs/toapis.md`` has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow_provider_nanobanana.emulator.catalogue import CREDITS_PER_USD, MODELS, TEXT_MODELS, usd
from airflow_provider_nanobanana.emulator.faults.rules import Shapes, parameter
from airflow_provider_nanobanana.emulator.ledger import ImageTask
from airflow_provider_nanobanana.emulator.settings import Settings

#: One object for each image: its ``url`` or its ``b64_json``.
Images = list[dict[str, str]]

_QUEUED_BELOW = 10  # percent


def submitted(task: ImageTask, settings: Settings, shapes: Shapes) -> dict[str, Any]:
    """Return the body of an accepted submit, in the shapes that apply to it."""
    body: dict[str, Any] = {
        "id": task.id,
        "object": "generation.task",
        "model": task.submission.model,
        "status": parameter(shapes, "status_word", "word", "queued"),
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


def status(task: ImageTask, now: float, settings: Settings, data: Images, shapes: Shapes) -> dict[str, Any]:
    """Return the status body of an image task.

    :param data: What ``result.data`` holds once it is completed.
    :param shapes: The faults of role ``shape`` that apply to this body, by kind.
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


def _running(task: ImageTask, now: float, shapes: Shapes) -> dict[str, Any]:
    progress = task.progress(now)
    word = parameter(shapes, "status_word", "word", "queued" if progress < _QUEUED_BELOW else "in_progress")
    return {"status": word, "progress": progress, "billing": {"status": "pending"}}


def _failed(task: ImageTask, shapes: Shapes) -> dict[str, Any]:
    failure = task.failure
    assert failure is not None
    body: dict[str, Any] = {
        "status": parameter(shapes, "failure_word", "word", "failed"),
        "progress": 0,
        "completed_at": int(task.done),
        "billing": {"status": "refunded", "credits": "0", "cost_usd": "0"},
    }
    if failure.shape == "string":
        return body | {"error": failure.text}
    if failure.shape == "fail_reason":
        return body | {"fail_reason": failure.text}
    return body | {"error": {"code": failure.code, "message": failure.text}}


def _completed(
    body: dict[str, Any], task: ImageTask, settings: Settings, data: Images, shapes: Shapes
) -> dict[str, Any]:
    body["status"] = parameter(shapes, "success_word", "word", "completed")
    body["progress"] = 100
    body["completed_at"] = int(task.done)
    body["expires_at"] = int(task.done + settings.link_seconds)
    if "expires_at" in shapes:
        _bend_expiry(body, shapes["expires_at"]["value"])
    body |= _placed(data, shapes)
    billing = parameter(shapes, "billing", "value", "settled")
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


def _placed(data: Images, shapes: Shapes) -> dict[str, Any]:
    """Return the results where the answer carries them: ``result.data`` unless a shape says otherwise."""
    place = next((kind for kind in _PLACES if kind in shapes), parameter(shapes, "result_shape", "shape", "data"))
    return _PLACES[place](data)


def _values(data: Images) -> list[str]:
    return [next(iter(one.values())) for one in data]


#: Where results may stand, by fault or by the shape of the fault ``result_shape``.
_PLACES: dict[str, Callable[[Images], dict[str, Any]]] = {
    "no_url": lambda data: {"result": {"type": "image", "data": []}},
    "top_level_url": lambda data: {"url": data[0].get("url")},
    "data_url": lambda data: {"data": data},
    "result_url": lambda data: {"result": {"type": "image", "url": data[0].get("url")}},
    "images": lambda data: {"images": data},
    "result_images": lambda data: {"result": {"images": [{"url": _values(data)}]}},
    "output": lambda data: {"output": {"image_urls": _values(data)}},
    "results": lambda data: {"results": data},
    "texts": lambda data: {"result": _values(data)},
    "json_text": lambda data: {"result": json.dumps({"type": "image", "data": data})},
    "data": lambda data: {"result": {"type": "image", "data": data}},
}


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


def balance(credits: float | None, spent: float) -> dict[str, Any]:
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
