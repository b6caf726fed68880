"""What polls of image tasks amount to: final or not, the record for XCom, the verdict over many."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.polling.result import PollResult, WaitWindow
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.protocol import status_call
from tests.support.responses import COMPLETED, FAILED, ID, KEY, NOW, RUNNING, STATUS, SUBMITTED, URL, response

WAIT = WaitWindow(started_at=NOW, deadline=NOW + 900)
NO_IMAGE = {key: value for key, value in COMPLETED.items() if key != "result"}


def seen(body: dict[str, Any], **changes: Any) -> PollResult:
    return PollResult(ID, image_task=STATUS.parse(response(200, {**body, **changes}), NOW))


def missed(error: errors.ToApisError) -> PollResult:
    return PollResult(ID, error=error)


NOT_FOUND = missed(errors.ImageTaskNotFound("gone"))


def test_a_wait_is_over_at_its_deadline() -> None:
    assert [WAIT.over(now) for now in (NOW, NOW + 899.9, NOW + 900, NOW + 9000)] == [False, False, True, True]
    assert [WAIT.remaining(now) for now in (NOW, NOW + 900, NOW + 9000)] == [900.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("result", "after", "settled"),
    [
        (seen(RUNNING), 0, False),
        (seen(RUNNING), 10_000, False),
        (seen(RUNNING, status="reticulating"), 10_000, False),
        (seen(COMPLETED), 0, True),
        (seen(FAILED), 0, True),
        (NOT_FOUND, 0, False),
        (NOT_FOUND, 59, False),
        (NOT_FOUND, 60, True),
        (missed(errors.TransientFailure("x")), 10_000, False),
        (missed(errors.RateLimited("x")), 10_000, False),
        (missed(errors.InsufficientCredits("x")), 10_000, False),
        (missed(errors.InvalidRequest("x")), 10_000, False),
        (PollResult(ID), 10_000, False),
    ],
)
def test_only_a_terminal_status_or_an_unknown_id_settles(result: PollResult, after: float, settled: bool) -> None:
    assert result.is_final(WAIT, NOW + after) == settled


@pytest.mark.parametrize("completed_at", [NOW - 10, None, NOW * 1000, NOW + 5])
def test_a_completed_image_task_without_an_image_is_polled_a_while_and_then_failed(completed_at: float | None) -> None:
    """``docs/toapis.md``, "Status": polled a while longer, then it fails - whether or not the answer has times."""
    result = seen(NO_IMAGE, completed_at=completed_at)
    assert not result.is_final(WAIT, NOW + 30)
    assert result.is_final(WAIT, NOW + 300)
    record = result.to_record(WAIT, NOW + 300)
    assert (record["status"], record["error"]["code"]) == ("failed", "result_missing")


def test_the_record_of_a_completed_image_task() -> None:
    assert seen(COMPLETED).to_record(WAIT, NOW) == {
        "id": ID,
        "status": "completed",
        "images": [{"url": URL}],
        "expires_at": 1790086453,
        "cost_usd": 0.025,
        "error": None,
    }


def test_the_record_of_a_failed_image_task() -> None:
    record = seen(FAILED).to_record(WAIT, NOW)
    assert (record["status"], record["cost_usd"], record["images"]) == ("failed", 0.0, [])
    assert record["error"]["code"] == "generation_failed" and "422" in record["error"]["message"]


def test_a_refused_content_has_one_code() -> None:
    error = {"code": "generation_failed", "message": "violates our content policy"}
    assert seen(FAILED, error=error).to_record(WAIT, NOW)["error"]["code"] == "content_policy_violation"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (seen(RUNNING), "still in_progress"),
        (missed(errors.TransientFailure("HTTP 502")), "HTTP 502"),
        (PollResult(ID), "never asked"),
        (NOT_FOUND, "gone"),
    ],
)
def test_what_was_not_ready_is_a_timeout_that_says_what_was_last_seen(result: PollResult, said: str) -> None:
    record = result.to_record(WaitWindow(NOW - 10, NOW), NOW)
    code = "timeout" if result.image_task else "not_seen"
    assert (record["status"], record["error"]["code"]) == ("timeout", code) and said in record["error"]["message"]


def test_an_id_that_stays_unknown_is_a_failure() -> None:
    record = NOT_FOUND.to_record(WAIT, NOW + 900)
    assert (record["status"], record["error"]["code"]) == ("failed", "task_not_found")


def test_an_inline_image_never_reaches_the_record() -> None:
    record = seen(COMPLETED, result={"data": [{"b64_json": "QUJD" * 10_000}]}).to_record(WAIT, NOW)
    assert record["images"] == [{"url": None}] and "QUJD" not in json.dumps(record)


NASTY = st.text(alphabet=st.sampled_from('a"\\\n图🍌é<\x00'), max_size=400) | st.text(max_size=400)
BODIES = {"completed": COMPLETED, "failed": FAILED, "timeout": RUNNING}


def record_size(kind: str, url: str, code: str, message: str, status: str) -> int:
    """Return the bytes of JSON of a record, its id (the service's plain text) counted with 48 of them."""
    changes: dict[str, dict[str, Any]] = {
        "completed": {"result": {"data": [{"url": f"https://files.toapis.com/{url}"}]}},
        "failed": {"error": {"code": code, "message": message}},
        "timeout": {"status": f"x{status}"},
    }
    record = seen(BODIES[kind], **changes[kind]).to_record(WAIT, NOW)
    assert record["status"] == kind
    return len(json.dumps(record, allow_nan=False)) - len(ID) + 48


@pytest.mark.parametrize("kind", BODIES)
@given(url=NASTY, code=NASTY, message=NASTY, status=NASTY)
def test_a_record_stays_below_600_bytes(kind: str, url: str, code: str, message: str, status: str) -> None:
    assert record_size(kind, url, code, message, status) <= 600


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("character", ["a", '"', "\\", "图", "🍌", "\x01"])
def test_a_record_of_the_worst_characters_stays_below_600_bytes(kind: str, character: str) -> None:
    for length in (30, 60, 64, 160, 270, 1000):
        assert record_size(kind, *[character * length] * 4) <= 600


@pytest.mark.parametrize("image_task_id", ["x" * 5000, "图" * 64, '"' * 300])
def test_an_absurd_id_does_not_break_the_bound(image_task_id: str) -> None:
    """The service's ids are opaque; one too long to be one must not reach XCom as it is."""
    try:
        image_task = STATUS.parse(response(200, {**RUNNING, "id": image_task_id}), NOW)
    except errors.ToApisError:
        return
    record = PollResult(image_task.id, image_task=image_task).to_record(WAIT, NOW)
    assert len(json.dumps(record)) <= 600


def test_a_key_in_a_reason_is_blanked() -> None:
    result = seen(FAILED, error={"code": KEY, "message": f"bad key {KEY}"})
    assert "0123456789" not in json.dumps(result.to_record(WAIT, NOW))


def test_a_result_tells_what_decides_the_first_poll() -> None:
    assert (seen(SUBMITTED, id=ID, created_at=NOW).created_at, PollResult(ID).created_at) == (NOW, None)
    assert (seen(SUBMITTED, id=ID, model="m").latency_key, PollResult(ID).latency_key) == ("m", "")


def test_a_failed_image_task_is_final_and_a_timeout_is_not() -> None:
    assert not errors.ImageTaskFailed.retryable and errors.ImageTaskTimeout.retryable
    assert isinstance(seen(FAILED).image_task, ImageTask)


def test_a_refusal_of_one_image_task_is_its_failure_in_the_record_and_settles_nothing() -> None:
    result = missed(errors.PermissionRefused("not yours", code="forbidden"))
    assert result.access_denied and not result.is_final(WAIT, NOW + 10_000)
    record = result.to_record(WAIT, NOW)
    assert (record["status"], record["error"]) == ("failed", {"code": "look_refused", "message": "not yours"})


def test_a_result_that_expired_at_the_service_is_a_failure_with_its_own_code() -> None:
    expired = seen(FAILED, status="Expired").to_record(WAIT, NOW)
    assert (expired["status"], expired["error"]["code"]) == ("failed", "expired")


@pytest.mark.parametrize("after", [1, 300])
def test_what_is_completed_and_names_no_image_is_told_as_that_with_its_answer(after: float) -> None:
    """At the deadline as well: it does not go on."""
    wait = WaitWindow(NOW - 10, NOW)
    record = seen(NO_IMAGE, completed_at=NOW, result={"note": "see https://x.example/a?sig=S3CRET"}).to_record(
        wait, NOW + after
    )
    assert record["error"]["code"] == "result_missing"
    assert record["error"]["message"] == "completed, but names no image"
    assert record["error"]["answer"].startswith('{"id": "tsk_img_01K"') and "S3CRET" not in json.dumps(record)
    assert record["status"] == ("timeout" if after < 120 else "failed")


@pytest.mark.parametrize("note", ["x", "图", '\\"', "\x01", "<https://x.example/p>"])
@pytest.mark.parametrize("image_task_id", [ID, "x" * 128])
def test_a_record_with_an_answer_stays_below_600_bytes(note: str, image_task_id: str) -> None:
    for length in (1, 50, 200, 1000):
        body = {**NO_IMAGE, "id": image_task_id, "result": {str(n): note * length for n in range(9)}}
        image_task = status_call(image_task_id).parse(response(200, body), NOW)
        for now in (NOW, NOW + 10_000):
            record = PollResult(image_task_id, image_task=image_task).to_record(WaitWindow(NOW - 10, NOW), now)
            assert len(json.dumps(record)) <= 600


@pytest.mark.parametrize("count", [2, 4, 16, 40])
def test_a_record_of_many_images_stays_below_600_bytes(count: int) -> None:
    data = [{"url": f"https://files.toapis.com/{number}/{'x' * 60}"} for number in range(count)]
    record = seen(COMPLETED, result={"data": data}).to_record(WAIT, NOW)
    assert len(json.dumps(record)) <= 600
    kept = min(count, 16)
    assert len(record["images"]) == kept and record["images"][0]["url"] is not None if count < 16 else True
    assert [entry["url"] for entry in record["images"] if entry["url"]] == [
        data[number]["url"] for number in range(kept) if record["images"][number]["url"]
    ]


def test_a_status_word_is_one_clean_line_in_the_record() -> None:
    record = seen(RUNNING, status=f"rendering\n[2026] ERROR - forged \x1b[31m {KEY}").to_record(
        WaitWindow(NOW - 10, NOW), NOW
    )
    message = record["error"]["message"]
    assert message.isprintable() and "rendering [2026] ERROR" in message
