"""``Ledger``: what is known of every item of a batch, in memory while an attempt works, and in a store in chunks.

Nothing counts as remembered before :meth:`Ledger.save` returned; another attempt's text is never written over.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.durable.ledger_entry import (
    KEPT_ANYWHERE,
    MAX_ENTRY_BYTES,
    LedgerEntry,
    decode_entries,
    encode_entries,
)
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.state_store import check_version, decode, encode, unreadable
from airflow_provider_nanobanana.stored_forms import LEDGER
from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.state_store import StateStore

#: The name of the index, and the beginning of each chunk's.
NAME: Final = "nanobanana_ledger"
#: A value that says nothing; written once, to find out whether values of that size are kept.
PROBE: Final = "nanobanana_probe"
#: A chunk of so many takes 10 to 21 kB, 60 kB at its worst: always below the 65,535 of Airflow's state store.
MAX_KEYS: Final = 100


class LedgerChunk:
    """Entries stored under one name; a key never moves to another chunk.

    :param name: Its name on the store.
    :ivar keys: Keys in it, in the order in which they came.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: list[str] = []
        self._saved: Mapping[str, LedgerEntry] | None = {}
        #: What the store may hold, if nobody else wrote: more than one text after a write of unknown outcome.
        self._texts: set[str | None] = {None}

    @classmethod
    def read(cls, store: StateStore, name: str) -> LedgerChunk | None:
        """Return the chunk of this name, or None where there is none.

        :raises TransientFailure: It could not be read, or not be understood.
        """
        text = store.read(name)
        if text is None:
            return None
        chunk = cls(name)
        _, saved = decode_entries(name, text)
        chunk.keys = list(saved)
        chunk._saved = saved
        chunk._texts = {text}
        return chunk

    @property
    def lists_all(self) -> bool:
        """Whether the store certainly lists every key, in whatever form."""
        return self._saved is not None and len(self._saved) == len(self.keys)

    def entries(self) -> Mapping[str, LedgerEntry]:
        """Return what was read."""
        return {} if self._saved is None else self._saved

    def write(self, store: StateStore, writer: str, entries: Mapping[str, LedgerEntry]) -> bool:
        """Write the entries, if they are not what the store holds, and say whether anything was written.

        :param writer: Tells this attempt's text from those of others.
        :raises TransientFailure: Somebody else wrote meanwhile, or it is not known to be kept.
        """
        if self._saved == entries:
            return False
        if store.read(self.name) not in self._texts:
            self._saved = None
            raise concurrent_write(self.name)
        text = encode_entries(writer, {key: entries[key] for key in self.keys})
        # Until the store says that it kept the text, it may hold either, and neither can be relied on.
        self._saved = None
        self._texts.add(text)
        store.write(self.name, text)
        self._saved = dict(entries)
        self._texts = {text}
        return True


def concurrent_write(name: str) -> TransientFailure:
    """Return the error for a text that somebody else wrote since we read or wrote it."""
    return TransientFailure(
        f"Another attempt of this task instance is at work: it wrote {name!r} meanwhile. This one stops; what it "
        "bought is found again by its client ids.",
        charged="unknown",
    )


