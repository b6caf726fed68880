"""Image spend: what was paid for images in this month and the last, as the page *Image spend* shows it.

It reads what the command ``spend`` reads, by the same reader, at the destinations that task instances of these months
have named (XCom ``nanobanana_gallery``) and that may be read for them. All is summed up once for everybody, so an image
task counts for the same DAG whoever looks; a person then sees the groups of the DAGs that they may read, and no word of
any other. Blocking: for one thread at a time.
"""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow_provider_nanobanana.batch.manifest import utc_text
from airflow_provider_nanobanana.batch.manifest_cache import ManifestCache
from airflow_provider_nanobanana.batch.spend import (
    Dimension,
    SpendGroup,
    SpendRecord,
    SpendSummary,
    SpendTable,
    finest_groups,
    summarise_groups,
)
from airflow_provider_nanobanana.batch.spend_csv import COLUMNS, cleaned, csv_cell, summary_rows
from airflow_provider_nanobanana.batch.spend_reader import Place, SpendReader, list_place
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.ui.confinement import Folder
from airflow_provider_nanobanana.ui.manifests import MOST_BYTES, GalleryPointer, parse_manifest, storage_of

log = LineLogger(__name__)

TABLES: Final[tuple[Dimension, ...]] = ("dag", "run", "model", "day")
#: Rows of a table on the page; what is beyond is one row. CSV has all of them.
_MOST_ROWS: Final = 500
#: Seconds for which a sum is shown as it is, and for which reading may take; what was read is kept for the next time.
_FRESH, _PATIENCE = 60.0, 20.0
#: Said where a manifest remembers no earlier try.
_OF_ONE_TRY: Final = (
    "Before Airflow 3.3 a task that is retried or cleared does not know what its earlier tries paid: that is counted "
    "by the books beside the images, at list price, which may be gone after a week, and not at all with claims off"
)
#: A manifest that was last written before the last month tells of no day in it; clocks may differ by so much.
_MARGIN: Final = timedelta(days=2)

#: The DAGs, of those that are asked for, that a person may read.
Readable = Callable[[Iterable[str]], set[str]]


#: Returns what task instances of all DAGs have said since a moment.
Pointers = Callable[[datetime], Iterable[GalleryPointer]]


@dataclass(frozen=True)
class Spend:
    """What was read, for everybody.

    :param at: Epoch seconds.
    :param months: This one and the last, ``2026-11``.
    :param groups: From ``finest_groups``.
    :param places: By the DAGs that have named a destination: how many.
    :param problems: What could not be read, in words, with the DAGs that it concerns.
    """

    at: float
    months: tuple[str, str]
    groups: tuple[SpendGroup, ...]
    places: Mapping[frozenset[str], int]
    problems: tuple[tuple[frozenset[str], str], ...]

    @property
    def dags(self) -> set[str]:
        """All DAGs that anything is told of."""
        named = {dag_id for dag_ids in self.places for dag_id in dag_ids}
        return named | {_dag(group) for group in self.groups} | {dag for dags, _ in self.problems for dag in dags}

    def summary(self, month: str, dags: set[str], most: int | None = None) -> SpendSummary:
        """Return what a month comes to for somebody who may read these DAGs."""
        groups = (group for group in self.groups if group.key[-1][:7] == month and _dag(group) in dags)
        return summarise_groups(groups, TABLES, most=most)


@dataclass
class SpendPage:
    """Reads destinations for the page, and keeps what it has read.

    :param clock: Seconds, for how long something takes.
    """

    clock: Callable[[], float] = time.monotonic
    _cache: ManifestCache = field(default_factory=ManifestCache)
    _listed: dict[Folder, tuple[float, Place]] = field(default_factory=dict)
    _last: Spend | None = None

    def read(self, pointers: Pointers, now: float) -> Spend:
        """Return what was paid, at most a minute old.

        :param now: Epoch seconds.
        """
        if self._last is None or not 0 <= now - self._last.at < _FRESH:
            self._last = self._read_anew(pointers, now)
        return self._last

    def _read_anew(self, pointers: Pointers, now: float) -> Spend:
        began = self.clock()
        today = datetime.fromtimestamp(now, UTC)
        this_month = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        last_month = (this_month - timedelta(days=1)).replace(day=1)
        dags_of, closed = _destinations(pointers(last_month))
        problems = [(frozenset([dag_id]), _closed_words(number)) for dag_id, number in sorted(closed.items())]
        since = (last_month - _MARGIN).timestamp()
        places: dict[Folder, Place] = {}
        for folder in sorted(dags_of, key=lambda one: (self._listed.get(one, (0.0,))[0], one.uri)):
            # Half of the time is for the files.
            late = self.clock() - began >= _PATIENCE / 2
            try:
                places[folder] = self._list(folder, since, now, late=late)
            except ToApisError as error:
                log.warning("Image spend: %s cannot be read: %s", folder.uri, error.message)
                problems.append((frozenset(dags_of[folder]), f"{folder.name}: the api-server cannot read this store"))
            except TimeoutError:
                words = f"{folder.name}: not read yet, as there are many: look again"
                problems.append((frozenset(dags_of[folder]), words))
        unread: Counter[Folder] = Counter()

        def skip(file: str, why: str) -> None:
            log.debug("Image spend: %s was left out: %s", file, why)
            unread.update(folder for folder, place in places.items() if file.startswith(f"{place.uri}/"))

        def may_read() -> bool:
            return self.clock() - began < _PATIENCE

        reader = SpendReader(
            places.values(), skip, cache=self._cache, may_read=may_read, parse=parse_manifest, most_bytes=MOST_BYTES
        )
        named = {place.uri: dags_of[folder] for folder, place in places.items()}
        foreign: Counter[str] = Counter()
        groups = tuple(finest_groups(_of_own(reader.records(), named, foreign)))
        for folder, place in places.items():
            words = f"{folder.name}: images whose DAG does not say that it puts any there: {foreign[place.uri]:,}"
            problems += [(frozenset(dags_of[folder]), words)] * (foreign[place.uri] > 0)
        for dag_id, number in reader.of_one_try.items():
            problems += [(frozenset([dag_id]), _OF_ONE_TRY)] * (number > 0)
        for folder, number in unread.items():
            why = "copies, damaged, of another version, too large, or not read yet"
            words = f"{folder.name}: files that were left out ({why}): {number:,}"
            problems.append((frozenset(dags_of[folder]), words))
        self._listed = {folder: listed for folder, listed in self._listed.items() if folder in dags_of}
        months = (this_month.strftime("%Y-%m"), last_month.strftime("%Y-%m"))
        return Spend(now, months, groups, Counter(map(frozenset, dags_of.values())), tuple(problems))

    def _list(self, folder: Folder, since: float, now: float, *, late: bool) -> Place:
        """Return a destination with what there is to be read; where it is late, as it was listed before.

        :raises TimeoutError: It is late, and it never was.
        :raises ToApisError: It cannot be listed.
        """
        if not late:
            self._listed[folder] = (now, list_place(storage_of(folder), since))
        elif folder not in self._listed:
            raise TimeoutError
        place = self._listed[folder][1]
        return Place(place.storage, place.books, place.manifests)


