"""SubmitRateLimiter: the rate holds for all processes together, a 429 for all of them, and no state can jam it."""

from __future__ import annotations

import bisect
import json
import logging
import math
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.submission import rate_limiter
from airflow_provider_nanobanana.submission.rate_limiter import MAX_BLOCKING_WAIT, Slot, SubmitRateLimiter
from airflow_provider_nanobanana.submission.shared_state import FileState, ProcessState
from airflow_provider_nanobanana.toapis.errors import (
    ConnectionFailed,
    InvalidRequest,
    RateLimited,
    ServiceUnavailable,
    SubmissionUnknown,
    ToApisError,
)
from airflow_provider_nanobanana.toapis.settings import ToApisSettings

NOW = 1_790_000_000.0
#: What a late wake-up may catch up, plus float resolution at today's epoch seconds.
TOLERANCE = 0.02 + 1e-5
fork = multiprocessing.get_context("fork")


def settings(**changes: Any) -> ToApisSettings:
    return ToApisSettings(**{"base_url": "https://toapis.com", "api_key": "sk-secret", **changes})


def line(*slots: Slot | None) -> list[float]:
    return [slot.wait for slot in slots if slot is not None]


class Clock:
    """Time that passes by waiting only."""

    def __init__(self) -> None:
        self.now = NOW
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


# --- the rate ------------------------------------------------------------------------------------------------------


def work(folder: Path, rate: float, step: float, clock: Any, moments: Connection) -> None:
    """Reserve slots, one after another, on a clock that all workers push on."""
    taken = []
    for _ in range(40):
        with clock.get_lock():
            clock.value += step
            now = clock.value
        slot = SubmitRateLimiter(rate, FileState(folder, "account")).reserve(now)
        if slot is not None:
            taken.append(now + slot.wait)
    moments.send(taken)


# All steps together stay below a minute and a bit: a worker that stood still for longer takes the state for damaged.
@pytest.mark.parametrize(("rate", "step"), [(5.0, 0.01), (5.0, 0.3), (50.0, 0.01), (0.3, 0.4), (1000.0, 0.0001)])
def test_processes_together_never_exceed_the_rate(tmp_path: Path, rate: float, step: float) -> None:
    clock, workers, moments = fork.Value("d", NOW), [], list[float]()
    for _ in range(4):
        here, there = fork.Pipe()
        process = fork.Process(target=work, args=(tmp_path / "shared", rate, step, clock, there))
        process.start()
        workers.append((process, here))
    for process, here in workers:
        moments += here.recv()
        process.join()
    moments.sort()
    assert len(moments) >= 0.9 * rate * min(160 * step, 160 / rate)
    for position, moment in enumerate(moments):
        for window in (0.01, 1.0, 10.0):
            inside = bisect.bisect_right(moments, moment + window) - position
            assert inside <= rate * (window + TOLERANCE) + 1


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3), st.sampled_from(["reserve", "reserve", "ok", "429"]))))
def test_a_429_and_what_follows_never_raises_the_rate(events: list[tuple[int, float, str]]) -> None:
    shared, now, moments = ProcessState(), NOW, list[float]()
    workers = [SubmitRateLimiter(5.0, shared) for _ in range(6)]
    slots = list[Slot]()
    for worker, step, what in events:
        now += step
        if what == "429":
            workers[worker].on_rate_limited(now, 2.0)
            moments = [moment for moment in moments if moment <= now]  # the others are void
            assert all(not workers[worker].still_valid(slot, now) for slot in slots)
        elif what == "ok":
            workers[worker].on_success(now)
        elif (slot := workers[worker].reserve(now)) is not None:
            assert all(other.still_valid(slot, now) for other in workers)
            assert not moments or now + slot.wait - moments[-1] >= 0.2 - TOLERANCE
            moments.append(now + slot.wait)
            slots.append(slot)


def test_a_far_slot_is_not_reserved() -> None:
    slow = SubmitRateLimiter(5.0, ProcessState())
    slots = [slow.reserve(NOW) for _ in range(60)]
    assert line(*slots)[-1] == pytest.approx(MAX_BLOCKING_WAIT, abs=0.2)
    assert slots[-1] is None
    free_in = slow.next_free_in(NOW)
    assert free_in == pytest.approx(MAX_BLOCKING_WAIT + 0.05, abs=0.2)
    assert [slow.reserve(NOW), slow.reserve(NOW), slow.next_free_in(NOW)] == [None, None, free_in]
    assert slow.reserve(NOW + 1.0) is not None


# --- a 429 ---------------------------------------------------------------------------------------------------------


