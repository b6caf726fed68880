"""State stores: what Airflow keeps is checked, what it cannot say is never "nothing there"."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.state_store import (
    InMemoryStateStore,
    StateStore,
    TaskStateStore,
    XComStateStore,
    state_store_for,
)
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.ledger import key, landed
from tests.support.task_state_store import MemoryTaskStateStore

TEXT = '{"version":1}'


class Instance:
    """A task instance of Airflow before 3.3, with the XComs of the whole run."""

    def __init__(self, broken: str = "", task_id: str = "pictures", map_index: int = -1) -> None:
        self.broken, self.task_id, self.map_index = broken, task_id, map_index
        self.xcoms: dict[tuple[str, int, str], Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        if self.broken == "set":
            raise ConnectionError("no api server")
        if self.broken != "lost":
            self.xcoms[self.task_id, self.map_index, key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: str, key: str, *, map_indexes: int) -> Any:
        if self.broken == "get":
            raise TypeError("Expected XComResult, received: ErrorResponse")
        return self.xcoms.get((task_ids, map_indexes, key))


def store_of(kind: str, broken: str = "") -> StateStore:
    return TaskStateStore(MemoryTaskStateStore(broken)) if kind == "store" else XComStateStore(Instance(broken))


@pytest.mark.parametrize("kind", ["store", "xcom"])
def test_what_was_written_is_read(kind: str) -> None:
    kept = store_of(kind)
    assert kept.read("a") is None
    kept.write("a", TEXT)
    kept.write("b", "other")
    assert (kept.read("a"), kept.read("b")) == (TEXT, "other")


@pytest.mark.parametrize("kind", ["store", "xcom"])
def test_a_whole_ledger_goes_through_airflows_json(kind: str) -> None:
    kept = store_of(kind)
    ledger = Ledger.load(kept)
    for number in range(120):
        ledger.put(key(number), landed(number))
    ledger.save()
    assert dict(Ledger.load(kept).items()) == {key(number): landed(number) for number in range(120)}


@pytest.mark.parametrize("kind", ["store", "xcom"])
def test_what_cannot_be_read_is_never_nothing(kind: str) -> None:
    with pytest.raises(TransientFailure, match="nothing was sent now") as caught:
        store_of(kind, "get").read("a")
    assert caught.value.charged == "unknown"


@pytest.mark.parametrize("kind", ["store", "xcom"])
@pytest.mark.parametrize("broken", ["get", "set", "lost"])
def test_a_write_that_is_not_kept_is_noticed(kind: str, broken: str) -> None:
    """The store's own ``set`` swallows an error of the API server (Airflow 3.3.2)."""
    with pytest.raises(TransientFailure, match="could not be written") as caught:
        store_of(kind, broken).write("a", TEXT)
    assert caught.value.charged == "unknown"


@pytest.mark.parametrize("value", [{}, 7, [TEXT], True])
def test_a_value_that_is_no_text_is_not_ours(value: Any) -> None:
    store, instance = MemoryTaskStateStore(), Instance()
    store.rows["a"] = json.dumps(value)
    instance.xcoms["pictures", -1, "a"] = value
    for kept in (TaskStateStore(store), XComStateStore(instance)):
        with pytest.raises(TransientFailure, match="no text"):
            kept.read("a")


def test_the_ledger_never_expires() -> None:
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]

    store = MemoryTaskStateStore()
    TaskStateStore(store).write("a", TEXT)
    assert store.retention is NEVER_EXPIRE


def test_mapped_instances_do_not_read_each_others_xcoms() -> None:
    one, other = Instance(map_index=0), Instance(map_index=1)
    other.xcoms = one.xcoms
    XComStateStore(one).write("a", TEXT)
    assert (XComStateStore(one).read("a"), XComStateStore(other).read("a")) == (TEXT, None)


def test_the_real_task_instance_pulls_what_it_pushed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own ``xcom_pull`` turns our call into one look-up of this very task instance."""
    from airflow.sdk.execution_time import task_runner

    asked: list[dict[str, Any]] = []

    def get_one(**which: Any) -> str:
        asked.append(which)
        return TEXT

    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.XCom.get_one", get_one)
    place = {"dag_id": "d", "run_id": "r", "task_id": "pictures", "map_index": 3}
    ti: Any = SimpleNamespace(**place, task=SimpleNamespace(task_id="pictures"))
    runtime = task_runner.RuntimeTaskInstance
    ti._normalize_xcom_pull_params = lambda *given: runtime._normalize_xcom_pull_params(ti, *given)
    ti.xcom_pull = lambda **given: runtime.xcom_pull(ti, **given)
    assert XComStateStore(ti).read("a") == TEXT
    assert asked == [{**place, "key": "a", "include_prior_dates": False}]


def test_the_store_is_the_best_that_this_airflow_has() -> None:
    assert isinstance(state_store_for({"task_state_store": MemoryTaskStateStore(), "ti": Instance()}), TaskStateStore)
    assert isinstance(state_store_for({"ti": Instance()}), XComStateStore)


def test_a_memory_store_shares_the_texts_it_was_given() -> None:
    texts = {"a": TEXT}
    InMemoryStateStore(texts).write("b", "other")
    again = InMemoryStateStore(texts)
    assert (again.read("a"), again.read("b"), InMemoryStateStore().read("a")) == (TEXT, "other", None)
