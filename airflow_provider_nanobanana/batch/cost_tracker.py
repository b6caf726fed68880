"""``CostTracker``: what each item of a batch has cost in all its image tasks, and whether the next may be bought.

What is about to be sent is reserved first, so that the limit holds however many submits are under way. Each image task
is a ``Charge``: what somebody else bought is never paid here, and so never counts against the limit.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.costs import (
    MILLION,
    Charge,
    Cost,
    PriceClass,
    Spent,
    Whose,
    format_usd,
    micros,
    price_class_of,
    totals,
)
from airflow_provider_nanobanana.durable.ledger_entry import LostRace
from airflow_provider_nanobanana.toapis.errors import ToApisError
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.budget import Bills, Budget
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.durable.ledger_entry import LedgerEntry
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = LineLogger(__name__)

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
        self._charges: dict[str, dict[str, Charge]] = {}
        self._spent: dict[str, Spent] = {}
        #: What is paid here; the same as it counts against the limit, and as it might turn out before the first bills.
        self._paid, self._counted, self._worst_case = _RunningSum(), _RunningSum(), _RunningSum()
        self._bills: dict[PriceClass, float] = {}
        self._bill_seen: set[PriceClass] = set()
        self._price_class_by_key: dict[str, PriceClass] = {}
        self._keys_by_price_class: defaultdict[PriceClass, set[str]] = defaultdict(set)
        known = {item.key: item for item in items}
        for key, entry in entries:
            # What was found in place and is known to be paid tells nothing of bills, and nobody waits to see its own.
            if (item := known.get(key)) is not None and not (entry.status == "landed" and entry.picture_id is None):
                self._observe_bill(item, None if entry.is_list_price else entry.cost, tested=_cost_was_seen(entry))
                for race in entry.lost_races:
                    self._observe_bill(item, None if race.is_list_price else race.usd, tested=True)
            if charges := charges_of(entry):
                self._set(key, charges)

    @property
    def paid_usd(self) -> float:
        """What this task instance has paid so far, earlier attempts and what is being bought included, in USD."""
        return self._paid.usd

    @property
    def counted_usd(self) -> float:
        """What counts against the limit, in USD; nothing where there is none."""
        return self._counted.usd

    def totals(self) -> dict[str, Any]:
        """Return what goes into result, manifest and log, as :func:`~.costs.totals`; removed items count, too."""
        with self._lock:
            return totals(self._spent.values())

    def spent(self, item: BatchItem) -> Spent:
        """Return what an item has cost in all, and what of it was paid here."""
        with self._lock:
            return self._spent.get(item.key, Spent())

    def spent_so_far(self, item: BatchItem, image_task_id: str | None, *, shared: bool) -> Spent:
        """Return what an item has cost by now, without what is being bought for it.

        :param image_task_id: Its image task, if it has one: counts at the list price before its cost is observed.
        :param shared: Whether somebody else bought that.
        """
        with self._lock:
            charges = _without_pending(self._charges.get(item.key, {}))
        if image_task_id is not None and image_task_id not in charges:
            price = Cost(self._budget.price(item), listed=True)
            charges[image_task_id] = Charge(price, "shared" if shared else "ours")
        return Spent.on(charges.values())

    def totals_so_far(self, spent: Mapping[str, Spent]) -> dict[str, Any]:
        """Return the sums of :meth:`totals` while others are bought.

        :param spent: What :meth:`spent_so_far` said, by item key; of other items what is known of them counts.
        """
        with self._lock:
            charges = [charges for key, charges in self._charges.items() if key not in spent]
        others = [Spent.on(_without_pending(one).values()) for one in charges]
        return totals([*spent.values(), *others])

    def ledger_fields(self, item: BatchItem, image_task_id: str | None) -> dict[str, Any]:
        """Return the ledger's fields of money for an item whose image task now is this one."""
        with self._lock:
            charges = {key: charge for key, charge in self._charges.get(item.key, {}).items() if key != _PENDING}
        lost_races = {key: charge for key, charge in charges.items() if charge.whose == "lost_race"}
        now = Charge(Cost()) if image_task_id in lost_races else charges.get(image_task_id or "", Charge(Cost()))
        sunk = Spent.on(
            charge for key, charge in charges.items() if charge.whose == "ours" and key != (image_task_id or "")
        ).paid
        return {
            "cost": now.cost.usd,
            "is_list_price": now.cost.listed,
            "shared": now.whose == "shared",
            "sunk_cost": sunk.usd or 0.0,
            "sunk_is_list_price": sunk.listed,
            "lost_races": tuple(
                LostRace(key, charge.cost.usd, charge.cost.listed) for key, charge in lost_races.items()
            ),
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

    def observe(
        self, item: BatchItem, image_task_id: str, image_task: ImageTask | None, whose: Whose | None = None
    ) -> None:
        """Count what an image task costs as far as the service tells; None stands for one that may be under way.

        Its bill tells what others will cost, whoever pays it.

        :param whose: None for what is known of that: ``ours`` where it was not heard of before. What was shared once
            stays so. The item's former image task drops out where it was shared.
        """
        cost = Cost.of(image_task, self._budget.price(item))
        ended = image_task is not None and image_task.status is ImageTaskStatus.COMPLETED
        with self._lock:
            self._observe_bill(item, None if cost.listed else cost.usd, tested=ended)
            charges = self._charges.get(item.key, {})
            known = charges.get(image_task_id)
            if known is not None and (whose is None or known.whose == "shared"):
                whose = known.whose
            self._set(item.key, {**_paid_here(charges), image_task_id: Charge(cost, whose or "ours")})

    def lose_race(self, item: BatchItem, image_task_id: str) -> Cost | None:
        """Count an image task of this task instance as one whose picture is not in place; and of others nothing.

        Return what was paid for it, or None where that was counted before.
        """
        with self._lock:
            charges = _of_image_in_place(self._charges.get(item.key, {}))
            charge = charges.get(image_task_id) or Charge(Cost(self._budget.price(item), listed=True))
            self._observe_bill(item, None, tested=True)
            self._set(item.key, {**charges, image_task_id: replace(charge, whose="lost_race")})
        return None if charge.whose == "lost_race" else charge.cost

    def reuse(self, item: BatchItem, paid: Cost | None = None) -> None:
        """Count of an item whose image was in place no more than what was paid for it.

        :param paid: By an earlier attempt of this task instance; counts where nothing is known to be paid for it.
        """
        with self._lock:
            charges = _of_image_in_place(self._charges.get(item.key, {}))
            if paid is not None and Spent.on(charges.values()).paid.usd == 0:
                charges[""] = Charge(paid)
            self._set(item.key, charges)

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
            known = _paid_here(_without_pending(self._charges.get(item.key, {})))
            self._set(item.key, known)
            if not self._budget.may_buy(item, self._counted.usd, self._bills):
                raise BudgetExceeded("the next image would pass max_cost_usd; nothing was sent for it")
            if not self._safe_to_buy(item):
                raise Unbilled("it is not known yet what the images under way are billed at; nothing was sent for it")
            self._observe_bill(item, None, tested=False)
            self._set(item.key, {**known, _PENDING: Charge(Cost(self._budget.price(item), listed=True))})

    def hold(self, item: BatchItem) -> None:
        """Count the price that is expected of an item that may be paid already, until :meth:`release`.

        Nothing is counted where there is no limit.
        """
        if self._budget.max_cost_usd is None:
            return
        with self._lock:
            known = _paid_here(_without_pending(self._charges.get(item.key, {})))
            self._set(item.key, {**known, _PENDING: Charge(Cost(self._budget.price(item), listed=True))})

    def can_afford(self, item: BatchItem) -> bool:
        """Whether an item could be bought now without passing the limit."""
        with self._lock:
            return self._budget.may_buy(item, self._counted.usd, self._bills)

    def release(self, item: BatchItem) -> None:
        """Take back what :meth:`reserve` counted: the image task of the item counts by itself, or there is none."""
        with self._lock:
            if item.key in self._charges:
                self._set(item.key, _without_pending(self._charges[item.key]))

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
                "The service bills %s for %s, not %s: from now on max_cost_usd counts that for each that is not billed "
                "yet.",
                *(format_usd(billed), price_class, format_usd(known)),
            )
        if dearer or (tested and price_class not in self._bill_seen):
            self._bill_seen |= {price_class} if tested else set()
            for key in self._keys_by_price_class[price_class]:
                self._recount(key)

    def _set(self, key: str, charges: dict[str, Charge]) -> None:
        # Summed up first: what cannot be counted must not stay.
        spent = Spent.on(charges.values())
        self._charges[key] = charges
        self._spent[key] = spent
        self._paid.put(key, spent.paid.usd or 0.0)
        self._recount(key)

    def _recount(self, key: str) -> None:
        """Count an item against the limit: what is paid for it here."""
        if self._budget.max_cost_usd is None:
            return
        price_class = self._price_class_by_key.get(key)
        paid = [charge.cost for charge in _paid_here(self._charges.get(key, {})).values()]
        billed = self._bills.get(price_class, 0.0) if price_class else 0.0
        factor = 1 if price_class is None or price_class in self._bill_seen else _UNTESTED
        self._counted.put(key, sum(_expected_usd(cost, billed) for cost in paid))
        self._worst_case.put(key, sum(_expected_usd(cost, billed) * (factor if cost.listed else 1) for cost in paid))


