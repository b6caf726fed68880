"""What is sent: both spellings of a submit, the paths, the base URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis import errors, protocol
from airflow_provider_nanobanana.toapis.errors import ConfigurationError
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.protocol import is_loopback, normalise_host
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.support.responses import STATUS, SUBMIT

GEMINI = "gemini-3.1-flash-image-preview"
REFERENCE = "https://files.toapis.com/uploads/7/1_a.png"
FULL = {"prompt": "a red kite over dunes", "size": "16:9", "resolution": "2K", "reference_images": [REFERENCE]}


def body(client_business_id: str | None = None, **fields: Any) -> dict[str, Any]:
    return ImageRequest.parse({**FULL, **fields}).to_body(client_business_id)


def test_the_guide_s_spelling() -> None:
    """The model guide's spelling (``docs/toapis.md``, "Models and sizes")."""
    assert body() == {
        "model": "nano_banana_2",
        "prompt": "a red kite over dunes",
        "size": "16:9",
        "resolution": "2K",
        "reference_images": [REFERENCE],
        "response_format": "url",
    }


def test_the_reference_s_spelling() -> None:
    """The API reference's spelling; ``n`` is left out."""
    assert body("dag1.run1", model=GEMINI) == {
        "model": GEMINI,
        "prompt": "a red kite over dunes",
        "size": "16:9",
        "metadata": {"resolution": "2K"},
        "image_urls": [REFERENCE],
        "client_business_id": "dag1.run1",
    }


@pytest.mark.parametrize("model", ["gemini-3.1-flash-image-preview-vip", "nano-banana-2-official"])
def test_gemini_and_official_ids_share_the_reference_s_spelling(model: str) -> None:
    assert {"metadata", "image_urls"} <= set(body(model=model)) and "resolution" not in body(model=model)


@pytest.mark.parametrize("model", ["nano-banana-2", "nano_banana_2"])
def test_ids_of_the_guide_take_its_spelling(model: str) -> None:
    assert {"resolution", "reference_images"} <= set(body(model=model)) and "metadata" not in body(model=model)


@pytest.mark.parametrize("model", ["nano_banana_2", GEMINI])
def test_no_references_and_no_client_id_are_left_out(model: str) -> None:
    assert {"reference_images", "image_urls", "client_business_id"}.isdisjoint(body(model=model, reference_images=[]))


def test_b64_json_is_sent_to_any_model_that_was_asked_for_it() -> None:
    assert body(response_format="b64_json", model=GEMINI)["response_format"] == "b64_json"


@pytest.mark.parametrize("model", ["nano_banana_2", GEMINI])
def test_extra_body_wins(model: str) -> None:
    extra = {"size": "9:16", "n": 1, "user": "mine", "prompt": None, "image_urls": [{"url": "x"}]}
    sent = body("ours", model=model, extra_body=extra)
    assert {key: sent[key] for key in extra} == extra


def test_extra_body_wins_inside_metadata_and_keeps_the_rest_of_it() -> None:
    extra = {"metadata": {"google_search": True, "resolution": "4K"}}
    assert body(model=GEMINI, extra_body=extra)["metadata"] == {"resolution": "4K", "google_search": True}
    extra = {"metadata": {"google_search": True}}
    assert body(model=GEMINI, extra_body=extra)["metadata"] == {"resolution": "2K", "google_search": True}
    assert body(model=GEMINI, extra_body={"metadata": None})["metadata"] is None
    assert body(extra_body=extra)["metadata"] == {"google_search": True}


def test_the_variant_is_never_sent_and_the_request_is_not_changed() -> None:
    request = ImageRequest.parse({**FULL, "variant": "2026-11-01", "extra_body": {"metadata": {"a": {"b": 1}}}})
    before = request.model_dump()
    assert "variant" not in request.to_body() and request.model_dump() == before


@pytest.mark.parametrize(
    ("call", "method", "path", "params"),
    [
        (protocol.submit_call(ImageRequest.parse(FULL)), "POST", "/v1/images/generations", {}),
        (protocol.status_call("tsk_1"), "GET", "/v1/images/generations/tsk_1", {}),
        (protocol.models_call(), "GET", "/v1/models", {"type": "image"}),
        (protocol.balance_call(), "GET", "/v1/user/balance", {}),
        (protocol.upload_call(protocol.Upload("a", b"", "image/png")), "POST", "/v1/uploads/images", {}),
    ],
)
def test_paths(call: protocol.ApiCall[Any], method: str, path: str, params: dict[str, str]) -> None:
    assert (call.method, call.path, dict(call.params)) == (method, path, params)


@given(st.text(min_size=1, max_size=30))
def test_an_id_is_one_path_segment(image_task_id: str) -> None:
    path = protocol.status_call(image_task_id).path
    head, _, last = path.rpartition("/")
    assert head == "/v1/images/generations" and unquote(last) == image_task_id and path.isascii()
    assert "?" not in path and "#" not in path


