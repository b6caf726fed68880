"""From an answer to the one error it is: contract 6.1 to 6.3, 10 and 10.1, row by row."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.answers import NoAnswer
from airflow_provider_nanobanana.toapis.cleaning import clean
from airflow_provider_nanobanana.toapis.complaint import read_complaint
from airflow_provider_nanobanana.toapis.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ContentRefused,
    InsufficientCredits,
    InvalidRequest,
    ModelNotFound,
    PermissionRefused,
    RateLimited,
    ServiceUnavailable,
    SubmissionUnknown,
    TransientFailure,
)
from airflow_provider_nanobanana.toapis.protocol import NO_REPEATS, ApiCall, RetryPolicy
from airflow_provider_nanobanana.toapis.refusals import content_refused
from tests.unit.samples import ENVELOPES, ID, KEY, MODEL_LIST, NOW, STATUS, SUBMIT, UPLOAD, answer

HTML = b"<html><head><style>b{}</style></head><body><h1>504 Gateway Time-out</h1><hr>tengine</body></html>"
ID_URL = {"error": {"message": "Invalid URL (POST /v1/v1/x)", "type": "invalid_request_error", "param": "", "code": ""}}


def failure(call: ApiCall[Any], outcome: Any) -> errors.ToApisError:
    with pytest.raises(errors.ToApisError) as caught:
        call.conclude(outcome, NOW)
    return caught.value


def coded(code: Any, message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **fields}}


NOT_SENT, LOST = NoAnswer(False, "ConnectError: refused"), NoAnswer(True, "ReadTimeout: no details")

PRICING = {"message": "pricing_failed: no matching pricing rule x"}
BUSY = {"message": "分组上游负载已饱和"}
DOWN = coded("rate_limit_unavailable")

#: outcome -> class of a submit, resent, charged; class of a poll, polled again. A poll is ended by 401, 402, 403, a
#: wrong model or content and the service's own "not there" alone (DESIGN "Polling"): other 4xx are asked again.
TABLE: list[tuple[str, Any, type, bool, str, type, bool]] = [
    ("not sent", NOT_SENT, ConnectionFailed, True, "no", ConnectionFailed, True),
    ("429", answer(429, ENVELOPES["E3"]), RateLimited, True, "no", RateLimited, True),
    ("429 bare", answer(429), RateLimited, True, "no", RateLimited, True),
    ("429 HTML", answer(429, HTML), RateLimited, True, "no", RateLimited, True),
    ("429 upstream busy", answer(429, BUSY), RateLimited, True, "no", RateLimited, True),
    ("503 limiter", answer(503, DOWN), ServiceUnavailable, True, "no", ServiceUnavailable, True),
    # DESIGN "Submit" is stricter than contract 10.1: very likely is not certainly.
    ("503 no channel", answer(503, coded("no_channel")), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("503 circuit", answer(503, coded("circuit_broken")), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("503 model", answer(503, ENVELOPES["E4"]), ModelNotFound, False, "no", ModelNotFound, False),
    ("500 pricing", answer(500, PRICING), ModelNotFound, False, "no", ModelNotFound, False),
    ("400", answer(400, ENVELOPES["E2"]), InvalidRequest, False, "no", TransientFailure, True),
    ("401", answer(401, ENVELOPES["E1"]), AuthenticationFailed, False, "no", AuthenticationFailed, False),
    ("402", answer(402, coded("insufficient_quota")), InsufficientCredits, False, "no", InsufficientCredits, False),
    ("402 bare", answer(402), InsufficientCredits, False, "no", InsufficientCredits, False),
    ("403", answer(403, {"message": "ip not allowed"}), PermissionRefused, False, "no", PermissionRefused, False),
    ("404", answer(404, ID_URL), InvalidRequest, False, "no", TransientFailure, True),
    ("413", answer(413), InvalidRequest, False, "no", TransientFailure, True),
    ("422", answer(422, coded("content_policy_violation")), ContentRefused, False, "no", ContentRefused, False),
    ("422 bare", answer(422, {"message": "no"}), ContentRefused, False, "no", TransientFailure, True),
    ("422 other", answer(422, coded("invalid_parameter")), InvalidRequest, False, "no", TransientFailure, True),
    ("408", answer(408), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("500", answer(500, coded("internal_error")), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("502 HTML", answer(502, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("503 HTML", answer(503, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("504 empty", answer(504), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("520", answer(520, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("200 HTML", answer(200, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    # "success": false with a reason is a refusal, unless the reason is trouble of the service.
    ("200 E6", answer(200, ENVELOPES["E6"]), InvalidRequest, False, "no", TransientFailure, True),
    ("200 E7", answer(200, ENVELOPES["E7"]), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("200 quota", answer(200, coded("quota_not_enough")), InsufficientCredits, False, "no", InsufficientCredits, False),
    ("500 wrapped", answer(500, ENVELOPES["E8"]), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("lost", LOST, SubmissionUnknown, False, "unknown", TransientFailure, True),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_submit(row: tuple[str, Any, type, bool, str, type, bool]) -> None:
    _, outcome, expected, resent, charged, _, _ = row
    error = failure(SUBMIT, outcome)
    assert (type(error), error.charged) == (expected, charged)
    again = RetryPolicy().delay(SUBMIT.kind, error, 0, 0.5)
    assert (again is not None) == resent
    assert RetryPolicy().delay(SUBMIT.kind, error, 3, 0.5) is None
    assert isinstance(error, errors.NotAccepted) == resent
    assert type(pickle.loads(pickle.dumps(error))) is expected


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_poll(row: tuple[str, Any, type, bool, str, type, bool]) -> None:
    _, outcome, _, _, _, expected, polled_again = row
    error = failure(STATUS, outcome)
    assert isinstance(error, expected)
    assert error.retryable == polled_again
    assert (RetryPolicy().delay(STATUS.kind, error, 0, 0.5) is not None) == polled_again
    assert NO_REPEATS.delay(STATUS.kind, error, 0, 0.5) is None
    assert (error.image_task_id, ID in error.message) == (ID, not isinstance(outcome, NoAnswer))
    assert error.charged in ("yes", "unknown"), "a refused poll says nothing against a paid image task"


@pytest.mark.parametrize(
    "outcome",
    [
        answer(404, coded("task_not_found", type="not_found_error")),
        answer(400, ENVELOPES["E5"]),
        answer(400, {"message": "task_not_exist"}),
        answer(404, {"message": "任务不存在"}),
        answer(404, coded("task_not_found", "task_not_found (request id: 2026)")),
        answer(400, {"error": {"code": "", "message": "task_not_exist (request id: 2026)"}}),
        answer(500, {"code": "task_not_exist", "message": "x"}),
        answer(404, {"error": {"code": 404, "message": "no such task", "type": "not_found_error"}}),
    ],
)
def test_not_found_by_code_and_by_text(outcome: Any) -> None:
    assert type(failure(STATUS, outcome)) is errors.ImageTaskNotFound


@pytest.mark.parametrize(
    "outcome",
    [
        answer(
            404, b"<html><title>404 Not Found</title><center>nginx: the task or page does not exist</center></html>"
        ),
        answer(404, b""),
        answer(404, ID_URL),
        answer(400, HTML),
        answer(400, coded("invalid_request", "client ids are not supported here")),
        answer(400, b'{"code": "task_not_ex'),
    ],
    ids=["404 page", "404 empty", "404 wrong path", "400 page", "400 other code", "400 truncated"],
)
def test_an_edge_page_or_a_wrong_path_is_never_not_there(outcome: Any) -> None:
    """A look-up by client id that hears "not there" leads to a second purchase, so only the service may say it.

    Contract 10.1 (poll: HTML and unparsable JSON are transient) and 10 row 11 (by code or text as well as status);
    DESIGN "Durability": "could not ask" is never "not there".
    """
    assert not isinstance(failure(STATUS, outcome), errors.ImageTaskNotFound)


QUOTA = [
    answer(403, coded("insufficient_user_quota")),
    answer(403, coded("pre_consume_token_quota_failed")),
    answer(403, coded("quota_not_enough")),
    answer(403, {"message": "user quota is not enough"}),
    answer(402, {"error": {"code": 402, "message": "x", "type": "payment_required"}}),
    answer(429, {"message": "余额不足"}),
    answer(429, coded("", "You have no credits left")),
    answer(429, coded("insufficient_quota", "slow down")),
    answer(403, {"error": {"message": "额度不足 (request id: 1)", "type": "new_api_error", "code": ""}}),
]


@pytest.mark.parametrize("outcome", QUOTA)
def test_no_credits_comes_with_three_statuses(outcome: Any) -> None:
    error = failure(SUBMIT, outcome)
    assert (type(error), error.retryable) == (errors.InsufficientCredits, False)
    assert "top up" in error.message


@pytest.mark.parametrize("message", ["rate quota reached", "credit-based rate limit"])
def test_a_rate_limit_by_code_is_no_credits_whatever_its_text(message: str) -> None:
    assert type(failure(SUBMIT, answer(429, coded("rate_limit_exceeded", message)))) is errors.RateLimited


def test_a_wrong_model_names_the_other_id() -> None:
    message = failure(SUBMIT, answer(503, ENVELOPES["E4"])).message
    assert "gemini-3.1-flash-image-preview" in message and "nano_banana_2" in message


@pytest.mark.parametrize(
    ("status", "call"), [(status, call) for status in (301, 302, 303, 307, 308) for call in (SUBMIT, MODEL_LIST)]
)
def test_a_redirect_of_a_call_is_a_wrong_host(status: int, call: ApiCall[Any]) -> None:
    error = failure(call, answer(status, HTML, location="https://elsewhere/"))
    assert (type(error), error.charged) == (errors.ConfigurationError, "no")


def test_a_failed_upload_may_be_repeated_and_costs_nothing() -> None:
    for outcome in (answer(500), answer(429), LOST, NOT_SENT):
        error = failure(UPLOAD, outcome)
        assert (error.retryable, error.charged) == (True, "no")
        assert RetryPolicy().delay(UPLOAD.kind, error, 0, 0.0) is not None


@pytest.mark.parametrize(
    ("envelope", "code", "kind", "message"),
    [
        ("E1", "401", "authentication_error", "bad key"),
        ("E2", "invalid_request", "invalid_request_error", "no"),
        ("E3", "rate_limit_exceeded", "", "slow down"),
        ("E4", "model_not_found", "new_api_error", "no (request id: 2026)"),
        ("E5", "task_not_exist", "", "task_not_exist"),
        ("E6", "", "", "not an image"),
        ("E7", "", "", "something"),
        ("E7b", "", "", "something"),
        ("E8", "internal_error", "", "upstream is down"),
    ],
)
def test_envelopes(envelope: str, code: str, kind: str, message: str) -> None:
    complaint = read_complaint(answer(400, ENVELOPES[envelope]))
    assert (complaint.code, complaint.type, complaint.message) == (code, kind, message)


def test_html_is_told_as_words() -> None:
    assert read_complaint(answer(504, HTML)).message == "504 Gateway Time-out tengine"
    assert read_complaint(answer(504, b"")).message == "empty body"


@pytest.mark.parametrize("wrap", ["{}", "Bearer {}", "bearer  {}.", '"{}"', "key={}\n", "<b>{}</b>", "({})"])
def test_a_key_in_any_text_is_blanked(wrap: str) -> None:
    assert "0123456789" not in clean(wrap.format(KEY))
    body = {"error": {"code": wrap.format(KEY), "message": "x " * 120 + wrap.format(KEY), "type": wrap.format(KEY)}}
    assert "0123456789" not in repr(vars(failure(SUBMIT, answer(400, body)))) + str(failure(SUBMIT, answer(400, body)))


def test_texts_are_one_bounded_line() -> None:
    text = clean("a\nb\r\n\tc" + "\u2028 d" + "x" * 5000)
    assert "\n" not in text and len(text) <= 301


@pytest.mark.parametrize("code", ["content_policy_violation", "CONTENT_FILTER", "moderation_blocked"])
def test_a_refused_content_is_recognised_by_its_code(code: str) -> None:
    assert content_refused(code, "")
    assert content_refused("generation_failed", "blocked by our content policy")
    assert not content_refused("generation_failed", "upstream returned status 500")
