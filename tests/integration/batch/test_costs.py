"""How much leaves, and when it stops: bills above the price list, kills, odd clocks, stores and connections."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest

from airflow_provider_nanobanana.batch import submitter
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.toapis import responses
from airflow_provider_nanobanana.toapis.models import Billing
from airflow_provider_nanobanana.toapis.response_values import parse_time
from tests.integration.batch import harness
from tests.integration.batch.harness import World
from tests.integration.batch.test_clears import ids_of, said
from tests.support.task_state_store import MemoryTaskStateStore

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
    stored: World, monkeypatch: pytest.MonkeyPatch, limit: float, usd: float
) -> None:
    world = stored
    bill(monkeypatch, usd)
    run = world.attempt(requests=PROMPTS, max_cost_usd=limit)
    value = run.ti.xcoms["return_value"]
    assert "max_cost_usd" in str(run.error)
    assert limit - usd < world.posts * usd <= limit and value["cost_usd"] == pytest.approx(world.posts * usd)
    world.attempt(requests=PROMPTS, max_cost_usd=limit)
    assert world.posts * usd <= limit, "a retry knows the bills"


def test_a_first_image_that_never_ends_holds_the_others_no_longer_than_it_is_waited_for(stored: World) -> None:
    world = stored
    world.emulator.fault(on="submit", kind="latency", seconds=10**7, match="picture 0")
    run = world.attempt(requests=PROMPTS[:4], max_cost_usd=0.1, timeout=60)
    assert world.posts == 4 and run.ti.xcoms["return_value"]["count"] == 3


def test_refunds_before_the_first_bill_do_not_stop_the_batch(stored: World) -> None:
    world = stored
    world.emulator.fault(on="submit", kind="failed", times=3)
    run = world.attempt(requests=PROMPTS[:8], max_cost_usd=0.2)
    assert run.ti.xcoms["return_value"]["count"] == 5 and world.posts == 8


@pytest.mark.parametrize("limit", [0.2, 0.24])
def test_a_refund_tells_no_later_process_that_the_price_list_is_true(
    stored: World, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    bill(monkeypatch, 0.134)
    stored.emulator.fault(on="submit", kind="failed", times=1)
    stored.attempt(requests=PROMPTS, max_cost_usd=limit)
    assert stored.charges * 0.134 <= limit and len(stored.pauses) > 1


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden"])
def test_an_old_image_that_may_not_be_looked_at_holds_the_new_ones_no_longer_than_it_is_waited_for(
    stored: World, kind: str
) -> None:
    world = stored
    world.attempt(requests=["old 0", "old 1"], crash_on=("before land", 1), max_cost_usd=0.2)
    world.emulator.fault(on="status", kind=kind, match="old")
    world.clear()
    run = world.attempt(requests=["new 0", "new 1"], max_cost_usd=0.2)
    assert run.error is None and run.result["count"] == 2


def test_a_service_that_bills_nothing_does_not_stop_the_batch(stored: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "_parse_billing", lambda value: None)
    run = stored.attempt(requests=PROMPTS[:8], max_cost_usd=0.2)
    assert run.error is None and stored.posts == 8


# --- a kill --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 5])
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_killed_batch_stops_buying_at_once(
    stored: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rate: int, deferrable: bool
) -> None:
    """Airflow 3.3.2 calls ``on_kill`` and goes on; its SIGKILL follows five seconds later."""
    world, made, point = stored, stored.operator, stored.tape.point
    connection = world.emulator.connection_json(timeout=30, submit_rate=rate)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    operators: list[Any] = []

    def operator(**options: Any) -> Any:
        operators.append(made(**options))
        return operators[-1]

    monkeypatch.setattr(world, "operator", operator)
    answered, lock = [0], threading.Lock()

    def kill_at_the_sixth(name: str, dying: Any = None) -> None:
        point(name, dying)
        with lock:
            if name == "after submit":
                answered[0] += 1
                if answered[0] == 6:
                    operators[-1].on_kill()

    monkeypatch.setattr(world.tape, "point", kill_at_the_sixth)
    with caplog.at_level(logging.INFO):
        run = world.attempt(requests=PROMPTS, deferrable=deferrable)
    threads = max(submitter._FEWEST_THREADS, rate)
    assert 6 <= world.posts <= 6 + threads and len(operators) == 1, "only what was under way left"
    assert type(run.error) is NanoBananaException and "Airflow ended this attempt" in str(run.error)
    assert all(image_task_id in said(caplog) for image_task_id in ids_of(world))
    monkeypatch.setattr(world.tape, "point", point)
    again = world.attempt(requests=PROMPTS)
    assert again.error is None and world.posts == world.charges == 40


# --- what a log names ----------------------------------------------------------------------------------------------


def test_the_log_names_every_image_task_that_is_paid(stored: World, caplog: pytest.LogCaptureFixture) -> None:
    """Also where nothing can be landed, and neither manifest nor result is written."""
    world = stored
    with caplog.at_level(logging.INFO):
        world.attempt(requests=PROMPTS, crash_on=("before land", 1))
    lines = [record.getMessage() for record in caplog.records if "image tasks are paid" in record.getMessage()]
    assert all(image_task_id in "\n".join(lines) for image_task_id in ids_of(world))
    assert len(lines) <= 4


# --- clocks, stores, connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [8 * 3600, 10 * 86_400, -8 * 3600])
def test_a_service_whose_clock_is_off_makes_nobody_wait_longer(
    stored: World, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    world, read = stored, parse_time

    def shifted(value: Any) -> float | None:
        moment = read(value)
        return None if moment is None else moment + ahead

    monkeypatch.setattr(responses, "parse_time", shifted)
    monkeypatch.setattr(harness, "PAUSE", 3600.0)
    world.emulator.fault(on="submit", kind="latency", seconds=10**9)
    began = world.clock.now
    run = world.attempt(requests=["one"], timeout=900)
    assert "timeout" in str(run.error) and world.clock.now - began < 1200


@pytest.mark.parametrize("kept", [20_000, 45_000])
def test_a_store_that_keeps_too_little_is_found_out_before_anything_is_bought(
    stored: World, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """As Airflow 3.3.2, it does not say so."""
    world, put = stored, MemoryTaskStateStore.set

    def small(self: MemoryTaskStateStore, key: str, value: Any, **kwargs: Any) -> None:
        if len(json.dumps(value)) < kept:
            put(self, key, value, **kwargs)

    monkeypatch.setattr(MemoryTaskStateStore, "set", small)
    run = world.attempt(requests=[f"picture {number}" for number in range(150)])
    assert world.posts == 0 and "Nothing was sent and nothing was charged" in str(run.error)
    assert "max_value_storage_bytes" in str(run.error)
    assert world.attempt(requests=PROMPTS[:6]).error is None, "a few fit"
