"""What a task instance has counted, over its tries: never twice where Airflow remembers, and never a reason to fail."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_nanobanana.durable.counted import NAME, not_counted_before
from airflow_provider_nanobanana.durable.state_store import encode
from tests.support.task_state_store import MemoryTaskStateStore


def context(store: Any) -> dict[str, Any]:
    return {"task_state_store": store}


def test_each_id_is_new_once() -> None:
    store = MemoryTaskStateStore()
    assert not_counted_before(context(store), ["a", "b"]) == {"a", "b"}
    assert not_counted_before(context(store), ["b", "c"]) == {"c"}
    assert not_counted_before(context(store), ["a", "b", "c"]) == set()


def test_an_airflow_that_keeps_no_state_counts_each_time() -> None:
    assert not_counted_before({}, ["a"]) == not_counted_before(context(None), ["a"]) == {"a"}


@pytest.mark.parametrize("stored", ["no base64", "e30=", 17])
def test_what_cannot_be_understood_costs_a_second_count_and_no_task(stored: Any) -> None:
    store = MemoryTaskStateStore()
    store.set(NAME, stored, retention=None)
    assert not_counted_before(context(store), ["a"]) == {"a"}


def test_a_store_that_cannot_be_asked_costs_no_task() -> None:
    class Gone:
        def get(self, name: str) -> str:
            raise OSError("gone")

    assert not_counted_before(context(Gone()), ["a"]) == {"a"}
    assert not_counted_before(context(Gone()), []) == set()


def test_eight_thousand_ids_are_stored_without_a_warning() -> None:
    store = MemoryTaskStateStore()
    not_counted_before(context(store), [f"tsk_img_{number:026d}" for number in range(8_000)])
    assert len(store.get(NAME)) < 65_535


def test_what_a_newer_version_counted_is_not_written_over() -> None:
    store = MemoryTaskStateStore()
    store.set(NAME, newer := encode({"version": 2, "seen": {}}))
    assert not_counted_before(context(store), ["a"]) == {"a"}
    assert store.get(NAME) == newer
