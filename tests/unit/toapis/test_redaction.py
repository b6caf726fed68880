"""What the service says becomes one printable line without keys and signatures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.protocol import status_call
from airflow_provider_nanobanana.toapis.redaction import bare_link, one_line, redact
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.support.responses import COMPLETED, FAILED, ID, KEY, NOW

PLAIN_KEY = "0a1b2c3d4e5f60718293a4b5"
KEYS = [KEY, PLAIN_KEY, "sk-proj/AbCdEfGh+1234567="]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


#: How a key may be echoed, and how many characters of that come before it.
SPELLINGS: dict[str, tuple[Callable[[str], str], int]] = {
    "as it is": (str, 0),
    "upper": (str.upper, 0),
    "base64": (_base64, 0),
    "base64 of a header": (lambda key: _base64(f"Bearer {key}"), 12),
    "base64 of a login": (lambda key: _base64(f"u:{key}"), 4),
    "half": (lambda key: key[:14], 0),
    "cut": (lambda key: f"{key[:7]}…", 0),
    "cut by dots": (lambda key: f"{key[:9]}...", 0),
    "broken by a zero width": (lambda key: key[:3] + "\u200b" + key[3:], 0),
    "broken by NUL": ("\x00".join, 0),
    "its end": (lambda key: key[6:], 0),
    "behind letters that are two in lower case": (lambda key: "\u0130" * 9 + key, 9),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_blanked_however_it_is_spelt(key: str, spelling: str) -> None:
    spell, before = SPELLINGS[spelling]
    shown, echo = one_line(f"no such key: {spell(key)}", key), one_line(spell(key))[before:].replace("***", "")
    assert "***" in shown
    assert not [at for at in range(len(echo) - 5) if echo[at : at + 6] in shown]


def test_a_key_is_blanked_before_the_text_is_cut() -> None:
    for filler in range(280, 305):
        shown = one_line("x" * filler + " " + PLAIN_KEY, PLAIN_KEY)
        assert len(shown) <= 300 and PLAIN_KEY[:4] not in shown
    page = b"<b>" + b"x" * 15_980 + PLAIN_KEY.encode() + b"</b>"
    assert PLAIN_KEY[:6] not in one_line(page.decode(), PLAIN_KEY, 20_000)


def test_what_is_no_key_stays() -> None:
    assert one_line("task is in_progress", PLAIN_KEY) == "task is in_progress"
    assert redact("a test of test", "test") == "a test of test"


@pytest.mark.parametrize(
    "character", "\x00\x07\x1b\x7f\x85\x9f\u00ad\u200b\u200e\u202e\u2066\ufeff\ud800\udfff\U000e0041"
)
def test_what_cannot_be_printed_or_stored_is_dropped(character: str) -> None:
    shown = one_line(f"bad{character}byte")
    assert shown.replace(" ", "") == "badbyte" and shown.isprintable()
    shown.encode()


def test_a_forged_log_line_stays_in_its_own() -> None:
    word = "rendering\n[2026-11-26T00:00:00] ERROR - forged\r\u2028\u2029\x1b[31m"
    assert one_line(word) == "rendering [2026-11-26T00:00:00] ERROR - forged [31m"


@pytest.mark.parametrize(
    "link",
    [
        "https://b.s3.example/p.jpg?X-Amz-Signature=S3CRET&x=1",
        "https://b.example/p.jpg?S3CRET",
        "https://b.example/p.jpg#S3CRET",
        "https:\\/\\/b.example\\/p.jpg?sig=S3CRET",
        "https%3A%2F%2Fb.example%2Fp.jpg%3FX-Amz-Signature%3DS3CRET",
        "https://user:S3CRET@b.example/p.jpg",
        "https://user:a@S3CRET@b.example/p.jpg",
        "s3://AKIA:S3CRET@bucket/p.jpg",
        "gs://b/x?token=S3CRET",
        "/p.jpg?sv=1&sig=S3CRET",
        "X-Amz-Signature=S3CRET",
        "signature=S3CRET, expired",
        "api_key=S3CRET",
        "data:image/png;base64,S3CRETS3CRETS3CRETS3CRET",
    ],
)
def test_what_gives_access_is_cut_out_of_links(link: str) -> None:
    shown = one_line(f'cannot fetch "{link}" now')
    assert "S3CRET" not in shown and shown.startswith("cannot fetch") and shown.endswith("now")


def test_a_question_is_no_query() -> None:
    assert one_line("what? a=b") == "what? a=b"


@pytest.mark.parametrize(
    "text", ["http://" * 3000, "?" * 9000, "a=" * 9000, "x" * 9_000_000, "sk-" * 3000, "a." * 4000]
)
def test_a_text_that_sets_patterns_searching_comes_to_an_end(text: str) -> None:
    assert len(one_line(text, PLAIN_KEY)) <= 300


@given(st.text(max_size=400), st.integers(0, 300))
def test_any_text_is_one_bounded_printable_line(text: str, limit: int) -> None:
    shown = one_line(text, PLAIN_KEY, limit)
    assert len(shown) <= max(limit, 1) and len(shown.splitlines()) <= 1 and "\x00" not in shown
    shown.encode()


def test_every_word_of_an_answer_is_cleaned() -> None:
    dirty = f"a\x00b\n{KEY}\u202e"
    body = {
        **FAILED,
        "status": "failed",
        "model": dirty,
        "client_business_id": dirty,
        "error": {"code": dirty, "message": dirty},
        "billing": {"status": dirty},
    }
    failed = status_call(ID).parse(ApiResponse(200, {}, json.dumps(body).encode(), KEY), NOW)
    odd = status_call(ID).parse(
        ApiResponse(200, {}, json.dumps({**COMPLETED, "status": dirty * 20}).encode(), KEY), NOW
    )
    assert failed.error is not None and failed.billing is not None
    words = [failed.model, failed.client_business_id, failed.error.code, failed.error.message]
    assert words == ["ab ***"] * 4
    assert failed.billing.status == "unknown", "of a bill's words three are known"
    assert len(odd.wire_status) == 64 and odd.wire_status.startswith("ab ***")


@pytest.mark.parametrize(
    ("link", "bare"),
    [
        ("https://user:pw@host:8443/a@2.png?sig=s#part", "https://host:8443/a@2.png"),
        ("https://user:p/w@host/a.png?sig=s", "https://host/a.png"),
        ("https://host:8443/a@2.png", "https://host:8443/a@2.png"),
        ("HTTPS://host/user:pw@2.png", "HTTPS://host/user:pw@2.png"),
        ("no link: https://user:pw@host", "no link: https://user:pw@host"),
    ],
)
def test_of_a_link_no_user_and_no_signature_is_shown(link: str, bare: str) -> None:
    assert bare_link(link) == bare
