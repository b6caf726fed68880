"""``Budget``, ``Cost``, ``Estimate``: what a batch is expected to cost and has cost; USD, exact to a millionth.

Prices are estimates (``toapis.catalogue``, or the connection's own ``prices``) until the service reports a cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import InsufficientCredits, InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageTask, ImageTaskStatus
from airflow_provider_nanobanana.toapis.responses import Balance

_MILLION: Final = 1_000_000

#: Images of one model and resolution cost the same.
Kind = tuple[str, str]
#: The highest bill seen, in USD.
Bills = Mapping[Kind, float]
_NO_BILLS: Final[Bills] = {}


def price(item: BatchItem, overrides: catalogue.Prices | None = None) -> float | None:
    """Return the list price in USD of an item's image, by model and resolution as sent; None where none is known."""
    return catalogue.list_price(*kind(item), overrides)


def kind(item: BatchItem) -> Kind:
    """Return what decides the price of an item's image: model, and resolution as it is sent."""
    return item.request.model or catalogue.DEFAULT_MODEL, item.request.sent_resolution


def format_usd(usd: float) -> str:
    """Return an amount as people read it: two decimals, up to six where they are needed."""
    whole, _, decimals = f"{usd:,.6f}".partition(".")
    return f"${whole}.{decimals.rstrip('0').ljust(2, '0')}"


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
        return Cost((_micros(self.usd) + _micros(other.usd)) / _MILLION, listed=self.listed or other.listed)


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
        return self._micros / _MILLION

    def put(self, key: str, cost: Cost) -> None:
        """Set what an item has cost in all, in place of what was said of it before."""
        self._count(self._costs.get(key, Cost()), -1)
        self._costs[key] = cost
        self._count(cost, 1)

    def totals(self) -> dict[str, Any]:
        """Return what goes into result, manifest and metrics; ``unpriced`` counts images that are in no sum."""
        return {
            "cost_usd": self.usd,
            "of_which_listed_usd": self._listed / _MILLION,
            "unpriced": self._unpriced,
        }

    def _count(self, cost: Cost, sign: int) -> None:
        if cost.usd is None:
            self._unpriced += sign
            return
        self._micros += sign * _micros(cost.usd)
        self._listed += sign * _micros(cost.usd) if cost.listed else 0


@dataclass(frozen=True)
class Estimate:
    """What items would cost at list prices.

    :param images: How many they are.
    :param total_usd: Of those with a known price.
    :param unknown: How many have none.
    :param within_images: How many of them the limit lets through, in order.
    :param within_usd: What those cost.
    :param above_list: Whether bills were seen that are higher than the list price, and count.
    """

    images: int
    total_usd: float
    unknown: int
    within_images: int
    within_usd: float
    above_list: bool = False

    def line(self) -> str:
        """Return the estimate in words, for the log."""
        prices = "the highest prices billed so far" if self.above_list else "list prices"
        text = f"Estimate: {self.images:,} images to buy, {format_usd(self.total_usd)} at {prices}"
        if self.unknown:
            text += f" and {self.unknown:,} images without a known price"
        if self.within_images < self.images:
            text += f"; max_cost_usd stops after {self.within_images:,} of them, {format_usd(self.within_usd)}"
        return f"{text}."


@dataclass(frozen=True)
class Budget:
    """What a task instance may spend in all, earlier attempts included.

    :param max_cost_usd: None for no limit.
    :param prices: The connection's own prices, by resolution, or by model and resolution.
    :raises InvalidRequest: the limit is no positive number.
    """

    max_cost_usd: float | None = None
    prices: catalogue.Prices = field(default_factory=dict)

    def __post_init__(self) -> None:
        limit: Any = self.max_cost_usd
        number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if limit is not None and not (number and math.isfinite(limit) and limit > 0):
            raise InvalidRequest(
                f"max_cost_usd is {limit!r:.40}; give a number of USD above 0, or None for no limit. Nothing was sent "
                "and nothing was charged; a retry would meet the same."
            )

    def price(self, item: BatchItem) -> float | None:
        """Return the list price of an item's image in USD, None where none is known."""
        return price(item, self.prices)

    def expected(self, item: BatchItem, bills: Bills = _NO_BILLS) -> float | None:
        """Return what an item's image counts as before its own bill is seen: its list price, or a higher bill seen."""
        known, billed = self.price(item), bills.get(kind(item), 0.0)
        return known if known is None else max(known, billed)

    def estimate(self, items: Iterable[BatchItem], spent_usd: float = 0.0, bills: Bills = _NO_BILLS) -> Estimate:
        """Return what items would cost, and how far the limit lets them go.

        :param items: Those to buy, in the order of buying.
        :param spent_usd: What was paid before.
        :param bills: The highest bill seen of each kind.
        :raises InvalidRequest: there is a limit, and an item without a known price.
        """
        images = unknown = total = within_images = within = 0
        above_list = False
        left = math.inf if self.max_cost_usd is None else _micros(self.max_cost_usd) - _micros(spent_usd)
        for item in items:
            known = self._checked(item, bills)
            above_list = above_list or known != self.price(item)
            images, unknown, total = images + 1, unknown + (known is None), total + _micros(known or 0.0)
            # It stops before the first that would pass the limit; a cheaper one behind it is not bought either.
            if total <= left:
                within_images, within = images, total
        return Estimate(images, total / _MILLION, unknown, within_images, within / _MILLION, above_list)

    def may_buy(self, item: BatchItem, spent_usd: float, bills: Bills = _NO_BILLS) -> bool:
        """Whether an item keeps within the limit; ``spent_usd`` holds what is under way at the price expected for it.

        :param bills: The highest bill seen of each kind.
        :raises InvalidRequest: there is a limit, and the order has no known price.
        """
        known = self._checked(item, bills)
        return known is None or self.fits(known, spent_usd)

    def fits(self, usd: float, spent_usd: float) -> bool:
        """Whether an amount more keeps within the limit."""
        return self.max_cost_usd is None or _micros(spent_usd) + _micros(usd) <= _micros(self.max_cost_usd)

    def _checked(self, item: BatchItem, bills: Bills) -> float | None:
        known = self.expected(item, bills)
        if known is None and self.max_cost_usd is not None:
            model, resolution = kind(item)
            raise InvalidRequest(
                f"max_cost_usd needs the price of every image, and none is known for request {item.label} "
                f'(model {model}, resolution {resolution}). Say it in the connection\'s extra "prices", such as '
                f'{{"{model}": {{"{resolution}": 0.02}}}}, or leave max_cost_usd out. Nothing was sent for it and '
                "nothing charged; a retry would meet the same."
            )
        return known


def check_balance(balance: Balance, estimate: Estimate) -> None:
    """Find out before the first submit whether the account can pay for what is going to be bought.

    :raises InsufficientCredits: with what is needed, what is there, and what is missing.
    """
    has, needs = balance.remain_usd, estimate.within_usd
    if has is None or _micros(needs) <= _micros(has):
        return
    raise InsufficientCredits(
        f"{estimate.within_images:,} images to buy cost {format_usd(needs)} at the prices known, and the account has "
        f"{format_usd(has)} left ({balance.remain_credits:,.0f} credits): {format_usd(needs - has)} too little. This "
        "attempt submitted nothing and was charged nothing. Top up, ask for less (max_cost_usd), or set "
        "preflight_balance=False to buy as far as it goes, then clear the task; a retry by itself cannot help."
    )


def _micros(usd: float) -> int:
    return round(usd * _MILLION)
