from __future__ import annotations

import json
from typing import Any

from airflow_provider_nanobanana.cli.answer_fields import AnswerField, answer_fields, image_fields
from airflow_provider_nanobanana.toapis.responses import ApiResponse, parse_polled

KEY = "sk-1f7d93ab54c20e68"
COMPLETED: dict[str, Any] = {
    "id": "tsk_1",
    "object": "generation.task",
    "status": "completed",
    "created_at": 1790000000,
    "completed_at": 1790000053,
    "expires_at": 1790086453,
    "result": {"type": "image", "data": [{"url": "https://files.toapis.com/generated/1_a.jpg"}]},
    "billing": {"status": "settled", "credits": "5", "cost_usd": "0.025"},
    "metadata": {},
}


def answer(body: Any) -> ApiResponse:
    return ApiResponse(200, {}, json.dumps(body).encode(), KEY, "https://toapis.com")


def used(body: Any) -> list[str]:
    return [each.path for each in answer_fields(answer(body)) if each.used]


def test_what_the_parser_goes_by_is_told_apart_from_the_rest() -> None:
    rest = [each.path for each in answer_fields(answer(COMPLETED)) if not each.used]
    assert rest == ["object", "result.type", "metadata"]
    assert used(COMPLETED) == [
        *("id", "status", "created_at", "completed_at", "expires_at", "result.data[0].url"),
        *("billing.status", "billing.credits", "billing.cost_usd"),
    ]


def test_a_field_under_another_name_is_not_gone_by() -> None:
    renamed = {**COMPLETED, "valid_until": COMPLETED["expires_at"]}
    del renamed["expires_at"]
    assert "valid_until" not in used(renamed)


def test_an_image_elsewhere_is_named_by_where_it_is() -> None:
    body = {**COMPLETED, "result": None, "images": [{"url": "https://a.example/1"}, {"url": "https://a.example/2.png"}]}
    image_task = parse_polled(answer(body), "tsk_1")
    assert image_task is not None
    assert image_fields(answer(body), image_task) == ("images[0].url", "images[1].url")


def test_values_are_words_without_secrets() -> None:
    body = {
        "id": "tsk_1",
        "status": "completed",
        "url": "https://user:word@files.toapis.com/generated/1.png?Signature=abc",
        "note": f"asked by {KEY}",
        "long": "x" * 5000,
        "flag": None,
    }
    shown = {each.path: each.value for each in answer_fields(answer(body))}
    assert shown["url"] == "a link at files.toapis.com, *.png, signed"
    assert shown["long"] == "a text of 5,000 characters"
    assert shown["flag"] == "null"
    assert KEY not in str(shown) and "word" not in str(shown)


def test_answers_that_are_none_or_long_are_not_taken_apart() -> None:
    assert answer_fields(ApiResponse(502, {}, b"<html>")) == ()
    assert answer_fields(answer({"id": "tsk_1", "b64_json": "a" * 300_000})) == ()
    many = answer_fields(answer({"id": "tsk_1", "status": "queued", **{f"field_{n}": n for n in range(300)}}))
    assert len(many) == 100
    assert many[0] == AnswerField("id", "tsk_1", used=True)
