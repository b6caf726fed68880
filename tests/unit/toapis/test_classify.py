"""From an answer to the one error it is: ``docs/toapis.md``, "Errors", row by row."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import _page_text, parse_error_body
from airflow_provider_nanobanana.toapis.content_refusals import content_refused
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
from airflow_provider_nanobanana.toapis.protocol import ApiCall
from airflow_provider_nanobanana.toapis.redaction import one_line
from airflow_provider_nanobanana.toapis.responses import NoResponse
from airflow_provider_nanobanana.toapis.retry import NO_RETRY, RequestRetry
from tests.support.responses import ENVELOPES, ID, KEY, MODEL_LIST, NOW, STATUS, SUBMIT, UPLOAD, response

HTML = b"<html><head><style>b{}</style></head><body><h1>504 Gateway Time-out</h1><hr>tengine</body></html>"
ID_URL = {"error": {"message": "Invalid URL (POST /v1/v1/x)", "type": "invalid_request_error", "param": "", "code": ""}}


def failure(call: ApiCall[Any], outcome: Any) -> errors.ToApisError:
    with pytest.raises(errors.ToApisError) as caught:
        call.parse(outcome, NOW)
    return caught.value


def coded(code: Any, message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **fields}}


NOT_SENT, LOST = NoResponse(False, "ConnectError: refused"), NoResponse(True, "ReadTimeout: no details")

PRICING = {"message": "pricing_failed: no matching pricing rule x"}
BUSY = {"message": "分组上游负载已饱和"}
DOWN = coded("rate_limit_unavailable")

#: outcome -> class of a submit, resent, charged; class of a poll, polled again. A poll is ended by 401, 402, 403, a
#: wrong model or content and the service's own "not there" alone: other 4xx are asked again.
TABLE: list[tuple[str, Any, type, bool, str, type, bool]] = [
    ("not sent", NOT_SENT, ConnectionFailed, True, "no", ConnectionFailed, True),
    ("429", response(429, ENVELOPES["E3"]), RateLimited, True, "no", RateLimited, True),
    ("429 bare", response(429), RateLimited, True, "no", RateLimited, True),
    ("429 HTML", response(429, HTML), RateLimited, True, "no", RateLimited, True),
    ("429 upstream busy", response(429, BUSY), RateLimited, True, "no", RateLimited, True),
    ("503 limiter", response(503, DOWN), ServiceUnavailable, True, "no", ServiceUnavailable, True),
    # Very likely not accepted is not certainly.
    ("503 no channel", response(503, coded("no_channel")), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("circuit", response(503, coded("circuit_broken")), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("503 model", response(503, ENVELOPES["E4"]), ModelNotFound, False, "no", ModelNotFound, False),
    ("500 pricing", response(500, PRICING), ModelNotFound, False, "no", ModelNotFound, False),
    ("400", response(400, ENVELOPES["E2"]), InvalidRequest, False, "no", TransientFailure, True),
    ("401", response(401, ENVELOPES["E1"]), AuthenticationFailed, False, "no", AuthenticationFailed, False),
    ("402", response(402, coded("insufficient_quota")), InsufficientCredits, False, "no", InsufficientCredits, False),
    ("402 bare", response(402), InsufficientCredits, False, "no", InsufficientCredits, False),
    ("403", response(403, {"message": "ip not allowed"}), PermissionRefused, False, "no", PermissionRefused, False),
    ("404", response(404, ID_URL), InvalidRequest, False, "no", TransientFailure, True),
    ("413", response(413), InvalidRequest, False, "no", TransientFailure, True),
    ("422", response(422, coded("content_policy_violation")), ContentRefused, False, "no", ContentRefused, False),
    ("422 bare", response(422, {"message": "no"}), ContentRefused, False, "no", TransientFailure, True),
    ("422 other", response(422, coded("invalid_parameter")), InvalidRequest, False, "no", TransientFailure, True),
    ("408", response(408), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("500", response(500, coded("internal_error")), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("502 HTML", response(502, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("503 HTML", response(503, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("504 empty", response(504), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("520", response(520, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("200 HTML", response(200, HTML), SubmissionUnknown, False, "unknown", TransientFailure, True),
    # "success": false with a reason is a refusal, unless the reason is trouble of the service.
    ("200 E6", response(200, ENVELOPES["E6"]), InvalidRequest, False, "no", TransientFailure, True),
    ("200 E7", response(200, ENVELOPES["E7"]), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("quota", response(200, coded("quota_not_enough")), InsufficientCredits, False, "no", InsufficientCredits, False),
    ("500 wrapped", response(500, ENVELOPES["E8"]), SubmissionUnknown, False, "unknown", TransientFailure, True),
    ("lost", LOST, SubmissionUnknown, False, "unknown", TransientFailure, True),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_submit(row: tuple[str, Any, type, bool, str, type, bool]) -> None:
    _, outcome, expected, resent, charged, _, _ = row
    error = failure(SUBMIT, outcome)
    assert (type(error), error.charged) == (expected, charged)
    again = RequestRetry().delay(SUBMIT.kind, error, 0, 0.5)
    assert (again is not None) == resent
    assert RequestRetry().delay(SUBMIT.kind, error, 3, 0.5) is None
    assert isinstance(error, errors.NotAccepted) == resent
    assert type(pickle.loads(pickle.dumps(error))) is expected


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_poll(row: tuple[str, Any, type, bool, str, type, bool]) -> None:
    _, outcome, _, _, _, expected, polled_again = row
    error = failure(STATUS, outcome)
    assert isinstance(error, expected)
    assert error.retryable == polled_again
    assert (RequestRetry().delay(STATUS.kind, error, 0, 0.5) is not None) == polled_again
    assert NO_RETRY.delay(STATUS.kind, error, 0, 0.5) is None
    assert (error.image_task_id, ID in error.message) == (ID, not isinstance(outcome, NoResponse))
    assert error.charged in ("yes", "unknown"), "a refused poll says nothing against a paid image task"


@pytest.mark.parametrize(
    "outcome",
    [
        response(404, coded("task_not_found", type="not_found_error")),
        response(400, ENVELOPES["E5"]),
        response(400, {"message": "task_not_exist"}),
        response(404, {"message": "任务不存在"}),
        response(404, coded("task_not_found", "task_not_found (request id: 2026)")),
        response(400, {"error": {"code": "", "message": "task_not_exist (request id: 2026)"}}),
        response(500, {"code": "task_not_exist", "message": "x"}),
        response(404, {"error": {"code": 404, "message": "no such task", "type": "not_found_error"}}),
    ],
)
def test_not_found_by_code_and_by_text(outcome: Any) -> None:
    assert type(failure(STATUS, outcome)) is errors.ImageTaskNotFound


@pytest.mark.parametrize(
    "outcome",
    [
        response(
            404, b"<html><title>404 Not Found</title><center>nginx: the task or page does not exist</center></html>"
        ),
        response(404, b""),
        response(404, ID_URL),
        response(400, HTML),
        response(400, coded("invalid_request", "client ids are not supported here")),
        response(400, b'{"code": "task_not_ex'),
    ],
    ids=["404 page", "404 empty", "404 wrong path", "400 page", "400 other code", "400 truncated"],
)
def test_an_edge_page_or_a_wrong_path_is_never_not_there(outcome: Any) -> None:
    """A look-up by client id that hears "not there" leads to a second purchase, so only the service may say it.

    By code or words, never by status alone; "could not ask" is never "not there".
    """
    assert not isinstance(failure(STATUS, outcome), errors.ImageTaskNotFound)


QUOTA = [
    response(403, coded("insufficient_user_quota")),
    response(403, coded("pre_consume_token_quota_failed")),
    response(403, coded("quota_not_enough")),
    response(403, {"message": "user quota is not enough"}),
    response(402, {"error": {"code": 402, "message": "x", "type": "payment_required"}}),
    response(429, {"message": "余额不足"}),
    response(429, coded("", "You have no credits left")),
    response(429, coded("insufficient_quota", "slow down")),
    response(403, {"error": {"message": "额度不足 (request id: 1)", "type": "new_api_error", "code": ""}}),
]


@pytest.mark.parametrize("outcome", QUOTA)
def test_no_credits_comes_with_three_statuses(outcome: Any) -> None:
    error = failure(SUBMIT, outcome)
    assert (type(error), error.retryable) == (errors.InsufficientCredits, False)
    assert "top up" in error.message


@pytest.mark.parametrize("message", ["rate quota reached", "credit-based rate limit"])
def test_a_rate_limit_by_code_is_no_credits_whatever_its_text(message: str) -> None:
    assert type(failure(SUBMIT, response(429, coded("rate_limit_exceeded", message)))) is errors.RateLimited


def test_a_wrong_model_names_the_other_id() -> None:
    message = failure(SUBMIT, response(503, ENVELOPES["E4"])).message
    assert "gemini-3.1-flash-image-preview" in message and "nano_banana_2" in message


@pytest.mark.parametrize(
    ("status", "call"), [(status, call) for status in (301, 302, 303, 307, 308) for call in (SUBMIT, MODEL_LIST)]
)
def test_a_redirect_of_a_call_is_a_wrong_host(status: int, call: ApiCall[Any]) -> None:
    error = failure(call, response(status, HTML, location="https://elsewhere/"))
    assert (type(error), error.charged) == (errors.ConfigurationError, "no")


def test_a_failed_upload_may_be_repeated_and_costs_nothing() -> None:
    for outcome in (response(500), response(429), LOST, NOT_SENT):
        error = failure(UPLOAD, outcome)
        assert (error.retryable, error.charged) == (True, "no")
        assert RequestRetry().delay(UPLOAD.kind, error, 0, 0.0) is not None


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
    complaint = parse_error_body(response(400, ENVELOPES[envelope]))
    assert (complaint.code, complaint.type, complaint.message) == (code, kind, message)


def test_html_is_told_as_words() -> None:
    assert parse_error_body(response(504, HTML)).message == "504 Gateway Time-out tengine"
    assert parse_error_body(response(504, b"")).message == "empty body"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"<SCRIPT>if (a<b && c>d) x</scripT >Hello<style\n>p{}</p></style> you", "Hello you"),
        (b"before<script>never closed", "before"),
        (b"a < b > c", "a c"),
        (b"a < b, 3 < 4", "a < b, 3 < 4"),
        (b"<" * 20 + b"p>x", "<" * 19 + " x"),
        (b"<!DOCTYPE html><!-- a --><br/>x</style>y", "x y"),
    ],
)
def test_of_a_page_its_text_is_read(page: bytes, words: str) -> None:
    assert parse_error_body(response(504, page)).message == words


@pytest.mark.parametrize("page", [b"<", b"<script>", b"<a", b"</", b"<style></script>", b"<script", b"a<b>"])
def test_no_page_takes_long_to_read(page: bytes) -> None:
    """A pattern that began again at each bracket would take hours here, and hold everybody up."""
    assert len(_page_text((page * 200_000).decode())) <= 4 * len(page) * 200_000


@pytest.mark.parametrize("wrap", ["{}", "Bearer {}", "bearer  {}.", '"{}"', "key={}\n", "<b>{}</b>", "({})"])
def test_a_key_in_any_text_is_blanked(wrap: str) -> None:
    assert "0123456789" not in one_line(wrap.format(KEY))
    body = {"error": {"code": wrap.format(KEY), "message": "x " * 120 + wrap.format(KEY), "type": wrap.format(KEY)}}
    assert "0123456789" not in repr(vars(failure(SUBMIT, response(400, body)))) + str(
        failure(SUBMIT, response(400, body))
    )


def test_texts_are_one_bounded_line() -> None:
    text = one_line("a\nb\r\n\tc" + "\u2028 d" + "x" * 5000)
    assert "\n" not in text and len(text) <= 301


@pytest.mark.parametrize("code", ["content_policy_violation", "CONTENT_FILTER", "moderation_blocked"])
def test_a_refused_content_is_recognised_by_its_code(code: str) -> None:
    assert content_refused(code, "")
    assert content_refused("generation_failed", "blocked by our content policy")
    assert not content_refused("generation_failed", "upstream returned status 500")


@pytest.mark.parametrize(
    "outcome",
    [
        response(409, coded("", "")),
        response(409, coded("conflict", "try later")),
        response(400, coded("duplicate_request", "seen before")),
        response(422, {"error": {"message": "client_business_id already exists"}}),
    ],
)
def test_a_repeated_submit_is_never_taken_for_one_that_bought_nothing(outcome: Any) -> None:
    error = failure(SUBMIT, outcome)
    assert (type(error), error.charged) == (SubmissionUnknown, "unknown")


def test_a_client_id_that_is_not_allowed_was_not_accepted() -> None:
    error = failure(SUBMIT, response(400, coded("invalid_request", "client_business_id is not allowed")))
    assert (type(error), error.charged) == (errors.InvalidRequest, "no")


# --- refusals in a 2xx -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"code": 401, "msg": "You do not have access permissions"}, AuthenticationFailed),
        ({"code": 402, "msg": "Credits insufficient"}, InsufficientCredits),
        ({"code": "422", "msg": "prompt is too long"}, InvalidRequest),
        ({"code": 429, "msg": "slow down"}, RateLimited),
        ({"code": 403, "message": "not yours", "data": None}, PermissionRefused),
        ({"error": {"code": 400, "message": "bad size"}}, InvalidRequest),
        ({"status_code": 404, "message": "no such route"}, InvalidRequest),
        ({"success": False, "message": "invalid request body"}, InvalidRequest),
        ({"success": "false", "error": {"message": "size is wrong"}}, InvalidRequest),
        ({"success": False, "message": "内容违规"}, ContentRefused),
        # Nobody knows how far the service got.
        ({"success": False}, SubmissionUnknown),
        ({"success": False, "message": "upstream timed out"}, SubmissionUnknown),
        ({"success": False, "message": "系统繁忙，请稍后"}, SubmissionUnknown),
        ({"success": False, "message": "context deadline exceeded"}, SubmissionUnknown),
        ({"success": False, "message": "unexpected EOF"}, SubmissionUnknown),
        ({"success": False, "message": "unknown error"}, SubmissionUnknown),
        ({"success": False, "message": "network error"}, SubmissionUnknown),
        ({"success": False, "message": "任务创建失败"}, SubmissionUnknown),
        ({"success": False, "id": "tsk_1", "message": "not quite"}, SubmissionUnknown),
        ({"code": 500, "msg": "Server Error"}, SubmissionUnknown),
        ({"code": 409, "msg": "exists"}, SubmissionUnknown),
        ({"code": 408, "msg": "late"}, SubmissionUnknown),
        ({"code": 4001, "msg": "who knows"}, SubmissionUnknown),
        ({"code": 200, "data": {}}, SubmissionUnknown),
    ],
)
def test_a_2xx_that_refuses_a_submit_is_what_its_code_says(body: dict[str, Any], expected: type) -> None:
    error = failure(SUBMIT, response(200, body))
    assert type(error) is expected and error.http_status == 200
    assert error.charged == ("unknown" if expected is SubmissionUnknown else "no")
    for word in (body.get("msg"), body.get("message")):
        assert word is None or str(word) in error.message


def test_a_2xx_with_a_code_and_an_id_is_accepted() -> None:
    for code in (0, 1, 200, 401, 500):
        assert SUBMIT.parse(response(200, {"code": code, "data": {"task_id": ID}}), NOW).id == ID


def test_a_poll_answered_by_a_code_is_what_the_code_says_and_the_image_task_lives_on() -> None:
    for code, expected in ((401, AuthenticationFailed), (429, RateLimited), (404, TransientFailure)):
        error = failure(STATUS, response(200, {"code": code, "msg": "no"}))
        assert (type(error), error.charged) == (expected, "yes")


# --- pages of somebody in between ------------------------------------------------------------------------------------

WALL = b"<!DOCTYPE html><title>Attention Required! | Cloudflare</title>"


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        (response(403, WALL), "HTML page"),
        (response(403, b"Forbidden"), "page that is no JSON"),
        (response(403), "empty body"),
        (response(403, {}), "not the service's own words"),
        (response(401, WALL), "HTML page"),
        (response(407, WALL), "HTML page"),
        (response(407, {"message": "proxy authentication required"}), "not the service's own words"),
        (response(400, WALL), "HTML page"),
        (response(422, WALL), "HTML page"),
        (response(402, WALL), "HTML page"),
        (response(451, WALL), "HTML page"),
    ],
)
@pytest.mark.parametrize("call", [SUBMIT, STATUS, UPLOAD, MODEL_LIST], ids=["submit", "status", "upload", "models"])
def test_a_page_of_an_edge_says_nothing_of_key_or_prompt_and_passes(call: Any, outcome: Any, what: str) -> None:
    error = failure(call, outcome)
    assert type(error) is TransientFailure and error.retryable
    assert error.charged == ("yes" if call is STATUS else "no")
    assert f"an edge or proxy refused it (HTTP {outcome.status}, {what})" in error.message
    assert ("Nothing was bought" in error.message) == (call is SUBMIT)
    # A wall is not run against again and again within one attempt.
    assert call is not SUBMIT or RequestRetry().delay(SUBMIT.kind, error, 0, 0.5) is None


@pytest.mark.parametrize(
    "outcome", [response(404, HTML), response(404, ID_URL), response(405, HTML), response(404, b"")]
)
def test_a_path_that_is_not_there_is_a_question_of_the_host(outcome: Any) -> None:
    error = failure(SUBMIT, outcome)
    assert type(error) is InvalidRequest and "Check the connection's host" in error.message
    assert "host: nothing" not in failure(STATUS, outcome).message


# --- an earlier submit with the same client id -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        response(409),
        response(409, {"message": "conflict"}),
        response(409, WALL),
        response(400, coded("duplicate_request", "duplicate client_business_id")),
        response(400, {"message": "client_business_id already exists"}),
        response(422, {"detail": [{"loc": ["body", "client_business_id"], "msg": "already used"}]}),
        response(400, {"message": "client_business_id 重复"}),
        response(400, {"message": "task with this clientBusinessId"}),
    ],
)
def test_a_refusal_of_a_repeated_client_id_may_hide_a_purchase(outcome: Any) -> None:
    """The first submit may have bought the image although its answer was lost."""
    assert (type(failure(SUBMIT, outcome)), failure(SUBMIT, outcome).charged) == (SubmissionUnknown, "unknown")


@pytest.mark.parametrize(
    "message",
    ["unknown parameter: client_business_id", "client_business_id must be 1 to 128 characters", "prompt is too long"],
)
def test_an_account_that_rejects_the_field_has_bought_nothing(message: str) -> None:
    assert type(failure(SUBMIT, response(400, coded("invalid_request", message)))) is InvalidRequest


# --- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "内容审核未通过",
        "图片未能通过审核",
        "提示词包含敏感词",
        "內容違規",
        "Gemini API error: IMAGE_SAFETY",
        "finishReason PROHIBITED_CONTENT",
        "candidate finishReason: SAFETY",
        "sensitive words detected",
        "Your request was rejected by the safety system.",
        "The prompt was flagged by moderation",
        "blocked because it contains explicit content",
        "violates our usage policies",
        "Request Moderated",
        "コンテンツポリシーに違反",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 403, 422, 451, 500, 503])
def test_refused_content_is_known_by_its_words_behind_any_status(message: str, status: int) -> None:
    outcome = response(status, {"success": False, "error": {"message": message}})
    error = failure(SUBMIT, outcome)
    assert (type(error), error.charged, error.retryable) == (ContentRefused, "no", False)
    assert content_refused("generation_failed", message)


@pytest.mark.parametrize(
    "message",
    [
        "moderately busy",
        "safety timeout upstream",
        "the moderation service is unavailable",
        "content moderation timed out, request rejected",
        "审核服务超时",
        "审核中",
        "content type not supported",
        "illegal base64 data",
        "access denied: illegal character",
        "request rejected: too many requests",
        "no images in answer",
        "upstream returned status 422",
    ],
)
def test_a_common_failure_is_no_refused_content(message: str) -> None:
    assert not content_refused("generation_failed", message)
    assert type(failure(SUBMIT, response(500, {"message": message}))) is SubmissionUnknown


@pytest.mark.parametrize(
    "code",
    ["sensitive_words_detected", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "InputImageSensitiveContentDetected",
     "ContentPolicyViolation", "DataInspectionFailed", "content-filter", "ResponsibleAIPolicyViolation"],
)  # fmt: skip
def test_refused_content_is_known_by_its_code(code: str) -> None:
    assert content_refused(code, "")
    assert type(failure(SUBMIT, response(500, coded(code, "no")))) is ContentRefused


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            response(422, {"detail": [{"loc": ["body", "size"], "msg": "invalid", "type": "value_error"}]}),
            InvalidRequest,
        ),
        (response(422, {"errors": {"size": ["is wrong"]}, "message": "unprocessable"}), InvalidRequest),
        (response(422, {"message": "prompt is too long"}), InvalidRequest),
        (response(422, {"detail": "flagged by the safety filter"}), ContentRefused),
        (response(422, {}), ContentRefused),
        (response(422), ContentRefused),
    ],
)
def test_a_422_is_refused_content_where_nothing_else_is_said(outcome: Any, expected: type) -> None:
    assert type(failure(SUBMIT, outcome)) is expected


def test_a_wall_and_a_limit_are_no_refused_content_whatever_their_words() -> None:
    assert type(failure(SUBMIT, response(403, b"<h1>blocked by content policy</h1>"))) is TransientFailure
    assert type(failure(SUBMIT, response(429, {"message": "flagged by the safety filter"}))) is RateLimited


# --- reasons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": [{"message": "boom"}]}, "boom"),
        ({"error": ["boom", "bang"]}, "boom: bang"),
        ({"error": {"error": {"message": {"text": "boom"}}}}, "boom"),
        ({"errors": [{"detail": "boom"}]}, "boom"),
        ({"detail": "boom"}, "boom"),
        ({"detail": [{"loc": ["body", "size"], "msg": "boom", "type": "value_error"}]}, "body.size: boom"),
        ({"error": "Internal Server Error", "message": "boom"}, "Internal Server Error: boom"),
        ({"msg": "boom"}, "boom"),
        ({"fail_reason": "boom"}, "boom"),
        ({"failMsg": "boom", "failCode": "E1"}, "boom"),
        ({"reason": "boom"}, "boom"),
        ({"error_description": "boom"}, "boom"),
        ({"error": {"details": [{"description": "boom"}]}}, "boom"),
        ({"message": '{"error":{"message":"boom"}}'}, "boom"),
        ({"error": {"message": '{"detail":"boom"}'}}, "boom"),
        ({"code": "success", "message": "success", "error": {"message": "boom"}}, "boom"),
    ],
)
def test_the_reason_is_read_wherever_it_lies(body: dict[str, Any], said: str) -> None:
    assert parse_error_body(response(400, body)).message == said
    failed = STATUS.parse(response(200, {"id": ID, "status": "failed", **body}), NOW)
    assert failed.error is not None and failed.error.message == said


def test_a_failed_image_task_refused_for_its_content_has_one_code_even_where_the_words_are_cut() -> None:
    for body in ({"error": {"message": "x " * 300 + "内容审核未通过"}}, {"status": "Request Moderated"}):
        image_task = STATUS.parse(response(200, {"id": ID, "status": "failed", **body}), NOW)
        assert image_task.error is not None and image_task.error.code == "content_policy_violation"


# --- what a second read found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        response(500, coded("", "content policy check timed out, try again later")),
        response(503, coded("", "sensitive word service unavailable")),
        response(504, coded("", "responsible AI upstream timeout")),
        response(400, {"message": "upstream timeout"}),
        response(422, {"error": {"message": "context deadline exceeded"}}),
        response(499, WALL),
        response(460, WALL),
    ],
)
def test_a_submit_that_waited_behind_the_gateway_may_have_been_accepted(outcome: Any) -> None:
    assert type(failure(SUBMIT, outcome)) is SubmissionUnknown


def test_a_case_sensitive_parameter_is_no_refused_content() -> None:
    assert type(failure(SUBMIT, response(400, coded("", "参数大小写敏感")))) is InvalidRequest


@pytest.mark.parametrize("word", ["failed", "failure", "timeout", "denied", "expired"])
def test_a_failed_poll_without_an_id_is_no_failed_image_task(word: str) -> None:
    error = failure(STATUS, response(200, {"status": word, "message": "service busy"}))
    assert (type(error), error.charged) == (TransientFailure, "yes")
