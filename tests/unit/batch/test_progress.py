"""Slices: none is longer than its time, the account's rate is used, and the log is seldom enough to be read."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.progress import (
    LONGEST_PAUSE,
    SLICE_SECONDS,
    BatchProgress,
    ProgressLog,
    min_finished_to_wake,
    submits_per_slice,
    wake_at,
)


@pytest.mark.parametrize(("rate", "size"), [(5, 500), (0.001, 1), (0.5, 50), (100, 10_000), (3.333, 333)])
def test_a_group_is_what_the_rate_sends_in_one_slice(rate: float, size: int) -> None:
    assert submits_per_slice(rate) == size


@given(st.integers(1, 20_000), st.integers(0, 20_000))
def test_enough_is_reachable_and_all_at_the_end(running: int, more: int) -> None:
    wanted = min_finished_to_wake(running, more)
    assert 1 <= wanted <= running
    assert wanted == running if more == 0 else running <= 2 * wanted <= running + 1


def test_with_nothing_running_there_is_nothing_to_wait_for() -> None:
    assert min_finished_to_wake(0, 5) == min_finished_to_wake(0, 0) == 0


def test_slow_images_do_not_hold_up_what_is_still_to_be_submitted() -> None:
    assert wake_at(1000.0, 1900.0, 1) == 1000.0 + LONGEST_PAUSE
    assert wake_at(1000.0, 1900.0, 0) == 1900.0
    assert wake_at(1000.0, 1010.0, 1) == 1010.0


@pytest.mark.parametrize(("median", "spread"), [(25.0, 0.5), (60.0, 0.6), (150.0, 0.4)])
def test_the_rate_is_used_for_more_than_sixty_per_cent_of_the_time(median: float, spread: float) -> None:
    """2,000 images at the default rate; each change between worker and triggerer costs ten seconds."""
    rate, change, total = 5.0, 10.0, 2000
    draw = random.Random(7)
    now, sent, ends = 0.0, 0, list[float]()
    while sent < total:
        assert submits_per_slice(rate) / rate <= SLICE_SECONDS
        for _ in range(min(submits_per_slice(rate), total - sent)):
            now, sent = now + 1 / rate, sent + 1
            ends.append(now + draw.lognormvariate(0, spread) * median)
        if sent == total:
            break
        running = sorted(end for end in ends if end > now)
        by_count = running[min_finished_to_wake(len(running), total - sent) - 1] if running else now
        now = min(by_count, wake_at(now, now + 900, total - sent)) + change
    assert total / now >= 0.6 * rate


# --- what a person reads --------------------------------------------------------------------------------------------


def test_a_plan_counts_every_item_once() -> None:
    plan = BatchProgress(pending=5, running=3, stored=2, failed=1)
    assert plan.total == 11


def test_the_log_speaks_every_ten_seconds() -> None:
    progress = ProgressLog(100.0, BatchProgress(pending=500), rate=5)
    said = [now for now in range(100, 201) if progress.line(float(now), BatchProgress(pending=500), 0.0)]
    assert said == list(range(110, 201, 10))
    assert progress.line(200.5, BatchProgress(pending=500), 0.0) is None
    assert progress.line(200.6, BatchProgress(stored=500), 12.5, last=True) == "500/500 images in place, $12.50 so far"
    assert progress.line(200.7, BatchProgress(stored=500), 12.5) is None


def test_a_line_tells_what_is_done_what_it_cost_and_what_is_left() -> None:
    progress = ProgressLog(0.0, BatchProgress(pending=2000), rate=5)
    line = progress.line(60.0, BatchProgress(pending=1700, running=117, stored=180, failed=3), 7.5)
    assert line == ("180/2,000 images in place, 3 failed, 117 under way, $7.50 so far, about 8 min of submitting left")


def test_the_time_left_follows_the_rate_of_this_slice() -> None:
    progress = ProgressLog(0.0, BatchProgress(pending=400), rate=5)
    assert progress.seconds_left(1.0, BatchProgress(pending=399)) == pytest.approx(399 / 5), "too early to tell"
    assert progress.seconds_left(50.0, BatchProgress(pending=300)) == pytest.approx(150), (
        "the service lets fewer through"
    )
    assert progress.seconds_left(0.0, BatchProgress()) == 0.0


@pytest.mark.parametrize(("unsent", "words"), [(300, "60 s"), (499, "100 s"), (2000, "9 min"), (100_000, "7.2 h")])
def test_durations_are_rounded_for_people(unsent: int, words: str) -> None:
    line = ProgressLog(0.0, BatchProgress(pending=unsent), rate=5).line(10.0, BatchProgress(pending=unsent), 0.0)
    assert line is not None and f"about {words} of submitting left" in line
