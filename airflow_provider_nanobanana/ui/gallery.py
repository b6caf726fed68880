"""The JSON of the gallery, made of manifests and of what Airflow says of their task instances: pure.

A manifest is a file that others may have written: whatever in it is not of its kind is left out, and none of it can
make an answer fail. No URI leaves here, and no name of a bucket or connection.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.costs import MILLION
from airflow_provider_nanobanana.batch.spend import summarise
from airflow_provider_nanobanana.batch.spend_records import NoManifest, manifest_records
from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.landing.versions import split_stem
from airflow_provider_nanobanana.ui.confinement import Folder, PicturePlace, picture_place

if TYPE_CHECKING:
    from airflow_provider_nanobanana.ui.task_records import TaskRecord

Card = dict[str, Any]
#: The sums of a task, and of all.
COUNTS: Final = ("images", "shared", "reused", "failed", "quarantined", "under_way", "waiting", "suspect")
_MONEY: Final = ("paid_usd", "cost_usd")
_TEXTS: Final = ("name", "variant", "prompt", "model", "format", "id", "code", "message", "charged")
_NUMBERS: Final = ("request", "version", "width", "height", "bytes", "cost_usd", "paid_usd")
_FLAGS: Final = ("cost_is_listed", "reused", "shared", "retry_may_help")
#: Characters of a text in a card, and bytes of a row's own data; the record has all.
_LONGEST_TEXT: Final = 2_000
_MOST_META: Final = 4_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: No scheme is longer; without a bound the search would take the square of a text's length.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s'\"<>]*")
#: What is beyond a count that could be one.
_MOST: Final = 10**12

NO_MANIFEST: Final = "There is no manifest of this task instance at its destination."
UNREADABLE: Final = "The api-server cannot read this store."
NOT_ITS_OWN: Final = "The manifest is not this task instance's, or cannot be understood."
NEWER: Final = "The manifest was written by a newer version of this provider than the API server has."
TOO_LARGE: Final = "The manifest is too large to be shown."


@dataclass(frozen=True)
class Picture:
    """A picture that a card stands for.

    :param sha256: As the manifest says; None where it says none.
    """

    place: PicturePlace
    sha256: str | None


@dataclass(frozen=True)
class Gallery:
    """What is shown of one manifest.

    :param cards: In order of the requests.
    :param pictures: By the keys of the cards.
    :param totals: Sums, by name; money is None where none is known.
    :param bytes: Of the manifest.
    """

    form: str | None = None
    finished: bool = False
    written_at: str | None = None
    cards: Sequence[Card] = ()
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0) | dict.fromkeys(_MONEY))
    problem: str | None = None
    bytes: int = 0

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return self.bytes + 1_000 * len(self.cards)


def is_manifest_of(content: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> bool:
    """Whether a file's content is the manifest of this very task instance."""
    names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    return isinstance(content, dict) and all(
        type(content.get(name)) is type(value) and content[name] == value for name, value in names.items()
    )


def read_gallery(content: Mapping[str, Any], folder: Folder) -> Gallery:
    """Return what is shown of a manifest.

    :param content: The manifest; of its own task instance, and otherwise anything.
    :param folder: Where it lies.
    """
    pictures: dict[str, Picture] = {}
    quarantined = {(_text(row.get("id")), _count(row.get("index"))): row for row in _rows(content, "quarantined")}
    cards = [_image(row, folder, pictures) for row in _rows(content, "images")]
    for row in _rows(content, "failed"):
        kept = quarantined.pop((_text(row.get("id")), _count(row.get("index"))), None)
        cards.append(_failure(row) if kept is None else _quarantined(kept, row, folder, pictures))
    cards += [_quarantined(row, {}, folder, pictures) for row in quarantined.values()]
    cards += [_card("under_way", row) for row in _rows(content, "under_way")]
    cards += [_card("skipped", row) for row in _rows(content, "skipped")]
    kinds = [card["kind"] for card in cards]
    # A card of one request stays where it is while the request is under way, in place, or failed.
    cards.sort(key=lambda card: card.get("request", _MOST))
    return Gallery(
        form=_text(content.get("form")),
        finished=content.get("finished") is not False,
        written_at=_text(content.get("written_at")),
        cards=cards,
        pictures=pictures,
        totals={
            "images": kinds.count("image"),
            "failed": kinds.count("failed"),
            "quarantined": kinds.count("quarantined"),
            "under_way": kinds.count("under_way"),
            "waiting": _count(content.get("waiting")) or 0,
            "shared": _count(content.get("shared")) or 0,
            "reused": _count(content.get("reused")) or 0,
            "suspect": sum("suspect" in card for card in cards),
            "cost_usd": _amount(content.get("cost_usd")),
            "paid_usd": _paid_usd(content),
        },
    )


