"""The till of a batch: what each order has cost in all its image tasks, and whether the next may be bought."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.money import Budget, Cost, Spent
from airflow_provider_nanobanana.toapis.errors import ToApisError

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.durable.entry import Entry
    from airflow_provider_nanobanana.toapis.models import ImageTask

#: In place of an image task's id: what is being bought now, and what earlier processes knew of lost image tasks.
_PENDING: Final = "pending"
_SUNK: Final = "sunk"


class OverBudget(ToApisError):
    """The next image would pass ``max_cost_usd``; nothing was sent for it."""


class Till:
    """Costs by order and image task, so that an order that is paid, lost and bought anew counts twice; thread-safe.

    :param entries: What earlier attempts paid, by order key, also for orders that are wanted no more.
    """

    def __init__(self, budget: Budget, entries: Iterable[tuple[str, Entry]]) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._spent = Spent()
        self._parts: dict[str, dict[str, Cost]] = {}
        for key, entry in entries:
            parts = {_SUNK: Cost(entry.sunk, entry.sunk_listed)} if entry.sunk else {}
            if entry.cost is not None or entry.listed:
                parts[(entry.record and entry.record.image_task_id) or ""] = Cost(entry.cost, entry.listed)
            if parts:
                self._set(key, parts)

    @property
    def usd(self) -> float:
        """What the batch has cost so far, earlier attempts included, in USD."""
        return self._spent.usd

    @property
    def spent(self) -> Spent:
        """The same by order."""
        return self._spent

    def totals(self) -> dict[str, Any]:
        """Return what goes into result, manifest and metrics."""
        with self._lock:
            return self._spent.totals()

    def cost(self, order: Order) -> Cost:
        """Return what an order has cost in all."""
        with self._lock:
            return _sum(self._parts.get(order.key, {}))

    def fields(self, order: Order, image_task_id: str | None) -> dict[str, Any]:
        """Return the ledger's fields of money for an order whose image task now is this one."""
        with self._lock:
            parts = {key: cost for key, cost in self._parts.get(order.key, {}).items() if key != _PENDING}
        now, sunk = parts.pop(image_task_id or "", Cost()), _sum(parts)
        return {"cost": now.usd, "listed": now.listed, "sunk": sunk.usd or 0.0, "sunk_listed": sunk.listed}

    def saw(self, order: Order, image_task_id: str, image_task: ImageTask | None) -> None:
        """Count what an image task costs as far as the service tells; None stands for one that may be under way."""
        cost = Cost.of(image_task, self._budget.price(order))
        with self._lock:
            self._set(order.key, {**self._parts.get(order.key, {}), image_task_id: cost})

    def about_to_buy(self, order: Order) -> None:
        """Count the list price of an order from now on.

        :raises OverBudget: It would pass the limit.
        """
        with self._lock:
            known = _without_pending(self._parts.get(order.key, {}))
            self._set(order.key, known)
            if not self._budget.may_buy(order, self._spent):
                raise OverBudget("the next image would pass max_cost_usd; nothing was sent for it")
            self._set(order.key, {**known, _PENDING: Cost(self._budget.price(order), listed=True)})

    def affords(self, order: Order) -> bool:
        """Whether an order could be bought now without passing the limit."""
        with self._lock:
            return self._budget.may_buy(order, self._spent)

    def settled(self, order: Order) -> None:
        """Take back what :meth:`about_to_buy` counted: its image task counts by itself, or there is none."""
        with self._lock:
            if order.key in self._parts:
                self._set(order.key, _without_pending(self._parts[order.key]))

    def _set(self, key: str, parts: dict[str, Cost]) -> None:
        # Summed up first: what cannot be counted must not stay.
        total = _sum(parts)
        self._parts[key] = parts
        self._spent.put(key, total)


def _without_pending(parts: Mapping[str, Cost]) -> dict[str, Cost]:
    return {key: cost for key, cost in parts.items() if key != _PENDING}


def _sum(parts: Mapping[str, Cost]) -> Cost:
    total = Cost()
    for cost in parts.values():
        total = total.plus(cost)
    return total
