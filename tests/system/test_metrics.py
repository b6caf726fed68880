"""Metrics on real Airflow processes: the workers' and those of the process that runs the triggers."""

from __future__ import annotations

import pytest

from tests.support.statsd import StatsdServer
from tests.system.harness import System

CONN = {"conn_id": "nanobanana_default"}


def test_workers_and_triggers_send_their_metrics(system: System, statsd: StatsdServer) -> None:
    pytest.importorskip("statsd")
    names = ("submitted", "completed", "failed", "cost_micro_usd", "polls")
    before = {name: statsd.total(f"nanobanana.{name}", **CONN) for name in names}
    seen = len(statsd.named("nanobanana.detection_delay"))
    run = system.start("nanobanana_pipeline", prompts=["a red kite", "failed later [[fail]]"])
    run.wait_for("wait", "deferred")
    assert run.wait() == "failed", "complete makes the run red"

    for name, amount in {"submitted": 2, "completed": 1, "failed": 1, "cost_micro_usd": 25_000, "polls": 2}.items():
        statsd.wait_for(f"nanobanana.{name}", before[name] + amount, **CONN)
    after = {name: statsd.total(f"nanobanana.{name}", **CONN) - before[name] for name in names}
    assert {**after, "polls": 2} == {"submitted": 2, "completed": 1, "failed": 1, "cost_micro_usd": 25_000, "polls": 2}
    assert statsd.named("nanobanana.failed", code="generation_failed")
    delays = statsd.named("nanobanana.detection_delay")[seen:]
    assert len(delays) == 2
    # The emulator tells whole seconds; a poll is due every five.
    assert all(delay.kind == "ms" and 0 <= delay.value < 30_000 for delay in delays)
