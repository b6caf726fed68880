"""Answers that are replaced, lost, late or cut, and the rules that ask for them."""

from __future__ import annotations

import base64
import binascii
import io
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image, UnidentifiedImageError

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.emulator.faults.kinds import KINDS
from airflow_provider_nanobanana.emulator.faults.rules import Rule, word_rules


def ask(client: httpx.Client, key: str = "unknown") -> httpx.Response:
    return client.get(f"/v1/images/generations/{key}")


ANSWERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("rate_limit", {}, 429, "rate_limit_exceeded"),
    ("server_error", {"status": 504}, 504, "internal_error"),
    ("unavailable", {}, 503, "rate_limit_unavailable"),
    ("no_channel", {}, 503, "circuit_broken"),
    ("model_not_found", {}, 503, "model_not_found"),
    ("pricing_failed", {}, 500, "pricing_failed"),
    ("unauthorized", {}, 401, "authentication_error"),
    ("forbidden", {}, 403, "access_denied"),
    ("quota", {}, 402, "insufficient_quota"),
    ("quota", {"status": 403}, 403, "insufficient_user_quota"),
    ("quota", {"status": 429, "text": "balance used up"}, 429, "balance used up"),
    ("bad_request", {"param": "size"}, 400, '"param":"size"'),
    ("content_policy", {}, 422, "content_policy_violation"),
    ("too_large", {}, 413, "read_request_body_failed"),
    ("not_found", {}, 404, "task_not_found"),
    ("not_found", {"spelling": "400"}, 400, "task_not_exist"),
    ("html", {"status": 200}, 200, "<html>"),
    ("html", {}, 502, "<html>"),
    ("empty_body", {}, 200, ""),
    ("not_json", {}, 200, "upstream connect error"),
    ("success_false", {}, 200, '"success":false'),
    ("envelope", {"shape": "E5", "status": 400}, 400, '"data":null'),
    ("envelope", {"shape": "E6"}, 500, '"success":false'),
    ("envelope", {"shape": "E8"}, 500, "fail_to_fetch_task"),
    ("integer_code", {}, 500, '"code":500'),
]


@pytest.mark.parametrize("on", ["submit", "status"])
@pytest.mark.parametrize(("kind", "params", "status", "said"), ANSWERS)
def test_an_answer_is_replaced_once(
    emulator: Emulator,
    client: httpx.Client,
    submit: Any,
    on: str,
    kind: str,
    params: dict[str, Any],
    status: int,
    said: str,
) -> None:
    emulator.fault(on=on, kind=kind, times=1, **params)
    answer = submit() if on == "submit" else ask(client)
    assert answer.status_code == status
    assert said in answer.text
    assert emulator.ledger()["count"] == 0
    assert submit().status_code == 200
    assert ask(client).status_code == 404


@pytest.mark.parametrize("on", ["models", "balance", "upload"])
def test_the_other_points_can_fail_too(emulator: Emulator, client: httpx.Client, on: str) -> None:
    emulator.fault(on=on, kind="success_false")
    answers = {
        "models": client.get("/v1/models"),
        "balance": client.get("/v1/balance"),
        "upload": client.post("/v1/uploads/images", files={"file": ("a.gif", b"GIF89a")}),
    }
    assert {name for name, answer in answers.items() if answer.json()["success"] is False} == {on}


@pytest.mark.parametrize(
    ("params", "header"),
    [
        ({"retry_after": 7}, "7"),
        ({"retry_after": None}, None),
        ({"retry_after": "soon"}, "soon"),
        ({"retry_after": 1.5}, "1.5"),
    ],
)
def test_the_limiters_wait(
    emulator: Emulator, client: httpx.Client, params: dict[str, Any], header: str | None
) -> None:
    emulator.fault(on="status", kind="rate_limit", **params)
    assert ask(client).headers.get("retry-after") == header


