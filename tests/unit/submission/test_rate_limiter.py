"""Whose turn it is: the rate holds for all processes together, a 429 for all of them, and no state can jam it."""

from __future__ import annotations

import bisect
import json
import logging
import math
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.hooks.connection import ConnectionSettings
from airflow_provider_nanobanana.submission import rate_limiter
from airflow_provider_nanobanana.submission.rate_limiter import LONGEST_SIT, Pace
from airflow_provider_nanobanana.submission.shared_state import OwnSlate, SharedSlate
from airflow_provider_nanobanana.toapis.errors import RateLimited

NOW = 1_790_000_000.0
#: What a late wake-up may catch up, plus float resolution at today's epoch seconds.
TOLERANCE = 0.05 + 1e-5
fork = multiprocessing.get_context("fork")


def settings(**changes: Any) -> ConnectionSettings:
    return ConnectionSettings(**{"base_url": "https://toapis.com", "api_key": "sk-secret", **changes})


def line(*moments: float | None) -> list[float]:
    return [moment for moment in moments if moment is not None]


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
    """Ask for turns, one after another, on a clock that all workers push on."""
    taken = []
    for _ in range(40):
        with clock.get_lock():
            clock.value += step
            now = clock.value
        wait = Pace(rate, SharedSlate(folder, "account")).turn(now)
        if wait is not None:
            taken.append(now + wait)
    moments.send(taken)


@pytest.mark.parametrize(("rate", "step"), [(5.0, 0.01), (5.0, 0.3), (50.0, 0.01), (0.3, 1.0), (1000.0, 0.0001)])
def test_processes_together_never_exceed_the_rate(tmp_path: Path, rate: float, step: float) -> None:
    clock, workers, moments = fork.Value("d", NOW), [], list[float]()
    for _ in range(4):
        here, there = fork.Pipe()
        process = fork.Process(target=work, args=(tmp_path / "slates", rate, step, clock, there))
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


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 3), st.sampled_from(["turn", "turn", "ok", "429"]))))
def test_a_429_and_what_follows_never_raises_the_rate(events: list[tuple[int, float, str]]) -> None:
    slate, now, moments = OwnSlate(), NOW, list[float]()
    workers = [Pace(5.0, slate) for _ in range(6)]
    for worker, step, what in events:
        now += step
        if what == "429":
            workers[worker].refused(now, 2.0)
            moments = [moment for moment in moments if moment <= now]  # the others are void
            assert all(not other.stands(now) for other in workers)
        elif what == "ok":
            workers[worker].accepted(now)
        elif (wait := workers[worker].turn(now)) is not None:
            assert workers[worker].stands(now)
            assert not moments or now + wait - moments[-1] >= 0.2 - TOLERANCE
            moments.append(now + wait)


def test_a_far_turn_is_not_reserved() -> None:
    slow = Pace(5.0, OwnSlate())
    waits = [slow.turn(NOW) for _ in range(60)]
    assert line(*waits)[-1] == pytest.approx(LONGEST_SIT, abs=0.2)
    assert waits[-1] is None
    free_in = slow.free_in(NOW)
    assert free_in == pytest.approx(LONGEST_SIT + 0.05, abs=0.2)
    assert [slow.turn(NOW), slow.turn(NOW), slow.free_in(NOW)] == [None, None, free_in]
    assert slow.turn(NOW + 1.0) is not None


# --- a 429 ---------------------------------------------------------------------------------------------------------


def test_a_429_is_everybodys() -> None:
    slate = OwnSlate()
    refused, waiting = Pace(5.0, slate), Pace(5.0, slate)
    while waiting.turn(NOW) is not None:
        pass
    refused.refused(NOW, 7.0)
    assert not waiting.stands(NOW)
    # The line begins anew after the pause, at half the rate; nobody stands behind those who were in it.
    waits = line(*[waiting.turn(NOW) for _ in range(3)])
    assert waits == pytest.approx([7.0, 7.4, 7.8], abs=1e-4)
    assert waiting.stands(NOW)


def test_a_429_that_names_no_time_pauses_for_a_second() -> None:
    (one := Pace(5.0, OwnSlate())).refused(NOW, None)
    assert one.free_in(NOW) == pytest.approx(1.0, abs=1e-4)


def test_a_shorter_pause_does_not_cut_a_longer_one_short() -> None:
    one = Pace(5.0, OwnSlate())
    one.refused(NOW, 8.0)
    one.turn(NOW)
    one.refused(NOW + 1.0, 2.0)
    assert one.free_in(NOW + 1.0) == pytest.approx(7.0, abs=1e-4)


def test_an_absurd_pause_is_obeyed_for_a_minute() -> None:
    (one := Pace(5.0, OwnSlate())).refused(NOW, 86_400.0)
    assert one.free_in(NOW) == pytest.approx(60.0, abs=1e-4)


def test_success_brings_the_rate_back() -> None:
    one = Pace(5.0, OwnSlate())
    one.refused(NOW, 0.0)
    one.accepted(NOW + 200.0)
    assert line(*[one.turn(NOW + 200.0) for _ in range(2)])[1] == pytest.approx(0.15, abs=1e-4)


# --- the line, sat out ---------------------------------------------------------------------------------------------


def test_a_turn_is_sat_out_once() -> None:
    one, clock = Pace(0.2, OwnSlate()), Clock()
    for _ in range(3):
        one.wait(clock, clock.sleep, patient=False)
    assert clock.waits == pytest.approx([4.95, 5.0], abs=1e-4)


