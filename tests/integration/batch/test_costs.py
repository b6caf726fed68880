"""How much leaves, and when it stops: bills above the price list, kills, odd clocks, stores and connections."""

from __future__ import annotations

import json
import logging
import math
import threading
from typing import Any

import pytest

from airflow_provider_nanobanana import worker_threads
from airflow_provider_nanobanana.batch import submitter
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.toapis import responses
from airflow_provider_nanobanana.toapis.models import Billing
from airflow_provider_nanobanana.toapis.response_values import parse_time
from tests.integration.batch import harness
from tests.integration.batch.harness import GenerateTask
from tests.integration.batch.test_clears import ids_of, said
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat

PROMPTS = [f"picture {number}" for number in range(40)]


def bill(monkeypatch: pytest.MonkeyPatch, usd: float) -> None:
    """Let the service bill another amount than its price list says."""
    read = responses._parse_billing

    def dear(value: Any) -> Billing | None:
        said = read(value)
        return said.model_copy(update={"cost_usd": usd}) if said and said.status == "settled" else said

    monkeypatch.setattr(responses, "_parse_billing", dear)


# --- bills above the price list ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "usd"), [(1.0, 0.134), (0.3, 0.134), (2.0, 0.24), (0.5, 0.03), (0.07, 0.05)])
def test_the_limit_holds_though_the_service_bills_more(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, limit: float, usd: float
) -> None:
    batch = with_store
    bill(monkeypatch, usd)
    run = batch.attempt(requests=PROMPTS, max_cost_usd=limit)
    value = run.ti.xcoms["return_value"]
    assert "max_cost_usd" in flat(run.error)
    assert limit - usd < batch.posts * usd <= limit and value["cost_usd"] == pytest.approx(batch.posts * usd)
    batch.attempt(requests=PROMPTS, max_cost_usd=limit)
    assert batch.posts * usd <= limit, "a retry knows the bills"


def test_a_first_image_that_never_ends_holds_the_others_no_longer_than_it_is_waited_for(
    with_store: GenerateTask,
) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="latency", seconds=10**7, match="picture 0")
    run = batch.attempt(requests=PROMPTS[:4], max_cost_usd=0.1, timeout=60)
    assert batch.posts == 4 and run.ti.xcoms["return_value"]["count"] == 3


def test_refunds_before_the_first_bill_do_not_stop_the_batch(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="failed", times=3)
    run = batch.attempt(requests=PROMPTS[:8], max_cost_usd=0.2)
    assert run.ti.xcoms["return_value"]["count"] == 5 and batch.posts == 8


@pytest.mark.parametrize("limit", [0.2, 0.24])
def test_a_refund_tells_no_later_process_that_the_price_list_is_true(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    bill(monkeypatch, 0.134)
    with_store.emulator.fault(on="submit", kind="failed", times=1)
    with_store.attempt(requests=PROMPTS, max_cost_usd=limit)
    assert with_store.charges * 0.134 <= limit and len(with_store.pauses) > 1


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden"])
def test_an_old_image_that_may_not_be_looked_at_holds_the_new_ones_no_longer_than_it_is_waited_for(
    with_store: GenerateTask, kind: str
) -> None:
    batch = with_store
    batch.attempt(requests=["old 0", "old 1"], crash_on=("before land", 1), max_cost_usd=0.2)
    batch.emulator.fault(on="status", kind=kind, match="old")
    batch.clear()
    run = batch.attempt(requests=["new 0", "new 1"], max_cost_usd=0.2)
    assert run.error is None and run.result["count"] == 2


def test_a_service_that_bills_nothing_does_not_stop_the_batch(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "_parse_billing", lambda value: None)
    run = with_store.attempt(requests=PROMPTS[:8], max_cost_usd=0.2)
    assert run.error is None and with_store.posts == 8


# --- a kill --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 5])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_killed_batch_stops_buying_at_once(
    with_store: GenerateTask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rate: int,
    deferrable: bool,
) -> None:
    """Airflow 3.3.2 calls ``on_kill`` and goes on; its SIGKILL follows five seconds later."""
    batch, made, point = with_store, with_store.operator, with_store.crash_points.reach
    connection = batch.emulator.connection_json(timeout=30, submit_rate=rate)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    operators: list[Any] = []

    def operator(**options: Any) -> Any:
        operators.append(made(**options))
        return operators[-1]

    monkeypatch.setattr(batch, "operator", operator)
    # What is under way is answered, however slow this machine is just now.
    monkeypatch.setattr(worker_threads, "FINISH_SECONDS", 60.0)
    answered, lock = [0], threading.Lock()

    def kill_at_the_sixth(name: str, dying: Any = None) -> None:
        point(name, dying)
        with lock:
            if name == "after submit":
                answered[0] += 1
                if answered[0] == 6:
                    operators[-1].on_kill()

    monkeypatch.setattr(batch.crash_points, "reach", kill_at_the_sixth)
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=PROMPTS, deferrable=deferrable)
    threads = max(submitter._FEWEST_THREADS, math.ceil(rate * (submitter._SLOW_SUBMIT + submitter._SLOW_CLAIM)))
    assert 6 <= batch.posts <= 6 + threads and len(operators) == 1, "only what was under way left"
    assert type(run.error) is NanoBananaException and "Airflow ended this attempt" in flat(run.error)
    assert all(image_task_id in said(caplog) for image_task_id in ids_of(batch))
    monkeypatch.setattr(batch.crash_points, "reach", point)
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and batch.posts == batch.charges == 40


