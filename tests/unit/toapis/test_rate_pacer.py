"""The token bucket and the headers that feed it, over simulated time."""

from __future__ import annotations

import bisect
import heapq
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.rate_pacer import RateLimitHeaders, RatePacer

START = 1_790_000_000.0
#: Float resolution at today's epoch seconds.
EPSILON = 1e-5
#: What a late wake-up may catch up, in seconds of the rate.
TOLERANCE = 0.05


@given(
    rate=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 5) | st.just(0.0), min_size=2, max_size=60),
    window=st.floats(0.01, 20),
)
def test_no_window_ever_holds_more_than_the_rate(rate: float, gaps: list[float], window: float) -> None:
    bucket = RatePacer(rate)
    moments = [now + bucket.reserve(now) for now in itertools.accumulate(gaps, initial=START)]
    assert moments == sorted(moments)
    for position, moment in enumerate(moments):
        inside = bisect.bisect_right(moments, moment + window) - position
        assert inside <= rate * (window + TOLERANCE + EPSILON) + 1 + EPSILON


def test_calls_are_spaced_evenly_and_idle_time_is_not_saved_up() -> None:
    bucket = RatePacer(10.0)
    assert bucket.reserve(START) == 0.0
    waits = [bucket.reserve(START + 3600) for _ in range(50)]
    assert waits == pytest.approx([max(0.0, n / 10 - TOLERANCE) for n in range(50)], abs=EPSILON)


def test_late_wake_ups_lose_nothing() -> None:
    """At 500 calls a second a loop that wakes up 3 ms late each time would else send 200."""
    bucket, now, sent = RatePacer(500.0), START, 0
    while now < START + 10:
        wait = bucket.reserve(now)
        now += wait + (0.003 if wait else 0.0005)
        sent += 1
    assert 4_900 <= sent <= 5_030


@pytest.mark.parametrize("rate", [0, -1, float("-inf")])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        RatePacer(rate)


def test_a_429_stops_everybody_and_halves_the_rate_once() -> None:
    bucket = RatePacer(50.0)
    bucket.reserve(START)
    for _ in range(8):  # calls under way together meet the same limit
        bucket.on_rate_limited(START, 7.0)
    assert bucket.rate == 25.0
    assert [bucket.reserve(START) for _ in range(3)] == pytest.approx([7.0, 7.04, 7.08], abs=EPSILON)
    bucket.on_rate_limited(START + 9, 0.0)
    assert bucket.rate == 12.5


def test_a_shorter_wait_never_shortens_a_longer_one() -> None:
    bucket = RatePacer(50.0)
    bucket.on_rate_limited(START, 30.0)
    bucket.on_rate_limited(START + 1, 2.0)
    assert bucket.wait(START + 1) == bucket.reserve(START + 1) == pytest.approx(29.0, abs=EPSILON)


def test_an_absurd_wait_is_obeyed_for_a_minute() -> None:
    bucket = RatePacer(50.0)
    bucket.on_rate_limited(START, 86_400.0)
    assert bucket.wait(START) == pytest.approx(60.0)


def test_the_rate_has_a_floor_and_recovers_a_hundredth_a_second_and_never_beyond_itself() -> None:
    bucket = RatePacer(64.0)
    for number in range(20):
        bucket.on_rate_limited(START + 2 * number, 0.0)
    now = START + 38
    assert bucket.rate == pytest.approx(1.0)
    for tenth in range(1, 101):
        bucket.on_success(now + tenth / 10)
    assert bucket.rate == pytest.approx(1.0 + 6.4)
    bucket.on_success(now + 1000)
    assert bucket.rate == 64.0


@pytest.mark.parametrize("parties", [2, 5])
def test_strangers_converge_on_one_account(parties: int) -> None:
    """Each believes that it has the account's whole rate; the account's bucket holds ten seconds' worth."""
    rate, buckets = 50.0, [RatePacer(50.0) for _ in range(parties)]
    tokens, at = 500.0, START
    refused: list[float] = []
    sent: list[list[float]] = [[] for _ in buckets]
    turns = [(START + random.Random(n).random() / 50, n) for n in range(parties)]
    heapq.heapify(turns)
    network = random.Random(7)
    while turns[0][0] < START + 600:
        now, party = heapq.heappop(turns)
        tokens, at = min(500.0, tokens + (now - at) * rate), now
        if tokens >= 1:
            tokens -= 1
            sent[party].append(now)
            buckets[party].on_success(now)
        else:
            refused.append(now)
            buckets[party].on_rate_limited(now, 1.0)
        heapq.heappush(turns, (now + buckets[party].reserve(now) + network.uniform(0.001, 0.05), party))
    late = [moment for moment in refused if moment > START + 10]
    passed = sum(map(len, sent))
    assert len(late) / passed < 0.01
    assert passed >= 0.75 * rate * 600, "the account's rate is used"
    assert min(map(len, sent)) >= 0.3 * passed / parties, "nobody starves"


