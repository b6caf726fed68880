"""``Retry-After`` and the waits that follow from it."""

from __future__ import annotations

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.error_body import parse_retry_after, parse_wait
from airflow_provider_nanobanana.toapis.retry import RequestRetry
from tests.support.responses import NOW, SUBMIT, response


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("1.5e1", 15.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        ("-1", None),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("Wed, 99 Xxx 2026 99:99:99 GMT", None),
        ("Sun, 06 Nov 9999999999 08:49:37 GMT", None),
        (formatdate(NOW - 30, usegmt=True), None),
    ],
)
def test_forms(text: str, seconds: float | None) -> None:
    assert parse_retry_after({"retry-after": text}, NOW) == seconds


@pytest.mark.parametrize("text", ["inf", "Infinity", "1e400", "9" * 400, "99999999"])
def test_a_huge_wait_is_bounded(text: str) -> None:
    seconds = parse_retry_after({"retry-after": text}, NOW)
    assert seconds is None or seconds <= 3600


def test_no_header_is_no_wait() -> None:
    assert parse_retry_after({}, NOW) is None


def test_a_date_is_measured_on_the_server_s_own_clock() -> None:
    headers = {"retry-after": formatdate(NOW + 630, usegmt=True), "date": formatdate(NOW + 600, usegmt=True)}
    assert parse_retry_after(headers, NOW) == 30.0
    assert parse_retry_after({**headers, "date": "yesterday"}, NOW) == 630.0


@pytest.mark.parametrize("form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"], ids=["RFC 850", "asctime"])
def test_the_two_obsolete_date_forms_are_utc_everywhere(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110 5.6.7: recipients must accept all three forms, all of them in UTC."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert parse_retry_after({"retry-after": time.strftime(form, time.gmtime(NOW + 30))}, NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_bounded_wait_or_none(text: str, date: str) -> None:
    seconds = parse_retry_after({"retry-after": text, "date": date}, NOW)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 3600)


def test_the_wait_reaches_the_error() -> None:
    with pytest.raises(errors.RateLimited) as caught:
        SUBMIT.parse(response(429, b"", retry_after="12"), NOW)
    assert caught.value.retry_after == 12.0


@pytest.mark.parametrize(("repeats", "seconds"), [(0, 1.0), (1, 2.0), (2, 4.0)])
def test_own_waits_double(repeats: int, seconds: float) -> None:
    assert RequestRetry().delay(CallKind.SUBMIT, errors.RateLimited("x"), repeats, 0.0) == seconds


@given(asked=st.floats(0, 3600), jitter=st.floats(0, 1, exclude_max=True), repeats=st.integers(0, 2))
def test_the_service_s_wait_is_obeyed_up_to_a_minute(asked: float, jitter: float, repeats: int) -> None:
    delay = RequestRetry().delay(CallKind.SUBMIT, errors.RateLimited("x", retry_after=asked), repeats, jitter)
    assert delay is not None
    assert min(asked, 60.0) <= delay <= max(1.0, min(asked, 60.0) * 1.25)


@pytest.mark.parametrize("kind", CallKind)
def test_only_a_submit_is_particular_about_what_was_accepted(kind: CallKind) -> None:
    unknown = RequestRetry().delay(kind, errors.TransientFailure("x"), 0, 0.0)
    assert (unknown is None) == (kind is CallKind.SUBMIT)
    assert RequestRetry().delay(kind, errors.RateLimited("x"), 0, 0.0) == 1.0
    assert RequestRetry().delay(kind, errors.AuthenticationFailed("x"), 0, 0.0) is None
    assert RequestRetry(delays=()).delay(kind, errors.RateLimited("x"), 0, 0.0) is None


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"retry_after": 7}, 7.0),
        ({"retryAfter": "7.5"}, 7.5),
        ({"error": {"message": "slow", "retry_after": 7}}, 7.0),
        ({"error": {"retryDelay": "34s"}}, 34.0),
        ({"data": {"retry_after_seconds": 3}}, 3.0),
        ({"retry_after_ms": 1500}, 1.5),
        ({"retry_after": 1e308}, 3600.0),
        ({"retry_after": 0}, 0.0),
        ({"retry_after": -1}, None),
        ({"retry_after": True}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": {"seconds": 1}}, None),
        ([7], None),
    ],
)
def test_a_wait_in_the_body_counts_where_no_header_names_one(body: object, seconds: float | None) -> None:
    said = response(429, body).json_object
    assert parse_wait({}, said, NOW) == seconds
    assert parse_wait({"retry-after": "12"}, said, NOW) == 12.0


def test_a_wait_in_the_body_reaches_the_error() -> None:
    with pytest.raises(errors.RateLimited) as caught:
        SUBMIT.parse(response(200, {"code": 429, "msg": "slow down", "retry_after": 9}), NOW)
    assert caught.value.retry_after == 9.0
