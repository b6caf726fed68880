"""The task's state store of Airflow 3.3 as a folder: what a killed process had set is there for the next."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_WRITES = "writes"


class FileStore:
    """Keeps each value in a file of its own, as the JSON that Airflow stores."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        path = self._folder / f"{key}.json"
        return json.loads(path.read_text()) if path.exists() else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Keep a value; a kill in the middle leaves the old one."""
        text = json.dumps(value)
        draft = self._folder / "draft"
        draft.write_text(text)
        os.replace(draft, self._folder / f"{key}.json")
        with (self._folder / _WRITES).open("a") as writes:
            writes.write(f"{key} {len(text.encode())}\n")


@dataclass(frozen=True)
class Sizes:
    """What one task instance keeps in its state store; sizes in bytes of the stored JSON.

    :param values: How many values there are.
    :param total: Bytes of all of them.
    :param largest: Bytes of the largest value that was ever set.
    :param writes: How often a value was set.
    :param written: Bytes of all that was ever set.
    """

    values: int
    total: int
    largest: int
    writes: int
    written: int

    @classmethod
    def of(cls, folder: Path) -> Sizes:
        """Return the sizes of the store in a folder."""
        kept = [path.stat().st_size for path in folder.glob("*.json")]
        notes = folder / _WRITES
        lines = notes.read_text().splitlines() if notes.exists() else []
        written = [int(line.rpartition(" ")[2]) for line in lines]
        return cls(len(kept), sum(kept), max(written, default=0), len(written), sum(written))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)