def find_entry(content: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return the manifest's own entry of a picture, with what it failed for where it is in quarantine.

    :param key: As in its card.
    """
    for name in ("images", "quarantined"):
        for row in _rows(content, name):
            if isinstance(row.get("uri"), str) and image_key(row["uri"]) == key:
                same = ((failed, failed.get("id")) for failed in _rows(content, "failed") if name == "quarantined")
                failure = next((failed for failed, id_ in same if id_ == row.get("id")), {})
                return {**failure, **row}
    return None


def mark_rejected(card: Card, stems: Collection[str]) -> Card:
    """Return a card that says whether its picture is rejected.

    :param stems: Names without extension of those that are.
    """
    return card | {"rejected": True} if card.get("file", "").rpartition(".")[0] in stems else card


def read_rejection(content: bytes | None) -> dict[str, str | None]:
    """Return who rejected a picture, why and when, as far as its file tells."""
    try:
        found = json.loads(content or b"null")
    except (ValueError, RecursionError):
        found = None
    told = _mapping(found)
    return {name: _text(told.get(name)) for name in ("by", "comment", "rejected_at")}


def task_json(task: TaskRecord, gallery: Gallery, folder: Folder | None, cards: Sequence[Card]) -> dict[str, Any]:
    """Return what the answer says of one task instance.

    :param folder: Of its pictures, where they may be read.
    :param cards: Those of its cards that lie in the window.
    """
    return {
        "task_id": task.task_id,
        "map_index": task.map_index,
        "operator": task.operator,
        "state": task.state,
        "try_number": task.try_number,
        "form": gallery.form,
        "finished": gallery.finished,
        "written_at": gallery.written_at,
        "destination": folder.name if folder else None,
        "problem": gallery.problem,
        "totals": gallery.totals,
        "cards": cards,
    }


def _paid_usd(content: Mapping[str, Any]) -> float | None:
    """Return what was paid: as the manifest sums it up, else, where tasks before it bought, as ``spend`` does."""
    paid = _amount(content.get("paid_usd"))
    if paid is not None:
        return paid
    try:
        return summarise(manifest_records(content, "").records).totals.paid / MILLION
    except NoManifest:
        return None


def sum_totals(galleries: Sequence[Gallery]) -> dict[str, Any]:
    """Return the sums over several manifests; of money over those that know it."""
    totals: dict[str, Any] = {name: sum(gallery.totals[name] for gallery in galleries) for name in COUNTS}
    for name in _MONEY:
        known = [amount for gallery in galleries if (amount := gallery.totals[name]) is not None]
        totals[name] = round(math.fsum(known), 6) if known else None
    return totals


def _image(row: Mapping[str, Any], folder: Folder, pictures: dict[str, Picture]) -> Card:
    card = _card("image", row)
    if not _add_picture(card, row, folder, pictures):
        # Its money is in the sums all the same.
        card.update(code="outside", message="Its file does not lie beside the manifest, so it is not shown.")
    return card


def _failure(row: Mapping[str, Any]) -> Card:
    card = _card("failed", row)
    card["advice"] = _advice(card)
    return card


def _quarantined(
    row: Mapping[str, Any], failure: Mapping[str, Any], folder: Folder, pictures: dict[str, Picture]
) -> Card:
    card = _card("quarantined", {**failure, **row, "message": row.get("reason") or failure.get("message")})
    _add_picture(card, row, folder, pictures)
    card["advice"] = (
        "It is paid and kept. To accept it, set on_suspect='warn' and clear the task; to have another one, name it in "
        "redo."
        if card.get("code") == "suspect_image"
        else _advice(card)
    )
    return card


def _advice(card: Card) -> str:
    """Say what a retry or a clear does about what failed, as far as its entry tells."""
    may_help, charged = card.get("retry_may_help"), card.get("charged")
    if may_help and charged == "no":
        return "A retry, or a clear, submits it again; nothing is paid for it yet."
    if may_help:
        return "A retry, or a clear, finds out what became of it before anything is bought; the ledger says more."
    if charged == "no":
        return "No retry changes it: change the request, then clear the task. Nothing was paid for it."
    return "No retry changes it. The ledger says what was paid, and what a clear would do."


def _card(kind: str, row: Mapping[str, Any]) -> Card:
    """Return what a card says of an entry; keys of what is not known are left out."""
    asked = _mapping(row.get("fields"))
    stem, _ = split_stem(_text(row.get("key")) or "")
    name, variant, position = _text(row.get("name")), _text(row.get("variant")), _count(row.get("request"))
    label = name or ("" if position is None else f"#{position}") or _text(row.get("id")) or "?"
    card: Card = {
        "kind": kind,
        "label": f"{label}/{variant}" if variant else label,
        **{key: _text(row.get(key)) for key in _TEXTS},
        **{key: _text(asked.get(key)) for key in ("size", "resolution")},
        **{key: _amount(row.get(key)) if key.endswith("usd") else _count(row.get(key)) for key in _NUMBERS},
        **{key: row[key] for key in _FLAGS if isinstance(row.get(key), bool)},
        "group": stem or None,
        "meta": _meta(row.get("meta")),
        "suspect": [text for code in _list(row.get("suspect"))[:20] if (text := _text(code))] or None,
    }
    card["message"] = card["message"] and without_uris(card["message"])
    return {key: value for key, value in card.items() if value is not None}


def _add_picture(card: Card, row: Mapping[str, Any], folder: Folder, pictures: dict[str, Picture]) -> bool:
    """Give a card its picture, where that may be read."""
    uri, sha256 = row.get("uri"), row.get("sha256")
    place = picture_place(uri, folder)
    if place is None:
        return False
    known = sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
    key = image_key(str(uri))
    pictures[key] = Picture(place, known)
    card.update(key=key, file=place.name, sha=(known or "")[:8])
    card.setdefault("group", split_stem(place.stem)[0])
    return True


def without_uris(text: str) -> str:
    """Return a message in which each URI is the name of its file."""
    return _URI.sub(_file_name, text)


def _file_name(found: re.Match[str]) -> str:
    uri = found[0].rstrip(".,;:)")
    path = re.split("[?#]", uri, maxsplit=1)[0].split("/", 3)[3:]
    return ((path and path[0].rpartition("/")[2]) or "…") + found[0][len(uri) :]


def _rows(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in _list(content.get(name)) if isinstance(row, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + "…"


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MOST else None


def _amount(value: Any) -> float | None:
    """Return dollars, without the dust of sums in binary."""
    is_number = type(value) in (int, float) and 0 <= value < _MOST  # false for NaN
    return round(float(value), 6) if is_number else None


def _meta(value: Any) -> dict[str, Any] | None:
    """Return a row's own data, if it is not too much for a card."""
    if not isinstance(value, dict) or not value:
        return None
    try:
        return value if len(json.dumps(value, allow_nan=False)) <= _MOST_META else None
    except (ValueError, RecursionError):
        return None
