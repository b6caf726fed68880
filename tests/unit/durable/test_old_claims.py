"""What goes, and what stays: nothing younger than a week, and no part of a chain."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable.claims import claim_name
from airflow_provider_nanobanana.durable.old_claims import (
    OLD_SECONDS,
    SWEEP_OVER,
    Entry,
    is_sweep_under_way,
    may_be_swept,
    next_marker,
    old_books,
    old_claims,
    older_markers,
)

NOW = 1_795_698_873.0
DAY = 86400.0

AGES = st.one_of(st.none(), st.floats(-DAY, 14 * DAY), st.just(OLD_SECONDS))
STEMS = ["kite-0", "kite-1", "Kite-0", "kite-0.g1", "a.b-5f0c6e9a1b"]
CLAIMS = st.dictionaries(st.tuples(st.sampled_from(STEMS), st.integers(0, 12)), AGES, max_size=20)


def entry(name: str, age: float | None) -> Entry:
    return name, None if age is None else NOW - age


@given(CLAIMS)
def test_chains_of_more_than_a_week_go_from_the_highest_down(ages: dict[tuple[str, int], float | None]) -> None:
    given_names = {f"{claim_name(stem, n)}.json": (stem, n, age) for (stem, n), age in ages.items()}
    chains = old_claims((entry(name, age) for name, (_, _, age) in given_names.items()), NOW)
    gone = {name for chain in chains for name in chain}
    assert len(gone) == sum(map(len, chains))
    for chain in chains:
        # Whatever was removed by the time it is broken off, what is left is the lower end of what there was.
        for done in range(len(chain) + 1):
            left, removed = (
                [given_names[name][1] for name in chain[done:]],
                [given_names[name][1] for name in chain[:done]],
            )
            assert not left or not removed or max(left) <= min(removed)
    for name, (stem, _, age) in given_names.items():
        alike = [other for s, _, other in given_names.values() if s.lower() == stem.lower()]
        old = all(other is not None and other > OLD_SECONDS for other in alike)
        assert (name in gone) == old, (name, age)


@pytest.mark.parametrize(
    "name",
    [
        "kite-0.g007.json",
        "kite-0.g٣.json",
        "kite-0.g1000000.json",
        "kite-0.g.json",
        "kite-0.json",
        "kite-0.g0.json.part",
        ".kite-0.g0.json.0123456789abcdef.part",
        "README.txt",
        "a b.g0.json",
        "*.g0.json",
    ],
)
def test_what_is_no_claim_stays(name: str) -> None:
    assert old_claims([entry(name, 30 * DAY)], NOW) == []


def test_books_go_by_age_alone() -> None:
    ages: Sequence[tuple[str, float | None]] = [
        ("a" * 32 + ".json", OLD_SECONDS + 1),
        ("b" * 32 + ".json", OLD_SECONDS),
        ("c" * 32 + ".json", None),
        ("d" * 31 + ".json", 30 * DAY),
        ("notes.txt", 30 * DAY),
        ("e" * 32 + ".json", -DAY),
    ]
    assert old_books((entry(name, age) for name, age in ages), NOW) == ["a" * 32 + ".json"]


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ({}, "swept-0"),
        ({"swept-0": DAY}, "swept-1"),
        ({"swept-0": DAY - 1}, None),
        ({"swept-7": 30 * DAY, "swept-12": 2 * DAY, "now": 0.0}, "swept-13"),
        ({"swept-7": 1.0, "swept-12": 2 * DAY}, None),
        ({"swept-7": None}, None),
        # Of a store whose clock was set back.
        ({"swept-7": -30 * DAY}, "swept-8"),
        ({"swept-7": -60.0}, None),
        ({"swept-x": 1.0, "swept-007": 1.0}, "swept-0"),
    ],
)
def test_one_sweep_a_day_has_the_next_marker(ages: dict[str, float | None], expected: str | None) -> None:
    assert next_marker([entry(name, age) for name, age in ages.items()], NOW) == expected


def test_the_last_marker_stays() -> None:
    names = ["swept-9", "swept-10", "swept-3", "now"]
    assert sorted(older_markers([entry(name, DAY) for name in names])) == ["swept-3", "swept-9"]
    assert older_markers([entry("now", DAY)]) == []


@pytest.mark.parametrize(
    ("age", "expected"), [(0.0, True), (SWEEP_OVER - 1, True), (SWEEP_OVER, False), (-5.0, True), (None, True)]
)
def test_a_sweep_is_under_way_for_two_minutes(age: float | None, expected: bool) -> None:
    assert is_sweep_under_way([entry("swept-1", 3 * DAY), entry("swept-2", age)], NOW) == expected
    assert not is_sweep_under_way([entry("now", 0.0)], NOW)


@pytest.mark.parametrize(
    ("age", "written_at", "expected"), [(6.5 * DAY, NOW, True), (0.0, None, True), (5.9 * DAY, NOW, False)]
)
def test_what_a_sweep_may_remove_begins_a_day_earlier(age: float, written_at: float | None, expected: bool) -> None:
    assert may_be_swept(age, written_at) == expected
