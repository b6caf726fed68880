"""What records come to: exact sums however they are split, and each image task once, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.batch.spend import (
    DIMENSIONS,
    IN_TIME,
    OUTCOMES,
    Dimension,
    SpendRecord,
    SpendTable,
    SpendTotals,
    summarise,
)

ALL: list[Dimension] = list(DIMENSIONS)


@st.composite
def records(draw: st.DrawFn) -> SpendRecord:
    paid = draw(st.none() | st.integers(0, 90_000))
    lost_race = draw(st.integers(0, paid or 0))
    return SpendRecord(
        draw(st.sampled_from(OUTCOMES)),
        draw(st.sampled_from(["", "", "a", "b", "c"])),
        draw(st.sampled_from(["s3://one", "s3://two"])),
        draw(st.sampled_from(["kites", "boats"])),
        draw(st.sampled_from(["monday", "tuesday"])),
        "generate",
        draw(st.sampled_from([-1, 0])),
        draw(st.sampled_from(["", "2026-10-31", "2026-11-01", "2026-11-02"])),
        draw(st.sampled_from(["nano_banana_2", "other"])),
        draw(st.sampled_from(["a hat", "a kite", "größe", "\ud800"])),
        paid,
        draw(st.integers(lost_race, paid or 0)),
        lost_race,
    )


def added(tables: Sequence[SpendTotals]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*map(astuple, tables), strict=True)))


@given(st.lists(records(), max_size=12), st.integers(1, 4) | st.none())
def test_every_sum_is_the_sum_of_its_parts_whichever_way_it_is_split(some: list[SpendRecord], most: int | None) -> None:
    summary = summarise(some, ALL, most=most)
    assert summary.totals == summarise(some).totals
    for dimension in ALL:
        table = summary.tables[dimension]
        assert most is None or len(table.groups) <= most
        assert added([SpendTotals(), *(group.totals for group in table.groups), table.others]) == astuple(
            summary.totals
        )
        assert table.left_out or table.others == SpendTotals()
        keys = [group.key for group in table.groups]
        assert len(set(keys)) == len(keys)
        if dimension in IN_TIME:
            assert keys == sorted(keys)
        else:
            paid = [group.totals.paid for group in table.groups]
            assert paid == sorted(paid, reverse=True)


@given(st.data(), st.lists(records(), max_size=8))
def test_the_order_of_the_records_does_not_matter(data: st.DataObject, some: list[SpendRecord]) -> None:
    shuffled = data.draw(st.permutations(some))
    assert summarise(iter(shuffled), ALL) == summarise(some, ALL)


@given(st.lists(records(), max_size=12), st.integers(1, 3))
def test_what_is_left_out_is_the_end_of_the_whole_table(some: list[SpendRecord], most: int) -> None:
    for dimension in ALL:
        whole = summarise(some, [dimension]).tables[dimension]
        cut = summarise(some, [dimension], most=most).tables[dimension]
        kept = list(whole.groups)[-most:] if dimension in IN_TIME else list(whole.groups)[:most]
        assert list(cut.groups) == kept
        assert cut.left_out == len(whole.groups) - len(kept)


@given(st.lists(records(), max_size=12))
def test_no_image_task_is_paid_twice_and_none_is_forgotten(some: list[SpendRecord]) -> None:
    dearest: dict[str, int] = {}
    for record in some:
        if record.image_task_id and record.outcome != "booked":
            dearest[record.image_task_id] = max(dearest.get(record.image_task_id, 0), record.paid or 0)
    totals = summarise(some).totals
    assert totals.paid >= sum(dearest.values())
    assert totals.paid <= sum(record.paid or 0 for record in some)


BOUGHT = SpendRecord("bought", "tsk_1", "s3://one", "kites", "monday", "generate", -1, "2026-11-01", paid=25_000)


def totals(*some: SpendRecord) -> dict[str, Any]:
    return {name: value for name, value in summarise(some).totals.plain().items() if value}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        # Another run says that it bought the same: it was shared.
        (replace(BOUGHT, run_id="tuesday"), {"bought": 1, "shared": 1}),
        # Downloaded to another place.
        (replace(BOUGHT, destination="s3://two"), {"bought": 1, "shared": 1}),
        # A book tells of what a manifest tells: once.
        (replace(BOUGHT, outcome="booked", paid=40_000, listed=40_000), {"bought": 1}),
        # One run could not land what another did.
        (replace(BOUGHT, outcome="missing", run_id="a"), {"bought": 1, "missing": 1}),
        # One did not know the price, or estimated it.
        (replace(BOUGHT, run_id="a", paid=None), {"bought": 1, "shared": 1}),
        # What was lost in a race is another image task's, and stays paid.
        (replace(BOUGHT, run_id="tuesday", lost_race=5_000), {"bought": 1, "shared": 1, "lost_race_usd": 0.005}),
    ],
)
def test_two_records_of_one_image_task_pay_once(other: SpendRecord, expected: dict[str, Any]) -> None:
    for pair in ((BOUGHT, other), (other, BOUGHT)):
        paid = round(0.025 + expected.get("lost_race_usd", 0), 6)
        assert totals(*pair) == {"paid_usd": paid, **expected}


def test_records_without_an_image_task_never_meet() -> None:
    reused = replace(BOUGHT, outcome="reused", image_task_id="", paid=0)
    assert totals(reused, reused) == {"reused": 2}


def test_what_nobody_has_reported_counts_at_what_the_record_says_and_stands_apart() -> None:
    booked = replace(BOUGHT, outcome="booked", listed=25_000)
    assert totals(booked, booked) == {"paid_usd": 0.025, "of_which_listed_usd": 0.025, "booked": 1}


def test_an_unknown_price_is_in_no_sum_and_is_counted() -> None:
    assert totals(replace(BOUGHT, paid=None)) == {"unpriced": 1, "bought": 1}


def test_what_was_paid_for_requests_of_an_earlier_list_is_a_sum_and_no_image() -> None:
    assert totals(replace(BOUGHT, outcome="earlier", image_task_id="")) == {"paid_usd": 0.025, "earlier_usd": 0.025}


def test_groups_are_told_apart_by_all_of_their_key() -> None:
    other = replace(BOUGHT, image_task_id="tsk_2", dag_id="boats", day="2026-10-31", paid=30_000)
    tables = summarise([BOUGHT, other], ["run", "month", "day"]).tables
    assert [group.key for group in tables["run"].groups] == [("boats", "monday"), ("kites", "monday")]
    assert [group.key for group in tables["month"].groups] == [("2026-10",), ("2026-11",)]
    assert [group.totals.paid for group in tables["day"].groups] == [30_000, 25_000]


def test_no_records_come_to_nothing() -> None:
    summary = summarise([], ["dag", "request"])
    assert summary.totals == SpendTotals()
    assert summary.tables == {"dag": SpendTable([]), "request": SpendTable([])}


def test_a_request_among_thousands_is_in_the_table_whenever_it_comes() -> None:
    def many() -> Any:
        for number in range(5_000):
            yield replace(BOUGHT, image_task_id=str(number), request=f"picture {number}", paid=number % 700)
        yield replace(BOUGHT, image_task_id="dearest", request="the dearest", paid=1_000)

    table = summarise(many(), ["request"], most=2).tables["request"]
    assert [group.key for group in table.groups] == [("the dearest",), ("picture 1399",)]
    assert table.left_out == 4_999
    assert table.others.bought == 4_999
