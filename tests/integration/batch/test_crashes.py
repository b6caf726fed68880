"""A batch may die at any side effect, with any number of POSTs under way: each image is paid once and landed."""

from __future__ import annotations

import json
import random
from itertools import count
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.ledger_entry import decode_entries
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import ToApisClient
from airflow_provider_nanobanana.toapis.responses import ApiResponse
from tests.integration.batch.conftest import HTTP_TIMEOUT
from tests.integration.batch.harness import GenerateTask
from tests.support.campaign import of_campaign

PROMPTS = ["one", "two", "three", "one", "four"]
#: Seconds until a client id resolves, and that a POST whose sender died takes to be accepted.
BANKS = [(0, 0), (30, HTTP_TIMEOUT)]
pytestmark = pytest.mark.campaign


def check(batch: GenerateTask, run: Any, crash: object) -> None:
    batch.clock.sleep(600.0)  # whatever is under way arrives
    assert run.error is None, (crash, run.error)
    assert run.result["count"] == len(PROMPTS), crash
    assert batch.charges == batch.posts == len(PROMPTS), (crash, batch.charges)
    assert len(batch.files) == len(PROMPTS), crash


@pytest.mark.parametrize(("shown_after", "accepted_after"), BANKS)
def test_one_crash_at_any_point(quick: GenerateTask, shown_after: int, accepted_after: int) -> None:
    """Every twelfth point, each time others; in the campaign every one."""
    batch = quick
    batch.emulator.configure(lookup_delay=shown_after)
    batch.crash_points.late = accepted_after
    batch.attempt(requests=PROMPTS)
    points = len(batch.crash_points.passed)
    assert points > 60
    step = of_campaign(12, 1)
    for point in range(random.randrange(step), points, step):
        batch.begin_again()
        batch.attempt(requests=PROMPTS, crash_at=point)
        check(batch, batch.attempt(requests=PROMPTS), point)


def test_three_crashes_in_a_row(quick: GenerateTask) -> None:
    batch = quick
    batch.emulator.configure(lookup_delay=30)
    batch.crash_points.late = HTTP_TIMEOUT
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    for _ in range(of_campaign(4, 100)):
        batch.begin_again()
        crashes = [dice.randrange(90) for _ in range(3)]
        runs = [batch.attempt(requests=PROMPTS, crash_at=crash) for crash in crashes]
        last = runs[-1] if runs[-1].result else batch.attempt(requests=PROMPTS)
        check(batch, last, (seed, crashes))


@pytest.mark.parametrize("quick", [True], indirect=True, ids=["store"])
def test_whatever_is_refused_the_store_knows_of_each_submit_before_it_leaves(
    quick: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent that was put back, or taken for unsent, while its POST leaves would be bought again after a kill."""
    batch, store = quick, quick.store
    assert store is not None
    connection = batch.emulator.connection_json(timeout=HTTP_TIMEOUT, submit_rate=5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    exchange, known, numbers = ToApisClient._exchange, [], count()

    def refused_at_times(self: ToApisClient, call: Any) -> Any:
        if call.kind is not CallKind.SUBMIT:
            return exchange(self, call)
        text = json.loads(store.rows["nanobanana_ledger_0"])
        records = [entry.record for entry in decode_entries("ledger", text)[1].values() if entry.record]
        intents = {record.client_business_id for record in records if record.state is RecordState.INTENT}
        known.append(call.body["client_business_id"] in intents)
        return ApiResponse(429, body=b"{}") if next(numbers) % 3 == 1 else exchange(self, call)

    monkeypatch.setattr(ToApisClient, "_exchange", refused_at_times)
    run = batch.attempt(requests=[f"picture {number}" for number in range(40)])
    assert run.error is None and batch.charges == 40
    assert len(known) > 40 and all(known)
