"""One wanted image is its file: whoever asks for it, in whatever run, attempt or installation, it is paid once."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.durable.claims import Claim
from airflow_provider_nanobanana.landing.storage import exclusive
from airflow_provider_nanobanana.submission.claims import ClaimFolder
from tests.integration.batch.harness import GenerateTask
from tests.support.campaign import of_campaign
from tests.support.claims import claim, write_claim
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat

PROMPTS = ["a red kite", "a blue kite", "a red kite"]


def other(batch: GenerateTask, run_id: str) -> GenerateTask:
    """Return another task instance that wants the same files."""
    return replace(batch, run_id=run_id, store=MemoryTaskStateStore() if batch.store else None, tries=0, xcoms={})


@contextmanager
def during(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], Any]) -> Iterator[None]:
    """Act once, right after a claim of a name was created."""
    create = ClaimFolder.create
    acted: list[str] = []

    def create_then_act(self: ClaimFolder, claim: Claim) -> bool:
        created = create(self, claim)
        if created and not acted:
            acted.append(name)
            act()
        return created

    with monkeypatch.context() as patch:
        patch.setattr(ClaimFolder, "create", create_then_act)
        yield
    assert acted


def claims(batch: GenerateTask) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in batch.folder.glob(".nanobanana/claims/*.json")}


def usd(*runs: Any) -> float:
    return float(round(sum(run.result["paid_usd"] for run in runs), 6))


def bank(batch: GenerateTask) -> float:
    return round(0.025 * batch.charges, 6)


def test_a_run_shares_what_another_is_buying(batch: GenerateTask) -> None:
    """The first is killed after its last POST; the second lands all of it, and its retry finds what it paid."""
    batch.attempt(requests=PROMPTS, crash_on=("before land", 1))
    second = other(batch, "second")
    shared = second.attempt(requests=PROMPTS)
    assert shared.error is None
    assert (shared.result["count"], shared.result["shared"], shared.result["paid_usd"]) == (3, 3, 0.0)
    assert shared.result["cost_usd"] == 0.075
    first = batch.attempt(requests=PROMPTS)
    assert first.error is None and first.result["count"] == 3
    assert first.result["lost_race"] == 0.0
    assert batch.charges == batch.posts == len(batch.files) == 3
    assert usd(first, shared) == bank(batch)


def test_a_run_that_shares_may_die_at_any_side_effect_and_never_counts_it_as_paid(quick: GenerateTask) -> None:
    batch = quick
    batch.attempt(requests=PROMPTS, crash_on=("before land", 1))
    sharing = other(batch, "second")
    sharing.attempt(requests=PROMPTS)
    points = len(batch.crash_points.passed)
    assert points > 10
    step = of_campaign(6, 1)
    for point in range(random.randrange(step), points, step):
        for path in batch.folder.glob("*.png"):
            path.unlink()
        second = other(batch, f"run-{point}")
        second.attempt(requests=PROMPTS, crash_at=point)
        run = second.attempt(requests=PROMPTS)
        assert run.error is None, point
        assert (run.result["count"], run.result["paid_usd"]) == (3, 0.0), point
    assert batch.posts == 3


def test_a_claim_whose_owner_died_before_its_post_is_taken_over(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS, crash_on=("before submit", 1))
    assert batch.posts == 0 and len(claims(batch)) == 1
    second = other(batch, "second")
    began = batch.clock.now
    run = second.attempt(requests=PROMPTS)
    assert run.error is None and run.result["count"] == 3
    assert 135 <= batch.clock.now - began <= 400
    assert batch.charges == batch.posts == len(batch.files) == 3
    taken = [claim for claim in claims(batch).values() if claim["n"] == 1]
    assert [claim["because"] for claim in taken] == ["unseen"]
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and batch.posts == 3
    assert usd(run, again) == bank(batch)


@pytest.mark.parametrize("crash_on", ["before submit", "submit under way", "after submit", "before land"])
def test_the_retry_of_one_run_and_another_run_at_once(quick: GenerateTask, crash_on: str) -> None:
    batch = quick
    batch.emulator.configure(lookup_delay=30)
    batch.crash_points.late = 30
    batch.attempt(requests=PROMPTS, crash_on=(crash_on, 1))
    runs = [other(batch, "second").attempt(requests=PROMPTS), batch.attempt(requests=PROMPTS)]
    assert [run.error for run in runs] == [None, None]
    assert batch.charges == batch.posts == len(batch.files) == 3
    if batch.store is not None:
        assert usd(*runs) == bank(batch)


def test_two_runs_at_the_same_moment(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins right after the first one's first claim, and ends before the first goes on."""
    batch = with_store
    second = other(batch, "second")
    runs = []
    with during(monkeypatch, "claim", lambda: runs.append(second.attempt(requests=PROMPTS))):
        runs.append(batch.attempt(requests=PROMPTS))
    assert [run.error for run in runs] == [None, None]
    assert batch.charges == batch.posts == len(batch.files) == 3
    assert usd(*runs) == bank(batch)


def test_a_run_that_is_deleted_and_made_again_shares_with_its_former_self(batch: GenerateTask) -> None:
    batch.attempt(requests=PROMPTS, crash_on=("before land", 1))
    batch.next_run("run")
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and batch.posts == 3 and run.result["count"] == 3


