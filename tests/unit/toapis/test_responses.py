"""The answer parser: every documented shape, and whatever else a gateway may say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.errors import (
    ImageTaskNotFound,
    SubmissionUnknown,
    ToApisError,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.models import ImageTask, ImageTaskStatus
from airflow_provider_nanobanana.toapis.protocol import ApiCall, status_call
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.support.responses import (
    BALANCE,
    CALLS,
    COMPLETED,
    ENVELOPES,
    FAILED,
    ID,
    NOW,
    RUNNING,
    STATUS,
    SUBMIT,
    SUBMITTED,
    UPLOADED,
    URL,
    answer,
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
    check(kind, answer(data.draw(STATUSES), body))


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
        STATUS.parse(answer(200, body), NOW)
    with pytest.raises(SubmissionUnknown):
        SUBMIT.parse(answer(200, body), NOW)


WORDS = {
    ImageTaskStatus.RUNNING: ("queued", "submitted", "pending", "in_progress", "processing", "running", "reticulating"),
    ImageTaskStatus.COMPLETED: ("completed", "succeeded", "success", "SUCCESS", " Completed "),
    ImageTaskStatus.FAILED: ("failed", "FAILURE", "error", "cancelled", "canceled", "expired"),
}


@pytest.mark.parametrize(("word", "status"), [(word, status) for status, words in WORDS.items() for word in words])
def test_status_words(word: str, status: ImageTaskStatus) -> None:
    assert STATUS.parse(answer(200, {"id": ID, "status": word}), NOW).status is status


@pytest.mark.parametrize("body", [{"id": ID}, {"id": ID, "status": ""}, {"id": ID, "status": None, "progress": 3}])
def test_a_status_answer_without_a_word_is_running(body: dict[str, Any]) -> None:
    """``docs/toapis.md``, "Status": processing, running, empty and missing are running."""
    assert STATUS.parse(answer(200, body), NOW).status is ImageTaskStatus.RUNNING


@pytest.mark.parametrize("key", ["id", "task_id"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("call", [SUBMIT, status_call("img_7")], ids=["submit", "status"])
def test_the_id_is_found_wherever_it_sits(key: str, wrapped: bool, call: ApiCall[ImageTask]) -> None:
    body: dict[str, Any] = {key: "img_7", "status": "pending"}
    if wrapped:
        body = {"code": "success", "message": "", "data": body}
    assert call.parse(answer(200, body), NOW).id == "img_7"


def test_a_numeric_id_and_an_echoed_client_id_are_read() -> None:
    image_task = SUBMIT.parse(answer(200, {**SUBMITTED, "id": 17, "client_business_id": "nb-1"}), NOW)
    assert (image_task.id, image_task.client_business_id) == ("17", "nb-1")


@pytest.mark.parametrize("body", [{}, {"status": "queued"}, {"id": ""}, {"id": None}, {"data": {}}, [], 3])
def test_a_submit_answer_without_an_id_is_unknown(body: Any) -> None:
    with pytest.raises(SubmissionUnknown) as caught:
        SUBMIT.parse(answer(200, body), NOW)
    assert caught.value.charged == "unknown"


def test_a_submit_may_answer_completed_at_once() -> None:
    image_task = SUBMIT.parse(answer(200, COMPLETED), NOW)
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
    image_task = STATUS.parse(answer(200, {"id": ID, "status": "completed", **PLACES[place]}), NOW)
    assert [image.url for image in image_task.images] == [URL]


def test_all_images_keep_their_order() -> None:
    data = [{"url": "https://a/1"}, {"url": "https://a/2"}, {"url": "https://a/1"}, {"b64_json": "QUJD"}, "junk", None]
    body = {"id": ID, "status": "completed", "result": {"data": data}, "url": "https://a/2"}
    images = STATUS.parse(answer(200, body), NOW).images
    assert [(i.index, i.url, i.b64_json) for i in images] == [
        (0, "https://a/1", None), (1, "https://a/2", None), (2, None, "QUJD"),
    ]  # fmt: skip


def test_links_and_bytes_stay_out_of_reprs() -> None:
    body = {"id": ID, "status": "completed", "result": {"data": [{"url": URL, "b64_json": "QUJD"}]}}
    assert URL not in repr(image_task := STATUS.parse(answer(200, body), NOW)) and "QUJD" not in repr(image_task)


def test_running_and_failed_answers_name_no_images() -> None:
    for sample in (RUNNING, FAILED):
        assert STATUS.parse(answer(200, {**sample, "url": URL}), NOW).images == ()


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
    image_task = STATUS.parse(answer(200, {**FAILED, **change}), NOW)
    assert image_task.error is not None
    assert (image_task.status, image_task.error.code, image_task.error.message) == ("failed", code, message)


@pytest.mark.parametrize(
    "body",
    [ENVELOPES["E5"], {"code": 404, "message": "任务不存在"}, {"error": {"code": "task_not_found"}}],
)
def test_a_200_that_says_not_found_is_not_found(body: dict[str, Any]) -> None:
    with pytest.raises(ImageTaskNotFound):
        STATUS.parse(answer(200, body), NOW)