def test_a_429_is_everybodys() -> None:
    shared = ProcessState()
    refused, waiting = SubmitRateLimiter(5.0, shared), SubmitRateLimiter(5.0, shared)
    before = waiting.reserve(NOW)
    while waiting.reserve(NOW) is not None:
        pass
    refused.on_rate_limited(NOW, 7.0)
    assert before is not None and not waiting.still_valid(before, NOW)
    # The line begins again after the pause, at half the rate; nobody stands behind those who were in it.
    slots = [waiting.reserve(NOW) for _ in range(3)]
    assert line(*slots) == pytest.approx([7.0, 7.4, 7.8], abs=1e-2)
    assert slots[0] is not None and waiting.still_valid(slots[0], NOW)


def test_a_429_that_names_no_time_pauses_for_a_second() -> None:
    (one := SubmitRateLimiter(5.0, ProcessState())).on_rate_limited(NOW, None)
    assert one.next_free_in(NOW) == pytest.approx(1.0, abs=1e-4)


def test_a_shorter_pause_does_not_cut_a_longer_one_short() -> None:
    one = SubmitRateLimiter(5.0, ProcessState())
    one.on_rate_limited(NOW, 8.0)
    one.reserve(NOW)
    one.on_rate_limited(NOW + 1.0, 2.0)
    assert one.next_free_in(NOW + 1.0) == pytest.approx(7.0, abs=1e-4)


def test_an_absurd_pause_is_obeyed_for_a_minute() -> None:
    (one := SubmitRateLimiter(5.0, ProcessState())).on_rate_limited(NOW, 86_400.0)
    assert one.next_free_in(NOW) == pytest.approx(60.0, abs=1e-4)


def test_time_brings_the_rate_back() -> None:
    one = SubmitRateLimiter(5.0, ProcessState())
    one.on_rate_limited(NOW, 0.0)
    assert line(*[one.reserve(NOW + 0.1) for _ in range(2)])[1] == pytest.approx(0.38, abs=1e-2)
    assert line(*[one.reserve(NOW + 20.0) for _ in range(2)])[1] == pytest.approx(0.2, abs=1e-4)


def test_what_other_processes_sent_counts_for_the_cut() -> None:
    shared = ProcessState()
    sending, refused = SubmitRateLimiter(5.0, shared), SubmitRateLimiter(5.0, shared)
    for number in range(5):
        sending.on_success(NOW - 1 + number / 5)
    refused.on_rate_limited(NOW, None)
    assert line(*[refused.reserve(NOW + 5) for _ in range(2)])[1] == pytest.approx(1 / 4.85, abs=1e-3)


def rate_after(one: SubmitRateLimiter, now: float) -> float:
    _, first, second = line(*[one.reserve(now) for _ in range(3)])
    return 1 / (second - first)


def test_the_429s_of_one_excess_cut_the_rate_once_however_late_they_are_answered() -> None:
    one = SubmitRateLimiter(5.0, ProcessState())
    for number in range(5):
        one.on_success(NOW - 1 + number / 5)
    one.delay(NOW, RateLimited("no", retry_after=4.0), 0, sent=NOW - 0.2)
    one.delay(NOW + 2.0, RateLimited("no", retry_after=1.0), 0, sent=NOW - 0.1)
    assert rate_after(one, NOW + 5) == pytest.approx(4.85, abs=0.05)


@pytest.mark.parametrize(
    "answered",
    [
        InvalidRequest("no", http_status=400),
        ServiceUnavailable("no", http_status=503),
        SubmissionUnknown("lost", http_status=502),
    ],
)
def test_whatever_was_answered_but_a_429_was_let_through(answered: ToApisError) -> None:
    one = SubmitRateLimiter(5.0, ProcessState())
    for number in range(5):
        one.delay(NOW - 1 + number / 5, answered, 0, sent=NOW - 2)
    one.on_rate_limited(NOW, None)
    assert rate_after(one, NOW + 5) == pytest.approx(4.85, abs=0.05)


def test_what_was_not_answered_says_nothing_of_the_rate() -> None:
    one = SubmitRateLimiter(5.0, ProcessState())
    for number in range(5):
        one.delay(NOW - 1 + number / 5, ConnectionFailed("no"), 0, sent=NOW - 2)
    one.on_rate_limited(NOW, None)
    assert rate_after(one, NOW + 2) < 3.0


# --- the line, sat out ---------------------------------------------------------------------------------------------


