"""``summarise``: what was paid, when, by whom and for what, out of one record for each image; pure.

Sums are kept in millionths of a USD, so that each is exactly the sum of its parts, whichever way it is split. An image
task counts once, however many records tell of it, and the order of the records does not matter. Of a million records
about 40 MB are kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Final, Literal, get_args

from airflow_provider_nanobanana.batch.costs import MILLION

#: How a record ended. ``bought``: paid by this task instance and in place; ``shared``: in place, bought by another one;
#: ``reused``: was in place before; ``further``: in place beside the image that was asked for; ``missing``: paid, or
#: perhaps paid, and not in place; ``refunded``: the service failed the image task and took nothing; ``failed``: nothing
#: was bought; ``booked``: bought by the word of a book, and in no manifest; ``earlier``: no image, but what a task
#: instance paid for requests that its manifest lists no more.
Outcome = Literal["bought", "shared", "reused", "further", "missing", "refunded", "failed", "booked", "earlier"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

Dimension = Literal["day", "month", "dag", "run", "model", "request", "destination"]
#: What tells the groups of a dimension apart.
DIMENSIONS: Final[Mapping[Dimension, tuple[str, ...]]] = {
    "day": ("day",),
    "month": ("month",),
    "dag": ("dag",),
    "run": ("dag", "run"),
    "model": ("model",),
    "request": ("request",),
    "destination": ("destination",),
}
#: What tells the finest groups apart: all tables are made of them, but the one by request.
FINEST: Final = ("destination", "dag", "run", "model", "day")
#: Their groups stand in the order of time.
IN_TIME: Final[frozenset[Dimension]] = frozenset({"day", "month"})


@dataclass(frozen=True, slots=True)
class SpendRecord:
    """What one image, or one image task, cost one task instance.

    :param image_task_id: Empty where the record pays for none of its own: such records never meet.
    :param destination: URI of the folder.
    :param map_index: Below 0 for a task that is not mapped.
    :param day: Of the submit in UTC, ``2026-11-26``; empty where that is not known.
    :param request: Its name, or the beginning of its prompt.
    :param paid: Millionths of a USD that the task instance paid, not below 0; None where nobody knows the price.
    :param listed: How much of it is estimated: list prices in place of bills.
    :param lost_race: How much of it went for image tasks whose picture is not the one in place.
    """

    outcome: Outcome
    image_task_id: str = ""
    destination: str = ""
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    day: str = ""
    model: str = ""
    request: str = ""
    paid: int | None = 0
    listed: int = 0
    lost_race: int = 0


@dataclass(frozen=True)
class SpendTotals:
    """Sums over records: of money in millionths of a USD, and numbers of records by outcome.

    :param paid: All of it; ``listed``, ``lost_race`` and ``earlier`` are parts of it.
    :param earlier: For requests that the manifests list no more.
    :param unpriced: Records whose price nobody knows; they are in no sum.
    """

    paid: int = 0
    listed: int = 0
    lost_race: int = 0
    earlier: int = 0
    unpriced: int = 0
    bought: int = 0
    shared: int = 0
    reused: int = 0
    further: int = 0
    missing: int = 0
    refunded: int = 0
    failed: int = 0
    booked: int = 0

    def plain(self) -> dict[str, Any]:
        """Return plain JSON, money in USD."""
        return {
            "paid_usd": self.paid / MILLION,
            "of_which_listed_usd": self.listed / MILLION,
            "lost_race_usd": self.lost_race / MILLION,
            "earlier_usd": self.earlier / MILLION,
            **{name: getattr(self, name) for name in COUNTS},
        }


_FIELDS: Final = tuple(field.name for field in fields(SpendTotals))
#: All of the totals' values, in order.
_values: Final = attrgetter(*_FIELDS)
_PAID, _LISTED, _LOST_RACE, _EARLIER, _NO_PRICE = range(5)
#: The numbers among the totals.
COUNTS: Final = _FIELDS[_NO_PRICE:]
_NUMBERS: Final[Mapping[str, int]] = {outcome: number for number, outcome in enumerate(OUTCOMES)}
#: Where a record of each outcome is counted.
_PLACES: Final = tuple(_FIELDS.index(outcome) for outcome in OUTCOMES)
#: In place of the outcome of a record that tells of what another one counts.
_DROPPED: Final = len(OUTCOMES)
#: Into how many parts a million values are split to be sorted.
_PARTS: Final = 8
_Key = tuple[str, ...]
#: The group of each dimension that one of the finest belongs to.
_KEYS: Final[Mapping[Dimension, Callable[[_Key], _Key]]] = {
    "destination": lambda key: key[:1],
    "dag": lambda key: key[1:2],
    "run": lambda key: key[1:3],
    "model": lambda key: key[3:4],
    "day": lambda key: key[4:],
    "month": lambda key: (key[4][:7],),
}
#: In place of a sum that nobody knows.
_UNPRICED: Final = -1


@dataclass(frozen=True)
class SpendGroup:
    """What one day, DAG, run, ... comes to.

    :param key: As :data:`DIMENSIONS`, or :data:`FINEST`, names its parts; an empty text stands for what is not known.
    """

    key: tuple[str, ...]
    totals: SpendTotals


@dataclass(frozen=True)
class SpendTable:
    """The groups of one dimension: days and months in order, all others by what is paid, the largest sum first.

    :param left_out: How many groups there are beyond those that are wanted: earlier ones, or those with smaller sums.
    :param others: The totals of these.
    """

    groups: Sequence[SpendGroup]
    left_out: int = 0
    others: SpendTotals = SpendTotals()


@dataclass(frozen=True)
class SpendSummary:
    """The totals of all records, and a table of each dimension that was asked for."""

    totals: SpendTotals
    tables: Mapping[Dimension, SpendTable]


def summarise(records: Iterable[SpendRecord], by: Iterable[Dimension] = (), *, most: int | None = None) -> SpendSummary:
    """Return what records come to; each is looked at once, as it comes.

    Of several records of one image task the one counts that comes first in this order: manifests before books, the
    dearest, one whose picture is in place, then by destination, DAG, run, task and map index. What another record
    counts as bought is shared.

    :param by: The dimensions to split by; each table adds up to the totals.
    :param most: How many groups of each table are wanted, at least 1; None for all of them.
    """
    wanted = tuple(dict.fromkeys(by))
    rows = _Rows(records, with_requests="request" in wanted)
    summary = summarise_groups(rows.groups(), [dimension for dimension in wanted if dimension != "request"], most=most)
    tables = dict(summary.tables)
    if "request" in wanted:
        tables["request"] = _table(rows.by_request(), "request", most)
    return SpendSummary(summary.totals, {dimension: tables[dimension] for dimension in wanted})


def finest_groups(records: Iterable[SpendRecord]) -> list[SpendGroup]:
    """Return what records come to by all parts of :data:`FINEST` together: a choice of groups can be summarised."""
    return _Rows(records, with_requests=False).groups()


def summarise_groups(
    groups: Iterable[SpendGroup], by: Iterable[Dimension] = (), *, most: int | None = None
) -> SpendSummary:
    """Return what groups of :func:`finest_groups` come to, as :func:`summarise` would of the records in them.

    :param by: Any dimension but ``request``.
    """
    every = list(groups)
    tables: dict[Dimension, SpendTable] = {}
    for dimension in by:
        parts: dict[_Key, list[SpendGroup]] = {}
        for group in every:
            parts.setdefault(_KEYS[dimension](group.key), []).append(group)
        tables[dimension] = _table((SpendGroup(key, _added(some)) for key, some in parts.items()), dimension, most)
    return SpendSummary(_added(every), tables)


def _table(groups: Iterable[SpendGroup], dimension: Dimension, most: int | None) -> SpendTable:
    """Return the groups in their order, no more than are wanted: the latest, or those with the largest sums."""
    if dimension in IN_TIME:
        every = sorted(groups, key=lambda group: group.key)
        cut = 0 if most is None else max(0, len(every) - most)
        return SpendTable(every[cut:], cut, _added(every[:cut]))

    def rank(group: SpendGroup) -> tuple[int, tuple[str, ...]]:
        return (-group.totals.paid, group.key)

    if most is None:
        return SpendTable(sorted(groups, key=rank))
    kept: list[SpendGroup] = []
    left_out, others = 0, SpendTotals()
    remaining = iter(groups)
    # A few at a time: a million requests need not be in memory at once.
    while some := list(islice(remaining, max(most, 1_000))):
        every = sorted([*kept, *some], key=rank)
        kept = every[:most]
        left_out += len(every[most:])
        others = _added([SpendGroup((), others), *every[most:]])
    return SpendTable(kept, left_out, others)


def _added(groups: Iterable[SpendGroup]) -> SpendTotals:
    """Return the sums over groups."""
    columns = zip(*(_values(group.totals) for group in groups), strict=True)
    return SpendTotals(*map(sum, columns))


class _Rows:
    """Records in columns, each image task counted once: a million of them would take half a gigabyte as objects."""

    def __init__(self, records: Iterable[SpendRecord], *, with_requests: bool) -> None:
        #: Hashes: of a million ids, two different ones meet once in forty million times.
        self._ids = array("q")
        self._task_instances = array("i")
        self._days = array("i")
        self._models = array("i")
        self._outcomes = bytearray()
        self._paid = array("q")
        self._listed = array("q")
        self._lost_race = array("q")
        self._numbers: dict[str, dict[Any, int]] = {"task instance": {}, "day": {}, "model": {}}
        #: The same by number, once all are there.
        self._names: list[list[Any]] = [[], [], []]
        self._requests = _Texts() if with_requests else None
        for record in records:
            self._add(record)
        self._settle()

    def _add(self, record: SpendRecord) -> None:
        self._ids.append(hash(record.image_task_id) if record.image_task_id else 0)
        task_instance = (record.destination, record.dag_id, record.run_id, record.task_id, record.map_index)
        self._task_instances.append(self._number("task instance", task_instance))
        self._days.append(self._number("day", record.day))
        self._models.append(self._number("model", record.model))
        self._outcomes.append(_NUMBERS[record.outcome])
        self._paid.append(_UNPRICED if record.paid is None else record.paid)
        self._listed.append(record.listed)
        self._lost_race.append(record.lost_race)
        if self._requests is not None:
            self._requests.append(record.request)

    def _settle(self) -> None:
        """Let each image task count once; nothing is added afterwards."""
        self._names = [list(numbers) for numbers in self._numbers.values()]
        for alike in _alike(self._ids):
            if len(alike) > 1 and self._ids[alike[0]]:
                self._count_once(alike)

    def _count_once(self, alike: Sequence[int]) -> None:
        for row in sorted(alike, key=self._rank)[1:]:
            if self._outcomes[row] == _NUMBERS["booked"]:
                self._outcomes[row] = _DROPPED
                continue
            if self._outcomes[row] == _NUMBERS["bought"]:
                self._outcomes[row] = _NUMBERS["shared"]
            self._paid[row] = self._lost_race[row]
            self._listed[row] = min(self._listed[row], self._paid[row])

    def _rank(self, row: int) -> tuple[Any, ...]:
        """Return what decides which record of an image task counts; equal ranks are equal records."""
        task_instances, days, models = self._names
        return (
            self._outcomes[row] == _NUMBERS["booked"],
            -self._paid[row],
            self._outcomes[row],
            task_instances[self._task_instances[row]],
            -self._listed[row],
            -self._lost_race[row],
            days[self._days[row]],
            models[self._models[row]],
            "" if self._requests is None else self._requests[row],
        )

    def groups(self) -> list[SpendGroup]:
        """Return the sums by all parts of :data:`FINEST`."""
        task_instances, days, models = self._names
        sums: dict[_Key, list[int]] = {}
        for row, number in enumerate(self._task_instances):
            if self._outcomes[row] == _DROPPED:
                continue
            key = (*task_instances[number][:3], models[self._models[row]], days[self._days[row]])
            into = sums.get(key)
            if into is None:
                into = sums[key] = [0] * len(_FIELDS)
            self._add_to(into, row)
        return [SpendGroup(key, SpendTotals(*values)) for key, values in sums.items()]

    def by_request(self) -> Iterator[SpendGroup]:
        """Yield the sums by request; of a million requests no more than one is in memory at a time."""
        requests = self._requests
        assert requests is not None
        for alike in _alike(requests.hashes):
            rows = [row for row in alike if self._outcomes[row] != _DROPPED]
            sums = [0] * len(_FIELDS)
            for row in rows:
                self._add_to(sums, row)
            if rows:
                yield SpendGroup((requests[rows[0]],), SpendTotals(*sums))

    def _add_to(self, sums: list[int], row: int) -> None:
        place = _PLACES[self._outcomes[row]]
        if place != _EARLIER:
            sums[place] += 1
        paid = self._paid[row]
        if paid == _UNPRICED:
            sums[_NO_PRICE] += 1
            return
        sums[_PAID] += paid
        sums[_LISTED] += self._listed[row]
        sums[_LOST_RACE] += self._lost_race[row]
        if place == _EARLIER:
            sums[_EARLIER] += paid

    def _number(self, what: str, value: Any) -> int:
        numbers = self._numbers[what]
        return numbers.setdefault(value, len(numbers))


class _Texts:
    """Short texts, end to end, with a hash of each."""

    def __init__(self) -> None:
        self.hashes = array("q")
        self._bytes = bytearray()
        self._starts = array("q", [0])

    def append(self, text: str) -> None:
        self.hashes.append(hash(text))
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._starts.append(len(self._bytes))

    def __getitem__(self, position: int) -> str:
        start, end = self._starts[position], self._starts[position + 1]
        return self._bytes[start:end].decode("utf-8", "surrogatepass")


def _alike(values: Sequence[int]) -> Iterator[list[int]]:
    """Yield the positions of equal values together; a part of the values at a time, for the sake of memory."""
    for part in range(_PARTS):
        positions = [position for position, value in enumerate(values) if value % _PARTS == part]
        positions.sort(key=values.__getitem__)
        for _, alike in groupby(positions, key=values.__getitem__):
            yield list(alike)