def test_whoever_waits_when_a_429_comes_gets_in_line_again() -> None:
    slate, clock = OwnSlate(), Clock()
    waiting, refused = Pace(0.5, slate), Pace(0.5, slate)
    waiting.turn(NOW)

    def sleep(seconds: float) -> None:
        if not clock.waits:
            refused.refused(NOW, 6.0)
        clock.sleep(seconds)

    waiting.wait(clock, sleep, patient=False)
    assert clock.now == pytest.approx(NOW + 6.0, abs=1e-3)
    assert len(clock.waits) == 2


def test_a_far_turn_is_for_the_caller_to_queue() -> None:
    one, clock = Pace(5.0, OwnSlate()), Clock()
    one.refused(NOW, 30.0)
    with pytest.raises(RateLimited, match="Nothing was sent now") as caught:
        one.wait(clock, clock.sleep, patient=False)
    assert caught.value.retry_after == pytest.approx(30.0, abs=1e-3)
    assert (caught.value.charged, clock.waits) == ("no", [])


def test_the_patient_wait_in_pieces() -> None:
    one, clock = Pace(5.0, OwnSlate()), Clock()
    one.refused(NOW, 25.0)
    one.wait(clock, clock.sleep, patient=True)
    assert clock.waits == pytest.approx([10.0, 10.0, 5.0], abs=1e-3)


def test_nobody_sits_through_one_429_after_another() -> None:
    slate, clock = OwnSlate(), Clock()
    waiting, refused = Pace(5.0, slate), Pace(5.0, slate)
    waiting.turn(NOW)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        refused.refused(clock.now, 4.0)

    with pytest.raises(RateLimited):
        waiting.wait(clock, sleep, patient=False)
    assert LONGEST_SIT < clock.now - NOW <= 2 * LONGEST_SIT


# --- what is on the slate ------------------------------------------------------------------------------------------

numbers = st.floats() | st.integers() | st.none() | st.text(max_size=3) | st.booleans()


@given(st.lists(numbers, max_size=7) | numbers | st.dictionaries(st.text(max_size=2), numbers, max_size=6))
def test_no_state_jams_it_or_lifts_the_limit(foreign: Any) -> None:
    slate = OwnSlate()
    slate.update(lambda _: foreign)
    one = Pace(5.0, slate)
    assert one.free_in(NOW) <= 60 + LONGEST_SIT + 64 / 5.0 + 5
    one.accepted(NOW)
    one.refused(NOW, 1.0)
    waits = [one.turn(NOW + 90.0) for _ in range(3)]
    assert waits == sorted(line(*waits))
    assert line(*waits)[-1] >= 2 * (0.2 - TOLERANCE)


@pytest.mark.parametrize("ahead", [120.0, 3600.0, 1e9, math.inf])
@pytest.mark.parametrize("place", [2, 3, 4])
def test_moments_of_another_clock_are_stale(ahead: float, place: int) -> None:
    slate = OwnSlate()
    Pace(5.0, slate).refused(NOW, 1.0)
    slate.update(lambda state: [*state[:place], NOW + ahead, *state[place + 1 :]])
    assert Pace(5.0, slate).turn(NOW) == 0.0


def test_the_longest_wait_there_is_counts_as_true() -> None:
    slate = OwnSlate()
    one = Pace(0.05, slate)
    for _ in range(10):
        one.refused(NOW, 60.0)
    one.turn(NOW + 59.0)
    assert Pace(0.05, slate).free_in(NOW + 59.0) == pytest.approx(1.0 + 40.0, abs=1e-3)


# --- where it lies -------------------------------------------------------------------------------------------------


def test_an_account_is_one_file_without_its_secret(pace_folder: Path) -> None:
    for _ in range(3):
        Pace.of(settings()).turn(NOW)
    [file] = pace_folder.iterdir()
    assert "secret" not in f"{file.name}{file.read_text()}"
    assert len(json.loads(file.read_text())) == 5
    Pace.of(settings(api_key="sk-other")).turn(NOW)
    Pace.of(settings(base_url="http://127.0.0.1:1")).turn(NOW)
    assert len(list(pace_folder.iterdir())) == 3


def test_the_rate_is_the_connections(pace_folder: Path) -> None:
    waits = [Pace.of(settings(submit_rate=2.0)).turn(NOW) for _ in range(3)]
    assert waits == pytest.approx([0.0, 0.45, 0.95], abs=1e-4)


@pytest.mark.parametrize("fault", ["link", "nowhere", "no locks"])
def test_what_cannot_be_shared_is_paced_by_the_process_alone(
    pace_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    def nowhere() -> Path:
        raise FileNotFoundError("no usable temporary directory")

    if fault == "link":
        pace_folder.symlink_to(pace_folder.parent)
    elif fault == "nowhere":
        monkeypatch.setattr(rate_limiter, "slate_folder", nowhere)
    else:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    with caplog.at_level(logging.DEBUG, rate_limiter.__name__):
        waits = [Pace.of(settings()).turn(NOW) for _ in range(3)]
    assert waits == pytest.approx([0.0, 0.15, 0.35], abs=1e-4)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "paces its submits by itself" in record.getMessage()
    assert fault == "nowhere" or str(pace_folder) in record.getMessage()