HOSTS = {
    None: "https://toapis.com",
    "": "https://toapis.com",
    "  ": "https://toapis.com",
    "toapis.com": "https://toapis.com",
    "https://toapis.com/": "https://toapis.com",
    " https://toapis.com/v1 ": "https://toapis.com",
    "https://toapis.com/v1/": "https://toapis.com",
    "https://toapis.com/v1//": "https://toapis.com",
    "https://toapis.cn": "https://toapis.cn",
    "HTTPS://API.ToAPIs.com/v1": "https://api.toapis.com",
    "api.toapis.com:8443/v1": "https://api.toapis.com:8443",
    "https://gateway.example.com/toapis/v1": "https://gateway.example.com/toapis",
    "https://gateway.example.com/v1beta": "https://gateway.example.com/v1beta",
    "http://localhost:8787": "http://localhost:8787",
    "http://LOCALHOST:8787/v1": "http://localhost:8787",
    "http://127.0.0.1:8787/": "http://127.0.0.1:8787",
    "http://127.9.8.7": "http://127.9.8.7",
    "http://[::1]:8787/v1": "http://[::1]:8787",
}


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host: str | None) -> None:
    assert normalise_host(host) == HOSTS[host]
    assert normalise_host(HOSTS[host]) == HOSTS[host]


@pytest.mark.parametrize(
    "host",
    [
        "http://toapis.com",
        "http://emulator:8787",
        "http://10.0.0.7",
        "http://localhost.evil.com",
        "http://127.evil.com",
    ],
)
def test_plain_http_is_for_loopback_or_allow_http(host: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_http"):
        normalise_host(host)
    assert normalise_host(host, allow_http=True) == host


@pytest.mark.parametrize(
    "host",
    [
        "ftp://toapis.com",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "to apis.com",
        "https://[::1",
        "https://h:99999",
    ],
)
def test_what_is_no_base_url_is_refused_with_the_form(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"https://toapis\.com"):
        normalise_host(host, allow_http=True)


SECRETS = [
    "https://user:sk-secret-1@toapis.com",
    "https://sk-secret-1@toapis.com",
    "https://:sk-secret-1@toapis.com",
    "https://toapis.com/?key=sk-secret-1",
    "https://toapis.com/#sk-secret-1",
    "https://x:sk-secret-1@h:99999",
    "https://toapis.com sk-secret-1",
    "sk-secret-1 ",
    "ftp://toapis.com/sk-secret-1",
    "http://toapis.com/sk-secret-1",
    "http://sk-secret-1.example.com",
]


@pytest.mark.parametrize("host", SECRETS)
def test_a_key_pasted_into_the_host_is_never_shown(host: str) -> None:
    try:
        normalise_host(host)
    except ConfigurationError as error:
        assert "secret-1" not in error.message


@given(st.text(max_size=40) | st.text(max_size=30).map(lambda text: f"https://{text}"))
def test_any_text_is_a_base_url_or_a_configuration_error(host: str) -> None:
    try:
        base_url = normalise_host(host)
    except ConfigurationError:
        return
    parts = urlsplit(base_url)
    assert parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    assert not base_url.endswith("/") and not parts.query and not parts.fragment and "@" not in parts.netloc


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize("name", ["", "localhost.com", "127.com", "128.0.0.1", "0.0.0.0", "127.0.0.1.nip.io", "::2"])
def test_not_loopback(name: str) -> None:
    assert not is_loopback(name)


# --- answers of which not everything was read -------------------------------------------------------------------------


def too_long(status: int, content: bytes) -> ApiResponse:
    return ApiResponse(status, {}, content, too_long=True)


@pytest.mark.parametrize("content", [b'{"id":"tsk_img_01K","status":"completed"', b'  [{"id"'])
def test_a_result_that_was_not_read_is_an_error_of_its_own(content: bytes) -> None:
    with pytest.raises(errors.ResponseTooLong) as caught:
        STATUS.parse(too_long(200, content), 0.0)
    assert caught.value.charged == "yes"


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, b"<html>" * 100, errors.TransientFailure),
        (502, b'{"error":{"message":"', errors.TransientFailure),
        (404, b'{"error":{"code":"task_not_found"', errors.TransientFailure),
        (429, b'{"error":', errors.RateLimited),
    ],
)
def test_of_an_error_status_and_beginning_are_enough(status: int, content: bytes, expected: Any) -> None:
    with pytest.raises(expected) as caught:
        STATUS.parse(too_long(status, content), 0.0)
    assert type(caught.value) is expected


@pytest.mark.parametrize("status", [200, 400, 401, 429, 503])
def test_a_submit_whose_answer_was_not_read_is_unknown_whatever_its_status(status: int) -> None:
    with pytest.raises(errors.SubmissionUnknown):
        SUBMIT.parse(too_long(status, b'{"error":{"message":"'), 0.0)
