"""MemoryTaskStateStore, FileTaskStateStore: the ``task_state_store`` that Airflow 3.3 puts into a task's context.

Values are kept as JSON texts, as Airflow keeps them, so that no test shares an object with what was stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.versions import STATE_STORE, gives

if not gives(STATE_STORE):
    import airflow.sdk

    # The word with which a stand-in for the store is called.
    vars(airflow.sdk).setdefault("NEVER_EXPIRE", None)


class MemoryTaskStateStore:
    """The store of one task instance, in memory.

    :param broken: The method that fails, ``get`` or ``set``; with ``lost`` a value that is set is not kept.
    :ivar rows: JSON texts by key.
    :ivar retention: What the last ``set`` asked for.
    """

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.rows: dict[str, str] = {}
        self.retention: Any = None

    def get(self, key: str, default: Any = None) -> Any:
        if self.broken == "get":
            raise ConnectionError("no api server")
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.broken == "set":
            raise ConnectionError("no api server")
        self.retention = retention
        if self.broken != "lost":
            self.rows[key] = json.dumps(value)


class FileTaskStateStore:
    """A store that outlives its process: each value is a file, which is there whole or not at all.

    :ivar writes: A file with one line a write, its size in bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.writes = folder / "writes"
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, default: Any = None) -> Any:
        path = self._folder / f"{key}.json"
        return json.loads(path.read_text()) if path.exists() else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        text = json.dumps(value)
        draft = self._folder / f".{key}"
        draft.write_text(text)
        draft.replace(self._folder / f"{key}.json")
        with self.writes.open("a") as writes:
            writes.write(f"{len(text)}\n")
