"""RatePacer over simulated time: its pace, its cuts, its recovery, and several of them on one account."""

from __future__ import annotations

import bisect
import itertools
import json
import math
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.toapis.rate_pacer import RateLimitHeaders, RatePacer
from tests.support.rate_limits import LIMITERS, START, passed, share_refused, simulate

#: Float resolution at today's epoch seconds.
EPSILON = 1e-5
#: What a late wake-up may catch up, in seconds of the rate.
TOLERANCE = 0.02


@given(
    rate=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 5) | st.just(0.0), min_size=2, max_size=60),
    window=st.floats(0.01, 20),
)
def test_no_window_ever_holds_more_than_the_rate(rate: float, gaps: list[float], window: float) -> None:
    pacer = RatePacer(rate)
    moments = [now + pacer.reserve(now) for now in itertools.accumulate(gaps, initial=START)]
    assert moments == sorted(moments)
    for position, moment in enumerate(moments):
        inside = bisect.bisect_right(moments, moment + window) - position
        assert inside <= rate * (window + TOLERANCE + EPSILON) + 1 + EPSILON


def test_calls_are_spaced_evenly_and_idle_time_is_not_saved_up() -> None:
    pacer = RatePacer(10.0)
    assert pacer.reserve(START) == 0.0
    waits = [pacer.reserve(START + 3600) for _ in range(50)]
    assert waits == pytest.approx([n / 10 for n in range(50)], abs=EPSILON)


def test_late_wake_ups_lose_nothing() -> None:
    """At 500 calls a second a loop that wakes up 3 ms late each time would else send 200."""
    pacer, now, sent = RatePacer(500.0), START, 0
    while now < START + 10:
        wait = pacer.reserve(now)
        now += wait + (0.003 if wait else 0.0005)
        sent += 1
    assert 4_900 <= sent <= 5_030


@pytest.mark.parametrize("rate", [0, -1, float("-inf")])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        RatePacer(rate)


def busy(pacer: RatePacer, now: float, passed: int) -> None:
    """Let so many calls pass, evenly, in the second before a moment."""
    for number in range(passed):
        pacer.on_passed(now - 1 + (number + 0.5) / passed)


def test_a_429_stops_everybody_and_counts_once_for_all_that_met_the_same_excess() -> None:
    pacer = RatePacer(50.0)
    for number in range(8):  # calls under way together
        pacer.on_rate_limited(START + number / 100, 7.0, sent=START - 0.1)
    assert pacer.rate_at(START) == 25.0
    assert [pacer.reserve(START) for _ in range(3)] == pytest.approx([7.07, 7.11, 7.15], abs=EPSILON)
    pacer.on_rate_limited(START + 8.1, 0.0, sent=START + 0.9)
    assert pacer.rate_at(START + 8) == pytest.approx(25.0, abs=0.3), "it left within a second of the cut"
    pacer.on_rate_limited(START + 8.2, 0.0, sent=START + 1.0)
    assert pacer.rate_at(START + 8.2) == 25.0, "just above a half, a half is the next step"


def test_where_little_passes_at_a_step_the_next_one_is_taken_at_the_fourth_refusal() -> None:
    pacer = RatePacer(50.0)
    rates = []
    for number in range(8):
        pacer.on_rate_limited(START + 1.1 * number, 0.0)
        rates.append(pacer.rate_at(START + 1.1 * number))
    assert rates == [25.0] * 3 + [12.5] * 3 + [6.25] * 2


def test_a_small_excess_costs_what_was_refused_and_a_margin_and_the_limit_is_not_met_again() -> None:
    pacer = RatePacer(50.0)
    busy(pacer, START, 49)
    pacer.on_rate_limited(START, None)
    assert pacer.rate_at(START) == pytest.approx(49 * 0.97, abs=0.5)
    assert pacer.wait(START) == pytest.approx(0.1), "a few calls, not a second"
    assert pacer.rate_at(START + 20) < 48.5
    assert pacer.rate_at(START + 3600) == pytest.approx(0.97 * 50), "a little below the limit that was met, for good"


