"""The opening of a batch: what is wanted, what earlier attempts and runs have of it, and what the rest will cost."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.money import Budget, Cost, check_balance
from airflow_provider_nanobanana.batch.orders import Order, take_orders
from airflow_provider_nanobanana.durable import orderbook
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.hooks.reference import References
from airflow_provider_nanobanana.hooks.workshop import Workshop
from airflow_provider_nanobanana.landing.reuse import find_landed
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.models import ImageRequest

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import Attempt
    from airflow_provider_nanobanana.durable.decision import Rules
    from airflow_provider_nanobanana.durable.entry import Entry
    from airflow_provider_nanobanana.durable.shelf import Shelf
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.hooks.retrieval import Retrieval

log = logging.getLogger(__name__)

#: References read at once.
_THREADS: Final = 8


@dataclass(frozen=True)
class Commission:
    """What a user asked for.

    :param given: Returns a prompt, a request, or an iterable of both; not asked when an earlier attempt is continued.
    :param defaults: Fields of the requests that do not give them.
    :param timeout: Seconds that one attempt waits for an image.
    :param adopt: Image tasks chosen by a person, by ``client_business_id``.
    """

    given: Callable[[], Any]
    defaults: Mapping[str, Any]
    budget: Budget
    timeout: float
    preflight_balance: bool
    adopt: Mapping[str, str]


@dataclass(frozen=True)
class Opening:
    """Opens the workshop of a task instance.

    :param scope: dag id, run id, task id, map index.
    :param attempt: As Airflow counts; its start is that of this process.
    :param resumed: Whether this process goes on after a pause of the same attempt.
    """

    hook: NanoBananaHook
    retrieval: Retrieval
    shelf: Shelf
    commission: Commission
    scope: tuple[str, ...]
    attempt: Attempt
    try_number: int
    rules: Rules
    resumed: bool

    def open(self) -> Workshop:
        """Return the workshop, ready for a stretch of work.

        What failed before is taken up again, what earlier runs landed is found, and the rest is estimated.

        :raises ToApisError: Something is wrong with what was asked for, or could not be read; nothing was sent.
        """
        kept = orderbook.recall(self.shelf)
        resumed = self.resumed and kept is not None and kept["try_number"] == self.try_number
        attempt = replace(self.attempt, started_at=kept["started_at"]) if resumed else self.attempt
        references = References.of(self.hook)
        if kept is None or kept["max_tries"] != attempt.max_tries:
            orders = self._take(references)
        else:
            orders = [_unpack(index, fields) for index, fields in enumerate(kept["orders"])]
        if not orders:
            raise InvalidRequest(
                "There is nothing to make: no prompt and no request was given. Nothing was charged; a retry by itself "
                "changes nothing."
            )
        if not resumed:
            orderbook.keep(self.shelf, _pack(orders, attempt, self.try_number))
        shop = self._workshop(orders, references, attempt)
        if not resumed:
            _reopen(shop)
            _reuse(shop)
            self._estimate(shop)
            shop.ledger.save()
        return shop

    def _take(self, references: References) -> list[Order]:
        with ThreadPoolExecutor(_THREADS) as pool:
            orders: list[Order] = take_orders(
                self.commission.given(),
                defaults=self.commission.defaults,
                default_model=self.hook.settings.model,
                digest_of=references.digest,
                each=pool.map,
            )
        return orders

    def _workshop(self, orders: list[Order], references: References, attempt: Attempt) -> Workshop:
        before = attempt.tries_before_clear
        anew = "|".join((*self.scope, str(before))).encode("utf-8", "surrogatepass")
        return Workshop(
            hook=self.hook,
            orders=orders,
            ledger=Ledger.load(self.shelf),
            retrieval=self.retrieval,
            references=references,
            budget=replace(self.commission.budget, prices=self.hook.settings.prices),
            attempt=attempt,
            rules=self.rules,
            scope=self.scope,
            timeout=self.commission.timeout,
            tag="" if self.rules.reuse_existing else hashlib.sha256(anew).hexdigest()[:8],
            adopt=self.commission.adopt,
        )

    def _estimate(self, shop: Workshop) -> None:
        estimate = shop.budget.estimate([order for order in shop.unsent() if not shop.paid(order)], shop.spent)
        log.info("%s", estimate.line())
        if self.commission.preflight_balance and estimate.images:
            check_balance(self.hook.balance(), estimate)


def _reopen(shop: Workshop) -> None:
    """Take up again what ended without an image, where another attempt may bring it, and what is no longer in place."""
    present = shop.retrieval.landing.present({order.stem(shop.tag) for order in shop.orders})
    lost = 0
    for order in shop.orders:
        entry = shop.entry(order)
        gone = entry.landed is not None and order.stem(shop.tag) not in present
        lost += gone
        if gone or _again(shop, entry):
            shop.reopen(order)
    if lost:
        log.warning("%d images that were in place are gone from the destination", lost)


def _again(shop: Workshop, entry: Entry) -> bool:
    if entry.status == "failed":
        return entry.error is None or entry.error.again or shop.attempt.cleared
    anew = entry.record is None or entry.record.regeneration != shop.regeneration
    return entry.landed is not None and not shop.rules.reuse_existing and anew


def _reuse(shop: Workshop) -> None:
    """Find what earlier runs landed for the same requests: it is verified and costs nothing."""
    if not shop.rules.reuse_existing:
        return
    blank = [order for order in shop.orders if shop.entry(order).record is None and shop.entry(order).landed is None]
    found = find_landed(shop.retrieval.landing, [(order.key, order.stem()) for order in blank])
    for order in blank:
        if image := found.images.get(order.key):
            shop.landed(order, image, Cost(), reused=True)
    if found.images:
        log.info("%d of %d images are in place already and cost nothing", len(found.images), len(shop.orders))


def _pack(orders: list[Order], attempt: Attempt, try_number: int) -> dict[str, Any]:
    return {
        "try_number": try_number,
        "max_tries": attempt.max_tries,
        "started_at": attempt.started_at,
        "orders": [
            [order.request.model_dump(mode="json", exclude_defaults=True), order.name, order.occurrence, order.digest]
            for order in orders
        ],
    }


def _unpack(index: int, fields: Any) -> Order:
    request, name, occurrence, digest = fields
    return Order(index, ImageRequest.model_validate(request), name, occurrence, digest)