# --- what a log names ----------------------------------------------------------------------------------------------


def test_the_log_names_every_image_task_that_is_paid(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nothing can be landed, and neither manifest nor result is written."""
    batch = with_store
    with caplog.at_level(logging.INFO):
        batch.attempt(requests=PROMPTS, crash_on=("before land", 1))
    lines = [record.getMessage() for record in caplog.records if " paid:" in record.getMessage()]
    assert all(image_task_id in "\n".join(lines) for image_task_id in ids_of(batch))
    assert len(lines) <= 4


# --- clocks, stores, connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [8 * 3600, 10 * 86_400, -8 * 3600])
def test_a_service_whose_clock_is_off_makes_nobody_wait_longer(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    batch, read = with_store, parse_time

    def shifted(value: Any) -> float | None:
        moment = read(value)
        return None if moment is None else moment + ahead

    monkeypatch.setattr(responses, "parse_time", shifted)
    monkeypatch.setattr(harness, "PAUSE", 3600.0)
    batch.emulator.fault(on="submit", kind="latency", seconds=10**9)
    began = batch.clock.now
    run = batch.attempt(requests=["one"], timeout=900)
    assert "timeout" in flat(run.error) and batch.clock.now - began < 1200


@pytest.mark.parametrize("kept", [20_000, 45_000])
def test_a_store_that_keeps_too_little_is_found_out_before_anything_is_bought(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """As Airflow 3.3.2, it does not say so."""
    batch, put = with_store, MemoryTaskStateStore.set

    def small(self: MemoryTaskStateStore, key: str, value: Any, **kwargs: Any) -> None:
        if len(json.dumps(value)) < kept:
            put(self, key, value, **kwargs)

    monkeypatch.setattr(MemoryTaskStateStore, "set", small)
    run = batch.attempt(requests=[f"picture {number}" for number in range(150)])
    assert batch.posts == 0 and "Nothing was sent and nothing was charged" in flat(run.error)
    assert "max_value_storage_bytes" in flat(run.error)
    assert batch.attempt(requests=PROMPTS[:6]).error is None, "a few fit"


def test_a_timeout_while_the_batch_is_prepared_is_remembered(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or intents are written of items that are never sent."""
    batch, prepare = with_store, NanoBananaGenerateOperator._prepare

    def overtaken(self: NanoBananaGenerateOperator, *args: Any, **kwargs: Any) -> Any:
        self._stop_buying()  # as StoppableTask does, before there is a state
        return prepare(self, *args, **kwargs)

    monkeypatch.setattr(NanoBananaGenerateOperator, "_prepare", overtaken)
    groups: list[int] = []
    write = submitter.BatchSubmitter._write_group_ahead

    def watched(self: submitter.BatchSubmitter, group: Any) -> None:
        groups.append(len(group))
        write(self, group)

    monkeypatch.setattr(submitter.BatchSubmitter, "_write_group_ahead", watched)
    run = batch.attempt(requests=PROMPTS)
    assert "Airflow ended this attempt" in flat(run.error) and batch.posts == 0
    assert not groups
