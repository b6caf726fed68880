"""Pauses: as short as what there is to do allows; and the log is seldom enough to be read."""

from __future__ import annotations

import pytest

from airflow_provider_nanobanana.batch.progress import (
    PAUSE_SECONDS,
    BatchProgress,
    ProgressLog,
    wake_at,
)


def test_slow_images_do_not_hold_up_what_is_still_to_be_submitted() -> None:
    assert wake_at(1000.0, 1900.0, more_to_do=True) == 1000.0 + PAUSE_SECONDS
    assert wake_at(1000.0, 1900.0, more_to_do=False) == 1900.0
    assert wake_at(1000.0, 1010.0, more_to_do=True) == 1010.0


def test_a_pause_is_as_long_as_the_service_asks_and_ends_in_time() -> None:
    assert wake_at(1000.0, 9000.0, more_to_do=True, asked=5.0) == 1000.0 + PAUSE_SECONDS
    assert wake_at(1000.0, 9000.0, more_to_do=True, asked=120.0) == 1120.0
    assert wake_at(1000.0, 9000.0, more_to_do=True, asked=1e9) == 9000.0


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
    assert line == ("180/2,000 images in place, 3 failed, 117 under way, $7.50 so far, about 6 min of submitting left")


def test_the_time_left_follows_the_rate_of_this_slice() -> None:
    progress = ProgressLog(0.0, BatchProgress(pending=400), rate=5)
    assert progress.seconds_left(1.0, BatchProgress(pending=399)) == pytest.approx(399 / 5), "too early to tell"
    assert progress.seconds_left(50.0, BatchProgress(pending=300)) == pytest.approx(150), (
        "the service lets fewer through"
    )
    assert progress.seconds_left(0.0, BatchProgress()) == 0.0


@pytest.mark.parametrize(("unsent", "words"), [(300, "60 s"), (499, "100 s"), (2000, "7 min"), (100_000, "5.6 h")])
def test_durations_are_rounded_for_people(unsent: int, words: str) -> None:
    line = ProgressLog(0.0, BatchProgress(pending=unsent), rate=5).line(10.0, BatchProgress(pending=unsent), 0.0)
    assert line is not None and f"about {words} of submitting left" in line