def test_a_limit_met_far_below_the_believed_one_is_tried_again_after_half_a_minute() -> None:
    pacer = RatePacer(50.0)
    pacer.on_rate_limited(START, 0.0)
    busy(pacer, START + 2, 25)
    pacer.on_rate_limited(START + 2, 0.0)
    kept = pacer.rate_at(START + 2)
    assert 0.9 * 25 <= kept <= 25
    assert pacer.rate_at(START + 22) <= 1.02 * kept
    assert pacer.rate_at(START + 40) >= 1.03 * kept
    assert pacer.rate_at(START + 80) == 50.0, "whoever had the rest has left"


def test_a_large_excess_costs_a_step_and_is_regained_in_seconds() -> None:
    pacer = RatePacer(50.0)
    busy(pacer, START, 30)
    pacer.on_rate_limited(START, None)
    assert pacer.rate_at(START) == 25.0
    assert pacer.rate_at(START + 5) == pytest.approx(25 + 50 * 0.03, abs=0.3)
    assert pacer.rate_at(START + 15) == 50.0


def test_where_nothing_passes_it_rests_a_second_and_falls_to_a_floor() -> None:
    pacer = RatePacer(64.0)
    now = START
    for _ in range(30):
        assert pacer.on_rate_limited(now, None) >= now + 1.0 - EPSILON
        now += 1.1
    assert pacer.rate_at(now - 1.1) == 1.0


def test_a_shorter_wait_never_shortens_a_longer_one() -> None:
    pacer = RatePacer(50.0)
    pacer.on_rate_limited(START, 30.0)
    pacer.on_rate_limited(START + 1, 2.0)
    assert pacer.wait(START + 1) == pacer.reserve(START + 1) == pytest.approx(29.0, abs=EPSILON)


def test_an_absurd_wait_is_obeyed_for_a_minute() -> None:
    pacer = RatePacer(50.0)
    pacer.on_rate_limited(START, 86_400.0)
    assert pacer.wait(START) == pytest.approx(60.0)


def test_it_goes_on_in_another_process() -> None:
    pacer = RatePacer(50.0)
    pacer.reserve(START)
    busy(pacer, START, 40)
    pacer.on_rate_limited(START, 3.0)
    heir = RatePacer.resumed(50.0, json.loads(json.dumps(pacer.state())), START)
    for each in (pacer, heir):
        busy(each, START + 4.5, 25)
        each.on_rate_limited(START + 4.5, None)
    assert heir.state() == pacer.state()
    assert (heir.reserve(START + 5), heir.rate_at(START + 9)) == (pacer.reserve(START + 5), pacer.rate_at(START + 9))


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 99.0},
        {"share": math.nan},
        {"cut_at": START + 120},
        {"since": math.nan},
        {"next": math.inf},
        {"passed": ([1] * 11, 10 * START + 1e5)},
        {"passed": ([-1], 0)},
    ],
    ids=str,
)
def test_what_no_pacer_can_have_written_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RatePacer.resumed(50.0, RatePacer(50.0).state() | wrong, START)


# --- on one account ------------------------------------------------------------------------------------------------

EACH = pytest.mark.parametrize("headers", [False, True], ids=["silent", "headers"])
LIMITER = pytest.mark.parametrize("limiter", LIMITERS)


@EACH
@LIMITER
def test_alone_it_uses_the_limit_and_is_refused_once_or_not_at_all(limiter: str, headers: bool) -> None:
    calls = simulate(LIMITERS[limiter](50.0), [0.0], 60, headers=headers)
    assert share_refused(calls) <= 0.001
    assert passed(calls) >= 0.95 * 50 * 60


@pytest.mark.parametrize("limiter", ["sliding window", "fixed window"])
def test_with_slow_answers_it_is_refused_little_more(limiter: str) -> None:
    calls = simulate(LIMITERS[limiter](50.0), [0.0], 60, headers=False, answer=(0.1, 0.3))
    assert share_refused(calls) <= 0.003
    assert passed(calls) >= 0.9 * 50 * 60


@EACH
@LIMITER
@pytest.mark.parametrize("believed", [50.0, 500.0])
def test_a_limit_below_the_believed_one_is_found(limiter: str, headers: bool, believed: float) -> None:
    calls = simulate(LIMITERS[limiter](20.0), [0.0], 120, headers=headers, believed=believed)
    late = [call for call in calls if call.at >= 20]
    assert share_refused(late) <= (0.03 if limiter == "token bucket" and not headers else 0.01)
    assert passed(late) >= 0.8 * 20 * 100