def test_the_limiters_wait_as_a_date(emulator: Emulator, client: httpx.Client) -> None:
    emulator.fault(on="status", kind="rate_limit", retry_after=30, date=True)
    assert ask(client).headers["retry-after"].endswith(" GMT")


@pytest.mark.parametrize("kind", ["drop", "server_error", "html", "rate_limit"])
@pytest.mark.parametrize("committed", [True, False])
def test_a_lost_answer_may_have_been_paid(emulator: Emulator, submit: Any, kind: str, committed: bool) -> None:
    emulator.fault(on="submit", kind=kind, committed=committed, times=1)
    if kind == "drop":
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            submit()
    else:
        assert submit().status_code >= 400
    assert emulator.ledger()["count"] == int(committed)


def test_a_drop_may_be_a_reset_and_is_logged_as_no_answer(emulator: Emulator, client: httpx.Client) -> None:
    emulator.fault(on="status", kind="drop", reset=True, times=1)
    with pytest.raises(httpx.ReadError):
        ask(client)
    assert emulator.requests()[-1]["status"] == 0


def test_whoever_hangs_up_before_the_answer_is_logged_at_once(emulator: Emulator, client: httpx.Client) -> None:
    emulator.fault(on="status", kind="slow", seconds=3600, times=1)
    client.timeout = httpx.Timeout(0.2)
    with pytest.raises(httpx.ReadTimeout):
        ask(client, "first")
    client.timeout = httpx.Timeout(5)
    ask(client, "second")  # on another connection, after the first was seen to end
    assert [(entry["path"][-6:], entry["status"]) for entry in emulator.requests()] == [("/first", 0), ("second", 404)]


@pytest.mark.parametrize("reset", [True, False])
def test_a_drop_in_the_middle_of_a_body(emulator: Emulator, submit: Any, reset: bool) -> None:
    emulator.fault(on="submit", kind="drop_mid_body", times=1, reset=reset)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        submit()
    assert emulator.ledger()["count"] == 1


def test_truncated_json_is_honest_about_its_length(emulator: Emulator, submit: Any) -> None:
    emulator.fault(on="submit", kind="truncated_json")
    answer = submit()
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.text.startswith('{"id"')
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        answer.json()


def test_garbage_is_no_text(emulator: Emulator, client: httpx.Client) -> None:
    emulator.fault(on="status", kind="garbage", bytes=64)
    with pytest.raises(UnicodeDecodeError):
        ask(client).content.decode()


@pytest.mark.parametrize("kind", ["slow", "slow_headers", "slow_body"])
def test_a_slow_answer_times_out_and_is_paid(emulator: Emulator, submit: Any, client: httpx.Client, kind: str) -> None:
    emulator.fault(on="submit", kind=kind, seconds=30, times=1)
    client.timeout = httpx.Timeout(0.2)
    with pytest.raises(httpx.ReadTimeout):
        submit()
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize("kind", ["slow", "slow_headers", "slow_body"])
def test_a_slow_answer_is_right_in_the_end(emulator: Emulator, submit: Any, kind: str) -> None:
    emulator.fault(on="submit", kind=kind, seconds=0.05, times=1)
    assert submit().json()["object"] == "generation.task"


def test_who_hangs_up_while_an_uncommitted_submit_waits_buys_nothing(
    emulator: Emulator, submit: Any, client: Any
) -> None:
    emulator.fault(on="submit", kind="slow", seconds=0.3, committed=False)
    client.timeout = httpx.Timeout(0.1)
    with pytest.raises(httpx.ReadTimeout):
        submit()
    client.timeout = httpx.Timeout(5)
    assert submit().status_code == 200  # answered after the first one was through
    assert emulator.ledger()["count"] == 1


