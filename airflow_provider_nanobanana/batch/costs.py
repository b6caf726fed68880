"""``Cost``: what an image costs, and what decides its price; USD, exact to a millionth.

Prices are estimates (``toapis.catalogue``, or the connection's own ``prices``) until the service reports a cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

MILLION: Final = 1_000_000

#: Model and resolution: images of one price class cost the same.
PriceClass = tuple[str, str]


def price(item: BatchItem, overrides: catalogue.Prices | None = None) -> float | None:
    """Return the list price in USD of an item's image, by model and resolution as sent; None where none is known."""
    return catalogue.list_price(*price_class_of(item), overrides)


def price_class_of(item: BatchItem) -> PriceClass:
    """Return what decides the price of an item's image: model, and resolution as it is sent."""
    return item.request.model or catalogue.DEFAULT_MODEL, item.request.sent_resolution


def format_usd(usd: float) -> str:
    """Return an amount as people read it: two decimals, up to six where they are needed."""
    whole, _, decimals = f"{usd:,.6f}".partition(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def micros(usd: float) -> int:
    """Return an amount in millionths of a USD, in which sums are exact."""
    return round(usd * MILLION)


def format_images(number: int) -> str:
    """Return a number of images as people read it."""
    return f"{number:,} image{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Cost:
    """What one image cost.

    :param usd: None where neither the service nor a price list says.
    :param listed: Whether the list price stands in for a cost that the service has not reported.
    """

    usd: float | None = 0.0
    listed: bool = False

    @classmethod
    def of(cls, image_task: ImageTask | None, list_price: float | None) -> Self:
        """Return the cost of an image task as far as the service tells; None stands for one that may be under way.

        A settled or refunded amount counts; without one, what failed is refunded and anything else is paid: an absent
        ``billing`` never means free (``docs/toapis.md``, "Billing").
        """
        if image_task is None:
            return cls(list_price, listed=True)
        settled = image_task.billing is not None and image_task.billing.status.strip().lower() != "pending"
        if settled and image_task.cost_usd is not None:
            return cls(image_task.cost_usd)
        if image_task.status is ImageTaskStatus.FAILED and not image_task.expired_at_service:
            return cls(0.0)
        return cls(list_price, listed=True)

    def plus(self, other: Cost) -> Cost:
        """Return the sum, for an item that was paid, lost and bought again."""
        if self.usd is None or other.usd is None:
            return Cost(None, listed=True)
        return Cost((micros(self.usd) + micros(other.usd)) / MILLION, listed=self.listed or other.listed)


class Spent:
    """What the items of a task instance have cost, by their keys, those of earlier attempts included.

    For one thread at a time.
    """

    def __init__(self, costs: Mapping[str, Cost] | None = None) -> None:
        self._costs: dict[str, Cost] = {}
        self._micros = self._listed = self._unpriced = 0
        for key, cost in (costs or {}).items():
            self.put(key, cost)

    @property
    def usd(self) -> float:
        """The sum of what is known."""
        return self._micros / MILLION

    def put(self, key: str, cost: Cost) -> None:
        """Set what an item has cost in all, in place of what was said of it before."""
        self._count(self._costs.get(key, Cost()), -1)
        self._costs[key] = cost
        self._count(cost, 1)

    def totals(self) -> dict[str, Any]:
        """Return what goes into result, manifest and metrics; ``unpriced`` counts images that are in no sum."""
        return {
            "cost_usd": self.usd,
            "of_which_listed_usd": self._listed / MILLION,
            "unpriced": self._unpriced,
        }

    def _count(self, cost: Cost, sign: int) -> None:
        if cost.usd is None:
            self._unpriced += sign
            return
        self._micros += sign * micros(cost.usd)
        self._listed += sign * micros(cost.usd) if cost.listed else 0
