"""The opening of a batch: what is wanted, what earlier attempts and runs have of it, and what the rest will cost."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch.money import Budget, check_balance
from airflow_provider_nanobanana.batch.orders import NothingToMake, Order, take_orders
from airflow_provider_nanobanana.durable import orderbook
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.hooks.notebook import Notebook
from airflow_provider_nanobanana.hooks.reference import References
from airflow_provider_nanobanana.hooks.resumption import reopen, reuse
from airflow_provider_nanobanana.hooks.till import Till
from airflow_provider_nanobanana.hooks.workshop import Workshop
from airflow_provider_nanobanana.toapis.errors import InsufficientCredits, TransientFailure
from airflow_provider_nanobanana.toapis.models import ImageRequest

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import Attempt
    from airflow_provider_nanobanana.durable.decision import Rules
    from airflow_provider_nanobanana.durable.shelf import Shelf
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.hooks.retrieval import Retrieval

log = logging.getLogger(__name__)

#: References read at once.
_THREADS: Final = 8
#: Seconds of verifying what earlier runs landed (about 30 ms an image), then a pause without a worker.
_SEARCH_SECONDS: Final = 60.0


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
    :param resumed: Whether this process goes on after a pause, as Airflow says; it may be mistaken (its issue 62845).
    :param pauses: Whether there can be pauses at all.
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
    pauses: bool

    def open(self) -> Workshop:
        """Return the workshop, ready for a stretch of work.

        What failed before is taken up again, what earlier runs landed is found, and the rest is estimated.

        :raises ToApisError: Something is wrong with what was asked for, or could not be read; nothing was sent.
        """
        noted = orderbook.noted(self.shelf)
        book = orderbook.recall(self.shelf, self.attempt.max_tries)
        resumed = self.resumed and book is not None and noted is not None and noted.try_number == self.try_number
        # A pause that lost its records follows a stretch that may have sent anything.
        first = not (self.attempt.retry or self.attempt.cleared or self.resumed)
        orders, references, first = self._orders(book, first=first)
        ledger = Ledger.load(self.shelf, first=first)
        shop = self._workshop(orders, references, ledger, noted, resumed=resumed)
        if not resumed:
            reopen(shop)
        if not resumed or (noted and noted.searching):
            searched = reuse(shop, until=self.hook.clock() + _SEARCH_SECONDS if self.pauses else math.inf)
            shop.notebook.keep(searching=bool(shop.unverified), searched=searched)
            self._estimate(shop)
        ledger.save()
        # Built now: what keeps any call from being sent is known before anything is written ahead, and the ledger
        # says that nothing was sent.
        _ = self.hook.client
        return shop

    def _orders(self, book: orderbook.Book | None, *, first: bool) -> tuple[list[Order], References, bool]:
        """Return what is to be made, and whether nothing was ever sent unless the ledger says so."""
        uploads = orderbook.recall_uploads(self.shelf, self.attempt.max_tries)
        if book is not None:
            orders, digests = _unpack(book.content)
            return orders, References.of(self.hook, digests=digests, urls=uploads, bound=True), first or book.first
        references = References.of(self.hook, urls=uploads, bound=True)
        with ThreadPoolExecutor(_THREADS) as pool:
            orders = take_orders(
                self.commission.given(),
                defaults=self.commission.defaults,
                default_model=self.hook.settings.model,
                digest_of=references.digest,
                each=pool.map,
            )
        if not orders:
            raise NothingToMake("There is nothing to make: the list of requests is empty. Nothing was charged.")
        content = _pack(orders, references.digests)
        orderbook.keep(self.shelf, orderbook.Book(self.attempt.max_tries, first, content))
        return orders, references, first

    def _workshop(
        self,
        orders: list[Order],
        references: References,
        ledger: Ledger,
        noted: orderbook.Note | None,
        *,
        resumed: bool,
    ) -> Workshop:
        note = self._note(noted, resumed=resumed)
        attempt = replace(self.attempt, started_at=note.started_at)
        if self.resumed and not ledger.whole:
            attempt = replace(attempt, retry=True)
        anew = "|".join((*self.scope, str(attempt.tries_before_clear))).encode("utf-8", "surrogatepass")
        budget = replace(self.commission.budget, prices=self.hook.settings.prices)
        return Workshop(
            hook=self.hook,
            orders=orders,
            ledger=ledger,
            retrieval=self.retrieval,
            references=references,
            budget=budget,
            till=Till(budget, ledger.items()),
            attempt=attempt,
            rules=self.rules,
            scope=self.scope,
            timeout=self.commission.timeout,
            notebook=Notebook(
                self.shelf,
                note,
                base_url=self.hook.settings.base_url,
                max_tries=self.attempt.max_tries,
                uploads=len(references.urls),
            ),
            tag="" if self.rules.reuse_existing else hashlib.sha256(anew).hexdigest()[:8],
            adopt=self.commission.adopt,
            halt=InsufficientCredits(note.halted) if note.halted else None,
        )

    def _note(self, noted: orderbook.Note | None, *, resumed: bool) -> orderbook.Note:
        """Return the note of this attempt: the last process's, or a new one with what was learnt before."""
        note = orderbook.Note(self.try_number, self.attempt.started_at)
        if noted is None:
            return note
        learnt = replace(note, blind=noted.blind, proved=noted.proved, blocked=noted.blocked)
        return noted if resumed else learnt

    def _estimate(self, shop: Workshop) -> None:
        if shop.unverified:
            return
        unsent = shop.unsent()
        to_buy = [order for order in unsent if shop.to_buy(order)]
        doubtful = len(unsent) - len(to_buy)
        estimate = shop.budget.estimate(to_buy, shop.till.spent)
        log.info("%s", estimate.line())
        if doubtful:
            log.info("%d more may have been bought by an earlier attempt: they are looked for before any is.", doubtful)
        if self.commission.preflight_balance and estimate.images:
            try:
                check_balance(self.hook.balance(), estimate)
            except InsufficientCredits as poor:
                if not doubtful and not shop.running():
                    raise
                # What is paid is landed first; then it fails.
                log.warning("%s What is paid already is looked for and landed.", poor.message)
                shop.halt = poor
                shop.notebook.keep(halted=poor.message)


def _pack(orders: list[Order], digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "orders": [
            [order.request.model_dump(mode="json", exclude_defaults=True), order.name, order.occurrence, order.digest]
            for order in orders
        ],
        "digests": dict(digests),
    }


def _unpack(content: Any) -> tuple[list[Order], dict[str, str]]:
    try:
        orders = [
            Order(index, ImageRequest.model_validate(request), name, occurrence, digest)
            for index, (request, name, occurrence, digest) in enumerate(content["orders"])
        ]
        return orders, dict(content["digests"])
    except (KeyError, TypeError, ValueError) as error:
        raise TransientFailure(
            f"What this batch was asked for cannot be understood ({type(error).__name__}); nothing was sent now. It "
            "was written by another version of this provider, or by hand.",
            charged="unknown",
        ) from error
