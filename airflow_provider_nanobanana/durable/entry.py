"""What a batch knows of one of its orders, and its compact stored form."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import astuple, dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

from airflow_provider_nanobanana.durable.record import Record, RecordState
from airflow_provider_nanobanana.toapis.errors import Charged

Status = Literal["open", "landed", "failed", "reused"]

_STATUSES: Final[tuple[Status, ...]] = get_args(Status)
_STATES: Final = tuple(RecordState)
_FIELDS: Final = 9
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_CLIENT_ID: Final = "nb-"
#: Bytes of JSON that a fault's code and message take in the stored form at most.
_LONGEST_CODE, _LONGEST_MESSAGE = 60, 160


class Fault(NamedTuple):
    """Why an order has no image, what became of its money, and whether another attempt may bring it.

    The stored form cuts long texts.
    """

    code: str
    message: str
    charged: Charged
    again: bool = True


@dataclass(frozen=True)
class LandedFile:
    """An image in place.

    :param name: File name below the destination.
    :param bytes: Size of the file.
    :param width: Pixels, as ``height``.
    """

    name: str
    sha256: str
    bytes: int
    format: str
    width: int
    height: int


@dataclass(frozen=True)
class Entry:
    """One order of a batch.

    :param record: The write-ahead record of its submission; None while it has none.
    :param cost: US dollars, 0 where it was refunded or reused; None while unknown.
    :param listed: Whether ``cost`` is the list price, the service having reported none.
    :param submitted_at: Epoch seconds at which the service took it; None also while it is taken up again.
    :param sunk: US dollars paid for earlier image tasks of this order that were lost.
    :param sunk_listed: Whether list prices are part of ``sunk``.
    """

    record: Record | None = None
    status: Status = "open"
    landed: LandedFile | None = None
    cost: float | None = None
    listed: bool = False
    error: Fault | None = None
    submitted_at: float | None = None
    sunk: float = 0.0
    sunk_listed: bool = False

    @property
    def refunded(self) -> bool:
        """Whether it failed for certain and costs nothing: the next generation may be bought."""
        return self.status == "failed" and self.error is not None and self.error.charged == "no"

    def to_json(self) -> list[Any]:
        """Return the stored form: positions instead of names, hashes in base64, no record's ``writer``."""
        fields = [
            _STATUSES.index(self.status),
            None if self.record is None else _record_to_json(self.record),
            None if self.landed is None else _landed_to_json(self.landed),
            self.cost,
            1 if self.listed else None,
            None if self.error is None else _fault_to_json(self.error),
            self.submitted_at,
            self.sunk or None,
            1 if self.sunk_listed else None,
        ]
        while fields[-1] is None:
            fields.pop()
        return fields

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        """Return the entry.

        :raises ValueError: It is none of ours, or damaged; so say TypeError and IndexError.
        """
        fields: list[Any] = list(value)
        fields += [None] * (_FIELDS - len(fields))
        status, record, landed, cost, listed, error, submitted_at, sunk, sunk_listed = fields
        return cls(
            record=None if record is None else _record_from_json(record),
            status=_STATUSES[status],
            landed=None if landed is None else LandedFile(landed[0], _unpack(landed[1]), *landed[2:]),
            cost=cost,
            listed=bool(listed),
            error=None if error is None else Fault(error[0], error[1], error[2], bool(error[3])),
            submitted_at=submitted_at,
            sunk=sunk or 0.0,
            sunk_listed=bool(sunk_listed),
        )


def _record_to_json(record: Record) -> list[Any]:
    client_id = record.client_business_id
    return [
        _STATES.index(record.state),
        _pack(record.fingerprint),
        record.regeneration,
        record.generation,
        None if client_id is None else _pack(client_id, _CLIENT_ID),
        record.image_task_id,
        record.at,
        record.max_tries,
        int(record.replaced),
        record.try_number,
    ]


def _record_from_json(value: Any) -> Record:
    state, fingerprint, regeneration, generation, client_id, image_task_id, at, max_tries, replaced, *later = value
    return Record(
        state=_STATES[state],
        fingerprint=_unpack(fingerprint),
        regeneration=regeneration,
        generation=generation,
        client_business_id=None if client_id is None else _unpack(client_id, _CLIENT_ID),
        image_task_id=image_task_id,
        at=at,
        max_tries=max_tries,
        # Whoever wrote it is known for the chunk as a whole.
        writer="",
        replaced=bool(replaced),
        try_number=later[0] if later else 0,
    )


def _landed_to_json(landed: LandedFile) -> list[Any]:
    name, sha256, *measures = astuple(landed)
    return [name, _pack(sha256), *measures]


def _fault_to_json(fault: Fault) -> list[Any]:
    return [_cut(fault.code, _LONGEST_CODE), _cut(fault.message, _LONGEST_MESSAGE), fault.charged, int(fault.again)]


def _pack(text: str, prefix: str = "") -> str:
    """Return hexadecimal text as base64, which has no ``=`` here; any other text stays, with a ``=`` before it."""
    digits = text.removeprefix(prefix)
    if not text.startswith(prefix) or not _HEX.fullmatch(digits):
        return f"={text}"
    return base64.urlsafe_b64encode(bytes.fromhex(digits)).decode().rstrip("=")


def _unpack(text: str, prefix: str = "") -> str:
    if text.startswith("="):
        return text[1:]
    try:
        return prefix + base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).hex()
    except binascii.Error as error:
        raise ValueError(f"no base64: {text!r}") from error


def _cut(text: str, budget: int) -> str:
    """Return what fits into so many bytes of JSON; a Chinese character takes six there."""
    while len(json.dumps(text)) - 2 > budget:
        text = text[: -max(1, len(text) // 8)]
    return text
