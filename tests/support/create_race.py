"""Processes that create the same names at the same moments: how many believe of each that they did?"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from typing import Any

from airflow_provider_nanobanana.landing.storage.base import Storage

PROCESSES = 6
NAMES = 500


def assert_created_once(opened: Callable[[], Storage], names: int = NAMES) -> None:
    """Assert that one of six processes created each of so many names, and that its content is there, whole.

    Tried one after another, a place that looks first and writes then passes, too.

    :param opened: Opens the place, in each process anew.
    """
    forked = multiprocessing.get_context("fork")
    barrier, results = forked.Barrier(PROCESSES), forked.Queue()
    processes = [
        forked.Process(target=_create_all, args=(opened, number, names, barrier, results))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    winners: dict[int, list[int]] = dict(results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    won = Counter(name for created in winners.values() for name in created)
    assert won == dict.fromkeys(range(names), 1)
    place = opened()
    for number, created in winners.items():
        for name in created[:20]:
            assert place.read(_file(name), 10_000) == _content(number), "whole, and the winner's"


def _create_all(opened: Callable[[], Storage], number: int, names: int, barrier: Any, results: Any) -> None:
    place = opened()
    won = []
    for name in range(names):
        barrier.wait(60)
        if place.create(_file(name), _content(number)):
            won.append(name)
    results.put((number, won))


def _file(name: int) -> str:
    return f"{name}.g0.json"


def _content(number: int) -> bytes:
    return b"%d" % number * 300