def test_a_failure_of_what_is_shared_costs_a_retry_and_no_money(batch: GenerateTask) -> None:
    batch.emulator.fault(on="submit", kind="failed", times=1)
    batch.attempt(requests=["one"])
    second = other(batch, "second")
    first_try = second.attempt(requests=["one"])
    assert first_try.error is not None or first_try.result["count"] == 1
    run = second.attempt(requests=["one"]) if first_try.error else first_try
    assert run.error is None and run.result["count"] == 1
    assert batch.charges == 1


def test_a_refused_prompt_is_not_asked_again_by_others(batch: GenerateTask) -> None:
    batch.emulator.fault(on="submit", kind="content_policy", times=1)
    assert batch.attempt(requests=["one"]).error is not None
    posts = batch.emulator.service.ledger
    before = len(posts.image_tasks)
    second = other(batch, "second")
    run = second.attempt(requests=["one"])
    assert run.error is not None and "dag" in flat(run.error).lower()
    assert len(posts.image_tasks) == before


def test_claims_off_is_as_before(batch: GenerateTask) -> None:
    run = batch.attempt(requests=PROMPTS, claims="off")
    assert run.error is None and batch.posts == 3
    assert {path.name for path in (batch.folder / ".nanobanana").iterdir()} == {"index", "thumbs"}


def test_a_destination_that_cannot_hold_claims(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exclusive, "_probe", lambda _: "it has no hard links")
    refused = batch.attempt(requests=PROMPTS, claims="require")
    assert "it has no hard links" in flat(refused.error) and batch.posts == 0
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and batch.charges == 3
    assert sum("cannot be claimed" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("wanted", ["sometimes", None, True])
def test_another_word_is_refused_before_money(with_store: GenerateTask, wanted: Any) -> None:
    run = with_store.attempt(requests=PROMPTS, claims=wanted)
    assert "claims is 'auto' or 'require' or 'off'" in flat(run.error)
    assert with_store.posts == 0


def test_a_forged_claim_lands_nothing_of_another_dag(with_store: GenerateTask) -> None:
    """Who can write the folder names another DAG's image task in a claim and its book: it is not asked for."""
    batch = with_store
    secret = batch.attempt(requests=["confidential"])
    image_task_id = secret.result["images"][0]["id"]
    second = other(batch, "second")
    second.folder = Path(batch.folder.parent / "theirs")
    second.attempt(requests=["innocent"], crash_on=("before submit", 1))
    (claim,) = claims(second).values()
    forged = {**claim, "by": {**claim["by"], "dag": "forger"}, "ids": False}
    (path,) = second.folder.glob(".nanobanana/claims/*.json")
    path.write_text(json.dumps(forged))
    books = second.folder / ".nanobanana" / "books"
    books.mkdir(exist_ok=True)
    book = {"v": 1, "entries": {f"{claim['stem']}.g0": ["bought", image_task_id]}}
    (books / f"{claim['book']}.json").write_text(json.dumps(book))
    run = second.attempt(requests=["innocent"], timeout=120)
    landed = [image["id"] for image in run.result["images"]] if run.result else []
    assert image_task_id not in landed


@pytest.mark.parametrize(("shown_after", "accepted_after"), [(0, 0), (30, 30)])
def test_a_crash_at_any_point_with_another_run_before_the_retry(
    quick: GenerateTask, shown_after: int, accepted_after: int
) -> None:
    """The other run lands all files, the retry too, and each is paid once.

    Every twentieth point, each time others; in the campaign every one.
    """
    batch = quick
    batch.emulator.configure(lookup_delay=shown_after)
    batch.crash_points.late = accepted_after
    batch.attempt(requests=PROMPTS)
    points = len(batch.crash_points.passed)
    assert points > 40
    step = of_campaign(20, 1)
    for point in range(random.randrange(step), points, step):
        batch.begin_again()
        batch.attempt(requests=PROMPTS, crash_at=point)
        second = other(batch, "second")
        runs = [second.attempt(requests=PROMPTS), batch.attempt(requests=PROMPTS)]
        batch.clock.sleep(600.0)
        assert [run.error for run in runs] == [None, None], point
        assert [run.result["count"] for run in runs] == [3, 3], point
        assert batch.charges == batch.posts == len(batch.files) == 3, point
        assert sum(run.result["lost_race"] for run in runs) == 0.0, point


def test_claims_of_weeks_ago_go_after_a_batch_that_bought(batch: GenerateTask) -> None:
    batch.clock.now = time.time()  # as of the disk

    def leave_old() -> Path:
        for marker in batch.folder.glob(".nanobanana/clock/swept-*"):
            os.utime(marker, (0, batch.clock.now - 86_500))
        path = write_claim(batch.folder, claim("old-0"))
        os.utime(path, (0, time.time() - 8 * 86_400))
        return path

    old = leave_old()
    assert batch.attempt(requests=["one"]).result["paid_usd"] == 0.025
    assert not old.exists()
    leave_old()
    again = other(batch, "second").attempt(requests=["one"])
    assert again.result["reused"] == 1
    assert old.exists(), "nothing was bought"


def test_a_disk_whose_clock_is_days_ahead_tells_no_age(batch: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """All claims seem old there, also those that others are buying under; the service knows the time."""
    batch.clock.now = time.time()
    path = write_claim(batch.folder, claim("young-0"))
    os.utime(path, (0, time.time() - 8 * 86_400))
    monkeypatch.setattr(BatchState, "last_purchase", lambda _: time.time() - 8 * 86_400)
    assert batch.attempt(requests=["one"]).result["paid_usd"] == 0.025
    assert path.exists()
