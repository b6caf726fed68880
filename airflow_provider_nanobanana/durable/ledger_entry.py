"""``LedgerEntry``: what is known of one wanted image, and the stored form of many of them.

The stored form is plain JSON by field name, without fields that have their default, compressed
(:func:`~.state_store.encode`). It is the same for a batch and for a single submit. A field that only a later release
knows is left out when it is read (:mod:`~airflow_provider_nanobanana.stored_forms`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from airflow_provider_nanobanana.durable.claims import Sighting
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.state_store import check_version, decode, encode, unreadable
from airflow_provider_nanobanana.stored_forms import LEDGER
from airflow_provider_nanobanana.toapis.errors import Charged
from airflow_provider_nanobanana.toapis.redaction import truncate_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Status = Literal["open", "landed", "failed", "reused"]
_Kind = TypeVar("_Kind", bound="DataclassInstance")

#: Bytes of a value that every store keeps.
KEPT_ANYWHERE: Final = 4096
#: Bytes that stored entries take on average at most; most take 100 to 210.
MAX_ENTRY_BYTES: Final = 600
#: Bytes of JSON that a stored code, message and answer take at most.
_LONGEST_CODE, _LONGEST_MESSAGE, _LONGEST_ANSWER = 60, 160, 300


@dataclass(frozen=True)
class ItemError:
    """Why an item has no image, what became of its money, and whether another attempt may bring it.

    The stored form cuts long texts.

    :param billed: Whether the service failed it and charged it all the same.
    :param kept: What was kept of bytes that failed a check: ``uri``, ``index`` and more, plain JSON.
    :param answer: The service's answer to a paid image task in which no image was found.
    """

    code: str
    message: str
    charged: Charged
    retryable: bool = True
    billed: bool = False
    kept: Mapping[str, Any] | None = None
    answer: str | None = None


@dataclass(frozen=True)
class StoredFile:
    """An image in place.

    :param name: File name below the destination.
    :param sha256: None, as ``bytes``, ``width`` and ``height``, for a further image where the stored form had no room.
    :param bytes: Size of the file.
    :param width: Pixels, as ``height``.
    :param index: Which image of its image task.
    :param suspect: Codes of what makes the picture suspect, as far as that was seen when it was landed or found.
    """

    name: str
    sha256: str | None
    bytes: int | None
    format: str
    width: int | None
    height: int | None
    index: int = 0
    suspect: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Its name without suffix."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Lost:
    """An image that came beside the one an item asked for, and is not in place.

    :param index: Which image of the image task.
    """

    index: int
    error: ItemError


@dataclass(frozen=True)
class LostRace:
    """An image task that this task instance paid, while the picture in place is of another's purchase.

    :param usd: US dollars; None while unknown.
    :param is_list_price: Whether ``usd`` is the list price, the service having reported none.
    """

    image_task_id: str
    usd: float | None
    is_list_price: bool = False


@dataclass(frozen=True)
class LedgerEntry:
    """One wanted image.

    :param record: The write-ahead record of its submission; None while it has none.
    :param cost: US dollars, 0 where it was refunded or reused; None while unknown.
    :param is_list_price: Whether ``cost`` is the list price, the service having reported none.
    :param submitted_at: Epoch seconds at which the service took it; None also while it is taken up again.
    :param sunk_cost: US dollars paid for earlier image tasks of this item that were lost.
    :param sunk_is_list_price: Whether list prices are part of ``sunk_cost``.
    :param extras: Images in place that came beside the one that was asked for.
    :param lost: Images that came beside it and are not in place.
    :param shared: Whether somebody else bought its image task: ``cost`` is what they paid.
    :param lost_races: In order; what was paid for them is neither in ``cost`` nor in ``sunk_cost``.
    :param sighting: Since when somebody's claim on the image is known; without claims, since when its record is.
    """

    record: SubmissionRecord | None = None
    status: Status = "open"
    stored: StoredFile | None = None
    cost: float | None = None
    is_list_price: bool = False
    error: ItemError | None = None
    submitted_at: float | None = None
    sunk_cost: float = 0.0
    sunk_is_list_price: bool = False
    extras: tuple[StoredFile, ...] = ()
    lost: tuple[Lost, ...] = ()
    shared: bool = False
    lost_races: tuple[LostRace, ...] = ()
    sighting: Sighting | None = None

    @property
    def lost_race_usd(self) -> float:
        """What was paid for image tasks whose picture is not the one in place, in US dollars, as far as it is known."""
        return sum(race.usd or 0.0 for race in self.lost_races)

    @property
    def picture_id(self) -> str | None:
        """The image task that the image in place is of, as far as it is known."""
        image_task_id = self.record.image_task_id if self.record else None
        return None if any(race.image_task_id == image_task_id for race in self.lost_races) else image_task_id

    @property
    def refunded(self) -> bool:
        """Whether the service failed it for certain: the next generation may be bought."""
        error = self.error if self.status == "failed" else None
        return error is not None and (error.charged == "no" or error.billed)


def encode_entries(writer: str, entries: Mapping[str, LedgerEntry]) -> str:
    """Return the stored form of entries by key; where there is no room for all of it, the essence of each.

    :param writer: Tells the text of one attempt from those of others; it stands for the ``writer`` of each record.
    """
    limit = max(KEPT_ANYWHERE, MAX_ENTRY_BYTES * len(entries))
    text = ""
    for shortened in (_cut, _essence, _least):
        plain = {key: _plain_entry(shortened(entry)) for key, entry in entries.items()}
        text = encode({"version": LEDGER.version, "writer": writer, "entries": plain})
        if len(text) <= limit:
            break
    return text


def decode_entries(name: str, text: str) -> tuple[str, dict[str, LedgerEntry]]:
    """Return the writer and the entries of a stored form; the records in it are without writer.

    :param name: Under which it is stored, for the error.
    :raises TransientFailure: It is none, or a newer one; that is never the same as "there is none".
    """
    value = decode(name, text)
    try:
        check_version(LEDGER, name, value["version"])
        return str(value["writer"]), {key: _entry(plain) for key, plain in value["entries"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise unreadable(name, error) from error


def _cut(entry: LedgerEntry) -> LedgerEntry:
    """Return an entry with long texts cut."""
    if entry.error is None and not entry.lost:
        return entry
    lost = tuple(replace(image, error=_cut_error(image.error)) for image in entry.lost)
    return replace(entry, error=entry.error and _cut_error(entry.error), lost=lost)


def _cut_error(error: ItemError) -> ItemError:
    return replace(
        error,
        code=truncate_json(error.code, _LONGEST_CODE),
        message=truncate_json(error.message, _LONGEST_MESSAGE),
        answer=error.answer and truncate_json(error.answer, _LONGEST_ANSWER),
    )


def _essence(entry: LedgerEntry) -> LedgerEntry:
    """Return an entry that tells no more of further images than where they are, and of answers nothing."""
    cut = _cut(entry)
    return replace(
        cut,
        error=cut.error and replace(cut.error, answer=None, kept=_uri_of(cut.error.kept)),
        extras=tuple(replace(file, sha256=None, bytes=None, width=None, height=None) for file in cut.extras),
        lost=tuple(replace(lost, error=replace(lost.error, message="", answer=None, kept=None)) for lost in cut.lost),
    )


def _least(entry: LedgerEntry) -> LedgerEntry:
    """Return an entry that tells what was sent, paid and stored, and no more."""
    essence = _essence(entry)
    return replace(essence, error=essence.error and replace(essence.error, message="", kept=None), lost=())


def _uri_of(kept: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if kept is None else {"uri": truncate_json(str(kept.get("uri")), _LONGEST_ANSWER)}


def _plain_entry(entry: LedgerEntry) -> Any:
    plain = _to_plain(entry)
    if "record" in plain:
        plain["record"].pop("writer", None)
    return plain


def _to_plain(value: Any) -> Any:
    """Return a value as plain JSON; of a dataclass the fields that have not their default."""
    if is_dataclass(value):
        given = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _to_plain(what) for field, what in given if what != field.default}
    return [_to_plain(one) for one in value] if isinstance(value, tuple) else value


def _restored(kind: type[_Kind], plain: Mapping[str, Any]) -> _Kind:
    """Return a dataclass of what was stored of it, without what only a later release knows."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in plain.items() if name in names})


