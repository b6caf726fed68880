"""What a batch was asked for, kept with its ledger: a retry goes on with it, whatever a template says by now."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.shelf import Shelf

NAME: Final = "nanobanana_orders"
ATTEMPT: Final = "nanobanana_attempt"
UPLOADS: Final = "nanobanana_uploads"
_VERSION: Final = 1
#: Characters of a value; Airflow's state store holds 65,535 bytes of JSON.
_CHUNK: Final = 48_000


@dataclass(frozen=True)
class Book:
    """What one round of a task instance is to make; a clear begins another round.

    :param max_tries: Airflow's count of the round.
    :param first: Whether nothing was ever sent when this was kept.
    :param content: Plain JSON.
    """

    max_tries: int
    first: bool
    content: Any


@dataclass(frozen=True)
class Note:
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
    searching: bool = False
    searched: int = 0
    blind: bool = False
    proved: bool = False
    blocked: bool = False
    halted: str = ""


def keep(shelf: Shelf, book: Book) -> int:
    """Keep what a round is to make, whatever its size, and return the number of values written.

    :raises TransientFailure: It is not known to be kept.
    """
    return _write(shelf, NAME, book.content, max_tries=book.max_tries, first=book.first)


def recall(shelf: Shelf, max_tries: int) -> Book | None:
    """Return what was kept in this round, or None where there certainly is nothing.

    :raises TransientFailure: It could not be read, is damaged, or was written by another version.
    """
    index = _value(shelf, NAME)
    if index is not None and not isinstance(index.get("max_tries"), int):
        raise _unreadable(NAME, ValueError("it names no round"))
    if index is None or index["max_tries"] != max_tries:
        # Of an earlier round; a kill while this one's was being kept leaves the old index, too.
        return None
    return Book(max_tries, index.get("first") is True, _content(shelf, NAME, index))


def keep_uploads(shelf: Shelf, urls: dict[str, str], max_tries: int) -> None:
    """Keep where references were uploaded."""
    _write(shelf, UPLOADS, urls, max_tries=max_tries)


def recall_uploads(shelf: Shelf, max_tries: int) -> dict[str, str]:
    """Return where references were uploaded in this round; nobody says how long an upload lives.

    Nothing where that is damaged, since an upload costs nothing.
    """
    try:
        index = _value(shelf, UPLOADS)
        return dict(_content(shelf, UPLOADS, index)) if index and index.get("max_tries") == max_tries else {}
    except (TransientFailure, TypeError, ValueError):
        return {}


def note(shelf: Shelf, attempt: Note) -> None:
    """Keep which attempt is at work."""
    shelf.write(ATTEMPT, json.dumps({"version": _VERSION, **asdict(attempt)}))


def noted(shelf: Shelf) -> Note | None:
    """Return which attempt was at work last; None where nothing says so."""
    value = _value(shelf, ATTEMPT)
    if value is None:
        return None
    try:
        return Note(
            try_number=int(value["try_number"]),
            started_at=float(value["started_at"]),
            searching=value["searching"] is True,
            searched=int(value["searched"]),
            blind=value["blind"] is True,
            proved=value["proved"] is True,
            blocked=value["blocked"] is True,
            halted=str(value["halted"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(ATTEMPT, error) from error


def _write(shelf: Shelf, name: str, content: Any, **facts: Any) -> int:
    text = base64.b85encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode())).decode()
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    for number, chunk in enumerate(chunks):
        shelf.write(f"{name}_{number}", chunk)
    # Last: whoever finds it finds all of them.
    index = {"version": _VERSION, "chunks": len(chunks), "check": zlib.crc32(text.encode()), **facts}
    shelf.write(name, json.dumps(index))
    return len(chunks) + 1


def _value(shelf: Shelf, name: str) -> dict[str, Any] | None:
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


def _content(shelf: Shelf, name: str, index: dict[str, Any]) -> Any:
    try:
        joined = "".join(shelf.read(f"{name}_{number}") or "" for number in range(index["chunks"]))
        if zlib.crc32(joined.encode()) != index["check"]:
            raise ValueError("damaged")
        return json.loads(zlib.decompress(base64.b85decode(joined)))
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> TransientFailure:
    return TransientFailure(
        f"What this batch was asked for ({name!r} in the task's state store) cannot be read ({error}); nothing was "
        "sent now. It was written by another version of this provider, or by hand.",
        charged="unknown",
    )
