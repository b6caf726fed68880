"""Result files that are missing, elsewhere, broken or too large."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from PIL import Image, UnidentifiedImageError

from airflow_provider_nanobanana.emulator import Emulator


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
