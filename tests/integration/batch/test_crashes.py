"""A batch may die at any side effect, with any number of POSTs under way: each image is paid once and landed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.integration.batch.conftest import HTTP_TIMEOUT
from tests.integration.batch.harness import GenerateTask

PROMPTS = ["one", "two", "three", "one", "four"]
#: Seconds until a client id resolves, and that a POST whose sender died takes to be accepted.
BANKS = [(0, 0), (30, HTTP_TIMEOUT)]


def forget(batch: GenerateTask) -> None:
    """Begin again: an empty service and folder, and a task instance that never ran."""
    service = batch.emulator.service.ledger
    service.image_tasks.clear()
    service.by_client_id.clear()
    batch.clock.in_flight.clear()
    for path in batch.folder.glob("*"):
        path.unlink()
    batch.next_run("run")


def check(batch: GenerateTask, run: Any, crash: object) -> None:
    batch.clock.sleep(600.0)  # whatever is under way arrives
    assert run.error is None, (crash, run.error)
    assert run.result["count"] == len(PROMPTS), crash
    assert batch.charges == batch.posts == len(PROMPTS), (crash, batch.charges)
    assert len(batch.files) == len(PROMPTS), crash


@pytest.mark.parametrize(("shown_after", "accepted_after"), BANKS)
def test_one_crash_at_any_point(quick: GenerateTask, shown_after: int, accepted_after: int) -> None:
    """Every fourth point, each time others; all of them take a minute and have shown the same."""
    batch = quick
    batch.emulator.configure(lookup_delay=shown_after)
    batch.crash_points.late = accepted_after
    batch.attempt(requests=PROMPTS)
    points = len(batch.crash_points.passed)
    assert points > 60
    for point in range(random.randrange(4), points, 4):
        forget(batch)
        batch.attempt(requests=PROMPTS, crash_at=point)
        check(batch, batch.attempt(requests=PROMPTS), point)


def test_three_crashes_in_a_row(quick: GenerateTask) -> None:
    batch = quick
    batch.emulator.configure(lookup_delay=30)
    batch.crash_points.late = HTTP_TIMEOUT
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    for _ in range(8):
        forget(batch)
        crashes = [dice.randrange(90) for _ in range(3)]
        runs = [batch.attempt(requests=PROMPTS, crash_at=crash) for crash in crashes]
        last = runs[-1] if runs[-1].result else batch.attempt(requests=PROMPTS)
        check(batch, last, (seed, crashes))
