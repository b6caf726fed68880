"""``CostTracker``: what each item of a batch has cost in all its image tasks, and whether the next may be bought.

What is about to be sent is reserved first, so that the limit holds however many submits are under way.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.costs import Cost, PriceClass, Spent, format_usd, price_class_of
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.budget import Bills, Budget
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

#: In place of an image task's id: what is being bought now, and what earlier processes knew of lost image tasks.
_PENDING: Final = "pending"
_SUNK: Final = "sunk"
#: Before the first image of a price class has ended, those under way are reckoned at so many times their list price:
#: so much dearer may the service be than the price list, and the limit holds all the same.
_UNTESTED: Final = 10


class BudgetExceeded(ToApisError):
    """The next image would pass ``max_cost_usd``; nothing was sent for it."""


class Unbilled(ToApisError):
    """With a limit, nothing more is bought before it is seen what the service bills for what is under way."""


class CostTracker:
    """Holds costs by item and image task: an item that was paid, lost and bought again counts twice; thread-safe.

    Against the limit counts what the service billed; until then the list price, or the highest bill seen for the same
    model and resolution, if that is higher.

    :param entries: What earlier attempts paid, by item key, also for items that are wanted no more.
    :param items: Those that the entries are of, as far as they are known: their bills tell what others will cost.
    """

    def __init__(
        self, budget: Budget, entries: Iterable[tuple[str, LedgerEntry]], items: Iterable[BatchItem] = ()
    ) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._spent = Spent()
        #: The same, as it counts against the limit, and as it might turn out before the first bills are seen.
        self._counted, self._worst_case = Spent(), Spent()
        self._parts: dict[str, dict[str, Cost]] = {}
        self._bills: dict[PriceClass, float] = {}
        self._bill_seen: set[PriceClass] = set()
        self._price_class_by_key: dict[str, PriceClass] = {}
        self._keys_by_price_class: defaultdict[PriceClass, set[str]] = defaultdict(set)
        known = {item.key: item for item in items}
        for key, entry in entries:
            if (item := known.get(key)) is not None:
                self._observe_bill(item, None if entry.is_list_price else entry.cost, tested=_cost_was_seen(entry))
            parts = {_SUNK: Cost(entry.sunk_cost, entry.sunk_is_list_price)} if entry.sunk_cost else {}
            if entry.cost is not None or entry.is_list_price:
                parts[(entry.record and entry.record.image_task_id) or ""] = Cost(entry.cost, entry.is_list_price)
            if parts:
                self._set(key, parts)

    @property
    def usd(self) -> float:
        """What the batch has cost so far, earlier attempts included, in USD."""
        return self._spent.usd

    @property
    def counted_usd(self) -> float:
        """What counts against the limit, in USD; nothing where there is none."""
        return self._counted.usd

    def totals(self) -> dict[str, Any]:
        """Return what goes into result, manifest and metrics."""
        with self._lock:
            return self._spent.totals()

    def cost(self, item: BatchItem) -> Cost:
        """Return what an item has cost in all."""
        with self._lock:
            return _sum(self._parts.get(item.key, {}))

    def ledger_fields(self, item: BatchItem, image_task_id: str | None) -> dict[str, Any]:
        """Return the ledger's fields of money for an item whose image task now is this one."""
        with self._lock:
            parts = {key: cost for key, cost in self._parts.get(item.key, {}).items() if key != _PENDING}
        now, sunk = parts.pop(image_task_id or "", Cost()), _sum(parts)
        return {
            "cost": now.usd,
            "is_list_price": now.listed,
            "sunk_cost": sunk.usd or 0.0,
            "sunk_is_list_price": sunk.listed,
        }

    @property
    def bills(self) -> Bills:
        """The highest bill seen of each price class."""
        with self._lock:
            return dict(self._bills)

    @property
    def waits_for_bills(self) -> bool:
        """Whether it is not known yet what something under way will be billed at, and that may matter to the limit."""
        with self._lock:
            return self._worst_case.usd > self._counted.usd

    def observe(self, item: BatchItem, image_task_id: str, image_task: ImageTask | None) -> None:
        """Count what an image task costs as far as the service tells; None stands for one that may be under way."""
        cost = Cost.of(image_task, self._budget.price(item))
        ended = image_task is not None and image_task.status is ImageTaskStatus.COMPLETED
        with self._lock:
            self._observe_bill(item, None if cost.listed else cost.usd, tested=ended)
            self._set(item.key, {**self._parts.get(item.key, {}), image_task_id: cost})

    def stop_waiting_for_bill(self, item: BatchItem) -> None:
        """Take note that an item has ended without an image: no other waits for its bill."""
        with self._lock:
            self._observe_bill(item, None, tested=True)

    def reserve(self, item: BatchItem) -> None:
        """Count the price that is expected of an item from now on.

        :raises BudgetExceeded: The item would pass the limit.
        :raises Unbilled: The item might, if what is under way is billed above the price list; that is about to be seen.
        """
        with self._lock:
            known = _without_pending(self._parts.get(item.key, {}))
            self._set(item.key, known)
            if not self._budget.may_buy(item, self._counted.usd, self._bills):
                raise BudgetExceeded("the next image would pass max_cost_usd; nothing was sent for it")
            if not self._safe_to_buy(item):
                raise Unbilled("it is not known yet what the images under way are billed at; nothing was sent for it")
            self._observe_bill(item, None, tested=False)
            self._set(item.key, {**known, _PENDING: Cost(self._budget.price(item), listed=True)})

    def hold(self, item: BatchItem) -> None:
        """Count the price that is expected of an item that may be paid already, until :meth:`release`.

        Nothing is counted where there is no limit.
        """
        if self._budget.max_cost_usd is None:
            return
        with self._lock:
            known = _without_pending(self._parts.get(item.key, {}))
            self._set(item.key, {**known, _PENDING: Cost(self._budget.price(item), listed=True)})

    def can_afford(self, item: BatchItem) -> bool:
        """Whether an item could be bought now without passing the limit."""
        with self._lock:
            return self._budget.may_buy(item, self._counted.usd, self._bills)

    def release(self, item: BatchItem) -> None:
        """Take back what :meth:`reserve` counted: the image task of the item counts by itself, or there is none."""
        with self._lock:
            if item.key in self._parts:
                self._set(item.key, _without_pending(self._parts[item.key]))

    def _safe_to_buy(self, item: BatchItem) -> bool:
        """Whether the limit holds whatever the service bills, in reason; one image at least is always tried."""
        if self._worst_case.usd <= self._counted.usd:
            return True
        factor = 1 if price_class_of(item) in self._bill_seen else _UNTESTED
        return self._budget.fits((self._budget.expected(item, self._bills) or 0.0) * factor, self._worst_case.usd)

    def _observe_bill(self, item: BatchItem, billed: float | None, *, tested: bool) -> None:
        """Note a bill, and whether the bill of an image of this price class was seen by now."""
        if self._budget.max_cost_usd is None:
            return
        price_class = self._price_class_by_key.setdefault(item.key, price_class_of(item))
        self._keys_by_price_class[price_class].add(item.key)
        known = max(self._budget.price(item) or 0.0, self._bills.get(price_class, 0.0))
        dearer = billed is not None and billed > known
        if dearer and billed is not None:
            self._bills[price_class] = billed
            log.warning(
                "The service bills %s for an image of %s at %s, not %s: from now on max_cost_usd counts that for each "
                "that is not billed yet.",
                *(format_usd(billed), *price_class, format_usd(known)),
            )
        if dearer or (tested and price_class not in self._bill_seen):
            self._bill_seen |= {price_class} if tested else set()
            for key in self._keys_by_price_class[price_class]:
                self._recount(key)

    def _set(self, key: str, parts: dict[str, Cost]) -> None:
        # Summed up first: what cannot be counted must not stay.
        total = _sum(parts)
        self._parts[key] = parts
        self._spent.put(key, total)
        self._recount(key)

    def _recount(self, key: str) -> None:
        """Count an item against the limit."""
        if self._budget.max_cost_usd is None:
            return
        price_class = self._price_class_by_key.get(key)
        parts = self._parts.get(key, {})
        billed = self._bills.get(price_class, 0.0) if price_class else 0.0
        factor = 1 if price_class is None or price_class in self._bill_seen else _UNTESTED
        counted = {name: _at_least(cost, billed) for name, cost in parts.items()}
        self._counted.put(key, _sum(counted))
        self._worst_case.put(key, _sum({name: _times(cost, factor) for name, cost in counted.items()}))


def _cost_was_seen(entry: LedgerEntry) -> bool:
    """Whether an item ended so that its bill was seen, or is waited for no more; a refund tells nothing of prices."""
    refunded = entry.status == "failed" and entry.error is not None and entry.error.charged == "no"
    return entry.status in ("landed", "failed") and not refunded


def _at_least(cost: Cost, billed: float) -> Cost:
    return Cost(max(cost.usd, billed), listed=True) if cost.listed and cost.usd is not None else cost


def _times(cost: Cost, factor: int) -> Cost:
    return Cost(cost.usd * factor, listed=True) if cost.listed and cost.usd is not None else cost


def _without_pending(parts: Mapping[str, Cost]) -> dict[str, Cost]:
    return {key: cost for key, cost in parts.items() if key != _PENDING}


def _sum(parts: Mapping[str, Cost]) -> Cost:
    total = Cost()
    for cost in parts.values():
        total = total.plus(cost)
    return total