def test_it_goes_on_in_another_process() -> None:
    bucket = RatePacer(50.0)
    bucket.reserve(START)
    bucket.on_rate_limited(START, 3.0)
    heir = RatePacer.resumed(50.0, bucket.state())
    assert (heir.rate, heir.reserve(START), heir.state()[0]) == (25.0, 3.0, 0.5)
    assert RatePacer.resumed(50.0, (99.0, START, START, START)).rate == 50.0, "a state that cannot be"


def test_a_service_that_always_says_nothing_is_left_is_obeyed_once() -> None:
    bucket = RatePacer(50.0)
    empty = RateLimitHeaders.read(headers(remaining=0, reset=60), "async_query")
    bucket.apply_headers(empty, START)
    assert bucket.wait(START) == 60.0
    bucket.apply_headers(empty, START + 1)
    assert bucket.wait(START + 1) == 0.0, "another call passed although nothing was left"
    bucket.apply_headers(empty, START + 61)
    assert bucket.wait(START + 61) == 0.0
    bucket.apply_headers(RateLimitHeaders.read(headers(remaining=7), "async_query"), START + 62)
    bucket.apply_headers(empty, START + 63)
    assert bucket.wait(START + 63) == 60.0, "it counts after all"
    bucket.apply_headers(empty, START + 124)
    bucket.on_rate_limited(START + 125, 1.0)
    bucket.apply_headers(empty, START + 127)
    assert bucket.wait(START + 127) == 60.0, "a 429 says that it meant it"


def headers(**values: object) -> dict[str, str]:
    return {f"x-ratelimit-{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("given_headers", "signs"),
    [
        ({}, RateLimitHeaders()),
        (headers(limit=3000), RateLimitHeaders(rate=50.0)),
        (headers(limit=3000, remaining=0, reset=2), RateLimitHeaders(rate=50.0, exhausted_for=2.0)),
        (headers(limit=3000, remaining=7, reset=2), RateLimitHeaders(rate=50.0)),
        (headers(remaining=0), RateLimitHeaders()),
        (headers(remaining=0, reset=1_790_000_000), RateLimitHeaders()),  # a moment, not a number of seconds
        (headers(limit=300, category="async_submit"), RateLimitHeaders()),
        (headers(limit=0), RateLimitHeaders()),
        (headers(limit="nan", remaining="-3", reset="soon"), RateLimitHeaders()),
    ],
)
def test_headers_are_read_as_far_as_they_are_plausible(given_headers: dict[str, str], signs: RateLimitHeaders) -> None:
    assert RateLimitHeaders.read(given_headers, "async_query") == signs


def test_it_is_never_faster_than_the_account_and_silent_while_nothing_is_left() -> None:
    bucket = RatePacer(50.0)
    bucket.apply_headers(RateLimitHeaders(rate=5000.0), START)
    assert bucket.rate == 50.0, "the connection's own limit stays"
    bucket.apply_headers(RateLimitHeaders(rate=10.0, exhausted_for=3.0), START)
    assert (bucket.rate, bucket.reserve(START)) == (10.0, 3.0)


def test_slow_429s_of_one_excess_halve_the_rate_once() -> None:
    """Thirteen calls were under way; their 429s come in over six seconds."""
    bucket = RatePacer(50.0)
    for number in range(13):
        bucket.on_rate_limited(START + number / 2, 1.0, sent=START - 5 + number / 100)
    assert bucket.rate == 25.0
    bucket.on_rate_limited(START + 9, 1.0, sent=START + 8)
    assert bucket.rate == 12.5


@pytest.mark.parametrize(
    ("limit", "rate"),
    [(3000, 50.0), (300, 5.0), (30_000, 50.0), (50, 50.0), (1, 50.0)],
    ids=["default", "a tenth", "more than ours", "calls a second", "nonsense"],
)
def test_a_limit_in_another_unit_does_not_slow_us_sixtyfold(limit: int, rate: float) -> None:
    bucket = RatePacer(50.0)
    bucket.apply_headers(RateLimitHeaders.read({"x-ratelimit-limit": str(limit)}, "async_query"), START)
    assert bucket.rate == rate


def test_one_odd_answer_does_not_slow_us_for_ever() -> None:
    bucket = RatePacer(50.0)
    for limit in (300, 3000):
        bucket.apply_headers(RateLimitHeaders.read({"x-ratelimit-limit": str(limit)}, "async_query"), START)
    assert bucket.rate == 50.0
