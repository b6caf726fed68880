"""What a batch knows of one of its orders, and its compact stored form."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.toapis.errors import Charged

Status = Literal["open", "landed", "failed", "reused"]

_STATUSES: Final[tuple[Status, ...]] = get_args(Status)
_STATES: Final = tuple(RecordState)
_FIELDS: Final = 10
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_CLIENT_ID: Final = "nb-"
#: Bytes of JSON that a fault's code and message take in the stored form at most.
_LONGEST_CODE, _LONGEST_MESSAGE = 60, 160
#: Bytes that an entry may take as Airflow stores it; what goes beyond is kept in less and less detail.
_LONGEST_ENTRY: Final = 600

#: How much the stored form tells of what few orders have.
Detail = Literal["whole", "short", "least", "none"]
_DETAILS: Final[tuple[Detail, ...]] = get_args(Detail)
_LONGEST_ANSWER: Final[Mapping[Detail, int]] = {"whole": 300, "short": 100, "least": 0, "none": 0}
#: Further images that are not in place and are told of in the stored form at most.
_MOST_LOST: Final[Mapping[Detail, int]] = {"whole": 20, "short": 20, "least": 3, "none": 0}
#: Formats whose files are not called by their name.
_SUFFIXES: Final[Mapping[str, str]] = {"jpeg": "jpg"}


class ItemError(NamedTuple):
    """Why an order has no image, what became of its money, and whether another attempt may bring it.

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

    Where one order has many, the stored form knows no more than the name of those beside the first.

    :param name: File name below the destination.
    :param bytes: Size of the file.
    :param width: Pixels, as ``height``.
    :param index: Which image of its image task.
    """

    name: str
    sha256: str | None
    bytes: int | None
    format: str
    width: int | None
    height: int | None
    index: int = 0

    @property
    def stem(self) -> str:
        """Its name without suffix."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Lost:
    """An image that came beside the one an order asked for, and is not in place.

    :param index: Which image of the image task.
    """

    index: int
    fault: ItemError


@dataclass(frozen=True)
class LedgerEntry:
    """One order of a batch.

    :param record: The write-ahead record of its submission; None while it has none.
    :param cost: US dollars, 0 where it was refunded or reused; None while unknown.
    :param listed: Whether ``cost`` is the list price, the service having reported none.
    :param submitted_at: Epoch seconds at which the service took it; None also while it is taken up again.
    :param sunk: US dollars paid for earlier image tasks of this order that were lost.
    :param sunk_listed: Whether list prices are part of ``sunk``.
    :param extras: Images in place that came beside the one that was asked for.
    :param lost: Images that came beside it and are not in place.
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

    @property
    def refunded(self) -> bool:
        """Whether the service failed it for certain: the next generation may be bought."""
        error = self.error if self.status == "failed" else None
        return error is not None and (error.charged == "no" or error.billed)

    def to_json(self) -> list[Any]:
        """Return the stored form: positions instead of names, hashes in base64, no record's ``writer``."""
        fields: list[Any] = []
        for detail in _DETAILS:
            fields = self._fields(detail)
            # What is measured is what Airflow stores: the text of the chunk, as JSON once more.
            if fields[-1] is None or len(json.dumps(json.dumps(fields))) <= _LONGEST_ENTRY:
                break
        while fields[-1] is None:
            fields.pop()
        return fields

    def _fields(self, detail: Detail) -> list[Any]:
        return [
            _STATUSES.index(self.status),
            None if self.record is None else _record_to_json(self.record),
            None if self.stored is None else _landed_to_json(self.stored),
            self.cost,
            1 if self.is_list_price else None,
            None if self.error is None else _fault_to_json(self.error),
            self.submitted_at,
            self.sunk_cost or None,
            1 if self.sunk_is_list_price else None,
            self._more(detail) or None,
        ]

    def _more(self, detail: Detail) -> dict[str, Any]:
        """Return what few orders have, by short names."""
        more = {
            "x": [_extra_to_json(file, detail) for file in self.extras],
            "l": [_lost_to_json(lost, detail) for lost in self.lost[: _MOST_LOST[detail]]],
            "f": _details(self.error, detail) if self.error else None,
        }
        return {key: value for key, value in more.items() if value}

    @classmethod
    def from_json(cls, value: Any) -> LedgerEntry:
        """Return the entry.

        :raises ValueError: It is none of ours, or damaged; so say TypeError and IndexError.
        """
        fields: list[Any] = list(value)
        fields += [None] * (_FIELDS - len(fields))
        status, record, landed, cost, listed, error, submitted_at, sunk, sunk_listed, more = fields
        more = more or {}
        file = None if landed is None else StoredFile(landed[0], _unpack(landed[1]), *landed[2:])
        return cls(
            record=None if record is None else _record_from_json(record),
            status=_STATUSES[status],
            stored=file,
            cost=cost,
            is_list_price=bool(listed),
            error=None if error is None else _fault_from_json(error, more.get("f")),
            submitted_at=submitted_at,
            sunk_cost=sunk or 0.0,
            sunk_is_list_price=bool(sunk_listed),
            extras=tuple(_extra_from_json(extra, file) for extra in more.get("x", ())),
            lost=tuple(Lost(lost[0], _fault_from_json(lost[1:5], lost[5])) for lost in more.get("l", ())),
        )