def spend_json(pointers: Pointers, readable: Readable, now: float) -> dict[str, Any]:
    """Return what the page shows to a person: sums of the months, by DAG, run, model and day.

    :param pointers: ``task_records.gallery_pointers``.
    :param readable: Returns those of the given DAG ids that they may read.
    :param now: Epoch seconds.
    """
    return page_json(_PAGE.read(pointers, now), readable)


def spend_csv(pointers: Pointers, readable: Readable, now: float) -> Iterator[str]:
    """Yield the same as lines of CSV, below a head line; arguments as for :func:`spend_json`."""
    return page_csv(_PAGE.read(pointers, now), readable)


def page_json(spend: Spend, readable: Readable) -> dict[str, Any]:
    """Return what a person sees of a sum; of rows that are left out, one has the number, and no key."""
    dags = readable(spend.dags)
    by_month = {month: spend.summary(month, dags, _MOST_ROWS) for month in spend.months}
    return {
        "months": list(spend.months),
        "month": {
            month: {
                "totals": summary.totals.plain(),
                "tables": {dimension: _plain(table) for dimension, table in summary.tables.items()},
            }
            for month, summary in by_month.items()
        },
        "skipped": _problems(spend, dags),
        "destinations": sum(number for named, number in spend.places.items() if named & dags),
        "written_at": utc_text(spend.at),
    }


def page_csv(spend: Spend, readable: Readable) -> Iterator[str]:
    """Yield the lines of CSV that a person gets of a sum; what could not be read is said at the end."""
    dags = readable(spend.dags)
    yield _line(["month", *COLUMNS])
    for month in spend.months:
        for row in summary_rows(spend.summary(month, dags)):
            yield _line([month, *row])
    for words in _problems(spend, dags):
        yield _line(["", "left out", csv_cell("", words)])


def _problems(spend: Spend, dags: set[str]) -> list[str]:
    """Return what could not be read, as far as it concerns these DAGs."""
    return list(dict.fromkeys(cleaned("", words) for concerned, words in spend.problems if concerned & dags))


def _plain(table: SpendTable) -> list[dict[str, Any]]:
    rows = [{"key": [cleaned("", part) for part in group.key], **group.totals.plain()} for group in table.groups]
    if table.left_out:
        rows.append({"key": [], "groups": table.left_out, **table.others.plain()})
    return rows


def _line(cells: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _dag(group: SpendGroup) -> str:
    return group.key[1]


def _destinations(pointers: Iterable[GalleryPointer]) -> tuple[dict[Folder, set[str]], Counter[str]]:
    """Return the destinations that may be read, with the DAGs that named them; and how many may not, by DAG."""
    dags_of: dict[Folder, set[str]] = {}
    closed: set[tuple[str, Folder | None]] = set()
    for pointer in pointers:
        if pointer.readable and pointer.folder is not None:
            dags_of.setdefault(pointer.folder, set()).add(pointer.dag_id)
        else:
            closed.add((pointer.dag_id, pointer.folder))
    return dags_of, Counter(dag_id for dag_id, folder in closed if folder not in dags_of)


def _of_own(
    records: Iterable[SpendRecord], named: Mapping[str, set[str]], foreign: Counter[str]
) -> Iterator[SpendRecord]:
    """Yield the records of DAGs that have named the destination, and count the others.

    Whoever may write to one folder must not change what another DAG is said to have paid.

    :param named: The DAGs by the URI of the destination.
    """
    for record in records:
        if record.dag_id in named[record.destination]:
            yield record
        else:
            foreign[record.destination] += 1


def _closed_words(number: int) -> str:
    return (
        f"destinations that may not be read: {number:,}. Airflow keeps what a task rendered for its latest runs only; "
        "[nanobanana] gallery_roots lets more be read"
    )


#: What this process has read.
_PAGE: Final = SpendPage()
