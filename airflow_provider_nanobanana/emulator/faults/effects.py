"""How a fault becomes an answer: replacements for the right answer, and ways to spoil it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from starlette.responses import HTMLResponse, PlainTextResponse, Response

from airflow_provider_nanobanana.emulator import errors
from airflow_provider_nanobanana.emulator.faults import wire
from airflow_provider_nanobanana.emulator.faults.rules import Rule

_CATEGORIES = {"submit": "async_submit", "status": "async_query"}
_PAGE = "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center><hr>edge</body></html>"


def replacement(rule: Rule) -> Response:
    """Return the answer a rule of role ``answer`` puts in place of the right one."""
    return _REPLACEMENTS[rule.kind](rule)


async def distorted(rule: Rule, answer: Response) -> Response:
    """Return the right answer as a rule of role ``distort`` lets it through."""
    if rule.kind == "slow":
        await asyncio.sleep(rule["seconds"])
        return answer
    return _DISTORTIONS[rule.kind](rule, answer)


def _mislabelled(rule: Rule, answer: Response) -> Response:
    answer.headers["content-type"] = rule["content_type"]
    return answer


def _truncated(rule: Rule, answer: Response) -> Response:
    """Cut the body; the length says so honestly, unless the rule wants it to promise the whole."""
    if not rule["honest_length"]:
        return wire.cut_short(answer, rule["fraction"])
    body = bytes(answer.body)
    part = body[: int(len(body) * rule["fraction"])]
    return Response(part, answer.status_code, media_type=answer.headers["content-type"])


def _rate_limit(rule: Rule) -> Response:
    headers = {"X-RateLimit-Limit": "300", "X-RateLimit-Remaining": "0"}
    category = rule["category"] or _CATEGORIES.get(rule.on)
    if category:
        headers["X-RateLimit-Category"] = category
    headers |= _retry_after(rule["retry_after"], rule["date"])
    return errors.error(429, rule["code"], rule["text"], shape="E3", headers=headers)


def _retry_after(value: Any, as_date: bool = False) -> dict[str, str]:
    if value is None:
        return {}
    if as_date:
        return {"Retry-After": formatdate(time.time() + float(value), usegmt=True)}
    return {"Retry-After": str(value)}


def _server_error(rule: Rule) -> Response:
    headers = _retry_after(rule["retry_after"])
    return errors.error(rule["status"], rule["code"], rule["text"], kind="server_error", headers=headers)


def _unavailable(rule: Rule) -> Response:
    headers = _retry_after(rule["retry_after"])
    text = "rate limiter is unavailable"
    return errors.error(503, "rate_limit_unavailable", text, shape="E3", headers=headers)


def _html(rule: Rule) -> Response:
    status = rule["status"] or (200 if rule.on == "result" else 502)
    return HTMLResponse(_PAGE.format(status=status), status_code=status)


def _file_or_json_not_found(rule: Rule) -> Response:
    if rule.on == "result":
        return PlainTextResponse("no such file", status_code=rule["status"])
    return errors.not_found(rule["spelling"], rule["status"])


def _garbage(rule: Rule) -> Response:
    noise = random.Random(rule.hits).randbytes(rule["bytes"])
    return Response(b"\xff\xfe" + noise, rule["status"], media_type="application/json")


def _envelope(rule: Rule) -> Response:
    code = rule["status"] if rule["shape"] == "E1" else rule["code"]
    return errors.error(rule["status"], code, rule["text"], shape=rule["shape"], kind="server_error")


def _layer_below(status: int, code: str, text: str) -> Response:
    return errors.error(status, code, text, shape="E4")


_DISTORTIONS: dict[str, Callable[[Rule, Response], Response]] = {
    "slow_headers": lambda rule, answer: wire.with_slow_headers(answer, rule["seconds"]),
    "slow_body": lambda rule, answer: wire.with_slow_body(answer, rule["seconds"], rule["chunks"]),
    "drop_mid_body": lambda rule, answer: wire.cut_short(answer, rule["fraction"], rule["reset"]),
    "wrong_content_type": _mislabelled,
    "truncated_json": _truncated,
    "truncated_image": _truncated,
}

_REPLACEMENTS: dict[str, Callable[[Rule], Response]] = {
    "rate_limit": _rate_limit,
    "server_error": _server_error,
    "unavailable": _unavailable,
    "no_channel": lambda rule: _layer_below(503, rule["code"], "No available channel"),
    "model_not_found": lambda rule: _layer_below(503, "model_not_found", "no channel has this capability"),
    "pricing_failed": lambda rule: _layer_below(500, "pricing_failed", "no matching pricing rule"),
    "unauthorized": lambda rule: errors.unauthorized(rule.on),
    "forbidden": lambda rule: _layer_below(403, "access_denied", rule["text"]),
    "quota": lambda rule: errors.no_credits(rule["status"], rule["text"]),
    "bad_request": lambda rule: errors.error(400, rule["code"], rule["text"], param=rule["param"]),
    "content_policy": lambda rule: errors.error(422, "content_policy_violation", rule["text"]),
    "too_large": lambda rule: _layer_below(413, "read_request_body_failed", "request body too large"),
    "not_found": _file_or_json_not_found,
    "html": _html,
    "empty_body": lambda rule: Response(b"", rule["status"], media_type="application/json"),
    "not_json": lambda rule: PlainTextResponse(rule["text"], rule["status"]),
    "garbage": _garbage,
    "success_false": lambda rule: errors.error(rule["status"], "", rule["text"], shape="E6"),
    "envelope": _envelope,
    "integer_code": lambda rule: errors.error(
        rule["status"], rule["code"], rule["text"], shape="E1", kind="server_error"
    ),
    "redirect_to": lambda rule: Response(status_code=rule["status"], headers={"Location": rule["url"]}),
    "drop": lambda rule: wire.dropped(rule["reset"]),
}
