"""Image tasks and status bodies that are not as documented."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator


def ask(client: httpx.Client, key: str = "unknown") -> httpx.Response:
    return client.get(f"/v1/images/generations/{key}")


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
