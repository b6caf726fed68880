"""Models, balance, uploads, limits and files as ``docs/toapis.md`` has them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_nanobanana.emulator import Emulator

GEMINI = "gemini-3.1-flash-image-preview"


def test_only_the_image_list_shows_image_models(client: httpx.Client) -> None:
    images = client.get("/v1/models", params={"type": "image"}).json()
    texts = client.get("/v1/models").json()
    assert images["success"] is True
    assert {"nano_banana_2", GEMINI} <= {model["id"] for model in images["data"]}
    assert not {model["id"] for model in images["data"]} & {model["id"] for model in texts["data"]}


def test_the_balance_falls_and_then_nothing_can_be_bought(
    emulator: Emulator, client: httpx.Client, submit: Any
) -> None:
    unlimited = client.get("/v1/balance").json()
    assert (unlimited["unlimited_quota"], unlimited["remain_balance"]) == (True, -1)
    emulator.configure(credits=10)
    assert [submit().status_code for _ in range(3)] == [200, 200, 402]
    balance = client.get("/v1/user/balance").json()
    assert (balance["remain_credits"], balance["used_credits"], balance["remain_balance"]) == (0, 10, 0)
    assert balance["used_balance"] == 0.05
    assert emulator.ledger()["count"] == 2


def test_a_refund_can_be_spent_again(emulator: Emulator, submit: Any) -> None:
    emulator.configure(credits=5)
    assert submit("[[fail]]").status_code == 200
    assert submit().status_code == 402
    emulator.complete_all()
    assert submit().status_code == 200


def test_an_upload_is_public_and_typed_by_its_bytes(emulator: Emulator, client: httpx.Client) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "WEBP")
    answer = client.post("/v1/uploads/images", files={"file": ("lies.jpg", out.getvalue(), "image/jpeg")}).json()
    assert answer["success"] is True
    assert (answer["data"]["mime_type"], answer["data"]["size"]) == ("image/webp", len(out.getvalue()))
    assert answer["data"]["url"].startswith(emulator.files_url + "/uploads/")
    assert httpx.get(answer["data"]["url"], trust_env=False).content == out.getvalue()


@pytest.mark.parametrize(
    "files",
    [
        {"file": ("a.png", b"not an image")},
        {"file": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(10_000_000))},
        {"other": ("a.png", b"\x89PNG\r\n\x1a\n")},
        {},
    ],
)
def test_an_unusable_upload_is_refused(client: httpx.Client, files: dict[str, Any]) -> None:
    answer = client.post("/v1/uploads/images", files=files)
    assert (answer.status_code, answer.json()["success"]) == (400, False)


def test_b64_json_holds_the_picture(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    key = submit(response_format="b64_json").json()["id"]
    emulator.complete_all()
    (item,) = client.get(f"/v1/images/generations/{key}").json()["result"]["data"]
    assert set(item) == {"b64_json"}
    assert Image.open(io.BytesIO(base64.b64decode(item["b64_json"], validate=True))).size == (1024, 1024)


def test_the_limiter_takes_the_burst_and_refills(
    emulator: Emulator, client: httpx.Client, submit: Any, clock: Any
) -> None:
    emulator.configure(submit_rate=1, query_rate=2)
    assert [submit(prompt="").status_code for _ in range(11)] == [400] * 10 + [429]
    limited = submit()
    assert limited.json() == {"error": {"code": "rate_limit_exceeded", "message": "Too many requests"}}
    assert limited.headers["x-ratelimit-category"] == "async_submit"
    assert (limited.headers["x-ratelimit-limit"], limited.headers["retry-after"]) == ("60", "1")
    assert client.get("/v1/images/generations/x").status_code == 404  # the other bucket is untouched
    clock.now += 2
    assert [submit().status_code for _ in range(3)] == [200, 200, 429]


def test_a_link_dies_with_its_time(emulator: Emulator, image_url: Callable[..., str], clock: Any) -> None:
    url = image_url()
    assert httpx.get(url, trust_env=False).status_code == 200
    clock.now += 86_400
    assert httpx.get(url, trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("resolution", "size", "pixels"),
    [("1K", "16:9", (1376, 768)), ("1K", "3:4", (896, 1200)), ("2K", "1:1", (2048, 2048))],
)
def test_pictures_have_the_size_that_was_asked_for(
    image_url: Callable[..., str], resolution: str, size: str, pixels: tuple[int, int]
) -> None:
    answer = httpx.get(image_url(resolution=resolution, size=size), trust_env=False)
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer.content))
    picture.load()
    assert (picture.format, picture.size) == ("PNG", pixels)


@pytest.mark.parametrize(
    ("word", "kind", "suffix"), [("[[jpeg]]", "JPEG", ".jpg"), ("[[webp]]", "WEBP", ".webp"), ("", "PNG", ".png")]
)
def test_the_format_can_be_asked_for(image_url: Callable[..., str], word: str, kind: str, suffix: str) -> None:
    url = image_url(f"a kite {word}")
    assert url.endswith(suffix)
    assert Image.open(io.BytesIO(httpx.get(url, trust_env=False).content)).format == kind


def test_the_connection_leads_here(emulator: Emulator) -> None:
    connection = json.loads(emulator.connection_json(model="x"))
    assert connection["conn_type"] == "nanobanana"
    assert (connection["host"], connection["password"]) == (emulator.api_url, "sk-emulator")
    assert connection["extra"]["model"] == "x"
    assert "allow_http" not in connection["extra"]
