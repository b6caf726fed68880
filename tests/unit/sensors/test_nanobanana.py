"""The ids a sensor is given: one, many, lazily, with holes - or something that is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.sensors.nanobanana import read_ids
from airflow_provider_nanobanana.toapis.errors import InvalidRequest


class Lazy(Sequence[Any]):
    """As Airflow's lazy XCom sequence: iterable, sized, and no list."""

    def __init__(self, *entries: Any) -> None:
        self._entries = entries

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)


def generated(*entries: Any) -> Iterator[Any]:
    yield from entries


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ("tsk_1", ["tsk_1"]),
        (" tsk_1\n", ["tsk_1"]),
        (["b", "a"], ["b", "a"]),
        (("b", "a", "b"), ["b", "a"]),
        (Lazy("a", None, "b"), ["a", "b"]),
        (generated("a", None), ["a"]),
        ([None, None], []),
        ([], []),
        (None, []),
        (["task-1:x.y_z/ü%"], ["task-1:x.y_z/ü%"]),
    ],
)
def test_ids_in_order_each_once(value: Any, ids: list[str]) -> None:
    assert read_ids(value) == ids


def test_the_address_that_a_lost_xcom_leaves_is_no_id() -> None:
    with pytest.raises(InvalidRequest, match="an XCom whose object is gone"):
        read_ids("s3://store@bucket/xcom/shop/run/submit/0c9d")


@pytest.mark.parametrize("value", [3, 3.5, True, object(), b"tsk_1", {"id": "tsk_1"}])
def test_what_is_no_list_of_ids_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="one id or a list of ids"):
        read_ids(value)


@pytest.mark.parametrize("entry", [3, "", "  ", ["a"], {"id": "a"}, b"a", True])
def test_an_entry_that_is_no_id_is_named(entry: Any) -> None:
    with pytest.raises(InvalidRequest, match="no image task id"):
        read_ids(["a", entry])


@pytest.mark.parametrize("text", ["['a', 'b']", '["a"]', "{'id': 'a'}", "(1,)", "a, b", "a b", "a\nb", "a,b"])
def test_a_rendered_list_is_recognised_and_the_way_out_named(text: str) -> None:
    for value in (text, [text]):
        with pytest.raises(InvalidRequest, match="render_template_as_native_obj"):
            read_ids(value)


def test_a_huge_entry_is_not_quoted_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_ids([["x" * 10_000]])
    assert len(caught.value.message) < 200


@given(st.recursive(st.none() | st.text(max_size=8) | st.integers() | st.binary(max_size=3), st.lists, max_leaves=6))
def test_anything_is_a_list_of_distinct_ids_or_refused(value: Any) -> None:
    try:
        ids = read_ids(value)
    except InvalidRequest:
        return
    assert len(set(ids)) == len(ids) and all(i and i == i.strip() for i in ids)
