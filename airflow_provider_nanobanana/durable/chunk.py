"""One value of the stored ledger: so many entries, and what the shelf holds of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.durable.entry import Entry
from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.shelf import Shelf

VERSION: Final = 1
#: An entry takes 170 to 300 bytes, 580 at its very worst: a chunk stays below 48 kB, and below Airflow's 65,535 always.
MAX_KEYS: Final = 100
#: Bytes that no stored entry with its key passes.
MAX_ENTRY_BYTES: Final = 600


class Chunk:
    """Entries stored under one name; a key never moves to another chunk.

    :param name: Its name on the shelf.
    :ivar keys: Keys in it, in the order in which they came.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: list[str] = []
        self._saved: Mapping[str, Entry] | None = {}
        #: What the shelf may hold, if nobody else wrote: more than one text after a write of unknown outcome.
        self._texts: set[str | None] = {None}

    @classmethod
    def read(cls, shelf: Shelf, name: str) -> Chunk | None:
        """Return the chunk of this name, or None where there is none.

        :raises TransientFailure: It could not be read, or not be understood.
        """
        text = shelf.read(name)
        if text is None:
            return None
        chunk = cls(name)
        value = parse(name, text)
        try:
            saved = {key: Entry.from_json(entry) for key, entry in value["entries"].items()}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise unreadable(name, f"{type(error).__name__}: {error}") from error
        chunk.keys = list(saved)
        chunk._saved = saved
        chunk._texts = {text}
        return chunk

    @property
    def lists_all(self) -> bool:
        """Whether the shelf certainly lists every key, in whatever form."""
        return self._saved is not None and len(self._saved) == len(self.keys)

    def saved(self, key: str) -> Entry | None:
        """Return the form that the shelf certainly holds; None where there is none or where that is not certain."""
        return None if self._saved is None else self._saved.get(key)

    def entries(self) -> Mapping[str, Entry]:
        """Return what was read."""
        return {} if self._saved is None else self._saved

    def write(self, shelf: Shelf, writer: str, entries: Mapping[str, Entry]) -> bool:
        """Write the entries, if they are not what the shelf holds, and say whether anything was written.

        :param writer: Tells this attempt's text from those of others.
        :raises TransientFailure: Somebody else wrote meanwhile, or it is not known to be kept.
        """
        if self._saved == entries:
            return False
        if shelf.read(self.name) not in self._texts:
            self._saved = None
            raise overtaken(self.name)
        stored = {"version": VERSION, "writer": writer, "entries": {key: entries[key].to_json() for key in self.keys}}
        text = json.dumps(stored, separators=(",", ":"), allow_nan=False)
        # Until the shelf says that it kept the text, it may hold either, and neither can be relied on.
        self._saved = None
        self._texts.add(text)
        shelf.write(self.name, text)
        self._saved = dict(entries)
        self._texts = {text}
        return True


def parse(name: str, text: str) -> dict[str, Any]:
    """Return a stored value of our version.

    :raises TransientFailure: It is none; that is never the same as "there is none".
    """
    try:
        value = json.loads(text)
        version = value["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(name, f"{type(error).__name__}: {error}") from error
    if version != VERSION:
        raise unreadable(name, f"version {version!r}, not {VERSION}")
    return dict(value)


def overtaken(name: str) -> TransientFailure:
    """Return the error for a text that somebody else wrote since we read or wrote it."""
    return TransientFailure(
        f"Another attempt of this task instance is at work: it wrote {name!r} meanwhile. This one stops; what it "
        "bought is found again by its client ids.",
        charged="unknown",
    )


def unreadable(name: str, why: str) -> TransientFailure:
    """Return the error for a ledger that is there and cannot be understood."""
    return TransientFailure(
        f"The ledger of this batch ({name!r} in the task's state store) cannot be understood ({why}); nothing was sent "
        "now. It was written by another version of this provider, or by hand.",
        charged="unknown",
    )
