"""Metrics of real waits, whatever the way of waiting; and Airflow's own stats behind them, down to the datagram."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.polling import result
from airflow_provider_nanobanana.submission import workflow
from tests.support.statsd import Sent, StatsdServer
from tests.support.task_runner import TaskInstance, resume, sensor, wait
from tests.support.task_state_store import MemoryTaskStateStore

Buy = Callable[..., str]
#: What a waiting worker says at its end; polls and delays are the poller's.
RESULTS = ("completed", "failed", "timed_out", "cost_micro_usd")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Sums by name, the tag ``code`` behind a slash."""
    counted: Counter[str] = Counter()

    def count(name: str, amount: int = 1, *, conn_id: str, model: str | None = None, code: str = "") -> None:
        assert conn_id == "nanobanana_default"
        if name in RESULTS:
            counted["/".join(filter(None, (name, code)))] += amount

    monkeypatch.setattr(metrics, "count", count)
    return counted


def test_each_image_task_is_counted_once(emulator: Emulator, buy: Buy, way: str, counted: Counter[str]) -> None:
    """However often the wait looks before it ends."""
    emulator.configure(latency=0.3)
    ids = [buy(f"picture {number}") for number in range(3)]
    run = wait(ids, way)
    assert run.error is None
    assert counted == {"completed": 3, "cost_micro_usd": 75_000}


@pytest.mark.parametrize("allow_partial", [True, False])
def test_a_partial_failure_counts_both_sides(
    emulator: Emulator, buy: Buy, way: str, counted: Counter[str], allow_partial: bool
) -> None:
    """Also where the sensor itself then fails."""
    emulator.configure(latency=0.1)
    ids = [buy("one"), buy("two [[fail]]"), buy("three")]
    run = wait(ids, way, allow_partial=allow_partial)
    assert (run.error is None) == allow_partial
    assert counted == {"completed": 2, "failed/generation_failed": 1, "cost_micro_usd": 50_000}


@pytest.mark.parametrize("option", [{}, {"soft_fail": True}, {"never_fail": True}])
def test_what_is_not_ready_in_time_is_no_failure(
    emulator: Emulator, buy: Buy, way: str, counted: Counter[str], option: dict[str, Any]
) -> None:
    done = buy("done")
    emulator.configure(latency=60)
    run = wait([done, buy("late")], way, timeout=0.2, **option)
    assert run.error is not None
    assert counted == {"completed": 1, "timed_out": 1, "cost_micro_usd": 25_000}


def test_airflows_net_behind_the_trigger_counts_once_too(emulator: Emulator, buy: Buy, counted: Counter[str]) -> None:
    emulator.configure(latency=60)
    resume(sensor(buy()), "__fail__", error="Trigger timeout")
    assert counted == {"timed_out": 1}


def test_what_another_account_did_not_show_is_counted_when_it_is_seen(
    emulator: Emulator, buy: Buy, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice is to correct the connection and to clear the sensor, which then learns what was paid."""
    image_task_id = buy()
    ti = TaskInstance(task_id="wait", store=MemoryTaskStateStore())
    monkeypatch.setattr(result, "NOT_FOUND_GRACE_SECONDS", 0.0)
    emulator.fault(on="status", kind="not_found", times=1)
    assert wait(image_task_id, ti=ti).error is not None
    assert counted == {"failed/task_not_found": 1}
    for _ in range(2):
        assert wait(image_task_id, ti=ti).error is None
    assert counted == {"failed/task_not_found": 1, "completed": 1, "cost_micro_usd": 25_000}


def test_a_wait_that_something_else_ends_counts_nothing(emulator: Emulator, buy: Buy, counted: Counter[str]) -> None:
    """It goes on with the next attempt, which counts."""
    emulator.configure(latency=60)
    image_task_id = buy()
    crashed = resume(sensor(image_task_id), "__fail__", error="Trigger failure")
    emulator.fault(on="status", kind="unauthorized")
    refused = wait(image_task_id, "poked")
    assert crashed.error is not None
    assert refused.error is not None
    assert counted == {}


PROGRAM = """
import os
from airflow_provider_nanobanana import metrics

metrics.prepare()
if os.fork() == 0:  # as the triggerer starts the process that runs the triggers
    metrics.count("polls", 7, conn_id="team/a (EU)")
    metrics.timing("detection_delay", 2.5, conn_id="c", model="nano_banana_2")
    os._exit(0)
os.wait()
metrics.count("cost_micro_usd", 25_000, conn_id="c")
"""


def run_program(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_airflows_own_stats_send_them_to_statsd() -> None:
    """In a fresh process with nothing but Airflow's configuration, and in a fork of it."""
    pytest.importorskip("statsd")
    with StatsdServer() as server:
        done = run_program(PROGRAM, server.environment)
        assert done.returncode == 0, done.stderr
        server.wait_for("nanobanana.cost_micro_usd", 25_000)
    (polls,) = server.named("nanobanana.polls")
    (delay,) = server.named("nanobanana.detection_delay")
    (cost,) = server.named("nanobanana.cost_micro_usd")
    assert polls == Sent("airflow.nanobanana.polls", {"conn_id": "team_a__EU_"}, 7, "c")
    assert delay == Sent("airflow.nanobanana.detection_delay", {"conn_id": "c", "model": "nano_banana_2"}, 2500, "ms")
    assert (cost.value, cost.kind) == (25_000, "c")


def test_an_unreachable_backend_breaks_nothing() -> None:
    """A host that does not exist, and a port where nobody listens."""
    pytest.importorskip("statsd")
    environment = {"AIRFLOW__METRICS__STATSD_ON": "True", "AIRFLOW__METRICS__STATSD_HOST": "no-such-host.invalid"}
    assert run_program(f"import airflow.sdk\n{PROGRAM}", environment).returncode == 0
    environment |= {"AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1", "AIRFLOW__METRICS__STATSD_PORT": "9"}
    assert run_program(f"import airflow.sdk\n{PROGRAM}", environment).returncode == 0


def test_a_purchase_is_counted_once_also_when_its_answer_is_lost(
    emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(workflow, "count", lambda name, **tags: sent.append((name, tags)))
    buy("answered")
    emulator.fault(on="submit", kind="drop", times=1, committed=True)
    buy("answered to nobody")
    assert sent == [("submitted", {"conn_id": "nanobanana_default", "model": "nano_banana_2"})] * 2
    assert emulator.ledger()["count"] == 2
