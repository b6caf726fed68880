"""``Cost`` and ``Spent``: what an image costs, what decides its price, and who paid; USD, exact to a millionth.

Prices are estimates (``toapis.catalogue``, or the connection's own ``prices``) until the service reports a cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Self

from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.models import ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus

MILLION: Final = 1_000_000


class PriceClass(NamedTuple):
    """What decides the price of an image: those of one class cost the same.

    :param resolution: As it is sent.
    :param references: How many reference images are billed; 0 where the model bills none.
    """

    model: str
    resolution: str
    references: int = 0

    def __str__(self) -> str:
        """Return the class in words: ``an image of gpt-image-2 at 2K``."""
        beside = f" with {self.references} billed reference image{'' if self.references == 1 else 's'}"
        return f"an image of {self.model} at {self.resolution}{beside if self.references else ''}"


def price(item: BatchItem, overrides: catalogue.Prices | None = None) -> float | None:
    """Return the list price in USD of an item's image, reference images included; None where none is known."""
    return item.request.list_price(overrides)


def price_class_of(item: BatchItem) -> PriceClass:
    """Return what decides the price of an item's image."""
    request = item.request
    return PriceClass(request.model or catalogue.DEFAULT_MODEL, request.sent_resolution, request.billed_references)


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


#: Whose an image task is: bought by this task instance; bought by somebody else; or bought by this task instance, while
#: the picture in place is of another's purchase.
Whose = Literal["ours", "shared", "lost_race"]


@dataclass(frozen=True)
class Charge:
    """What one image task costs, and whose it is."""

    cost: Cost
    whose: Whose = "ours"


@dataclass(frozen=True)
class Spent:
    """What an item has cost in all its image tasks, and what of it this task instance paid.

    :param cost: What the image tasks of its image cost, whoever paid.
    :param paid: What this task instance paid, lost races included.
    :param lost_race: What it paid for image tasks whose picture is not the one in place.
    """

    cost: Cost = field(default_factory=Cost)
    paid: Cost = field(default_factory=Cost)
    lost_race: Cost = field(default_factory=Cost)

    @classmethod
    def on(cls, charges: Iterable[Charge]) -> Self:
        """Return the sums of the charges of one item."""
        every = list(charges)
        return cls(
            cost=add_costs(charge.cost for charge in every if charge.whose != "lost_race"),
            paid=add_costs(charge.cost for charge in every if charge.whose != "shared"),
            lost_race=add_costs(charge.cost for charge in every if charge.whose == "lost_race"),
        )

    @property
    def listed(self) -> bool:
        """Whether list prices are part of it."""
        return self.cost.listed or self.paid.listed


def add_costs(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs; nothing where there are none."""
    total = Cost()
    for cost in costs:
        total = total.plus(cost)
    return total


def totals(spent: Iterable[Spent]) -> dict[str, Any]:
    """Return the sums over items that go into result and manifest; ``unpriced`` counts items that are in no sum."""
    every = list(spent)
    return {
        "cost_usd": _sum_usd(one.cost for one in every),
        "paid_usd": _sum_usd(one.paid for one in every),
        "lost_race": _sum_usd(one.lost_race for one in every),
        "of_which_listed_usd": _sum_usd(one.cost for one in every if one.cost.listed),
        "unpriced": sum(one.cost.usd is None or one.paid.usd is None for one in every),
    }


def _sum_usd(costs: Iterable[Cost]) -> float:
    return sum(micros(cost.usd) for cost in costs if cost.usd is not None) / MILLION