@EACH
@LIMITER
@pytest.mark.parametrize("apart", [0.0, 0.8])
def test_two_that_begin_together_share_it(limiter: str, headers: bool, apart: float) -> None:
    runs = [
        simulate(LIMITERS[limiter](50.0), [0.0, apart], 60 + apart, headers=headers, seed=seed) for seed in range(2)
    ]
    assert mean(passed(calls, begin=apart) for calls in runs) >= (0.91 if headers else 0.95) * 50 * 60
    assert mean(passed(calls, 0, apart) / passed(calls, begin=apart) for calls in runs) == pytest.approx(0.5, abs=0.13)


@EACH
@LIMITER
def test_one_that_comes_later_gets_its_share(limiter: str, headers: bool) -> None:
    runs = [simulate(LIMITERS[limiter](50.0), [0.0, 10.0], 70, headers=headers, seed=seed) for seed in range(3)]
    assert mean(passed(calls, begin=10) for calls in runs) >= 0.85 * 50 * 60
    assert mean(passed(calls, 1, 10) / passed(calls, begin=10) for calls in runs) >= 0.3


@LIMITER
def test_five_share_it_and_nobody_starves(limiter: str) -> None:
    calls = simulate(LIMITERS[limiter](50.0), [0.0, 0.2, 0.4, 0.6, 3.0], 120, headers=False)
    assert passed(calls, begin=20) >= 0.85 * 50 * 100
    assert min(passed(calls, process, 20) for process in range(5)) >= 0.3 * passed(calls, begin=20) / 5


# --- what the headers say ------------------------------------------------------------------------------------------


def test_a_service_that_always_says_nothing_is_left_is_obeyed_once() -> None:
    pacer = RatePacer(50.0)
    empty = RateLimitHeaders.read(headers(remaining=0, reset=60), "async_query")
    pacer.apply_headers(empty, START)
    assert pacer.wait(START) == 60.0
    pacer.apply_headers(empty, START + 1)
    assert pacer.wait(START + 1) == 0.0, "another call passed although nothing was left"
    pacer.apply_headers(empty, START + 61)
    assert pacer.wait(START + 61) == 0.0
    pacer.apply_headers(RateLimitHeaders.read(headers(remaining=7), "async_query"), START + 62)
    pacer.apply_headers(empty, START + 63)
    assert pacer.wait(START + 63) == 60.0, "it counts after all"
    pacer.apply_headers(empty, START + 124)
    pacer.on_rate_limited(START + 125, 1.0)
    pacer.apply_headers(empty, START + 127)
    assert pacer.wait(START + 127) == 60.0, "a 429 says that it meant it"


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
    pacer = RatePacer(50.0)
    pacer.apply_headers(RateLimitHeaders(rate=5000.0), START)
    assert pacer.rate_at(START) == 50.0, "the connection's own limit stays"
    pacer.apply_headers(RateLimitHeaders(rate=10.0, exhausted_for=3.0), START)
    assert (pacer.rate_at(START), pacer.reserve(START)) == (10.0, 3.0)


def test_slow_429s_of_one_excess_cut_the_rate_once() -> None:
    """Thirteen calls were under way; their 429s come in over six seconds."""
    pacer = RatePacer(50.0)
    for number in range(13):
        pacer.on_rate_limited(START + number / 2, 1.0, sent=START - 5 + number / 100)
    assert pacer.rate_at(START + 7) == 25.0
    pacer.on_rate_limited(START + 20, 1.0, sent=START + 19)
    assert pacer.rate_at(START + 20) == 25.0


@pytest.mark.parametrize(
    ("limit", "rate"),
    [(3000, 50.0), (300, 5.0), (30_000, 50.0), (50, 50.0), (1, 50.0)],
    ids=["default", "a tenth", "more than ours", "calls a second", "nonsense"],
)
def test_a_limit_in_another_unit_does_not_slow_us_sixtyfold(limit: int, rate: float) -> None:
    pacer = RatePacer(50.0)
    pacer.apply_headers(RateLimitHeaders.read({"x-ratelimit-limit": str(limit)}, "async_query"), START)
    assert pacer.rate_at(START) == rate


def test_one_odd_answer_does_not_slow_us_for_ever() -> None:
    pacer = RatePacer(50.0)
    for limit in (300, 3000):
        pacer.apply_headers(RateLimitHeaders.read({"x-ratelimit-limit": str(limit)}, "async_query"), START)
    assert pacer.rate_at(START) == 50.0
