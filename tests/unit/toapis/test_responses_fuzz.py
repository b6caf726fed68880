"""Seeded fuzz of whole answers: one result or one error of the tree, whatever they hold, and what can be kept of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.costs import Charge, Cost, Spent, totals
from airflow_provider_nanobanana.polling import outcome_error
from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.support.responses import (
    BALANCE,
    CALLS,
    COMPLETED,
    ENVELOPES,
    FAILED,
    ID,
    KEY,
    MODELS,
    NOW,
    RUNNING,
    UPLOADED,
)

SEEDS = 8
INPUTS_OF_A_SEED = 250
BODIES: list[Any] = [COMPLETED, {"data": COMPLETED}, {"code": 200, "data": [COMPLETED]}, RUNNING, FAILED, BALANCE]
BODIES += [UPLOADED, MODELS, {"result": json.dumps(COMPLETED)}, *ENVELOPES.values()]
KEYS = [
    "id",
    "task_id",
    "taskId",
    "status",
    "state",
    "data",
    "result",
    "images",
    "output",
    "image_urls",
    "input",
    "url",
]
KEYS += [
    "b64_json",
    "error",
    "errors",
    "detail",
    "message",
    "code",
    "success",
    "billing",
    "cost_usd",
    "progress",
    "model",
]
KEYS += ["client_business_id", "created_at", "completed_at", "expires_at", "retry_after", "credits_per_usd", "\ud800"]
LEAVES: list[Any] = [
    None,
    True,
    False,
    "",
    " ",
    "x" * 3000,
    "\ud800",
    "a\x00\n\r\x1b[31m\u2028b",
    "\u202e",
    KEY,
    KEY[:14],
]
LEAVES += [f"Bearer {KEY}", KEY.upper(), {KEY: KEY}, "https://x.example/a.png?sig=S3CRET", "//x", "/a.png", "https://["]
LEAVES += [
    "data:image/png;base64,AAAA",
    "iVBORw0KGgo" + "A" * 80,
    "[" * 90,
    '"{}"',
    '{"error":{"code":{}}}',
    "completed",
]
LEAVES += [
    "failed",
    "Request Moderated",
    "defrosting",
    "expired",
    "审核未通过",
    "NaN",
    "1e309",
    "0.025 USD",
    [],
    {},
    [[]],
]
LEAVES += [float("nan"), float("inf"), -1, 0, -0.0, 1e308, 10**400, 2**63, 5e-324, 401, "429", 500, 1, 1e11]
STATUSES = [
    200,
    200,
    200,
    200,
    201,
    204,
    302,
    400,
    401,
    402,
    403,
    404,
    407,
    408,
    409,
    413,
    422,
    429,
    500,
    503,
    520,
    999,
]


def bent(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """Return JSON in which some nodes are others."""
    if rng.random() < 0.04 or depth > 6:
        return rng.choice(LEAVES)
    if isinstance(value, dict):
        value = {key: bent(rng, inner, depth + 1) for key, inner in value.items() if rng.random() > 0.02}
        if rng.random() < 0.3:
            value[rng.choice(KEYS)] = rng.choice([*LEAVES, dict(value), [dict(value)] * 2, json.dumps(value)])
        return value
    return [bent(rng, inner, depth + 1) for inner in value] if isinstance(value, list) else value


def answer_of(rng: random.Random, kind: str) -> ApiResponse:
    body = json.dumps(bent(rng, rng.choice(BODIES if rng.random() < 0.5 else CALLS[kind][2]))).encode()
    if rng.random() < 0.15:
        body = rng.choice([b"<html>" + body, body[: rng.randrange(len(body) + 1)], b"\xef\xbb\xbf" + body, b"[" * 9000])
    headers = {"retry-after": rng.choice(["7", "-1", "nan", "soon", "9" * 400])} if rng.random() < 0.2 else {}
    return ApiResponse(rng.choice(STATUSES), headers, body, KEY, "https://gateway.example")


def check_error(error: ToApisError) -> None:
    text = json.dumps([error.message, error.code, error.retry_after], allow_nan=False)
    assert KEY not in text and "S3CRET" not in text
    assert error.message.isprintable() and len(error.message) < 1000


def check_image_task(rng: random.Random, image_task: ImageTask, *, looked_up: bool) -> None:
    assert not looked_up or image_task.id == ID
    assert [image.index for image in image_task.images] == list(range(len(image_task.images))) and len(
        image_task.images
    ) <= 16
    assert image_task.answer is None or (len(image_task.answer) <= 2000 and "S3CRET" not in image_task.answer)
    ImageTask.model_validate_json(image_task.model_dump_json())
    wait = WaitWindow(NOW - rng.choice([0, 61, 500]), NOW + rng.choice([-1, 100]))
    record = PollResult(ID, image_task=image_task).to_record(wait, NOW)
    text = json.dumps(record, allow_nan=False)
    assert len(text) <= 600 and KEY not in text and "\\u0000" not in text
    words = record["error"] or {}
    assert all(word.isprintable() for word in words.values()) and "S3CRET" not in json.dumps(words)
    outcome_error.error_for([record], allow_partial=False)
    spent = Spent.on([Charge(Cost.of(image_task, 0.025)), Charge(Cost(0.02))])
    json.dumps(totals([spent]), allow_nan=False)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_answer_is_one_result_or_one_error_that_can_be_kept(seed: int) -> None:
    rng = random.Random(seed)
    results = 0
    for _ in range(INPUTS_OF_A_SEED):
        kind = rng.choice(["submit", "status", "status", *CALLS])
        outcome = answer_of(rng, kind)
        try:
            value = CALLS[kind][0].parse(outcome, NOW)
        except ToApisError as error:
            check_error(error)
            continue
        assert isinstance(value, CALLS[kind][1])
        results += 1
        if isinstance(value, ImageTask):
            check_image_task(rng, value, looked_up=kind == "status")
    assert results > INPUTS_OF_A_SEED / 20