def _stored_file(plain: Mapping[str, Any]) -> StoredFile:
    if "/" in plain["name"]:
        raise ValueError("a file that is not in the destination")
    return _restored(StoredFile, {**plain, "suspect": tuple(plain.get("suspect", ()))})


def _check_amounts(given: Mapping[str, Any]) -> None:
    """Refuse sums of money that are none."""
    amounts = [given.get("cost"), given.get("sunk_cost"), *(race.get("usd") for race in given.get("lost_races", ()))]
    if not all(amount is None or (type(amount) in (int, float) and math.isfinite(amount)) for amount in amounts):
        raise ValueError("an amount that is none")


def _entry(plain: Mapping[str, Any]) -> LedgerEntry:
    """Return what :func:`_plain_entry` made plain.

    :raises ValueError: It is none of ours, or damaged; so say TypeError, KeyError and AttributeError.
    """
    given = dict(plain)
    if given.get("status", "open") not in get_args(Status):
        raise ValueError(f"status {given['status']!r}")
    _check_amounts(given)
    if "record" in given:
        given["record"] = _restored(
            SubmissionRecord, {**given["record"], "state": RecordState(given["record"]["state"])}
        )
    if "stored" in given:
        given["stored"] = _stored_file(given["stored"])
    if "error" in given:
        given["error"] = _restored(ItemError, given["error"])
    if "sighting" in given:
        given["sighting"] = _restored(Sighting, given["sighting"])
    given["extras"] = tuple(map(_stored_file, given.get("extras", ())))
    given["lost"] = tuple(Lost(lost["index"], _restored(ItemError, lost["error"])) for lost in given.get("lost", ()))
    given["lost_races"] = tuple(_restored(LostRace, race) for race in given.get("lost_races", ()))
    return _restored(LedgerEntry, given)
