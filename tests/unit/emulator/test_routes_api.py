"""Submit and status: shapes and refusals as ``docs/toapis.md`` has them."""

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


def test_an_image_task_runs_completes_and_is_settled(
    emulator: Emulator, client: httpx.Client, submit: Any, clock: Any
) -> None:
    accepted = submit(resolution="2K").json()
    assert accepted == {
        "id": accepted["id"], "object": "generation.task", "model": "nano_banana_2", "status": "queued", "progress": 0,
        "created_at": 1_790_000_000, "metadata": {},
    }  # fmt: skip
    path = f"/v1/images/generations/{accepted['id']}"
    clock.now += 20
    running = client.get(path).json()
    assert (running["status"], running["progress"]) == ("in_progress", 40)
    assert "result" not in running
    clock.now += 31
    done = client.get(path).json()
    assert (done["status"], done["progress"]) == ("completed", 100)
    assert done["completed_at"] == 1_790_000_050
    assert done["expires_at"] == done["completed_at"] + 86_400
    assert done["billing"] == {"status": "settled", "credits": "6", "cost_usd": "0.030"}
    assert done["result"]["type"] == "image"
    assert done["result"]["data"][0]["url"].startswith(emulator.files_url + "/generated/")


def test_a_failed_image_task_is_refunded(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    key = submit("[[fail=InvalidParameter]] a kite").json()["id"]
    assert emulator.ledger()["net_usd"] == 0.025
    emulator.complete_all()
    answer = client.get(f"/v1/images/generations/{key}")
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"]["code"] == "InvalidParameter"
    assert answer.json()["billing"] == {"status": "refunded", "credits": "0", "cost_usd": "0"}
    books = emulator.ledger()
    assert (books["charged_usd"], books["refunded_usd"], books["net_usd"]) == (0.025, 0.025, 0.0)
    assert books["image_tasks"][0]["refunded"] is True


REFUSALS: list[tuple[dict[str, Any], int, str]] = [
    ({"prompt": "  "}, 400, "invalid_request"),
    ({"prompt": None}, 400, "invalid_request"),
    ({"model": "dall-e"}, 503, "model_not_found"),
    ({"model": ""}, 400, "invalid_request"),
    ({"size": "auto"}, 400, "invalid_request"),
    ({"size": "3:2"}, 400, "invalid_request"),
    ({"size": "1024x1024"}, 400, "invalid_request"),
    ({"resolution": "2k"}, 400, "invalid_request"),
    ({"resolution": "0.5K"}, 400, "invalid_request"),
    ({"model": "nano-banana-2-official", "size": "1:4"}, 400, "invalid_request"),
    ({"model": "nano-banana-2-official", "n": 2}, 400, "invalid_request"),
    ({"n": "1"}, 400, "invalid_request"),
    ({"reference_images": ["https://x.test/a.png"] * 15}, 400, "invalid_request"),
    ({"reference_images": ["data:image/png;base64,AAAA"]}, 400, "invalid_request"),
    ({"reference_images": ["s3://bucket/a.png"]}, 400, "invalid_request"),
    ({"image_urls": ["data:image/png;base64,AAAA"]}, 400, "invalid_request"),
    ({"client_business_id": "a b"}, 400, "invalid_request"),
    ({"client_business_id": "x" * 129}, 400, "invalid_request"),
    ({"response_format": "png"}, 400, "invalid_request"),
    ({"callback_url": "https://x.test/"}, 400, "webhook_not_configured"),
    ({"metadata": "2K"}, 400, "invalid_request"),
    ({"model": "gpt-image-2", "resolution": "1K"}, 400, "invalid_request"),
    ({"model": "gpt-image-2.5-flare", "resolution": "1k"}, 400, "invalid_request"),
    ({"model": "gpt-image-2", "size": "1024x1024"}, 400, "invalid_request"),
    ({"model": "doubao-seedream-5-0", "metadata": {"resolution": "1K"}}, 400, "invalid_request"),
    ({"model": "doubao-seedream-5-0", "size": "2K", "layer_decomposition": True}, 400, "invalid_request"),
    ({"model": "doubao-seedream-4-0", "image_urls": ["https://x.test/a.webp"]}, 400, "invalid_request"),
    ({"model": "qwen-image-3.0", "image_urls": ["https://x.test/a.png"] * 4}, 400, "invalid_request"),
    ({"model": "flux-kontext-pro", "image_urls": ["https://x.test/a.png"] * 2}, 400, "invalid_request"),
    ({"model": "flux-kontext-pro", "metadata": {"response_format": "webp"}}, 400, "invalid_request"),
]


@pytest.mark.parametrize(("fields", "status", "code"), REFUSALS)
def test_a_refused_submit_charges_nothing(
    emulator: Emulator, submit: Any, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = submit(**fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert emulator.ledger()["count"] == 0


def test_each_spelling_reads_its_own_place_and_ignores_the_other(emulator: Emulator, submit: Any) -> None:
    picture = "https://x.test/a.png"
    submit(resolution="2K", reference_images=[picture], metadata={"resolution": "4K"}, image_urls=[picture, picture])
    submit(model=GEMINI, resolution="2K", image_urls=[{"url": picture}], reference_images=[picture] * 3)
    submit(model=GEMINI, size="1:8", metadata={"resolution": "0.5K"})
    guide, silent, half = emulator.ledger()["image_tasks"]
    assert (guide["resolution"], len(guide["references"]), guide["charged_usd"]) == ("2K", 1, 0.03)
    assert (silent["resolution"], len(silent["references"]), silent["charged_usd"]) == ("1K", 1, 0.025)
    assert (half["resolution"], half["size"], half["charged_usd"]) == ("0.5K", "1:8", 0.02)


@pytest.mark.parametrize(
    ("fields", "resolution", "references", "usd"),
    [
        ({"model": "gpt-image-2", "resolution": "2k"}, "2K", 0, 0.03),
        ({"model": "gpt-image-2", "image_urls": ["https://x.test/a.png"]}, "1K", 1, 0.025),
        ({"model": "gpt-image-2", "metadata": {"resolution": "4k"}}, "1K", 0, 0.025),
        ({"model": "gpt-image-2.5-flare", "resolution": "4K"}, "4K", 0, 0.025),
        ({"model": "doubao-seedream-4-0", "resolution": "1K"}, "2K", 0, 0.03),
        ({"model": "doubao-seedream-4-0", "reference_images": ["https://x.test/a.png"]}, "2K", 0, 0.03),
        ({"model": "doubao-seedream-5-0-pro", "image_urls": ["https://x.test/a.png"] * 3}, "2K", 3, 0.04),
        ({"model": "qwen-image-3.0", "image_urls": ["https://x.test/a.png"] * 3}, "1K", 3, 0.039),
        ({"model": "flux-kontext-pro", "resolution": "4K", "metadata": {"resolution": "4K"}}, "1K", 0, 0.025),
    ],
)
def test_each_model_is_read_in_its_dialect_and_priced(
    emulator: Emulator, submit: Any, fields: dict[str, Any], resolution: str, references: int, usd: float
) -> None:
    assert submit(**fields).status_code == 200
    (task,) = emulator.ledger()["image_tasks"]
    assert (task["resolution"], len(task["references"]), task["charged_usd"]) == (resolution, references, usd)


def test_images_in_sequence_are_charged_each_and_layers_once(emulator: Emulator, submit: Any) -> None:
    options = {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 3}}
    submit(model="doubao-seedream-4-0", metadata=options)
    submit(model="doubao-seedream-5-0-pro", size="2K", layer_decomposition=True)
    several, layers = emulator.ledger()["image_tasks"]
    assert (several["count"], several["charged_usd"], layers["count"], layers["charged_usd"]) == (3, 0.09, 1, 0.03)


def test_several_pictures_are_charged_by_count(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    key = submit(n=3).json()["id"]
    emulator.complete_all()
    data = client.get(f"/v1/images/generations/{key}").json()["result"]["data"]
    assert len({item["url"] for item in data}) == 3
    assert emulator.ledger()["charged_usd"] == 0.075


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/images/generations", str),
        ("GET", "/v1/images/generations/x", int),
        ("GET", "/v1/models?type=image", str),
        ("GET", "/v1/balance", int),
        ("GET", "/v1/user/balance", int),
        ("POST", "/v1/uploads/images", str),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-other"}, {"Authorization": "sk-emulator"}])
def test_another_key_is_refused(
    emulator: Emulator, method: str, path: str, kind: type, headers: dict[str, str]
) -> None:
    answer = httpx.request(method, emulator.api_url + path, headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert isinstance(answer.json()["error"]["code"], kind)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/v1/images/generations"), ("GET", "/models"), ("PUT", "/v1/models")]
)
def test_a_wrong_path_is_an_invalid_url(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"Invalid URL ({method} {path})"


def test_an_unknown_id_and_broken_json(client: httpx.Client) -> None:
    unknown = client.get("/v1/images/generations/tsk_img_none")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "task_not_found")
    assert unknown.json()["error"]["type"] == "not_found_error"
    for content in (b"{", b"[]", b"\xff"):
        assert client.post("/v1/images/generations", content=content).status_code == 400


def test_client_ids_look_up_the_newest_and_never_deduplicate(
    emulator: Emulator, client: httpx.Client, submit: Any
) -> None:
    first = submit(client_business_id="dag.run:1").json()
    second = submit(metadata={"client_business_id": "dag.run:1"}).json()
    assert first["client_business_id"] == "dag.run:1"
    assert first["id"] != second["id"]
    assert client.get("/v1/images/generations/dag.run%3A1").json()["id"] == second["id"]
    assert emulator.ledger()["duplicates"] == {"dag.run:1": 2}
    assert emulator.ledger()["charged_usd"] == 0.05


def test_client_ids_become_visible_late(emulator: Emulator, client: httpx.Client, submit: Any, clock: Any) -> None:
    emulator.configure(lookup_delay=30)
    key = submit(client_business_id="late").json()["id"]
    assert client.get("/v1/images/generations/late").status_code == 404
    assert client.get(f"/v1/images/generations/{key}").status_code == 200
    clock.now += 30
    assert client.get("/v1/images/generations/late").json()["id"] == key


def test_client_ids_can_be_ignored_or_rejected(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    emulator.configure(ignore_client_ids=True)
    assert "client_business_id" not in submit(client_business_id="mine").json()
    assert client.get("/v1/images/generations/mine").status_code == 404
    assert emulator.ledger()["image_tasks"][0]["client_business_id"] == "mine"  # the bank knows all the same
    emulator.configure(ignore_client_ids=False, reject_client_ids=True)
    refused = submit(client_business_id="mine")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "client_business_id")


def test_repeated_client_ids_can_be_deduplicated(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    emulator.configure(repeated_client_ids="return", lookup_delay=30, credits=5)
    first = submit(client_business_id="mine").json()["id"]
    assert submit(client_business_id="mine").json()["id"] == first, "also while it cannot be looked up or paid twice"
    assert emulator.ledger()["charged_usd"] == 0.025
    emulator.configure(ignore_client_ids=True, credits=None)
    assert submit(client_business_id="mine").json()["id"] != first, "an id that is ignored is no id"


def test_repeated_client_ids_can_be_refused(emulator: Emulator, client: httpx.Client, submit: Any) -> None:
    emulator.configure(repeated_client_ids="refuse")
    first = submit(client_business_id="mine").json()["id"]
    again = submit(client_business_id="mine")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "duplicate_client_business_id")
    assert client.get("/v1/images/generations/mine").json()["id"] == first
    assert [submit().status_code, submit().status_code] == [200, 200], "no id is no repeated id"
    assert emulator.ledger()["count"] == 3


# --- models, balance, uploads, rate limits and files -----------------------------------------------------------------


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
