"""What a batch was asked for, kept with its ledger: a retry goes on with it, whatever a template says by now."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.submission.client_ids import known_supported, known_unsupported
from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.state_store import StateStore

NAME: Final = "nanobanana_orders"
ATTEMPT: Final = "nanobanana_attempt"
UPLOADS: Final = "nanobanana_uploads"
_VERSION: Final = 1
#: Characters of a value; Airflow's state store holds 65,535 bytes of JSON.
_CHUNK: Final = 48_000
_DAMAGE: Final = (ValueError, KeyError, TypeError, zlib.error)


@dataclass(frozen=True)
class InputSnapshot:
    """What one round of a task instance is to make; a clear begins another round.

    :param max_tries: Airflow's count of the round.
    :param first: Whether nothing was ever sent when this was kept.
    :param content: Plain JSON.
    :param retries: The task's ``retries`` when this was kept. A clear sets ``max_tries`` to the tries so far plus
        these, so that a clear after they were lowered may leave ``max_tries`` as it was. None where nobody noted them.
    :param try_number: The try that kept this; 0 where nobody noted it.
    :param given: Digest of what was asked for, as it was given; None where that was not at hand.
    """

    max_tries: int
    first: bool
    content: Any
    retries: int | None = None
    try_number: int = 0
    given: str | None = None

    def of_round(self, max_tries: int, retries: int) -> bool:
        """Whether no clear lies between this and an attempt."""
        return self.max_tries == max_tries and self.retries in (None, retries)


@dataclass(frozen=True)
class AttemptCheckpoint:
    """Which attempt is at work.

    :param started_at: Epoch seconds.
    :param searching: Whether what earlier runs landed is still being verified.
    :param searched: How many orders the search has come past.
    :param blind: Whether the service was seen not to resolve client ids, in this attempt or before.
    :param proved: Whether it was seen to resolve them.
    :param blocked: Whether nothing could be landed lately.
    :param halted: Why nothing is bought in this attempt; empty where something is.
    """

    try_number: int
    started_at: float
    reuse_pending: bool = False
    reuse_position: int = 0
    client_ids_unsupported: bool = False
    client_ids_supported: bool = False
    storage_blocked: bool = False
    stop_reason: str = ""


def save_input(shelf: StateStore, book: InputSnapshot) -> int:
    """Keep what a round is to make, whatever its size, and return the number of values written.

    :raises TransientFailure: It is not known to be kept.
    """
    return _write(
        shelf,
        NAME,
        book.content,
        # Another attempt that keeps another list at this moment leaves these chunks as they are.
        stamped=True,
        max_tries=book.max_tries,
        first=book.first,
        retries=book.retries,
        try_number=book.try_number,
        given=book.given,
    )


def load_input(shelf: StateStore, max_tries: int, retries: int) -> InputSnapshot | None:
    """Return what was kept in this round, or None where there certainly is nothing.

    :raises TransientFailure: It could not be read, is damaged, or was written by another version.
    """
    book, index = _index(shelf)
    if book is None or not book.of_round(max_tries, retries):
        # Of an earlier round; a kill while this one's was being kept leaves the old index, too.
        return None
    return replace(book, content=_content(shelf, NAME, index))


def load_earlier_input(shelf: StateStore, max_tries: int, retries: int) -> InputSnapshot | None:
    """Return what an earlier round was to make; None where there was none, or where it cannot be understood any more.

    :raises TransientFailure: It could not be read.
    """
    book, index = _index(shelf)
    if book is None or book.of_round(max_tries, retries):
        return None
    try:
        return replace(book, content=_joined(shelf, NAME, index))
    except _DAMAGE:
        return None


def _index(shelf: StateStore) -> tuple[InputSnapshot | None, dict[str, Any]]:
    """Return what was kept last, without its content, and where that is."""
    index = _value(shelf, NAME)
    if index is None:
        return None, {}
    if not isinstance(index.get("max_tries"), int):
        raise _unreadable(NAME, ValueError("it names no round"))
    facts = {name: index.get(name) for name in ("retries", "given")}
    first, try_number = index.get("first") is True, index.get("try_number") or 0
    return InputSnapshot(index["max_tries"], first, None, try_number=try_number, **facts), index


def save_uploads(shelf: StateStore, urls: dict[str, str], max_tries: int) -> None:
    """Keep where references were uploaded."""
    _write(shelf, UPLOADS, urls, max_tries=max_tries)


def load_uploads(shelf: StateStore, max_tries: int) -> dict[str, str]:
    """Return where references were uploaded in this round; nobody says how long an upload lives.

    Nothing where that is damaged, since an upload costs nothing.
    """
    try:
        index = _value(shelf, UPLOADS)
        return dict(_content(shelf, UPLOADS, index)) if index and index.get("max_tries") == max_tries else {}
    except (TransientFailure, TypeError, ValueError):
        return {}


def save_checkpoint(shelf: StateStore, attempt: AttemptCheckpoint) -> None:
    """Keep which attempt is at work."""
    shelf.write(ATTEMPT, json.dumps({"version": _VERSION, **asdict(attempt)}))


def load_checkpoint(shelf: StateStore) -> AttemptCheckpoint | None:
    """Return which attempt was at work last; None where nothing says so."""
    value = _value(shelf, ATTEMPT)
    if value is None:
        return None
    try:
        return AttemptCheckpoint(
            try_number=int(value["try_number"]),
            started_at=float(value["started_at"]),
            reuse_pending=value["reuse_pending"] is True,
            reuse_position=int(value["reuse_position"]),
            client_ids_unsupported=value["client_ids_unsupported"] is True,
            client_ids_supported=value["client_ids_supported"] is True,
            storage_blocked=value["storage_blocked"] is True,
            stop_reason=str(value["stop_reason"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(ATTEMPT, error) from error


def input_digest(given: Any) -> str | None:
    """Return what tells one given list from another, or None where it is no plain JSON."""
    try:
        text = json.dumps(given, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(shelf: StateStore, name: str, content: Any, *, stamped: bool = False, **facts: Any) -> int:
    """Write content in chunks and, last, their index.

    :param stamped: Whether the chunks are named by their content.
    """
    text = base64.b85encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode())).decode()
    stamp = f"_{hashlib.sha256(text.encode()).hexdigest()[:12]}" if stamped else ""
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    for number, chunk in enumerate(chunks):
        shelf.write(f"{name}{stamp}_{number}", chunk)
    # Last: whoever finds it finds all of them.
    check = zlib.crc32(text.encode())
    index = {"version": _VERSION, "chunks": len(chunks), "check": check, "stamp": stamp, **facts}
    shelf.write(name, json.dumps(index))
    return len(chunks) + 1


def _value(shelf: StateStore, name: str) -> dict[str, Any] | None:
    text = shelf.read(name)
    if text is None:
        return None
    try:
        value = dict(json.loads(text))
        if value["version"] != _VERSION:
            raise ValueError("another version")
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(name, error) from error
    return value


def _content(shelf: StateStore, name: str, index: dict[str, Any]) -> Any:
    try:
        return _joined(shelf, name, index)
    except _DAMAGE as error:
        raise _unreadable(name, error) from error


def _joined(shelf: StateStore, name: str, index: dict[str, Any]) -> Any:
    stamp = index.get("stamp", "")  # earlier versions named chunks by their number alone
    joined = "".join(shelf.read(f"{name}{stamp}_{number}") or "" for number in range(index["chunks"]))
    if zlib.crc32(joined.encode()) != index["check"]:
        raise ValueError("damaged")
    return json.loads(zlib.decompress(base64.b85decode(joined)))


def _unreadable(name: str, error: Exception) -> TransientFailure:
    return TransientFailure(
        f"What this batch was asked for ({name!r} in the task's state store) cannot be read ({error}); nothing was "
        "sent now. It was written by another version of this provider, or by hand.",
        charged="unknown",
    )


class CheckpointStore:
    """The note of an attempt, and the uploads of its round; any thread may use it.

    :param note: As the last process left it, or a new one.
    :param base_url: Of the service that is asked.
    :param max_tries: Airflow's count of the round.
    :param uploads: How many uploads are kept already.
    :ivar note: What is known by now.
    """

    def __init__(
        self, shelf: StateStore, note: AttemptCheckpoint, *, base_url: str, max_tries: int, uploads: int
    ) -> None:
        self.note = note
        self._shelf = shelf
        self._base_url = base_url
        self._max_tries = max_tries
        self._uploads = uploads
        self._kept: AttemptCheckpoint | None = None
        self._lock = threading.RLock()

    @property
    def blind(self) -> bool:
        """Whether the service does not resolve client ids."""
        return self.note.client_ids_unsupported or known_unsupported(self._base_url)

    @property
    def proved(self) -> bool:
        """Whether what was bought is known to be found again by its client id."""
        return self.note.client_ids_supported or known_supported(self._base_url)

    def keep(self, **changes: Any) -> None:
        """Change the note; nothing is written where nothing changes.

        :raises TransientFailure: It is not known to be kept.
        """
        with self._lock:
            note = replace(self.note, **changes)
            if note != self._kept:
                save_checkpoint(self._shelf, note)
                self.note = self._kept = note

    def save(self, urls: Mapping[str, str], *, blocked: bool) -> None:
        """Keep what was found out since.

        :param urls: The uploads, by content.
        :param blocked: Whether nothing could be landed lately.
        :raises TransientFailure: It is not known to be kept.
        """
        with self._lock:
            if len(urls) > self._uploads:
                save_uploads(self._shelf, dict(urls), self._max_tries)
                self._uploads = len(urls)
            self.keep(client_ids_unsupported=self.blind, client_ids_supported=self.proved, storage_blocked=blocked)
