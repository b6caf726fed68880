"""What a submit does when the service misbehaves: how often it is sent, what is charged, what is said."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from airflow_provider_nanobanana.toapis.errors import ConfigurationError
from tests.integration.conftest import ServiceClock
from tests.support.ledger import kept_record
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat


def submit(ti: TaskInstance | None = None, **options: Any) -> Run:
    retries = options.pop("retries", 0)
    return attempt(NanoBananaSubmitOperator(task_id="submit", prompt="a red kite", retries=retries, **options), ti)


def posts(emulator: Emulator) -> int:
    return sum(request["method"] == "POST" and "generations" in request["path"] for request in emulator.requests())


def test_a_rate_limit_is_waited_out_as_long_as_the_service_asks(emulator: Emulator, slept: list[float]) -> None:
    emulator.fault(on="submit", kind="rate_limit", retry_after=7, times=1)
    assert submit().error is None
    assert len(slept) == 1
    assert 7 <= slept[0] <= 7 * 1.25
    assert (posts(emulator), emulator.ledger()["count"]) == (2, 1)


def test_a_rate_limit_without_a_wait_backs_off(emulator: Emulator, slept: list[float]) -> None:
    emulator.fault(on="submit", kind="rate_limit", retry_after=None, times=3)
    assert submit().error is None
    assert [round(wait - base, 2) <= base / 4 for wait, base in zip(slept, (1, 2, 4), strict=True)] == [True] * 3
    assert all(wait >= base for wait, base in zip(slept, (1, 2, 4), strict=True))
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize("date", [True, False])
def test_a_long_wait_is_queued_at_once_and_not_sat_out_in_a_worker(
    emulator: Emulator, slept: list[float], date: bool
) -> None:
    emulator.fault(on="submit", kind="rate_limit", retry_after=500, date=date, times=1)
    run = submit()
    assert run.error is None
    assert slept == []
    [deferral] = run.deferrals
    assert deferral.timeout is not None
    assert 60 <= deferral.timeout.total_seconds() - 60 <= 121, "an absurd wait is obeyed for a minute or two"
    assert emulator.ledger()["count"] == 1


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
def test_a_limit_that_persists_queues_without_a_slot_until_it_lifts(emulator: Emulator, kind: str) -> None:
    emulator.fault(on="submit", kind=kind, retry_after=0, times=8)
    run = submit()
    assert run.error is None
    assert len(run.deferrals) == 2
    assert emulator.ledger()["count"] == 1


def test_the_queue_ends_at_its_timeout_and_nothing_is_charged(emulator: Emulator) -> None:
    emulator.fault(on="submit", kind="rate_limit", retry_after=None)
    run = submit(timeout=10)
    assert run.deferrals == []
    assert isinstance(run.error, NanoBananaException)
    assert not isinstance(run.error, AirflowFailException)
    assert run.error.charged == "no"
    assert emulator.ledger()["count"] == 0


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("server_error", {"status": 500}),
        ("server_error", {"status": 502}),
        ("html", {"status": 504}),
        ("html", {"status": 200}),
        ("no_channel", {}),
        ("empty_body", {}),
        ("not_json", {}),
        ("garbage", {}),
        ("drop", {}),
        ("drop", {"reset": True}),
    ],
)
@pytest.mark.parametrize("committed", [True, False])
def test_a_lost_answer_never_buys_twice(
    emulator: Emulator, slept: list[float], kind: str, params: dict[str, Any], committed: bool
) -> None:
    emulator.fault(on="submit", kind=kind, times=1, committed=committed, **params)
    run = submit()
    [bought] = emulator.ledger()["image_tasks"]
    assert run.result == bought["id"]
    if committed:
        assert posts(emulator) == 1, "what the service shows is adopted"
    else:
        assert sum(slept) >= 60, "what it does not show is believed after a minute and more"
        assert posts(emulator) == 2


def test_answers_that_are_lost_again_and_again_end_the_attempt(emulator: Emulator) -> None:
    emulator.fault(on="submit", kind="server_error")
    run = submit()
    assert isinstance(run.error, NanoBananaException)
    assert (run.error.charged, run.error.retryable) == ("unknown", True)
    assert posts(emulator) == 2


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable", "server_error", "html", "unauthorized"])
def test_a_lost_answer_that_cannot_be_looked_up_is_not_sent_again(emulator: Emulator, kind: str) -> None:
    """A limited look-up must not pass for a submit that was not accepted: that would queue it, and buy again."""
    emulator.fault(on="submit", kind="drop", times=1, committed=True)
    emulator.fault(on="status", kind=kind)
    run = submit()
    assert isinstance(run.error, NanoBananaException)
    assert run.error.charged == "unknown"
    assert "may have bought this image" in flat(run.error)
    assert (run.deferrals, emulator.ledger()["count"]) == ([], 1)


@pytest.mark.parametrize("kind", ["truncated_json", "drop_mid_body", "no_id"])
def test_an_accepted_submit_with_a_broken_answer_is_found_again(emulator: Emulator, kind: str) -> None:
    emulator.fault(on="submit", kind=kind, times=1)
    run = submit()
    [bought] = emulator.ledger()["image_tasks"]
    assert run.result == bought["id"]
    assert posts(emulator) == 1


def test_an_answer_that_takes_too_long_is_found_again(emulator: Emulator) -> None:
    emulator.fault(on="submit", kind="slow", seconds=4, times=1)
    run = submit()
    [bought] = emulator.ledger()["image_tasks"]
    assert run.result == bought["id"]


def test_an_id_that_shows_up_late_is_waited_for(emulator: Emulator, slept: list[float]) -> None:
    emulator.fault(on="submit", kind="html", status=502, times=1, committed=True)
    emulator.fault(on="status", kind="not_found", times=3)
    run = submit()
    assert run.result == emulator.ledger()["image_tasks"][0]["id"]
    assert slept[:2] == [2.0, 4.0]
    assert len(slept) == 3


@pytest.mark.parametrize(
    ("kind", "params", "said"),
    [
        ("unauthorized", {}, "API key is missing or wrong"),
        ("forbidden", {}, "may not do this"),
        ("quota", {"status": 402}, "out of credits"),
        ("quota", {"status": 403}, "out of credits"),
        ("quota", {"status": 429}, "out of credits"),
        ("bad_request", {}, "invalid parameter"),
        ("content_policy", {}, "content policy"),
        ("too_large", {}, "413"),
        ("model_not_found", {}, "gemini-3.1-flash-image-preview"),
        ("pricing_failed", {}, "pricing_failed"),
        ("not_found", {}, "404"),
        ("redirect_to", {"url": "https://example.com/"}, "check the connection's host"),
    ],
)
def test_what_can_never_succeed_burns_no_retry(
    emulator: Emulator, kind: str, params: dict[str, Any], said: str
) -> None:
    emulator.fault(on="submit", kind=kind, **params)
    run = submit()
    assert isinstance(run.error, AirflowFailException)
    assert isinstance(run.error, NanoBananaException)
    assert said in flat(run.error)
    assert run.error.charged == "no"
    assert (posts(emulator), emulator.ledger()["count"]) == (1, 0)


def test_a_service_that_is_not_there_is_retried_and_then_said(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_NANOBANANA_DEFAULT",
        '{"conn_type": "nanobanana", "host": "http://127.0.0.1:9", "password": "sk-x"}',
    )
    run = submit()
    assert isinstance(run.error, NanoBananaException)
    assert run.error.retryable
    assert "nothing was sent" in flat(run.error)


class TestNextAttempt:
    """Retries and clears: Airflow counts tries on, and raises ``max_tries`` at a clear."""

    def first(self, emulator: Emulator) -> str:
        result: str = submit(TaskInstance(try_number=1, max_tries=2), retries=2).result
        return result

    def test_a_retry_uses_what_the_killed_attempt_bought(self, emulator: Emulator) -> None:
        bought = self.first(emulator)
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2)
        assert run.result == bought
        assert emulator.ledger()["count"] == 1

    def test_a_retry_replaces_what_failed_and_was_refunded(self, emulator: Emulator) -> None:
        emulator.fault(on="submit", kind="failed", times=1)
        failed = self.first(emulator)
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2)
        assert run.error is None
        assert run.result != failed
        assert emulator.ledger()["net_usd"] == 0.025
        again = submit(TaskInstance(try_number=3, max_tries=2), retries=2)
        assert again.result == run.result

    def test_a_retry_does_not_send_refused_content_again(self, emulator: Emulator) -> None:
        emulator.fault(on="submit", kind="failed", code="content_policy_violation", times=1)
        self.first(emulator)
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2)
        assert isinstance(run.error, AirflowFailException)
        assert "content policy" in flat(run.error)
        assert posts(emulator) == 1

    def test_a_retry_that_cannot_ask_does_not_submit(self, emulator: Emulator) -> None:
        self.first(emulator)
        emulator.fault(on="status", kind="server_error")
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2)
        assert isinstance(run.error, NanoBananaException)
        assert run.error.retryable
        assert emulator.ledger()["count"] == 1

    def test_a_retry_after_nothing_was_sent_asks_for_a_minute_and_submits(
        self, emulator: Emulator, slept: list[float]
    ) -> None:
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2)
        assert run.error is None
        assert sum(slept) >= 60
        assert emulator.ledger()["count"] == 1

    def test_a_clear_reuses_the_image_while_it_lives(self, emulator: Emulator) -> None:
        bought = self.first(emulator)
        run = submit(TaskInstance(try_number=2, max_tries=3), retries=2)
        assert run.result == bought
        assert emulator.ledger()["count"] == 1

    def test_a_clear_buys_again_when_told_to_and_its_retry_does_not(self, emulator: Emulator) -> None:
        bought = submit(TaskInstance(try_number=1, max_tries=2), retries=2, reuse_existing=False).result
        cleared = submit(TaskInstance(try_number=2, max_tries=3), retries=2, reuse_existing=False).result
        retried = submit(TaskInstance(try_number=3, max_tries=3), retries=2, reuse_existing=False).result
        assert bought != cleared == retried
        assert emulator.ledger()["count"] == 2

    def test_an_expired_image_is_bought_again_only_when_told_to(
        self, emulator: Emulator, service_clock: ServiceClock
    ) -> None:
        service_clock.offset = -2 * 86_400
        expired = self.first(emulator)
        for ti in (TaskInstance(try_number=2, max_tries=2), TaskInstance(try_number=3, max_tries=4)):
            run = submit(ti, retries=2)
            assert isinstance(run.error, AirflowFailException)
            assert expired in flat(run.error)
        service_clock.offset = 0.0
        told = submit(TaskInstance(try_number=4, max_tries=5), retries=2, on_expired="resubmit")
        assert told.error is None
        assert told.result != expired
        assert emulator.ledger()["count"] == 2

    def test_what_is_wrong_with_the_environment_shows_before_anything_is_written_ahead(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, store = TaskInstance(try_number=1, max_tries=2, store=MemoryTaskStateStore()), MemoryTaskStateStore()
        bought = submit(first, retries=2).result

        def unusable(*args: Any, **kwargs: Any) -> None:
            raise ConfigurationError("SSL_CERT_FILE names no file. Nothing was sent.")

        monkeypatch.setattr("airflow_provider_nanobanana.toapis.client.ToApisClient", unusable)
        run = submit(TaskInstance(try_number=1, max_tries=2, store=store), retries=2)
        assert isinstance(run.error, NanoBananaFailException)
        assert "SSL_CERT_FILE" in flat(run.error)
        # Nothing is written ahead: the record says for certain that nothing was sent.
        assert kept_record(store).state == "queued"
        assert (run.error.charged, emulator.ledger()["count"]) == ("no", 1)
        before = dict(first.store.rows) if first.store else {}
        again = submit(TaskInstance(try_number=2, max_tries=2, store=first.store), retries=2).error
        assert isinstance(again, NanoBananaException)
        assert (again.charged, again.image_task_id) == ("yes", bought)
        assert bought in str(again)
        assert first.store is not None and first.store.rows == before

    def test_the_id_of_what_was_bought_is_told_at_once(
        self, emulator: Emulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            bought = self.first(emulator)
        assert any(f"bought image task {bought}" in record.getMessage() for record in caplog.records)

    @pytest.mark.parametrize("choice", ["ignore", True, None])
    def test_an_unknown_choice_is_refused_before_anything_is_sent(self, emulator: Emulator, choice: Any) -> None:
        run = submit(on_expired=choice)
        assert isinstance(run.error, AirflowFailException)
        assert "on_expired" in flat(run.error)
        assert posts(emulator) == 0

    def test_fail_stops_a_retry_that_finds_nothing(self, emulator: Emulator) -> None:
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2, on_unknown_submission="fail")
        assert isinstance(run.error, AirflowFailException)
        assert "adopt=" in flat(run.error)
        assert emulator.ledger()["count"] == 0

    def test_without_client_ids_a_retry_never_guesses(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        emulator.configure(reject_client_ids=True)
        monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json(client_ids=False))
        assert self.first(emulator)
        run = submit(TaskInstance(try_number=2, max_tries=2), retries=2)
        assert isinstance(run.error, AirflowFailException)
        assert "client_ids: false" in flat(run.error)
        assert emulator.ledger()["count"] == 1

    def test_another_prompt_variant_or_map_index_is_another_image(self, emulator: Emulator) -> None:
        one = self.first(emulator)
        other = submit(TaskInstance(try_number=2, max_tries=2), retries=2, variant="b").result
        third = submit(TaskInstance(try_number=2, max_tries=2, map_index=1), retries=2).result
        assert len({one, other, third}) == 3
