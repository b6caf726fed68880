"""Whose image task an answer speaks of: ids in a submit's answer, and answers about another one than was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.protocol import status_call, submit_call
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.support.responses import COMPLETED, ID, KEY, NOW, REQUEST, RUNNING, STATUS, SUBMIT, answer

OURS = "nb-1"  # what SUBMIT sends
BLIND = submit_call(REQUEST)

TAKEN: dict[str, dict[str, Any]] = {
    "data, a list": {"code": 200, "data": [{"task_id": ID, "status": "submitted"}]},
    "taskId": {"code": 200, "msg": "success", "data": {"taskId": ID}},
    "taskId at the top": {"taskId": ID},
    "result.task_id": {"result": {"task_id": ID}},
    "the same id twice": {"data": [{"taskId": ID, "task": {"id": ID}}]},
    "beside somebody's": {"data": {"taskId": ID}, "user": {"id": 7}, "request": {"id": "r-1"}},
}


@pytest.mark.parametrize("shape", TAKEN)
@pytest.mark.parametrize("call", [SUBMIT, BLIND], ids=["client id", "no client id"])
def test_the_one_id_of_a_submit_s_answer_is_taken(shape: str, call: Any) -> None:
    assert call.parse(answer(200, TAKEN[shape]), NOW).id == ID


def test_an_id_beside_our_client_id_is_taken_whatever_else_is_there() -> None:
    body = {"data": [{"taskId": "other"}, {"taskId": ID, "client_business_id": OURS}]}
    assert SUBMIT.parse(answer(200, body), NOW).id == ID
    with pytest.raises(errors.SubmissionUnknown):
        BLIND.parse(answer(200, body), NOW)
    assert SUBMIT.parse(answer(200, {"client_business_id": OURS, "result": ID}), NOW).id == ID


@pytest.mark.parametrize(
    "body",
    [
        {"code": "success", "data": ID},
        {"code": 1, "result": ID},
        {"request_id": ID, "status": "IN_QUEUE"},
        {"data": [{"task_id": "a"}, {"task_id": "b"}]},
        {"data": {"taskId": "a", "task": {"id": "b"}}},
        {"created": 1, "data": [{"id": "img-1", "url": "https://x.example/a.png"}]},
        {"id": ID, "status": "queued", "client_business_id": "nb-of-another"},
        {"id": ID, "error": {"code": "internal", "message": "boom"}},
        {"taskId": KEY},
        {"user": {"id": 7}},
    ],
)
def test_any_other_id_leaves_the_submit_unknown(body: dict[str, Any]) -> None:
    """What is taken for an id here is never bought again, so it has to be sure; ours is found by its client id."""
    with pytest.raises(errors.SubmissionUnknown) as caught:
        SUBMIT.parse(ApiResponse(200, {}, json.dumps(body).encode(), KEY), NOW)
    assert caught.value.charged == "unknown"


@pytest.mark.parametrize(
    "body",
    [
        {**COMPLETED, "id": "tsk_img_other"},
        {**COMPLETED, "id": "tsk_img_other", "client_business_id": "nb-of-another"},
        {"data": {**COMPLETED, "id": "tsk_img_other"}},
        {"data": [{"task_id": "tsk_img_other", "status": "failed"}]},
        {**COMPLETED, "id": ID.lower()},
    ],
)
def test_an_answer_about_another_image_task_is_never_ours(body: dict[str, Any]) -> None:
    with pytest.raises(errors.TransientFailure, match="another one") as caught:
        STATUS.parse(answer(200, body), NOW)
    assert (caught.value.charged, caught.value.image_task_id) == ("yes", ID)


@pytest.mark.parametrize(
    ("asked", "fields", "found"),
    [
        (ID, {}, ID),
        (ID, {"id": 17, "task_id": ID}, ID),
        (ID, {"id": None}, ID),
        ("nb-7", {"client_business_id": "nb-7"}, ID),
        ("nb-7", {}, ID),
        ("order 7", {"client_business_id": "order 7"}, ID),
    ],
)
def test_an_answer_by_id_or_by_client_id_is_ours(asked: str, fields: dict[str, Any], found: str) -> None:
    assert status_call(asked).parse(answer(200, {**RUNNING, **fields}), NOW).id == found


def test_a_client_id_that_the_answer_does_not_repeat_has_to_be_said_to_be_one() -> None:
    assert status_call("order 7", by_client_id=True).parse(answer(200, RUNNING), NOW).id == ID
    for call in (status_call("order 7"), status_call("nb-7", by_client_id=False)):
        with pytest.raises(errors.TransientFailure):
            call.parse(answer(200, RUNNING), NOW)


@pytest.mark.parametrize("fields", [{"client_business_id": "nb-8"}, {"client_business_id": "nb-8", "id": None}])
def test_a_look_by_client_id_that_shows_another_one_is_never_ours(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.TransientFailure):
        status_call("nb-7").parse(answer(200, {**RUNNING, **fields}), NOW)


def test_an_odd_answer_to_a_submit_is_in_the_error_so_that_a_person_finds_the_id() -> None:
    body = {"code": 1, "description": "ok", "result": ID, "link": "https://x.example/a?sig=S3CRET", "key": KEY}
    with pytest.raises(errors.SubmissionUnknown) as caught:
        BLIND.parse(ApiResponse(200, {}, json.dumps(body).encode(), KEY), NOW)
    assert f'"result": "{ID}"' in caught.value.message
    assert "S3CRET" not in caught.value.message and KEY not in caught.value.message


@pytest.mark.parametrize("word", ["ok", "success", "error"])
@pytest.mark.parametrize("key", ["task_status", "state", "taskStatus"])
def test_the_status_of_the_image_task_outweighs_that_of_the_call_around_it(word: str, key: str) -> None:
    around = {"status": word, "data": {"task_id": ID, key: "processing"}}
    assert STATUS.parse(answer(200, around), NOW).status == "running"


def test_a_result_that_only_the_query_tells_from_a_reference_is_taken_and_a_reference_signed_anew_is_not() -> None:
    call = status_call(ID, {"https://cdn.example/get?id=1"})
    for link, taken in (("https://cdn.example/get?id=2", 1), ("https://cdn.example/get?id=1&X-Amz-Signature=ab", 0)):
        body = {"id": ID, "status": "completed", "result": {"data": [{"url": link}]}}
        assert len(call.parse(answer(200, body), NOW).images) == taken