class Ledger:
    """The entries of a batch by item key; any thread may use it, and one at a time speaks to the store.

    Nothing is on the store before :meth:`save` returned. Nothing is ever removed from it.

    :ivar complete: Whether every submit of the task instance is in it: then nothing was ever sent for an item without a
        record. It is not where the store was lost, or ended with an earlier try (Airflow before 3.3).
    """

    def __init__(self, store: StateStore) -> None:
        """Begin an empty ledger; use :meth:`load` wherever there may be one already."""
        self.complete = False
        self._store = store
        self._writer = uuid.uuid4().hex
        self._entries: dict[str, LedgerEntry] = {}
        self._chunks: list[LedgerChunk] = []
        self._home: dict[str, LedgerChunk] = {}
        self._dirty: set[str] = set()
        self._indexed: int | None = None
        self._lock = threading.RLock()

    @classmethod
    def load(cls, store: StateStore, *, first: bool = False) -> Ledger:
        """Return what earlier attempts saved, or an empty ledger where there certainly is none.

        :param first: Whether no earlier attempt may have sent anything: neither a retry nor a cleared task.
        :raises TransientFailure: It could not be read, or not be understood; nothing was sent.
        """
        ledger = cls(store)
        ledger._indexed, ledger.complete = _read_index(store)
        # Chunks are written before they are counted: a kill between the two leaves some that the index does not count.
        while chunk := LedgerChunk.read(store, f"{NAME}_{len(ledger._chunks)}"):
            ledger._chunks.append(chunk)
            ledger._home |= dict.fromkeys(chunk.keys, chunk)
            ledger._entries |= chunk.entries()
        if len(ledger._chunks) < (ledger._indexed or 0):
            missing = f"{NAME}_{len(ledger._chunks)}"
            raise unreadable(missing, f"it is missing, and there were {ledger._indexed} chunks")
        if ledger._indexed is None and not ledger._chunks:
            ledger.complete = first
        return ledger

    def get(self, key: str) -> LedgerEntry:
        """Return the entry as this attempt knows it; a blank one for an item that is not in the ledger."""
        return self._entries.get(key) or LedgerEntry()

    def items(self) -> list[tuple[str, LedgerEntry]]:
        """Return every item, also those of earlier attempts that this one does not want, in the order they came."""
        with self._lock:
            return list(self._entries.items())

    def put(self, key: str, entry: LedgerEntry) -> None:
        """Replace an entry in memory; the next :meth:`save` writes it."""
        with self._lock:
            self._entries[key] = entry
            chunk = self._home.get(key)
            if chunk is None:
                if not self._chunks or len(self._chunks[-1].keys) >= MAX_KEYS:
                    self._chunks.append(LedgerChunk(f"{NAME}_{len(self._chunks)}"))
                chunk = self._home[key] = self._chunks[-1]
                chunk.keys.append(key)
            self._dirty.add(chunk.name)

    def update(self, key: str, **changes: Any) -> LedgerEntry:
        """Change fields of an entry in memory, and return it; the next :meth:`save` writes it."""
        with self._lock:
            entry = replace(self.get(key), **changes)
            self.put(key, entry)
            return entry

    def put_record(self, key: str, record: SubmissionRecord, **changes: Any) -> None:
        """Replace the record of an item in memory; the next :meth:`save` writes it.

        An intent, or that nothing is under way, opens an item that had ended; an image task that it shared, and what
        others paid for that, is its own no more.

        :param changes: Further fields of the entry that change with the record.
        """
        opened: dict[str, Any] = {}
        if record.state in (RecordState.QUEUED, RecordState.INTENT):
            opened = {"status": "open", "stored": None, "error": None}
            if self.get(key).shared:
                opened |= {"shared": False, "cost": None, "is_list_price": False}
        self.update(key, record=record, **{**opened, **changes})

    def save(self, *keys: str) -> int:
        """Write what changed, or no more than these items need, and return the number of values written.

        :raises TransientFailure: Not everything is known to be kept, or another attempt is at work.
        """
        with self._lock:
            wanted = {self._home[key].name for key in keys} if keys else self._dirty
            written = 0
            if self._indexed is None and (self._chunks or self.complete):
                # Before anything else: whether the ledger is complete must not be lost in a kill, nor when the attempt
                # ends before its first item.
                written += self._write_index(0)
            for chunk in self._chunks:
                # Keys come to the store in their order, so that two attempts at once cannot miss each other's.
                if chunk.name in self._dirty and (chunk.name in wanted or not chunk.lists_all):
                    entries = {key: self._entries[key] for key in chunk.keys}
                    written += chunk.write(self._store, self._writer, entries)
                    self._dirty.discard(chunk.name)
            if self._indexed != len(self._chunks) and self._chunks:
                written += self._write_index(len(self._chunks))
            return written

    def _write_index(self, chunks: int) -> int:
        text = encode({"version": LEDGER.version, "chunks": chunks, "complete": self.complete})
        if self._indexed is None and self._store.read(NAME) not in (None, text):
            raise concurrent_write(NAME)
        self._store.write(NAME, text)
        self._indexed = chunks
        return 1


def check_room(store: StateStore, items: int) -> None:
    """Find out before anything is bought whether the store keeps values as large as a ledger of so many items has.

    :raises TransientFailure: It does not: such a ledger would fail in the middle of the buying.
    """
    size = MAX_ENTRY_BYTES * min(items, MAX_KEYS)
    if size <= KEPT_ANYWHERE:
        return
    try:
        store.write(PROBE, "." * size)
    except TransientFailure as failure:
        raise TransientFailure(
            f"The records of this batch come in values of up to {size:,} bytes, and one of that size ({PROBE!r}) was "
            "not kept. Nothing was sent and nothing was charged; a retry tries again. If it stays so, raise Airflow's "
            "[state_store] max_value_storage_bytes (before Airflow 3.3: the limit of the XCom backend), or give the "
            "task fewer requests.",
            charged="no",
        ) from failure
    store.write(PROBE, "-")


class LedgerRecordStore:
    """The record of one item as a :class:`~.record_store.RecordStore`: in the ledger, saved where it has to be.

    :param strict: Whether every record is saved at once: for a service where nothing can be found again by its client
        id.
    :param cost_fields: Returns the entry's fields of money once its image task is this one, or none. They change with
        the record: what a lost image task cost must not be forgotten with its id.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: str,
        *,
        strict: bool = False,
        cost_fields: Callable[[str | None], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._strict = strict
        self._cost_fields = cost_fields

    def read(self) -> SubmissionRecord | None:
        """Return the record as this attempt knows it; what other attempts wrote shows when the ledger is saved."""
        return self._ledger.get(self._key).record

    def write(self, record: SubmissionRecord) -> None:
        """Replace the record; an intent is in the store when this returns.

        :raises TransientFailure: It had to be saved and is not known to be.
        """
        self._ledger.put_record(self._key, record, **self._cost_fields(record.image_task_id))
        if self._strict or record.state is RecordState.INTENT:
            self._ledger.save(self._key)


def _read_index(store: StateStore) -> tuple[int | None, bool]:
    """Return the number of chunks that there must be, and whether the ledger is complete."""
    text = store.read(NAME)
    if text is None:
        return None, False
    index = decode(NAME, text)
    if isinstance(index, dict):
        check_version(LEDGER, NAME, index.get("version"))
    match index:
        case {"chunks": int(chunks), "complete": bool(complete)} if chunks >= 0:
            return chunks, complete
    raise unreadable(NAME, f"the index is {index!r:.80}")
