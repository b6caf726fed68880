from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, get_args

import httpx
import pytest

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.emulator.__main__ import parser, settings_of
from airflow_provider_nanobanana.emulator.rate_limit import (
    FixedWindow,
    Gcra,
    Limiter,
    LimiterKind,
    SlidingWindow,
    TokenBucket,
    limiter,
)

KINDS: tuple[LimiterKind, ...] = get_args(LimiterKind)
START = 1_790_000_000.0


def arrivals(seed: int, seconds: float = 60.0) -> Iterator[float]:
    """Yield moments: crowds, trickles and pauses."""
    rng = random.Random(seed)
    milliseconds = 0
    while milliseconds < 1000 * seconds:
        yield START + milliseconds / 1000
        milliseconds += rng.choices((0, 1, 10, 20, 100, 1500), (40, 20, 20, 20, 4, 1))[0]


def passed(limit: Limiter, moments: Iterator[float]) -> list[float]:
    return [now for now in moments if limit.take(now)]


def test_the_bucket_follows_the_limits_page() -> None:
    bucket = TokenBucket(5, now=100.0)
    assert [bucket.take(100.0) for _ in range(51)].count(True) == 50
    assert not bucket.take(100.19)
    assert bucket.take(100.2)
    assert [bucket.take(1000.0) for _ in range(51)].count(True) == 50
    assert not bucket.take(999.0)  # a clock that is set back takes nothing away and gives nothing


@pytest.mark.parametrize("kind", KINDS)
def test_no_rate_is_no_limit(kind: LimiterKind) -> None:
    limit = limiter(kind, 0, START)
    assert all(limit.take(START) for _ in range(10_000))


@pytest.mark.parametrize("seed", range(5))
def test_no_second_of_a_sliding_window_holds_more_than_the_rate_and_none_is_refused_with_room(seed: int) -> None:
    limit = SlidingWindow(50)
    taken: list[float] = []
    for now in arrivals(seed):
        recent = sum(moment > now - 1 + 1e-6 for moment in taken)
        assert limit.take(now) == (recent < 50)
        if recent < 50:
            taken.append(now)
    assert len(taken) > 500


@pytest.mark.parametrize("seed", range(5))
def test_each_second_of_the_clock_has_its_own_fixed_window(seed: int) -> None:
    asked = list(arrivals(seed))
    by_second = [sum(int(moment) == second for moment in asked) for second in range(int(START), int(START) + 60)]
    assert len(passed(FixedWindow(50), iter(asked))) == sum(min(50, count) for count in by_second)
    assert max(by_second) > 50


def test_two_fixed_windows_let_twice_the_rate_through_within_a_moment() -> None:
    limit = FixedWindow(50)
    assert len(passed(limit, iter([START + 0.999] * 60 + [START + 1.001] * 60))) == 100


@pytest.mark.parametrize("seed", range(5))
def test_gcra_is_a_token_bucket_that_holds_its_tolerance_and_one(seed: int) -> None:
    gcra = Gcra(50, START, tolerance=0.1)
    bucket = TokenBucket(50, START, burst=6)
    assert passed(gcra, arrivals(seed)) == passed(bucket, arrivals(seed))


@pytest.mark.parametrize("rate", [0.5, 2.5, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_long_run_each_lets_the_rate_through(kind: LimiterKind, rate: float) -> None:
    limit = limiter(kind, rate, START, burst_seconds=1)
    crowd = (START + step / 1000 for step in range(100_000))
    assert len(passed(limit, crowd)) == pytest.approx(100 * rate, abs=rate + 1)


@pytest.mark.parametrize("rate", [0.5, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_refusal_says_is_true(kind: LimiterKind, rate: float) -> None:
    def used(moment: float) -> Limiter:
        limit = limiter(kind, rate, START, burst_seconds=1)
        while limit.take(START + 0.4):
            pass
        limit.take(moment)
        return limit

    headers = used(START + 0.4).headers("async_query")
    assert headers["X-RateLimit-Remaining"] == "0"
    assert headers["X-RateLimit-Limit"] == str(round(60 * rate))
    assert headers["X-RateLimit-Category"] == "async_query"
    assert headers["Retry-After"] == headers["X-RateLimit-Reset"]
    assert used(START + 0.4).take(START + 0.4 + float(headers["Retry-After"]))


@pytest.mark.parametrize("kind", KINDS)
def test_so_many_remain_as_pass(kind: LimiterKind) -> None:
    limit = limiter(kind, 50, START, burst_seconds=0.3)
    for _ in range(3):
        limit.take(START + 0.4)
    remaining = int(limit.headers("async_query")["X-RateLimit-Remaining"])
    assert remaining > 0
    assert [limit.take(START + 0.4) for _ in range(remaining + 1)] == [True] * remaining + [False]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [True, False])
def test_the_service_enforces_what_is_set(
    kind: LimiterKind, told: bool, emulator: Emulator, client: httpx.Client, submit: Callable[..., Any]
) -> None:
    emulator.configure(limiter=kind, burst_seconds=0.2, submit_rate=5, query_rate=10, limit_headers=told)
    submits = [submit() for _ in range(7)]
    queries = [client.get(f"/v1/images/generations/{submits[0].json()['id']}") for _ in range(12)]
    accepted = {"token_bucket": (1, 2), "gcra": (2, 3), "sliding_window": (5, 10), "fixed_window": (5, 10)}[kind]
    for answers, count, category in zip((submits, queries), accepted, ("async_submit", "async_query"), strict=True):
        assert [answer.status_code for answer in answers] == [200] * count + [429] * (len(answers) - count)
        said = answers[-1].headers
        assert (said.get("X-RateLimit-Category") == category) == told == ("Retry-After" in said)


def test_another_kind_begins_unused_and_what_did_not_change_goes_on(emulator: Emulator) -> None:
    emulator.configure(submit_rate=5, query_rate=50, limiter="sliding_window")
    submits, queries = emulator.service.submit_limiter, emulator.service.query_limiter
    emulator.configure(query_rate=20, limit_headers=False)
    assert emulator.service.submit_limiter is submits and emulator.service.query_limiter is not queries
    emulator.configure(limiter="gcra")
    assert isinstance(emulator.service.submit_limiter, Gcra)


def test_the_command_line_chooses_the_limiter() -> None:
    settings = settings_of(parser().parse_args(["--limiter", "gcra", "--burst-seconds", "0.1", "--no-limit-headers"]))
    assert (settings.limiter, settings.burst_seconds, settings.limit_headers) == ("gcra", 0.1, False)
    with pytest.raises(SystemExit):
        parser().parse_args(["--limiter", "leaky"])