def test_a_slot_is_sat_out_once() -> None:
    one, clock = SubmitRateLimiter(0.2, ProcessState()), Clock()
    for _ in range(3):
        one.acquire(clock, clock.sleep, wait_for_slot=False)
    assert clock.waits == pytest.approx([5.0, 5.0], abs=1e-4)


def leaping(clock: Clock, standstill: int, seconds: float = 25.0) -> Callable[[], float]:
    """Return a clock whose reader stands still behind one of its readings."""
    readings = count(1)

    def read() -> float:
        seen = clock.now
        if next(readings) == standstill:
            clock.now += seconds
        return seen

    return read


def filled_up(now: float) -> SubmitRateLimiter:
    """Return a limiter whose next free slot is too far away by the clock of that moment."""
    limiter = SubmitRateLimiter(5, ProcessState())
    while limiter.reserve(now + 20.0):
        pass
    return limiter


@pytest.mark.parametrize("standstill", [1, 2, 3])
def test_a_thread_that_stood_still_is_judged_by_the_time_that_it_is_now(standstill: int) -> None:
    """Others reserved, and went, meanwhile; by the clock that it read before, the next free slot is far away.

    :param standstill: Behind which of its first readings it stands still.
    """
    clock = Clock()
    limiter = filled_up(clock.now)
    limiter.acquire(leaping(clock, standstill), clock.sleep, wait_for_slot=False)
    assert clock.waits and sum(clock.waits) <= MAX_BLOCKING_WAIT


def test_before_a_claim_too_the_time_counts_that_it_is_when_the_next_slot_is_known() -> None:
    clock = Clock()
    limiter = filled_up(clock.now)
    with pytest.raises(RateLimited):
        limiter.check_near(clock)
    limiter.check_near(leaping(clock, 1))


def test_whoever_waits_when_a_429_comes_gets_in_line_again() -> None:
    shared, clock = ProcessState(), Clock()
    waiting, refused = SubmitRateLimiter(0.5, shared), SubmitRateLimiter(0.5, shared)
    waiting.reserve(NOW)

    def sleep(seconds: float) -> None:
        if not clock.waits:
            refused.on_rate_limited(NOW, 6.0)
        clock.sleep(seconds)

    waiting.acquire(clock, sleep, wait_for_slot=False)
    assert clock.now == pytest.approx(NOW + 6.0, abs=1e-3)
    assert len(clock.waits) == 2


def test_a_429_voids_the_slot_of_each_thread_whichever_asks_for_the_next_one() -> None:
    one = SubmitRateLimiter(0.5, ProcessState())
    before = one.reserve(NOW)
    assert before is not None and one.still_valid(before, NOW)
    one.on_rate_limited(NOW, 6.0)
    with ThreadPoolExecutor(1) as another:
        after = another.submit(one.reserve, NOW).result()
    assert after is not None and after.wait == pytest.approx(6.0, abs=1e-3)
    assert one.still_valid(after, NOW) and not one.still_valid(before, NOW)


def test_a_far_slot_is_for_the_caller_to_queue() -> None:
    one, clock = SubmitRateLimiter(5.0, ProcessState()), Clock()
    one.on_rate_limited(NOW, 30.0)
    with pytest.raises(RateLimited, match="Nothing was sent now") as caught:
        one.acquire(clock, clock.sleep, wait_for_slot=False)
    assert caught.value.retry_after == pytest.approx(30.0, abs=1e-3)
    assert (caught.value.charged, clock.waits) == ("no", [])


def test_the_patient_wait_in_pieces() -> None:
    one, clock = SubmitRateLimiter(5.0, ProcessState()), Clock()
    one.on_rate_limited(NOW, 25.0)
    one.acquire(clock, clock.sleep, wait_for_slot=True)
    assert clock.waits == pytest.approx([10.0, 10.0, 5.0], abs=1e-3)


def test_nobody_sits_through_one_429_after_another() -> None:
    shared, clock = ProcessState(), Clock()
    waiting, refused = SubmitRateLimiter(5.0, shared), SubmitRateLimiter(5.0, shared)
    waiting.reserve(NOW)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        refused.on_rate_limited(clock.now, 4.0)

    with pytest.raises(RateLimited):
        waiting.acquire(clock, sleep, wait_for_slot=False)
    assert MAX_BLOCKING_WAIT < clock.now - NOW <= 2 * MAX_BLOCKING_WAIT


# --- what is in the shared state -------------------------------------------------------------------------------------

numbers = st.floats() | st.integers() | st.none() | st.text(max_size=3) | st.booleans()


FIELDS = ("next", "cut_at", "since", "share", "large", "limit_met", "passed")
pacers = st.fixed_dictionaries({}, optional={name: numbers | st.lists(numbers, max_size=2) for name in FIELDS})


