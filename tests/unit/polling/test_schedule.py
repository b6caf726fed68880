"""The poll queue, over hours of simulated time."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.polling.schedule import PollQueue, first_poll_at, next_poll_at
from airflow_provider_nanobanana.toapis.rate_pacer import LONGEST_WAIT, RatePacer

START = 1_790_000_000.0
NEVER = START + 1e9


def filled(count: int, deadline: float = NEVER) -> PollQueue:
    queue = PollQueue()
    for number in range(count):
        queue.add(f"t{number}", START, deadline)
    return queue


def simulate(
    queue: PollQueue, *, seconds: float, rate: float, interval: float = 5.0, pacer: RatePacer | None = None
) -> dict[str, list[float]]:
    """Return the moments at which each image task was polled, none of them ever ending."""
    pacer, chance = pacer or RatePacer(rate), random.Random(1)
    polls: dict[str, list[float]] = {name: [] for name in queue._planned}
    now = START
    while now < START + seconds:
        moment = queue.next_moment(pacer.rate_at(now))
        assert moment is not None
        now = max(now, moment)
        now += pacer.reserve(now)
        due = queue.pop_due(now, pacer.rate_at(now))
        assert due is not None
        polls[due[0]].append(now)
        queue.requeue(due[0], next_poll_at([interval], None, now=now, jitter=chance.uniform(-1, 1)))
    return polls


@pytest.mark.parametrize(
    ("created_at", "not_before", "moment"),
    [(990.0, 0.0, 1008.0), (1500.0, 0.0, 1018.0), (900.0, 0.0, 1000.0), (None, 0.0, 1000.0), (990.0, 1030.0, 1030.0)],
)
def test_a_first_poll_comes_when_it_pays_whatever_the_clock_of_the_service(
    created_at: float | None, not_before: float, moment: float
) -> None:
    assert first_poll_at(created_at, 18.0, now=1000.0, not_before=not_before) == moment


def test_the_next_poll_goes_by_the_shortest_interval_unless_the_service_asks_for_more() -> None:
    assert next_poll_at([30.0, 5.0], None, now=100.0, jitter=0.0) == 105.0
    assert next_poll_at([10.0], None, now=100.0, jitter=-1.0) == 109.0
    assert next_poll_at([5.0], 60.0, now=100.0, jitter=1.0) == 160.0
    assert next_poll_at([5.0], 1e9, now=0.0, jitter=0.0) == LONGEST_WAIT


def gaps(polls: dict[str, list[float]]) -> list[float]:
    return [late - early for times in polls.values() for early, late in itertools.pairwise(times)]


def test_an_hour_of_a_thousand_image_tasks() -> None:
    """At 50 polls a second and an interval of 5 s, a thousand wait 20 s each: evenly, nobody starves."""
    polls = simulate(filled(1000), seconds=3600, rate=50.0)
    assert 19.0 <= min(gaps(polls)) <= max(gaps(polls)) <= 22.0
    counts = [len(times) for times in polls.values()]
    assert max(counts) - min(counts) <= 2
    assert sum(counts) >= 0.99 * 50 * 3600


def test_a_few_image_tasks_keep_their_own_interval() -> None:
    polls = simulate(filled(10), seconds=600, rate=50.0)
    assert 4.5 - 1e-5 <= min(gaps(polls)) <= max(gaps(polls)) <= 5.7


def test_a_reduced_rate_starves_nobody() -> None:
    pacer = RatePacer(50.0)
    for number in range(7):
        pacer.on_rate_limited(START - 8 + 1.1 * number, 0.0)
    assert pacer.rate_at(START - 1.4) == 6.25
    assert max(gaps(simulate(filled(100), seconds=600, rate=50.0, pacer=pacer))) <= 100 / 6.25 + 6


@given(st.lists(st.tuples(st.uuids().map(str), st.floats(0, 1e6)), max_size=30, unique_by=lambda one: one[0]))
def test_the_earliest_comes_first_and_each_once(entries: list[tuple[str, float]]) -> None:
    queue = PollQueue()
    for name, moment in entries:
        queue.add(name, moment, NEVER)
    taken: list[tuple[str, float]] = []
    while (next_moment := queue.next_moment(1.0)) is not None and next_moment < 2e6:
        assert queue.pop_due(next_moment - 1e-3, 1.0) is None, "nothing before it is due"
        due = queue.pop_due(next_moment + 3, 1.0)
        assert due is not None and due[1] == pytest.approx(3)
        taken.append((due[0], next_moment))
    assert sorted(taken) == sorted(entries)
    assert [moment for _, moment in taken] == sorted(moment for _, moment in entries)


def test_what_joins_twice_is_polled_once_and_what_left_is_not_polled() -> None:
    queue = filled(2)
    queue.add("t0", START + 99, NEVER)
    assert queue.pop_due(START, 1.0) == ("t0", 0.0), "it keeps the turn it has"
    queue.add("t0", START, NEVER)
    queue.discard("t1")
    assert len(queue) == 1 and queue.pop_due(START, 1.0) is None, "it is being polled"
    queue.requeue("t1", START)
    queue.requeue("t0", START + 5)
    assert queue.next_moment(1.0) == START + 5
    queue.discard("t0")
    assert len(queue) == 0 and queue.next_moment(1.0) is None


def test_one_that_left_and_came_back_has_one_turn() -> None:
    queue = filled(1)
    queue.discard("t0")
    queue.add("t0", START + 7, NEVER)
    assert queue.next_moment(1.0) == START + 7
    assert queue.pop_due(START + 7, 1.0) == ("t0", 0.0) and queue.pop_due(NEVER / 2, 1.0) is None


def test_a_last_poll_jumps_the_queue_before_the_deadline() -> None:
    """A thousand at 10 a second take 100 s a round; one whose time runs out does not wait for its turn."""
    queue = filled(1000)
    simulate(queue, seconds=50, rate=10.0)
    queue.add("late", START + 50, START + 90)
    polls = simulate(queue, seconds=90, rate=10.0)["late"]
    assert any(START + 60 <= moment <= START + 90 for moment in polls)


def test_a_last_poll_comes_two_seconds_before_the_deadline_when_there_is_time_for_all() -> None:
    queue = PollQueue()
    queue.add("a", START + 500, START + 100)
    queue.add("b", START + 10, START + 100)
    assert queue.pop_due(START + 10, 50.0) == ("b", 0.0)
    assert queue.next_moment(50.0) == START + 98
    assert queue.pop_due(START + 98, 50.0) == ("a", 0.0)
    assert queue.pop_due(START + 99, 50.0) is None, "b is being looked at"


def test_many_deadlines_at_once_are_served_in_time() -> None:
    polls = simulate(filled(500, deadline=START + 120), seconds=120, rate=50.0, interval=100.0)
    assert all(any(moment >= START + 105 for moment in times) for times in polls.values())


def test_far_deadlines_of_what_has_left_do_not_stay() -> None:
    queue = PollQueue()
    queue.add("held", START, NEVER)
    for number in range(50_000):
        queue.add(f"t{number}", START + 5, NEVER)
        queue.discard(f"t{number}")
    assert len(queue._deadlines) + len(queue._due) <= 2500
    assert queue.pop_due(START, 1.0) == ("held", 0.0)


def test_many_deadlines_of_one_image_task_cost_no_look_through_all_of_them_each_time() -> None:
    queue = PollQueue()
    for number in range(20_000):
        queue.add("shared", START, NEVER - number)
    assert len(queue._deadlines) == 20_000 < queue._compact_at