class _RunningSum:
    """The sum of the last amount of each key, in USD; for one thread at a time."""

    def __init__(self) -> None:
        self._by_key: dict[str, int] = {}
        self._micros = 0

    @property
    def usd(self) -> float:
        return self._micros / MILLION

    def put(self, key: str, usd: float) -> None:
        amount = micros(usd)
        self._micros += amount - self._by_key.get(key, 0)
        self._by_key[key] = amount


def charges_of(entry: LedgerEntry) -> dict[str, Charge]:
    """Return the charges of an item as the ledger has them, by image task."""
    charges = {_SUNK: Charge(Cost(entry.sunk_cost, entry.sunk_is_list_price))} if entry.sunk_cost else {}
    if entry.cost is not None or entry.is_list_price:
        image_task_id = (entry.record and entry.record.image_task_id) or ""
        charges[image_task_id] = Charge(Cost(entry.cost, entry.is_list_price), "shared" if entry.shared else "ours")
    for race in entry.lost_races:
        charges[race.image_task_id] = Charge(Cost(race.usd, race.is_list_price), "lost_race")
    return charges


def _cost_was_seen(entry: LedgerEntry) -> bool:
    """Whether an item ended so that its bill was seen, or is waited for no more; a refund tells nothing of prices."""
    refunded = entry.status == "failed" and entry.error is not None and entry.error.charged == "no"
    return entry.status in ("landed", "failed") and not refunded


def _expected_usd(cost: Cost, billed: float) -> float:
    """Return what counts for a cost where so much was billed for another of its kind."""
    usd = cost.usd or 0.0
    return max(usd, billed) if cost.listed and cost.usd is not None else usd


def _without_pending(charges: Mapping[str, Charge]) -> dict[str, Charge]:
    return {key: charge for key, charge in charges.items() if key != _PENDING}


def _of_image_in_place(charges: Mapping[str, Charge]) -> dict[str, Charge]:
    """Return the charges of an item whose image somebody else has put in place: what they paid counts no more."""
    return {
        key: replace(charge, cost=Cost()) if charge.whose == "shared" else charge
        for key, charge in _without_pending(charges).items()
    }


def _paid_here(charges: Mapping[str, Charge]) -> dict[str, Charge]:
    return {key: charge for key, charge in charges.items() if charge.whose != "shared"}
