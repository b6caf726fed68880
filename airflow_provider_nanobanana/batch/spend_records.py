"""Spend records out of what the tasks leave at a destination: manifests of generate and of download, and books.

Whatever stands in the files is taken for what it says of money, and for nothing else. Manifests of version 1 are read
as well: they say moments in epoch seconds, and the oldest of them what was paid by ``cost_usd`` and ``reused``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from airflow_provider_nanobanana.batch.costs import micros
from airflow_provider_nanobanana.batch.spend import Outcome, SpendRecord
from airflow_provider_nanobanana.stored_forms import MANIFEST
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.failure_codes import EXPIRED
from airflow_provider_nanobanana.toapis.models import LINK_LIFETIME_SECONDS
from airflow_provider_nanobanana.toapis.response_values import parse_time, parse_usd_amount

#: Characters of a prompt that tell it from others.
LONGEST_REQUEST: Final = 60
#: Characters of any other text that is kept.
_LONGEST: Final = 250
_DAY_SECONDS: Final = 86_400.0
#: The first version says moments in epoch seconds.
_VERSIONS: Final = range(1, MANIFEST.version + 1)
_MOST_MAPPED: Final = 1 << 31
#: Outcomes of records that pay for no image task of their own.
_WITHOUT_ID: Final = frozenset({"shared", "reused", "further", "failed"})

#: Lists of what a download has not landed, or not yet.
_NOT_IN_PLACE: Final = ("under_way", "failed")

#: DAG, run, task and map index.
TaskInstance = tuple[str, str, str, int]


class NoManifest(ValueError):
    """The content of a file is no manifest of ours."""


@dataclass(frozen=True)
class ManifestRecords:
    """What a manifest tells of money.

    :param records: Of every entry that could be understood.
    :param reused: The stems of files that it found in place and says it paid nothing for.
    :param remembered: The stems of files that it paid for in an earlier try, of which it knows no more than that: it
        names no image task (before Airflow 3.3).
    :param shared: Ids of image tasks that somebody else bought.
    :param damaged: How many entries could not be understood.
    :param only_try: The number of the try whose purchases alone it sums up, beside images in place (before Airflow
        3.3, from the second try on); None where it sums up those of all tries.
    :param try_number: Of the try that wrote it; None where it says none.
    :param finished: Whether its task's work was over: otherwise its task may have bought more since.
    """

    records: list[SpendRecord]
    task_instance: TaskInstance
    reused: frozenset[str]
    remembered: frozenset[str]
    shared: frozenset[str]
    damaged: int
    only_try: int | None = None
    try_number: int | None = None
    finished: bool = True


def manifest_records(content: Any, destination: str) -> ManifestRecords:
    """Return the records of a manifest.

    :param content: Its JSON.
    :param destination: URI of the folder that it lies in.
    :raises NoManifest: It is none, or one of another version.
    """
    if not isinstance(content, dict) or not isinstance(content.get("dag_id"), str):
        raise NoManifest("it is no manifest of this provider")
    version = content.get("version")
    if MANIFEST.is_newer(version):
        raise NoManifest(f"it {MANIFEST.said(version)}")
    if type(version) is not int or version not in _VERSIONS:
        raise NoManifest(f"it is of version {version!s:.20}, and this reads versions 1 to {MANIFEST.version}")
    entries = _Entries(content, destination)
    records = list(entries.of_download() if isinstance(content.get("image_tasks"), list) else entries.of_generate())
    # Of what has no time of its own, the day is about that of the others, else that on which it was told.
    latest = max((record.day for record in records), default="") or _day(content.get("written_at"))
    records = [record if record.day else replace(record, day=latest) for record in records]
    number = content.get("try_number")
    try_number = number if isinstance(number, int) else None
    return ManifestRecords(
        records,
        entries.task_instance,
        reused=frozenset(entries.reused),
        remembered=frozenset(entries.remembered),
        shared=frozenset(entries.shared),
        damaged=entries.damaged,
        only_try=try_number if content.get("all_tries") is False else None,
        try_number=try_number,
        finished=content.get("finished") is not False,
    )


def booked_record(image_task_id: str, stem: str, model: str, *, at: float | None, base: SpendRecord) -> SpendRecord:
    """Return the record of a purchase that a book tells of, and no manifest: at list price.

    :param model: As ``ImageRequest.billed_as`` has it; older books know the model only.
    :param at: Epoch seconds of about the purchase.
    :param base: Has the destination and the task instance.
    """
    model_id, resolution, references = _billed_as(model)
    paid = listed_price(model_id, resolution, references)
    return replace(
        base,
        outcome="booked",
        image_task_id=image_task_id,
        day=_day(at),
        model=model_id,
        request=stem[:LONGEST_REQUEST],
        paid=paid,
        listed=paid or 0,
    )


def _billed_as(told: str) -> tuple[str, str, int]:
    """Return model, resolution and number of references as a book has them; a model's id may hold blanks."""
    model, _, last = told.rpartition(" ")
    if not model:
        return last, "", 0
    before, _, resolution = model.rpartition(" ")
    if before and last.isdecimal():
        return before, resolution, int(last)
    return model, last, 0