@given(
    st.fixed_dictionaries({"refusals": numbers, "pacer": pacers})
    | numbers
    | st.lists(numbers, max_size=7)
    | st.dictionaries(st.text(max_size=2), numbers, max_size=6)
)
def test_no_state_jams_it_or_lifts_the_limit(foreign: Any) -> None:
    shared = ProcessState()
    shared.update(lambda _: foreign)
    one = SubmitRateLimiter(5.0, shared)
    assert one.next_free_in(NOW) <= 60 + MAX_BLOCKING_WAIT + 64 / 5.0 + 5
    one.on_success(NOW)
    one.on_rate_limited(NOW, 1.0)
    waits = line(*[one.reserve(NOW + 90.0) for _ in range(3)])
    assert waits == sorted(waits)
    assert waits[-1] >= 2 * (0.2 - TOLERANCE)


@pytest.mark.parametrize("value", [120.0, 3600.0, 1e9, math.inf, math.nan])
@pytest.mark.parametrize("name", ["next", "cut_at", "since"])
def test_moments_of_another_clock_are_stale(value: float, name: str) -> None:
    shared = ProcessState()
    SubmitRateLimiter(5.0, shared).on_rate_limited(NOW, 1.0)
    shared.update(lambda state: {**state, "pacer": {**state["pacer"], name: NOW + value}})
    slot = SubmitRateLimiter(5.0, shared).reserve(NOW)
    assert slot is not None and slot.wait == 0.0


def test_the_longest_wait_there_is_counts_as_true() -> None:
    shared = ProcessState()
    one = SubmitRateLimiter(0.05, shared)
    for number in range(4):
        one.on_rate_limited(NOW - 3.3 + 1.1 * number, 60.0)
    one.reserve(NOW + 59.0)
    free_in = one.next_free_in(NOW + 59.0)
    assert free_in > 1.0 + 40.0
    assert SubmitRateLimiter(0.05, shared).next_free_in(NOW + 59.0) == free_in


# --- where it is -------------------------------------------------------------------------------------------------


def test_an_account_is_one_file_without_its_secret(shared_state_folder: Path) -> None:
    for _ in range(3):
        SubmitRateLimiter.of(settings()).reserve(NOW)
    [file] = shared_state_folder.iterdir()
    assert "secret" not in f"{file.name}{file.read_text()}"
    assert set(json.loads(file.read_text())) == {"refusals", "pacer"}
    SubmitRateLimiter.of(settings(api_key="sk-other")).reserve(NOW)
    SubmitRateLimiter.of(settings(base_url="http://127.0.0.1:1")).reserve(NOW)
    assert len(list(shared_state_folder.iterdir())) == 3


def test_processes_of_the_version_before_void_nothing(shared_state_folder: Path) -> None:
    SubmitRateLimiter.of(settings()).reserve(NOW)
    [file] = shared_state_folder.iterdir()
    # Theirs had the account's name, and held this; each took what the other wrote for damaged, and began anew.
    theirs = FileState(shared_state_folder, file.name[:24])
    waits = []
    for _ in range(3):
        theirs.update(lambda _: [0, 1.0, NOW + 0.2, None, None])
        waits += line(SubmitRateLimiter.of(settings()).reserve(NOW))
    assert waits == pytest.approx([0.2, 0.4, 0.6], abs=1e-2)


def test_the_rate_is_the_connections(shared_state_folder: Path) -> None:
    slots = [SubmitRateLimiter.of(settings(submit_rate=2.0)).reserve(NOW) for _ in range(3)]
    assert line(*slots) == pytest.approx([0.0, 0.5, 1.0], abs=1e-4)


@pytest.mark.parametrize("fault", ["link", "nowhere", "no locks"])
def test_what_cannot_be_shared_is_paced_by_the_process_alone(
    shared_state_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    def nowhere() -> Path:
        raise FileNotFoundError("no usable temporary directory")

    if fault == "link":
        shared_state_folder.symlink_to(shared_state_folder.parent)
    elif fault == "nowhere":
        monkeypatch.setattr(rate_limiter, "shared_state_folder", nowhere)
    else:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    with caplog.at_level(logging.DEBUG, rate_limiter.__name__):
        slots = [SubmitRateLimiter.of(settings()).reserve(NOW) for _ in range(3)]
    assert line(*slots) == pytest.approx([0.0, 0.2, 0.4], abs=1e-4)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "paces its submits by itself" in record.getMessage()
    assert fault == "nowhere" or str(shared_state_folder) in record.getMessage()
