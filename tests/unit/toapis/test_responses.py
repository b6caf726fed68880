"""The answer parser: every documented shape, and whatever else a gateway may say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.errors import (
    ImageTaskNotFound,
    SubmissionUnknown,
    ToApisError,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import ApiCall, status_call, submit_call
from airflow_provider_nanobanana.toapis.responses import ApiResponse, Balance
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.responses import (
    BALANCE,
    BALANCE_CALL,
    CALLS,
    COMPLETED,
    ENVELOPES,
    FAILED,
    ID,
    KEY,
    MODEL_LIST,
    MODELS,
    NOW,
    REQUEST,
    RUNNING,
    STATUS,
    SUBMIT,
    SUBMITTED,
    UPLOAD,
    UPLOADED,
    URL,
    image_task,
    response,
)

FIELDS = sorted({*COMPLETED, *FAILED, *BALANCE, *UPLOADED, "code", "message", "type", "url", "task_id", "b64_json"})
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 520])

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**320),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "a\udfffb", "", " ", "failed", "completed", "task_not_exist", "1e999", "{"]),
)
json_values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)
headers = st.dictionaries(st.sampled_from(["retry-after", "date", "content-type"]), st.text(max_size=40), max_size=3)


def check(kind: str, outcome: ApiResponse) -> None:
    """A result that can be stored as JSON, or one error of the tree with a message that can."""
    call, expected, _ = CALLS[kind]
    try:
        result = call.parse(outcome, NOW)
    except ToApisError as error:
        json.dumps([error.message, error.code, error.retry_after], allow_nan=False)
        error.message.encode()
        assert error.http_status == outcome.status
        assert len(error.message) < 1000
        return
    assert isinstance(result, expected)
    assert 200 <= outcome.status < 300
    if isinstance(result, ImageTask):
        ImageTask.model_validate_json(result.model_dump_json())


@pytest.mark.parametrize("kind", CALLS)
@given(value=json_values, status=STATUSES | st.integers(100, 999), sent=headers)
def test_any_json_is_a_result_or_one_error(kind: str, value: Any, status: int, sent: dict[str, str]) -> None:
    check(kind, ApiResponse(status, sent, json.dumps(value).encode()))


@pytest.mark.parametrize("kind", CALLS)
@given(body=st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-16")), status=STATUSES)
def test_any_bytes_are_a_result_or_one_error(kind: str, body: bytes, status: int) -> None:
    check(kind, ApiResponse(status, {}, body))


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every node below a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*prefix, key)
        yield from paths(inner, (*prefix, key))


@pytest.mark.parametrize("kind", CALLS)
@given(data=st.data())
def test_any_mutation_of_a_documented_answer_is_read(kind: str, data: st.DataObject) -> None:
    body = copy.deepcopy(data.draw(st.sampled_from([*CALLS[kind][2], *ENVELOPES.values()])))
    *way, last = data.draw(st.sampled_from(list(paths(body))))
    parent = body
    for key in way:
        parent = parent[key]
    if data.draw(st.booleans()):
        del parent[last]
    else:
        parent[last] = data.draw(json_values)
    check(kind, response(data.draw(STATUSES), body))


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"error":' * 100_000,
        b'{"id":' + b"9" * 5000 + b"}",
        json.dumps({"error": {"message": '{"error":' * 50_000}}).encode(),
        b'{"id": "x", "status": NaN, "progress": Infinity, "created_at": -Infinity}',
        b"\xff\xfe\x00",
        b"<" * 100_000,
    ],
    ids=["deep list", "deep object", "huge integer", "deep message", "not finite", "bytes", "open tags"],
)
def test_extremes_are_read(kind: str, body: bytes) -> None:
    for status in (200, 400, 503):
        check(kind, ApiResponse(status, {}, body))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_truncated_json_is_no_result(cut: int) -> None:
    body = json.dumps(COMPLETED).encode()[:-cut]
    with pytest.raises(TransientFailure):
        STATUS.parse(response(200, body), NOW)
    with pytest.raises(SubmissionUnknown):
        SUBMIT.parse(response(200, body), NOW)


WORDS = {
    ImageTaskStatus.RUNNING: ("queued", "submitted", "pending", "in_progress", "processing", "running", "reticulating"),
    ImageTaskStatus.COMPLETED: ("completed", "succeeded", "success", "SUCCESS", " Completed "),
    ImageTaskStatus.FAILED: ("failed", "FAILURE", "error", "cancelled", "canceled", "expired"),
}


@pytest.mark.parametrize(("word", "status"), [(word, status) for status, words in WORDS.items() for word in words])
def test_status_words(word: str, status: ImageTaskStatus) -> None:
    assert STATUS.parse(response(200, {"id": ID, "status": word}), NOW).status is status


@pytest.mark.parametrize("body", [{"id": ID}, {"id": ID, "status": ""}, {"id": ID, "status": None, "progress": 3}])
def test_a_status_answer_without_a_word_is_running(body: dict[str, Any]) -> None:
    """``docs/toapis.md``, "Status": processing, running, empty and missing are running."""
    assert STATUS.parse(response(200, body), NOW).status is ImageTaskStatus.RUNNING


@pytest.mark.parametrize("key", ["id", "task_id"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("call", [SUBMIT, status_call("img_7")], ids=["submit", "status"])
def test_the_id_is_found_wherever_it_sits(key: str, wrapped: bool, call: ApiCall[ImageTask]) -> None:
    body: dict[str, Any] = {key: "img_7", "status": "pending"}
    if wrapped:
        body = {"code": "success", "message": "", "data": body}
    assert call.parse(response(200, body), NOW).id == "img_7"


def test_a_numeric_id_and_an_echoed_client_id_are_read() -> None:
    image_task = SUBMIT.parse(response(200, {**SUBMITTED, "id": 17, "client_business_id": "nb-1"}), NOW)
    assert (image_task.id, image_task.client_business_id) == ("17", "nb-1")


@pytest.mark.parametrize("body", [{}, {"status": "queued"}, {"id": ""}, {"id": None}, {"data": {}}, [], 3])
def test_a_submit_answer_without_an_id_is_unknown(body: Any) -> None:
    with pytest.raises(SubmissionUnknown) as caught:
        SUBMIT.parse(response(200, body), NOW)
    assert caught.value.charged == "unknown"


def test_a_submit_may_answer_completed_at_once() -> None:
    image_task = SUBMIT.parse(response(200, COMPLETED), NOW)
    assert (image_task.status, image_task.images[0].url) == (ImageTaskStatus.COMPLETED, URL)


PLACES: dict[str, dict[str, Any]] = {
    "result.data": {"result": {"data": [{"url": URL}]}},
    "result.data, one": {"result": {"data": {"url": URL}}},
    "top level": {"url": URL},
    "both": {"result": {"data": [{"url": URL}]}, "url": URL},
    "data": {"data": [{"url": URL}]},
    "result": {"result": {"url": URL}},
    "result list": {"result": [{"url": URL}]},
}


@pytest.mark.parametrize("place", PLACES)
def test_the_url_is_found_wherever_it_sits_and_once(place: str) -> None:
    image_task = STATUS.parse(response(200, {"id": ID, "status": "completed", **PLACES[place]}), NOW)
    assert [image.url for image in image_task.images] == [URL]


def test_all_images_keep_their_order() -> None:
    data = [{"url": "https://a/1"}, {"url": "https://a/2"}, {"url": "https://a/1"}, {"b64_json": "QUJD"}, "junk", None]
    body = {"id": ID, "status": "completed", "result": {"data": data}, "url": "https://a/2"}
    images = STATUS.parse(response(200, body), NOW).images
    assert [(i.index, i.url, i.b64_json) for i in images] == [
        (0, "https://a/1", None), (1, "https://a/2", None), (2, None, "QUJD"),
    ]  # fmt: skip


def test_links_and_bytes_stay_out_of_reprs() -> None:
    body = {"id": ID, "status": "completed", "result": {"data": [{"url": URL, "b64_json": "QUJD"}]}}
    assert URL not in repr(image_task := STATUS.parse(response(200, body), NOW)) and "QUJD" not in repr(image_task)


def test_running_and_failed_answers_name_no_images() -> None:
    for sample in (RUNNING, FAILED):
        assert STATUS.parse(response(200, {**sample, "url": URL}), NOW).images == ()


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({}, "generation_failed", "call upstream API failed: upstream returned status 422"),
        ({"error": "boom"}, "generation_failed", "boom"),
        ({"error": None, "fail_reason": "no images in answer"}, "generation_failed", "no images in answer"),
        ({"error": {"code": 422, "message": "x"}}, "422", "x"),
        ({"error": {"code": "InvalidParameter"}}, "InvalidParameter", "no reason given"),
        ({"error": {}}, "generation_failed", "no reason given"),
        ({"error": ["odd"]}, "generation_failed", "odd"),
    ],
)
def test_a_failed_image_task_is_an_answer_with_its_reason(change: dict[str, Any], code: str, message: str) -> None:
    image_task = STATUS.parse(response(200, {**FAILED, **change}), NOW)
    assert image_task.error is not None
    assert (image_task.status, image_task.error.code, image_task.error.message) == ("failed", code, message)


@pytest.mark.parametrize(
    "body",
    [ENVELOPES["E5"], {"code": 404, "message": "任务不存在"}, {"error": {"code": "task_not_found"}}],
)
def test_a_200_that_says_not_found_is_not_found(body: dict[str, Any]) -> None:
    with pytest.raises(ImageTaskNotFound):
        STATUS.parse(response(200, body), NOW)


# --- amounts, times and the balance ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("billing", "status", "cost"),
    [
        ({"status": "settled", "credits": "5", "cost_usd": "0.025"}, "settled", 0.025),
        ({"status": "refunded", "credits": "0", "cost_usd": "0"}, "refunded", 0.0),
        ({"status": "pending"}, "pending", None),
        ({"status": "settled", "cost_usd": "much"}, "settled", None),
        ({"status": "settled", "cost_usd": "-1"}, "settled", None),
        ({"status": "settled", "cost_usd": "nan"}, "settled", None),
        ({"status": "settled", "cost_usd": True}, "settled", None),
        ({"status": "settled", "cost_usd": 0.04}, "settled", 0.04),
        ({"status": "settled", "cost_usd": "0.025 USD"}, "settled", 0.025),
        ({"status": "settled", "cost_usd": "$0.025"}, "settled", 0.025),
        ({"status": "settled", "cost_usd": "0.025 EUR"}, "settled", None),
        ({"status": "settled", "cost_usd": "0,025"}, "settled", None),
        ({"status": "settled", "cost_usd": "1_000"}, "settled", None),
        ({"status": "settled", "cost_usd": 1e308}, "settled", None),
        ({"status": "settled", "cost_usd": 1e9}, "settled", None),
        ({"status": "settled", "cost_usd": "1e400"}, "settled", None),
        ({"status": "settled", "cost_usd": 10**400}, "settled", None),
        ({"status": "settled", "cost_usd": [0.04]}, "settled", None),
    ],
)
def test_billing(billing: dict[str, Any], status: str, cost: float | None) -> None:
    task = image_task(billing=billing)
    assert task.billing is not None
    assert (task.billing.status, task.cost_usd) == (status, cost)


@pytest.mark.parametrize("billing", [None, "free", [], {}, {"cost_usd": "0"}])
def test_an_absent_bill_is_never_free(billing: Any) -> None:
    assert image_task(billing=billing).cost_usd is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1790000053, 1790000053.0),
        ("1790000053", 1790000053.0),
        (1790000053000, 1790000053.0),
        (0, None),
        (-5, None),
        ("2026-09-21", None),
        (True, None),
        (1e300, None),
        (10**400, None),
    ],
)
def test_times(value: Any, seconds: float | None) -> None:
    assert image_task(completed_at=value).completed_at == seconds


def test_a_bill_for_a_failed_image_task_is_kept() -> None:
    failed = STATUS.parse(
        response(200, {"id": ID, "status": "failed", "billing": {"status": "settled", "cost_usd": 0.025}}), NOW
    )
    assert failed.cost_usd == 0.025


@pytest.mark.parametrize("value", [1e308, 1e13, "1e300", 10**300, float("inf"), float("nan"), True])
def test_absurd_credits_are_no_balance_and_every_balance_can_be_calculated_with(value: Any) -> None:
    with pytest.raises(ToApisError):
        BALANCE_CALL.parse(response(200, {**BALANCE, "remain_credits": value}), NOW)
    odd = {**BALANCE, "remain_credits": 1e12, "credits_per_usd": 5e-324, "used_credits": value}
    left = BALANCE_CALL.parse(response(200, odd), NOW)
    assert left.remain_usd == 5e9 and left.used_credits is None


@pytest.mark.parametrize(
    ("value", "progress"),
    [(101, None), (1e308, None), (40, 40.0), ("100%", 100.0), ("soon", None), (None, None), ([], None)],
)
def test_progress_is_informational(value: Any, progress: float | None) -> None:
    assert image_task(progress=value).progress == progress


def test_expiry_is_the_reported_one() -> None:
    assert image_task().expires(NOW) == COMPLETED["expires_at"]


def test_expiry_is_a_day_after_completion_when_it_is_absent() -> None:
    assert image_task(expires_at=None).expires(NOW) == COMPLETED["completed_at"] + 86_400
    assert image_task(expires_at=None, completed_at=None).expires(NOW) == NOW + 86_400


@pytest.mark.parametrize("nonsense", [1790000053, 1790000000, 1])
def test_an_expiry_before_completion_is_not_believed(nonsense: int) -> None:
    """An ``expires_at`` in the past on a fresh image task means a day after completion."""
    assert image_task(expires_at=nonsense).expires(NOW) == COMPLETED["completed_at"] + 86_400


def test_balance() -> None:
    left = BALANCE_CALL.parse(response(200, BALANCE), NOW)
    assert left == Balance(remain_credits=300, used_credits=100, credits_per_usd=200, unlimited=False)
    assert left.remain_usd == 1.5


def test_an_unlimited_balance_is_no_amount() -> None:
    body = {**BALANCE, "unlimited_quota": True, "remain_balance": -1, "remain_credits": -200}
    left = BALANCE_CALL.parse(response(200, body), NOW)
    assert left.unlimited and left.remain_usd is None


def test_a_balance_below_zero_is_no_credits() -> None:
    """Images are settled after they were made, so an account can owe; that is not an unreadable answer."""
    left = BALANCE_CALL.parse(response(200, {**BALANCE, "remain_credits": -3}), NOW)
    assert left.remain_credits is not None and left.remain_credits <= 0


@pytest.mark.parametrize("rate", [0, -1, None, "x"])
def test_an_absurd_exchange_rate_falls_back_to_the_documented_one(rate: Any) -> None:
    assert BALANCE_CALL.parse(response(200, {**BALANCE, "credits_per_usd": rate}), NOW).remain_usd == 1.5


@pytest.mark.parametrize("body", [{"success": False, "message": "no"}, {"success": True}, {"remain_balance": 3}])
def test_a_200_without_a_balance_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ToApisError) as caught:
        BALANCE_CALL.parse(response(200, body), NOW)
    assert caught.value.http_status == 200


def test_model_ids() -> None:
    body = {**MODELS, "data": [*MODELS["data"], {"id": None}, "junk", {"id": "gemini-x"}]}
    assert MODEL_LIST.parse(response(200, body), NOW) == ["nano_banana_2", "gemini-x"]


def test_no_models_at_all_is_an_empty_list() -> None:
    assert MODEL_LIST.parse(response(200, {**MODELS, "data": []}), NOW) == []


def test_upload_url() -> None:
    assert UPLOAD.parse(response(200, UPLOADED), NOW) == UPLOADED["data"]["url"]


@pytest.mark.parametrize("status", [200, 400])
def test_a_refused_upload_says_why(status: int) -> None:
    with pytest.raises(ToApisError, match="unsupported file type"):
        UPLOAD.parse(response(status, {"success": False, "message": "unsupported file type"}), NOW)


def test_an_answer_to_an_unknown_status_keeps_the_service_s_word() -> None:
    task = STATUS.parse(response(200, {"id": ID, "status": "reticulating"}), NOW)
    assert (task.wire_status, task.terminal) == ("reticulating", False)


# whose image task an answer speaks of: ids in a submit's answer, and answers about another one than was asked for


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
    assert call.parse(response(200, TAKEN[shape]), NOW).id == ID


def test_an_id_beside_our_client_id_is_taken_whatever_else_is_there() -> None:
    body = {"data": [{"taskId": "other"}, {"taskId": ID, "client_business_id": OURS}]}
    assert SUBMIT.parse(response(200, body), NOW).id == ID
    with pytest.raises(errors.SubmissionUnknown):
        BLIND.parse(response(200, body), NOW)
    assert SUBMIT.parse(response(200, {"client_business_id": OURS, "result": ID}), NOW).id == ID


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
        STATUS.parse(response(200, body), NOW)
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
    assert status_call(asked).parse(response(200, {**RUNNING, **fields}), NOW).id == found


def test_a_client_id_that_the_answer_does_not_repeat_has_to_be_said_to_be_one() -> None:
    assert status_call("order 7", by_client_id=True).parse(response(200, RUNNING), NOW).id == ID
    for call in (status_call("order 7"), status_call("nb-7", by_client_id=False)):
        with pytest.raises(errors.TransientFailure):
            call.parse(response(200, RUNNING), NOW)


@pytest.mark.parametrize("fields", [{"client_business_id": "nb-8"}, {"client_business_id": "nb-8", "id": None}])
def test_a_look_up_by_client_id_that_shows_another_one_is_never_ours(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.TransientFailure):
        status_call("nb-7").parse(response(200, {**RUNNING, **fields}), NOW)


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
    assert STATUS.parse(response(200, around), NOW).status == "running"


def test_a_result_that_only_the_query_tells_from_a_reference_is_taken_and_a_reference_signed_again_is_not() -> None:
    call = status_call(ID, {"https://cdn.example/get?id=1"})
    for link, taken in (("https://cdn.example/get?id=2", 1), ("https://cdn.example/get?id=1&X-Amz-Signature=ab", 0)):
        body = {"id": ID, "status": "completed", "result": {"data": [{"url": link}]}}
        assert len(call.parse(response(200, body), NOW).images) == taken
