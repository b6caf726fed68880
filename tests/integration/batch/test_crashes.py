"""A batch may die at any side effect, with any number of POSTs under way: each image is paid once and landed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.integration.batch.conftest import HTTP_TIMEOUT
from tests.integration.batch.harness import World

PROMPTS = ["one", "two", "three", "one", "four"]
#: Seconds until a client id resolves, and that a POST whose sender died takes to be accepted.
BANKS = [(0, 0), (30, HTTP_TIMEOUT)]


def forget(world: World) -> None:
    """Begin anew: an empty bank and folder, and a task instance that never ran."""
    bank = world.emulator.service.ledger
    bank.image_tasks.clear()
    bank.by_client_id.clear()
    world.clock.under_way.clear()
    for path in world.folder.glob("*"):
        path.unlink()
    world.next_run("run")


def check(world: World, run: Any, story: object) -> None:
    world.clock.sleep(600.0)  # whatever is under way arrives
    assert run.error is None, (story, run.error)
    assert run.result["count"] == len(PROMPTS), story
    assert world.charges == world.posts == len(PROMPTS), (story, world.charges)
    assert len(world.files) == len(PROMPTS), story


@pytest.mark.parametrize(("shown_after", "accepted_after"), BANKS)
def test_one_crash_at_any_point(quick: World, shown_after: int, accepted_after: int) -> None:
    """Every fourth point, each time others; all of them take a minute and have shown the same."""
    world = quick
    world.emulator.configure(lookup_delay=shown_after)
    world.tape.late = accepted_after
    world.attempt(requests=PROMPTS)
    points = len(world.tape.passed)
    assert points > 60
    for point in range(random.randrange(4), points, 4):
        forget(world)
        world.attempt(requests=PROMPTS, crash_at=point)
        check(world, world.attempt(requests=PROMPTS), point)


def test_three_crashes_in_a_row(quick: World) -> None:
    world = quick
    world.emulator.configure(lookup_delay=30)
    world.tape.late = HTTP_TIMEOUT
    seed = random.randrange(1_000_000)
    dice = random.Random(seed)
    for _ in range(8):
        forget(world)
        crashes = [dice.randrange(90) for _ in range(3)]
        runs = [world.attempt(requests=PROMPTS, crash_at=crash) for crash in crashes]
        last = runs[-1] if runs[-1].result else world.attempt(requests=PROMPTS)
        check(world, last, (seed, crashes))