def listed_price(model: str, resolution: str, references: int = 0) -> int | None:
    """Return the list price of an image in millionths of a USD; None where none is known.

    :param resolution: Empty stands for the one that is asked for where nothing is said.
    """
    price = catalogue.list_price(model or catalogue.DEFAULT_MODEL, resolution or "1K", references=references)
    return None if price is None else micros(price)


class _Entries:
    """The lists of one manifest, entry by entry.

    :param destination: URI of the folder that it lies in.
    """

    def __init__(self, content: Mapping[str, Any], destination: str) -> None:
        self._content = content
        map_index = content.get("map_index")
        mapped = isinstance(map_index, int) and 0 <= map_index < _MOST_MAPPED
        names = (_text(content.get(name)) for name in ("dag_id", "run_id", "task_id"))
        self.task_instance: TaskInstance = (*names, map_index if mapped else -1)  # type: ignore[assignment]
        #: The fields that all records of the manifest have in common.
        self._who = (destination, *self.task_instance)
        self.reused: set[str] = set()
        self.remembered: set[str] = set()
        self.shared: set[str] = set()
        self.damaged = 0

    def of_generate(self) -> Iterator[SpendRecord]:
        """Yield a record for each entry, and one for what was paid for requests that are listed no more."""
        paid = listed = lost_race = 0
        for record in self._of_requests():
            paid += record.paid or 0
            listed += record.listed
            lost_race += record.lost_race
            yield record
        content = self._content
        total = _micros(content.get("paid_usd", content.get("cost_usd"))) or 0
        rest = max(0, total - paid)
        lost = max(0, (_micros(content.get("lost_race")) or 0) - lost_race)
        if rest or lost:
            estimated = max(0, (_micros(content.get("of_which_listed_usd")) or 0) - listed)
            yield SpendRecord("earlier", "", *self._who, paid=rest, listed=min(rest, estimated), lost_race=lost)

    def _of_requests(self) -> Iterator[SpendRecord]:
        seen: set[tuple[str, int]] = set()
        for entry in self._entries("images"):
            request = entry.get("request")
            # Variants of a row share its position.
            asked = (_text(entry.get("key")), request if isinstance(request, int) else -1)
            yield self._image(entry, further=asked in seen)
            if asked != ("", -1):
                seen.add(asked)
        for entry in self._entries("failed"):
            yield self._failure(entry)
        for entry in self._entries("former"):
            yield self._left_over(entry, "bought")
        for entry in self._entries("abandoned"):
            yield self._left_over(entry, "missing")
        for entry in self._entries("under_way"):
            paid = self._paid(entry)
            if entry.get("shared") is True:
                self.shared.add(_text(entry.get("id")))
            if paid or entry.get("shared") is not True:
                yield self._record("missing", entry, paid, _day(entry.get("submitted_at")))

    def _image(self, entry: Mapping[str, Any], *, further: bool) -> SpendRecord:
        """Return the record of an image in place.

        :param further: Whether it came beside the one that was asked for.
        """
        times = entry.get("times")
        day = _day(times.get("submitted_at")) if isinstance(times, dict) else ""
        outcome: Outcome = "bought"
        if further:
            outcome = "further"
        elif entry.get("reused") is True:
            outcome = "reused"
            if not self._paid(entry):
                self.reused.add(_stem(entry))
        elif entry.get("shared") is True:
            outcome = "shared"
            self.shared.add(_text(entry.get("id")))
        elif not entry.get("id") and self._paid(entry):
            self.remembered.add(_stem(entry))
        return self._record(outcome, entry, self._paid(entry), day)

    def _failure(self, entry: Mapping[str, Any]) -> SpendRecord:
        """Return the record of a request, or of a further image, that brought none."""
        paid = self._paid(entry)
        free = entry.get("charged") == "no" and not paid
        if paid or (not free and entry.get("shared") is not True):
            return self._record("missing", entry, paid, "")
        bought_here = entry.get("id") and entry.get("shared") is not True
        return self._record("refunded" if bought_here else "failed", entry, 0, "")

    def _left_over(self, entry: Mapping[str, Any], outcome: Outcome) -> SpendRecord:
        """Return the record of what an earlier list of requests left."""
        expires_at = _moment(entry.get("expires_at"))
        day = "" if expires_at is None else _day(expires_at - LINK_LIFETIME_SECONDS)
        return self._record(outcome, entry, self._paid(entry), day)

    def _paid(self, entry: Mapping[str, Any]) -> int | None:
        """Return what the task instance paid for an entry, or None where the manifest does not know the price."""
        if "paid_usd" in entry:
            return _micros(entry["paid_usd"])
        free = entry.get("shared") is True or entry.get("reused") is True
        return 0 if free else _micros(entry.get("cost_usd"))

    def _record(self, outcome: Outcome, entry: Mapping[str, Any], paid: int | None, day: str) -> SpendRecord:
        request = entry.get("name")
        if not isinstance(request, str):
            asked = entry.get("fields")
            request = asked.get("prompt") if isinstance(asked, dict) else ""
        # Of what is shared, in place before, or further, the image task counts where it was bought.
        own = entry.get("shared") is not True and (outcome in ("bought", "refunded") or not entry.get("index"))
        return SpendRecord(
            outcome,
            _text(entry.get("id")) if own and outcome not in _WITHOUT_ID else "",
            *self._who,
            day,
            _text(entry.get("model")),
            request[:LONGEST_REQUEST] if isinstance(request, str) else "",
            paid,
            (paid or 0) if entry.get("cost_is_listed") is True else 0,
            min(_micros(entry["lost_race"]) or 0, paid or 0) if "lost_race" in entry else 0,
        )

    def of_download(self) -> Iterator[SpendRecord]:
        """Yield a record for each image task, priced by its request, else by the model and the pixels."""
        landed = {_text(image.get("id")): image for image in self._entries("images")}
        failed = {_text(failure.get("id")): failure for name in _NOT_IN_PLACE for failure in self._entries(name)}
        for entry in self._entries("image_tasks"):
            image_task_id = _text(entry.get("id"))
            image = landed.get(image_task_id)
            known = image or failed.get(image_task_id) or {}
            yield self._image_task(entry, known, landed=image is not None)

    def _image_task(self, entry: Mapping[str, Any], known: Mapping[str, Any], *, landed: bool) -> SpendRecord:
        """Return the record of an image task.

        :param known: What the manifest says of an image or a failure of it.
        :param landed: Whether an image of it is in place.
        """
        model = _text(entry.get("model"))
        error = entry.get("error")
        expired = isinstance(error, dict) and error.get("code") == EXPIRED.code
        paid, listed = _micros(entry.get("cost_usd")), 0
        outcome: Outcome = "bought" if landed else "missing"
        if entry.get("status") == "failed" and not paid and not expired:
            outcome, paid = "refunded", 0
        elif paid is None:
            paid = _listed_price(model, known)
            listed = paid or 0
        day = _day(entry.get("created_at")) or _day(entry.get("completed_at"))
        return SpendRecord(outcome, _text(entry.get("id")), *self._who, day, model, "", paid, listed)

    def _entries(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Yield the entries of a list that are mappings, and count what is none."""
        entries = self._content.get(name, [])
        if not isinstance(entries, list):
            self.damaged += 1
            return
        for entry in entries:
            if isinstance(entry, dict):
                yield entry
            else:
                self.damaged += 1


def _text(value: Any) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _micros(value: Any) -> int | None:
    usd = parse_usd_amount(value)
    return None if usd is None else micros(usd)


def _stem(entry: Mapping[str, Any]) -> str:
    """Return the name, without suffix, of the file that an image is in."""
    return _text(entry.get("uri")).rpartition("/")[2].rpartition(".")[0]


def _listed_price(model: str, known: Mapping[str, Any]) -> int | None:
    """Return the list price of an image by its request, of which the submit task told; else by its pixels.

    :param known: What the manifest says of the image, or of the failure.
    """
    asked = known.get("fields")
    asked = asked if isinstance(asked, Mapping) else {}
    references = asked.get("reference_images")
    return listed_price(
        model,
        _text(asked.get("resolution")) or _resolution(model, known.get("width"), known.get("height")),
        len(references) if isinstance(references, list) else 0,
    )


def _resolution(model: str, width: Any, height: Any) -> str:
    """Return the resolution of a model's image of so many pixels, empty where it is not known."""
    if not isinstance(width, int) or not isinstance(height, int):
        return ""
    return catalogue.resolution_of(model, width, height) or ""


def _day(at: Any) -> str:
    """Return the day of a moment in UTC, as it is sorted; empty where it is none."""
    seconds = _moment(at)
    return "" if seconds is None else _day_text(int(seconds // _DAY_SECONDS))


def _moment(at: Any) -> float | None:
    """Return epoch seconds of a moment as either version writes it; None where it is none."""
    if not isinstance(at, str):
        return parse_time(at)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return parse_time(at)
    return parse_time(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


@lru_cache(maxsize=4096)
def _day_text(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY_SECONDS, UTC).date().isoformat()