def test_rules_count_skip_and_match(emulator: Emulator, submit: Any) -> None:
    emulator.fault(on="submit", kind="server_error", match="kite", skip=1, times=2)
    assert [submit(prompt).status_code for prompt in ("kite", "boat", "kite", "a kite", "kite")] == [
        200,
        200,
        500,
        500,
        200,
    ]
    assert emulator.faults()[0]["hits"] == 2
    emulator.clear_faults()
    assert emulator.faults() == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"on": "nowhere", "kind": "drop"}, "on: Input should be"),
        ({"on": "submit", "kind": "bomb"}, "known are"),
        ({"on": "submit", "kind": "drop", "bytes": 1}, "takes"),
        ({"on": "submit", "kind": "server_error", "status": "500"}, "status: Input should be a valid integer"),
        ({"on": "status", "kind": "envelope", "shape": "E9"}, "must be one of"),
        ({"on": "status", "kind": "drop", "times": "2"}, "times: Input should be a valid integer"),
    ],
)
def test_a_rule_that_cannot_be_played_is_refused(emulator: Emulator, rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        emulator.fault(**rule)


def test_every_kind_can_be_asked_for_with_its_own_defaults() -> None:
    for name, kind in KINDS.items():
        for point in kind.points:
            assert Rule.parse({"on": point, "kind": name, **kind.defaults}).kind == name


def test_words_in_the_prompt_do_the_same(emulator: Emulator, client: httpx.Client, submit: Any, clock: Any) -> None:
    assert submit("a [[refuse]] kite").status_code == 422
    assert submit("[[no-credits]]").status_code == 402
    with pytest.raises(httpx.RemoteProtocolError):
        submit("[[lost]]", client_business_id="lost")
    assert ask(client, "lost").status_code == 200
    slow = submit("[[slow=200]]").json()["id"]
    stuck = submit("[[stuck]]").json()["id"]
    late = submit("[[refuse-late]]").json()["id"]
    clock.now += 199
    assert ask(client, slow).json()["status"] == "in_progress"
    assert ask(client, stuck).json()["status"] == "in_progress"
    assert ask(client, late).json()["error"]["code"] == "content_policy_violation"
    clock.now += 1
    assert ask(client, slow).json()["status"] == "completed"
    assert word_rules("[[unknown]] [not] a word") == []


def test_a_dropped_client_leaves_the_server_well(emulator: Emulator, client: httpx.Client) -> None:
    host, port = emulator.api_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert client.get("/v1/balance").status_code == 200


# --- faults of status responses --------------------------------------------------------------------------------------


def test_the_id_may_hide(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    emulator.fault(on="submit", kind="id_in_data", times=1)
    hidden = submit().json()
    assert "id" not in hidden
    assert ask(client, hidden["data"]["task_id"]).status_code == 200
    emulator.clear_faults()
    emulator.fault(on="submit", kind="no_id", times=1)
    assert "tsk_img" not in submit().text
    assert emulator.ledger()["count"] == 2


def test_a_submit_may_be_completed_at_once(emulator: Emulator, submit: Any) -> None:
    emulator.fault(on="submit", kind="already_completed")
    answer = submit().json()
    assert answer["status"] == "completed"
    assert httpx.get(answer["result"]["data"][0]["url"], trust_env=False).status_code == 200


def test_a_new_id_may_be_unknown_for_some_polls_or_seconds(
    emulator: Emulator, client: Any, submit: Any, clock: Any
) -> None:
    emulator.fault(on="submit", kind="late_404", polls=2, spelling="400", times=1)
    key = submit().json()["id"]
    assert [ask(client, key).status_code for _ in range(3)] == [400, 400, 200]
    emulator.fault(on="submit", kind="late_404", seconds=10)
    key = submit().json()["id"]
    assert ask(client, key).status_code == 404
    clock.now += 10
    assert ask(client, key).status_code == 200


@pytest.mark.parametrize("word", ["pending", "submitted", "zebra", ""])
def test_running_has_many_names(emulator: Emulator, client: httpx.Client, submit: Any, word: str) -> None:
    key = submit().json()["id"]
    emulator.complete_all()
    emulator.fault(on="status", kind="status_word", word=word, times=1)
    assert ask(client, key).json()["status"] == word
    assert ask(client, key).json()["status"] == "completed"


SHAPES: list[tuple[str, dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ("top_level_url", {}, lambda body: body["url"].startswith("http") and "result" not in body),
    ("data_url", {}, lambda body: body["data"][0]["url"].startswith("http") and "result" not in body),
    ("result_url", {}, lambda body: body["result"]["url"].startswith("http")),
    ("no_url", {}, lambda body: body["status"] == "completed" and body["result"]["data"] == []),
    ("url", {"url": "http://10.0.0.1/a"}, lambda body: body["result"]["data"] == [{"url": "http://10.0.0.1/a"}]),
    ("wrong_suffix", {"suffix": ".webp"}, lambda body: body["result"]["data"][0]["url"].endswith(".webp")),
    ("success_word", {"word": "SUCCESS"}, lambda body: body["status"] == "SUCCESS" and "result" in body),
    ("billing", {"value": "absent"}, lambda body: "billing" not in body),
    ("billing", {"value": "pending"}, lambda body: body["billing"] == {"status": "pending"}),
    ("expires_at", {"value": "missing"}, lambda body: "expires_at" not in body),
    ("expires_at", {"value": "past"}, lambda body: body["expires_at"] < body["completed_at"]),
]


@pytest.mark.parametrize(("kind", "params", "holds"), SHAPES)
def test_a_completed_body_is_bent_and_only_then(
    emulator: Emulator, client: Any, submit: Any, kind: str, params: dict[str, Any], holds: Callable[[Any], bool]
) -> None:
    emulator.fault(on="status", kind=kind, times=1, **params)
    key = submit().json()["id"]
    assert ask(client, key).json()["status"] == "queued"  # does not use the fault up
    emulator.complete_all()
    assert holds(ask(client, key).json())
    right = ask(client, key).json()
    assert (right["status"], right["billing"]["status"]) == ("completed", "settled")
    assert right["result"]["data"][0]["url"].endswith(".png")


def test_shapes_add_up(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    emulator.fault(on="status", kind="top_level_url")
    emulator.fault(on="status", kind="billing")
    key = submit().json()["id"]
    emulator.complete_all()
    body = ask(client, key).json()
    assert "url" in body
    assert "billing" not in body


@pytest.mark.parametrize(("shape", "field"), [("object", "error"), ("string", "error"), ("fail_reason", "fail_reason")])
def test_a_failure_at_the_query_is_final_and_refunded(
    emulator: Emulator, client: Any, submit: Any, shape: str, field: str
) -> None:
    key = submit().json()["id"]
    emulator.fault(on="status", kind="failed", code="x1", text="went wrong", shape=shape, times=1)
    emulator.fault(on="status", kind="failure_word", word="FAILURE", skip=1)
    first, second = ask(client, key).json(), ask(client, key).json()
    assert first[field] == ({"code": "x1", "message": "went wrong"} if shape == "object" else "went wrong")
    assert (first["status"], second["status"]) == ("failed", "failed")
    assert emulator.ledger()["net_usd"] == 0
    assert ask(client, key).json()["status"] == "FAILURE"


@pytest.mark.parametrize(("value", "raises"), [("invalid", True), ("data_uri", False)])
def test_base64_may_be_bad(emulator: Emulator, client: httpx.Client, submit: Any, value: str, raises: bool) -> None:
    key = submit(response_format="b64_json").json()["id"]
    emulator.complete_all()
    emulator.fault(on="status", kind="bad_b64", value=value)
    text = ask(client, key).json()["result"]["data"][0]["b64_json"]
    if raises:
        with pytest.raises(binascii.Error):
            base64.b64decode(text, validate=True)
    else:
        assert text.startswith("data:image/png;base64,")


# --- faults of result files ------------------------------------------------------------------------------------------


def fetch(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, trust_env=False, **options)


RESULT_ANSWERS: list[tuple[str, dict[str, Any], int]] = [
    ("not_found", {}, 404),
    ("not_found", {"status": 403}, 403),
    ("expired", {}, 410),
    ("server_error", {"status": 503}, 503),
    ("rate_limit", {}, 429),
    ("html", {}, 200),
    ("empty_body", {}, 200),
]


@pytest.mark.parametrize(("kind", "params", "status"), RESULT_ANSWERS)
def test_a_file_fails_so_many_times(
    emulator: Emulator, image_url: Any, kind: str, params: dict[str, Any], status: int
) -> None:
    url = image_url()
    emulator.fault(on="result", kind=kind, times=2, **params)
    answers = [fetch(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(answers[0].content))
    assert Image.open(io.BytesIO(answers[2].content)).size == (1024, 1024)


def test_redirects_hop_and_arrive(emulator: Emulator, image_url: Any) -> None:
    url = image_url()
    emulator.fault(on="result", kind="redirect", hops=4, times=1)
    answer = fetch(url, follow_redirects=True)
    assert len(answer.history) == 4
    assert answer.headers["content-type"] == "image/png"


def test_redirects_may_never_end_or_lead_astray(emulator: Emulator, image_url: Any) -> None:
    url = image_url()
    emulator.fault(on="result", kind="redirect", loop=True, times=1)
    with pytest.raises(httpx.TooManyRedirects):
        fetch(url, follow_redirects=True)
    emulator.fault(on="result", kind="redirect_to", status=307)
    astray = fetch(url)
    assert (astray.status_code, astray.headers["location"]) == (307, "http://169.254.169.254/latest/meta-data")


def test_a_truncated_image_keeps_its_head(emulator: Emulator, image_url: Any) -> None:
    url = image_url()
    emulator.fault(on="result", kind="truncated_image", times=1)
    answer = fetch(url)
    assert int(answer.headers["content-length"]) == len(answer.content)
    picture = Image.open(io.BytesIO(answer.content))
    with pytest.raises(OSError, match="truncated"):
        picture.load()
    emulator.fault(on="result", kind="truncated_image", honest_length=False, times=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        fetch(url)


def test_a_label_may_lie(emulator: Emulator, image_url: Any) -> None:
    url = image_url()
    emulator.fault(on="result", kind="wrong_content_type", times=1)
    mislabelled = fetch(url)
    assert mislabelled.headers["content-type"] == "text/html"
    assert mislabelled.content.startswith(b"\x89PNG")
    emulator.fault(on="result", kind="wrong_format", format="JPEG", times=1)
    other = fetch(url)
    assert other.headers["content-type"] == "image/png"
    assert other.content.startswith(b"\xff\xd8\xff")


def test_a_picture_may_have_another_size_or_claim_to_be_huge(emulator: Emulator, image_url: Any) -> None:
    url = image_url()
    emulator.fault(on="result", kind="wrong_pixel_size", width=321, height=123, times=1)
    picture = Image.open(io.BytesIO(fetch(url).content))
    picture.load()
    assert picture.size == (321, 123)
    emulator.fault(on="result", kind="bomb", width=60_000, height=50_000)
    with pytest.raises(Image.DecompressionBombError, match="3000000000 pixels"):
        Image.open(io.BytesIO(fetch(url).content))


@pytest.mark.parametrize(
    ("params", "length", "encoding"),
    [({}, "3000000", None), ({"content_length": False}, None, None), ({"gzip": True}, None, "gzip")],
)
def test_a_body_may_be_far_too_large(
    emulator: Emulator, image_url: Any, params: dict[str, Any], length: str | None, encoding: str | None
) -> None:
    url = image_url()
    emulator.fault(on="result", kind="oversized", bytes=3_000_000, **params)
    with httpx.stream("GET", url, trust_env=False) as answer:
        assert (answer.headers.get("content-length"), answer.headers.get("content-encoding")) == (length, encoding)
        assert sum(len(chunk) for chunk in answer.iter_bytes()) == 3_000_000
        assert encoding is None or answer.num_bytes_downloaded < 30_000
