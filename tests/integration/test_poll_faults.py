"""What the sensor does when status answers are broken, late or refused: a failed poll is never a failed image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.polling import result
from tests.support.task_runner import wait
from tests.support.text import flat

Buy = Callable[..., str]
MODES = [{"deferrable": True}, {"deferrable": False}]


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("rate_limit", {"retry_after": None}),
        ("rate_limit", {"retry_after": 1}),
        ("server_error", {"status": 500}),
        ("server_error", {"status": 503}),
        ("unavailable", {}),
        ("html", {"status": 502}),
        ("html", {"status": 200}),
        ("truncated_json", {}),
        ("truncated_json", {"honest_length": False}),
        ("empty_body", {}),
        ("not_json", {}),
        ("garbage", {}),
        ("success_false", {}),
        ("envelope", {}),
        ("envelope", {"shape": "E8"}),
        ("drop", {}),
        ("drop_mid_body", {}),
        ("quota", {}),
        ("redirect_to", {"url": "https://example.com/"}),
        ("not_found", {"spelling": "404"}),
        ("not_found", {"spelling": "400"}),
        ("status_word", {"word": "pending"}),
        ("status_word", {"word": "hibernating"}),
        ("status_word", {"word": ""}),
    ],
)
def test_a_bad_poll_is_polled_again(
    emulator: Emulator, buy: Buy, kind: str, params: dict[str, Any], mode: dict[str, Any]
) -> None:
    image_task_id = buy()
    emulator.fault(on="status", kind=kind, times=3, **params)
    run = wait(image_task_id, **mode)
    assert run.error is None
    assert run.result[0]["status"] == "completed"
    assert emulator.faults()[0]["hits"] == 3


def test_a_slow_answer_is_given_up_and_polled_again(emulator: Emulator, buy: Buy) -> None:
    image_task_id = buy()
    emulator.fault(on="status", kind="slow", seconds=4, times=1)
    assert wait(image_task_id).result[0]["status"] == "completed"


@pytest.mark.parametrize("kind", ["top_level_url", "data_url", "result_url"])
def test_the_link_is_found_wherever_it_stands(emulator: Emulator, buy: Buy, kind: str) -> None:
    emulator.fault(on="status", kind=kind)
    [entry] = wait(buy()).result
    [image] = entry["images"]
    assert image["url"].startswith(emulator.files_url)


@pytest.mark.parametrize(("kind", "word"), [("success_word", "SUCCESS"), ("success_word", "succeeded")])
def test_other_words_for_success_are_understood(emulator: Emulator, buy: Buy, kind: str, word: str) -> None:
    emulator.fault(on="status", kind=kind, word=word)
    assert wait(buy()).result[0]["status"] == "completed"


@pytest.mark.parametrize("word", ["FAILURE", "error", "cancelled", "expired"])
def test_other_words_for_failure_are_understood(emulator: Emulator, buy: Buy, word: str) -> None:
    emulator.fault(on="status", kind="failure_word", word=word)
    assert isinstance(wait(buy("x [[fail]]")).error, AirflowFailException)


@pytest.mark.parametrize("shape", ["object", "string", "fail_reason"])
def test_the_reason_of_a_failure_is_told_in_every_spelling(emulator: Emulator, buy: Buy, shape: str) -> None:
    emulator.fault(on="status", kind="failed", shape=shape, text="upstream returned status 422")
    image_task_id = buy()
    error = str(wait(image_task_id).error)
    assert image_task_id in error
    assert "upstream returned status 422" in error
    assert "refunded" in error


def test_a_completed_image_task_without_an_image_is_waited_for(emulator: Emulator, buy: Buy) -> None:
    emulator.fault(on="status", kind="no_url", times=3)
    [entry] = wait(buy()).result
    assert entry["images"][0]["url"]


def test_and_given_up_in_the_end_with_its_id(emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "RESULT_GRACE_SECONDS", 0.2)
    emulator.fault(on="status", kind="no_url")
    image_task_id = buy()
    run = wait(image_task_id)
    assert isinstance(run.error, AirflowFailException)
    assert f"{image_task_id} (result_missing" in flat(run.error)


def test_a_missing_bill_is_not_free(emulator: Emulator, buy: Buy) -> None:
    emulator.fault(on="status", kind="billing", value="absent")
    assert wait(buy()).result[0]["cost_usd"] is None


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
def test_an_unknown_id_is_final_after_a_grace(
    emulator: Emulator, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result, "NOT_FOUND_GRACE_SECONDS", 0.3)
    run = wait("tsk_img_nobody", **mode)
    assert isinstance(run.error, AirflowFailException)
    assert "tsk_img_nobody (task_not_found" in flat(run.error)
    asked = [request for request in emulator.requests() if "tsk_img_nobody" in request["path"]]
    assert len(asked) > 2, "one 404 is not believed"


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
@pytest.mark.parametrize("kind", ["unauthorized", "forbidden"])
def test_a_refusal_ends_the_wait_and_names_what_is_paid(
    emulator: Emulator, buy: Buy, kind: str, mode: dict[str, Any]
) -> None:
    emulator.configure(latency=60)
    ids = [buy("one"), buy("two")]
    emulator.fault(on="status", kind=kind)
    run = wait(ids, **mode)
    assert isinstance(run.error, AirflowFailException)
    assert isinstance(run.error, NanoBananaException)
    assert run.error.charged == "yes"
    assert all(image_task_id in flat(run.error) for image_task_id in ids)
    assert "Do not clear the submit tasks" in flat(run.error)


def test_a_refusal_while_deferred_wakes_the_worker_which_decides(emulator: Emulator, buy: Buy) -> None:
    emulator.configure(latency=60)
    image_task_id = buy()
    emulator.fault(on="status", kind="unauthorized", skip=1, times=1)
    run = wait(image_task_id)
    assert run.events[0]["outcome"] == "refused"
    assert isinstance(run.error, NanoBananaException)
    assert "do both see the same connection" in flat(run.error)
    assert run.error.retryable


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
def test_a_timeout_is_a_sensor_timeout_that_names_what_goes_on(
    emulator: Emulator, buy: Buy, mode: dict[str, Any]
) -> None:
    emulator.configure(latency=0)
    done = buy("done")
    emulator.configure(latency=60)
    late = buy("late")
    run = wait([done, late], timeout=0.5, **mode)
    assert isinstance(run.error, AirflowSensorTimeout)
    assert isinstance(run.error, NanoBananaException)
    assert run.error.charged == "yes"
    assert late in flat(run.error)
    assert "Clear this task to wait again" in flat(run.error)
    assert [entry["status"] for entry in run.ti.xcoms["return_value"]] == ["completed", "timeout"]


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
def test_a_timeout_with_partial_success_succeeds(emulator: Emulator, buy: Buy, mode: dict[str, Any]) -> None:
    done = buy("done")
    emulator.configure(latency=60)
    run = wait([done, buy("late")], timeout=0.5, allow_partial=True, **mode)
    assert [entry["status"] for entry in run.result] == ["completed", "timeout"]


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
def test_polls_that_fail_to_the_end_are_a_timeout_not_a_failure(
    emulator: Emulator, buy: Buy, mode: dict[str, Any]
) -> None:
    image_task_id = buy()
    emulator.fault(on="status", kind="server_error", status=500)
    run = wait(image_task_id, timeout=0.5, **mode)
    assert isinstance(run.error, AirflowSensorTimeout)
    assert "Not seen in time" in flat(run.error)
