"""A worker's line to Airflow is not made for threads before 3.3: whatever of ours asks, asks alone."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_nanobanana.durable.checkpoint import AttemptCheckpoint, CheckpointStore
from airflow_provider_nanobanana.durable.state_store import TaskStateStore, XComStateStore
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing.storage.object_store import ObjectStorage
from airflow_provider_nanobanana.submission import references
from tests.support.images import picture

#: Seconds in which a second thread would come in, were it let.
_PATIENCE = 0.3


class Line:
    """Airflow's end; notices when two threads ask at once."""

    def __init__(self) -> None:
        self.shared = False
        self._both = threading.Barrier(2)
        self._rows: dict[str, Any] = {}

    def ask(self) -> None:
        try:
            self._both.wait(_PATIENCE)
        except threading.BrokenBarrierError:
            return
        self.shared = True

    def get(self, key: str) -> Any:
        self.ask()
        return self._rows.get(key)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.ask()
        self._rows[key] = value

    # As a task instance before 3.3.
    task_id, map_index = "pictures", -1

    def xcom_push(self, key: str, value: Any) -> None:
        self.set(key, value)

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        return self.get(key)


class Path:
    """A path object of Airflow's, whose file system asks for a connection."""

    conn_id, protocol, path = "team", "mem", "/box/a.png"

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def fs(self) -> Any:
        self._line.ask()
        return self

    def open(self, path: str, mode: str) -> io.BytesIO:
        return io.BytesIO(picture())


ASKERS: dict[str, Callable[[Line], Any]] = {
    "read the store": lambda line: TaskStateStore(line).read("a"),
    "write the store": lambda line: TaskStateStore(line).write("b", "text"),
    "read XCom": lambda line: XComStateStore(line).read("c"),
    "write XCom": lambda line: XComStateStore(line).write("d", "text"),
    "save the checkpoint": lambda line: CheckpointStore(TaskStateStore(line), AttemptCheckpoint(1, 0.0)).update(),
    "connection": lambda line: NanoBananaHook().settings,
    "reference": lambda line: references.read_reference("mem://team@box/a.png"),
    "destination": lambda line: ObjectStorage(Path(line)).check(),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("asker", ASKERS)
def test_nothing_asks_airflow_while_the_ledger_does(asker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()

    def connection(*args: Any) -> Any:
        line.ask()
        return Connection(conn_id="nb", conn_type="nanobanana", host="http://127.0.0.1", password="sk-example")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.BaseHook.get_connection", connection)
    monkeypatch.setattr(references, "object_path", lambda uri: Path(line))
    with ThreadPoolExecutor(2) as pool:
        for asking in [pool.submit(ASKERS[name], line) for name in (asker, "write the store")]:
            asking.result()
    assert not line.shared