def _record_to_json(record: SubmissionRecord) -> list[Any]:
    client_id = record.client_business_id
    return [
        _STATES.index(record.state),
        _pack(record.fingerprint),
        record.regeneration,
        record.generation,
        None if client_id is None else _pack(client_id, _CLIENT_ID),
        record.image_task_id,
        record.may_have_left_at,
        record.max_tries,
        record.try_number,
    ]


def _record_from_json(value: Any) -> SubmissionRecord:
    state, fingerprint, regeneration, generation, client_id, image_task_id, at, max_tries, *later = value
    return SubmissionRecord(
        state=_STATES[state],
        fingerprint=_unpack(fingerprint),
        regeneration=regeneration,
        generation=generation,
        client_business_id=None if client_id is None else _unpack(client_id, _CLIENT_ID),
        image_task_id=image_task_id,
        may_have_left_at=at,
        max_tries=max_tries,
        # Whoever wrote it is known for the chunk as a whole.
        writer="",
        try_number=later[0] if later else 0,
    )


def _landed_to_json(landed: StoredFile) -> list[Any]:
    return [landed.name, _pack(landed.sha256 or ""), landed.bytes, landed.format, landed.width, landed.height]


def _extra_to_json(file: StoredFile, detail: Detail) -> list[Any]:
    """Return a further image without its name: that is the first one's but for the index."""
    if detail != "whole" or file.sha256 is None:
        return [file.index, file.format]
    return [file.index, file.format, _pack(file.sha256), file.bytes, file.width, file.height]


def _extra_from_json(value: Any, first: StoredFile | None) -> StoredFile:
    index, image_format, *measures = value
    sha256, size, width, height = measures or (None, None, None, None)
    name = f"{first.stem if first else ''}.{index}.{_SUFFIXES.get(image_format, image_format)}"
    return StoredFile(name, sha256 and _unpack(sha256), size, image_format, width, height, index)


def _lost_to_json(lost: Lost, detail: Detail) -> list[Any]:
    fault = lost.fault if detail == "whole" else lost.fault._replace(message="")
    return [lost.index, *_fault_to_json(fault), _details(fault, detail)]


def _fault_to_json(fault: ItemError) -> list[Any]:
    return [_cut(fault.code, _LONGEST_CODE), _cut(fault.message, _LONGEST_MESSAGE), fault.charged, int(fault.retryable)]


def _details(fault: ItemError, detail: Detail) -> dict[str, Any]:
    """Return what few faults have."""
    kept = fault.kept if detail == "whole" or fault.kept is None else {"uri": fault.kept.get("uri")}
    details = {
        "billed": int(fault.billed),
        "kept": None if detail == "none" else kept,
        "answer": _cut(fault.answer or "", _LONGEST_ANSWER[detail]),
    }
    return {key: value for key, value in details.items() if value}


def _fault_from_json(value: Any, details: Any) -> ItemError:
    code, message, charged, again = value
    details = details or {}
    kept, answer = details.get("kept"), details.get("answer")
    return ItemError(code, message, charged, bool(again), bool(details.get("billed")), kept, answer)


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
