"""``Budget``: whether the next image keeps within ``max_cost_usd``, and whether the account can pay for a batch.

``CostTracker`` asks it before every submit, ``BatchPreparation`` once for the ``Estimate`` and the account's balance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_nanobanana.batch.costs import (
    MILLION,
    PriceClass,
    format_images,
    format_usd,
    micros,
    price,
    price_class_of,
)
from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.errors import InsufficientCredits, InvalidRequest
from airflow_provider_nanobanana.toapis.responses import Balance

#: The highest bill seen, in USD.
Bills = Mapping[PriceClass, float]
_NO_BILLS: Final[Bills] = {}


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
        text = f"Estimate: {format_images(self.images)} to buy, {format_usd(self.total_usd)} at {prices}"
        if self.unknown:
            text += f" and {format_images(self.unknown)} without a known price"
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
        known = self.price(item)
        return None if known is None else max(known, bills.get(price_class_of(item), 0.0))

    def estimate(self, items: Iterable[BatchItem], spent_usd: float = 0.0, bills: Bills = _NO_BILLS) -> Estimate:
        """Return what items would cost, and how far the limit lets them go.

        :param items: Those to buy, in the order of buying.
        :param spent_usd: What was paid before.
        :param bills: The highest bill seen of each price class.
        :raises InvalidRequest: there is a limit, and an item without a known price.
        """
        images = unknown = total = within_images = within = 0
        above_list = False
        left = math.inf if self.max_cost_usd is None else micros(self.max_cost_usd) - micros(spent_usd)
        for item in items:
            known = self._known_price(item, bills)
            above_list = above_list or known != self.price(item)
            images += 1
            unknown += known is None
            total += micros(known or 0.0)
            # It stops before the first that would pass the limit; a cheaper one behind it is not bought either.
            if total <= left:
                within_images = images
                within = total
        return Estimate(images, total / MILLION, unknown, within_images, within / MILLION, above_list)

    def may_buy(self, item: BatchItem, spent_usd: float, bills: Bills = _NO_BILLS) -> bool:
        """Whether an item keeps within the limit; ``spent_usd`` holds what is under way at the price expected for it.

        :param bills: The highest bill seen of each price class.
        :raises InvalidRequest: there is a limit, and the item has no known price.
        """
        known = self._known_price(item, bills)
        return known is None or self.fits(known, spent_usd)

    def fits(self, usd: float, spent_usd: float) -> bool:
        """Whether an amount more keeps within the limit."""
        return self.max_cost_usd is None or micros(spent_usd) + micros(usd) <= micros(self.max_cost_usd)

    def _known_price(self, item: BatchItem, bills: Bills) -> float | None:
        """Return the price expected of an item; where there is a limit, an item without one is an error."""
        known = self.expected(item, bills)
        if known is None and self.max_cost_usd is not None:
            raise InvalidRequest(
                f"max_cost_usd needs the price of every image, and {_unknown_price(item, self.prices)}, or leave "
                "max_cost_usd out. Nothing was sent for it and nothing charged; a retry would meet the same."
            )
        return known


def _unknown_price(item: BatchItem, prices: catalogue.Prices) -> str:
    """Return in words which price is not known, and how the connection says it."""
    of = price_class_of(item)
    if item.request.row is None:
        return f"none is known for request {item.label}: {catalogue.no_row(of.model)}"
    if item.request.list_price(prices, references=0) is not None:
        return (
            f"that of {of.references} of the reference images of request {item.label} is not known (model {of.model}). "
            f'Say it in the connection\'s extra "models", such as {{"{of.model}": {{"reference_price": 0.002}}}}'
        )
    return (
        f"none is known for request {item.label} (model {of.model}, resolution {of.resolution}). Say it in the "
        f'connection\'s extra "prices", such as {{"{of.model}": {{"{of.resolution}": 0.02}}}}'
    )


def check_balance(balance: Balance, estimate: Estimate) -> None:
    """Find out before the first submit whether the account can pay for what is going to be bought.

    :raises InsufficientCredits: with what is needed, what is there, and what is missing.
    """
    has = balance.remain_usd
    needs = estimate.within_usd
    if has is None or micros(needs) <= micros(has):
        return
    raise InsufficientCredits(
        f"{format_images(estimate.within_images)} to buy: {format_usd(needs)} at the prices known, and the account has "
        f"{format_usd(has)} left ({balance.remain_credits:,.0f} credits): {format_usd(needs - has)} too little. This "
        "attempt submitted nothing and was charged nothing. Top up, ask for less (max_cost_usd), or set "
        "preflight_balance=False to buy as far as it goes, then clear the task; a retry by itself cannot help."
    )
