"""The token bucket and the poll schedule, over hours of simulated time."""

from __future__ import annotations

import bisect
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.schedule import PollSchedule, TokenBucket

START = 1_790_000_000.0
#: Float resolution at today's epoch seconds.
EPSILON = 1e-5


@given(
    rate=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 5) | st.just(0.0), min_size=2, max_size=60),
    window=st.floats(0.01, 20),
)
def test_no_window_ever_holds_more_than_the_rate(rate: float, gaps: list[float], window: float) -> None:
    bucket = TokenBucket(rate)
    moments = [now + bucket.reserve(now) for now in itertools.accumulate(gaps, initial=START)]
    assert moments == sorted(moments)
    for position, moment in enumerate(moments):
        inside = bisect.bisect_right(moments, moment + window) - position
        assert inside <= rate * (window + EPSILON) + 1 + EPSILON


def test_calls_are_spaced_evenly_and_idle_time_is_not_saved_up() -> None:
    bucket = TokenBucket(50.0)
    assert bucket.reserve(START) == 0.0
    waits = [bucket.reserve(START + 3600) for _ in range(50)]
    assert waits == pytest.approx([n / 50 for n in range(50)], abs=EPSILON)


@pytest.mark.parametrize("rate", [0, -1, float("-inf")])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(rate)


def test_a_429_stops_everybody_and_halves_the_rate() -> None:
    bucket = TokenBucket(50.0)
    bucket.reserve(START)
    bucket.slow_down(START, 7.0)
    waits = [bucket.reserve(START) for _ in range(3)]
    assert waits == pytest.approx([7.0, 7.04, 7.08], abs=EPSILON)
    assert bucket.rate == 25.0


def test_a_shorter_wait_never_shortens_a_longer_one() -> None:
    bucket = TokenBucket(50.0)
    bucket.slow_down(START, 30.0)
    bucket.slow_down(START + 1, 2.0)
    assert bucket.reserve(START + 1) == pytest.approx(29.0, abs=EPSILON)


def test_the_rate_has_a_floor_and_recovers_gently_and_never_beyond_itself() -> None:
    bucket = TokenBucket(48.0)
    for _ in range(100):
        bucket.slow_down(START, 0.0)
    assert bucket.rate == pytest.approx(3.0)
    bucket.succeeded()
    assert 3.0 < bucket.rate < 4.0
    for _ in range(200):
        bucket.succeeded()
    assert bucket.rate == 48.0


def ids(count: int) -> list[tuple[str, float]]:
    return [(f"t{n}", START) for n in range(count)]


def simulate(count: int, *, seconds: float, interval: float, rate: float, seed: int = 1) -> dict[str, list[float]]:
    """Return the moments at which each image task was polled, none of them ever ending."""
    schedule, bucket, chance = (
        PollSchedule(ids(count), interval=interval, rate=rate),
        TokenBucket(rate),
        random.Random(seed),
    )
    polls: dict[str, list[float]] = {name: [] for name, _ in ids(count)}
    now = START
    while now < START + seconds:
        due = schedule.take()
        assert due is not None
        name, moment = due
        now = max(now, moment)
        now += bucket.reserve(now)
        polls[name].append(now)
        schedule.again(name, now, chance.random())
    return polls


def test_an_hour_of_a_thousand_image_tasks() -> None:
    """At 50 polls a second and an interval of 5 s, a thousand wait 20 s each: evenly, nobody starves."""
    polls = simulate(1000, seconds=3600, interval=5.0, rate=50.0)
    moments = sorted(moment for times in polls.values() for moment in times)
    for position in range(len(moments) - 60):
        assert moments[position + 51] - moments[position] >= 1.0 - EPSILON
    gaps = [late - early for times in polls.values() for early, late in itertools.pairwise(times)]
    assert min(gaps) >= 18.0 - EPSILON
    assert max(gaps) <= 30.0
    counts = [len(times) for times in polls.values()]
    assert max(counts) - min(counts) <= 12
    assert sum(counts) >= 0.9 * 50 * 3600


def test_a_few_image_tasks_keep_their_own_interval() -> None:
    polls = simulate(10, seconds=600, interval=5.0, rate=50.0)
    gaps = [late - early for times in polls.values() for early, late in itertools.pairwise(times)]
    assert min(gaps) >= 4.5 - EPSILON and max(gaps) <= 5.5 + 0.2 + EPSILON


def test_a_reduced_bucket_starves_nobody() -> None:
    schedule, bucket = PollSchedule(ids(100), interval=5.0, rate=50.0), TokenBucket(50.0)
    for _ in range(4):
        bucket.slow_down(START, 0.0)
    now, last = START, dict.fromkeys((name for name, _ in ids(100)), START)
    for _ in range(2000):
        due = schedule.take()
        assert due is not None
        now = max(now, due[1])
        now += bucket.reserve(now)
        assert now - last[due[0]] <= 100 / bucket.rate + 6
        last[due[0]] = now
        schedule.again(due[0], now, random.Random(now).random())


@given(st.lists(st.tuples(st.uuids().map(str), st.floats(0, 1e9)), max_size=30))
def test_the_earliest_comes_first_and_each_once(first_polls: list[tuple[str, float]]) -> None:
    schedule = PollSchedule(first_polls, interval=5.0, rate=50.0)
    taken = [schedule.take() for _ in first_polls]
    assert schedule.take() is None
    assert sorted(first_polls) == sorted(entry for entry in taken if entry)
    assert [entry[1] for entry in taken if entry] == sorted(moment for _, moment in first_polls)


def test_the_length_counts_what_is_in_hand_until_it_is_done() -> None:
    schedule = PollSchedule(ids(2), interval=5.0, rate=50.0)
    schedule.take()
    assert len(schedule) == 2
    schedule.done()
    assert len(schedule) == 1
    schedule.take()
    schedule.again("t1", START, 0.5)
    assert len(schedule) == 1 and schedule.take() == ("t1", START + 5.0)


def test_the_interval_shrinks_back_as_image_tasks_end() -> None:
    schedule = PollSchedule(ids(1000), interval=5.0, rate=50.0)
    assert schedule.interval == 20.0
    for _ in range(900):
        schedule.take()
        schedule.done()
    assert schedule.interval == 5.0


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 100))
def test_a_repeat_is_never_before_what_the_service_asked(jitter: float, asked: float) -> None:
    schedule = PollSchedule(ids(1), interval=5.0, rate=50.0)
    schedule.take()
    schedule.again("t0", 0.0, jitter, at_least=asked)
    due = schedule.take()
    assert due is not None and due[1] >= max(asked, 4.5) and due[1] <= max(asked, 5.5)
