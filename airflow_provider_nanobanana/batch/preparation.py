"""The opening of a batch: what is wanted, what earlier attempts and runs have of it, and what the rest will cost."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.batch import extra_images
from airflow_provider_nanobanana.batch.abandoned import left_over, take_up
from airflow_provider_nanobanana.batch.cost_tracker import Till
from airflow_provider_nanobanana.batch.costs import Budget, check_balance, dollars
from airflow_provider_nanobanana.batch.items import NothingToMake, Order, take_orders
from airflow_provider_nanobanana.batch.outcome import EXPIRED
from airflow_provider_nanobanana.batch.state import Workshop
from airflow_provider_nanobanana.durable import checkpoint
from airflow_provider_nanobanana.durable.checkpoint import Notebook
from airflow_provider_nanobanana.durable.ledger import Ledger, check_room
from airflow_provider_nanobanana.landing.reuse import find_landed
from airflow_provider_nanobanana.submission.references import References
from airflow_provider_nanobanana.toapis.errors import InsufficientCredits, TransientFailure
from airflow_provider_nanobanana.toapis.models import ImageRequest

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.attempt import Attempt
    from airflow_provider_nanobanana.durable.ledger_entry import Entry
    from airflow_provider_nanobanana.durable.reconcile import Rules
    from airflow_provider_nanobanana.durable.state_store import Shelf
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.landing.downloader import Retrieval
    from airflow_provider_nanobanana.landing.reuse import Reusable

log = logging.getLogger(__name__)

#: References read at once.
_THREADS: Final = 8
#: Seconds of verifying what earlier runs landed (about 30 ms an image), then a pause without a worker.
_SEARCH_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Commission:
    """What a user asked for.

    :param given: Returns a prompt, a request, or an iterable of both; not asked when an earlier attempt is continued.
    :param at_hand: The same as plain JSON, where that is to be had without asking anybody; else None.
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
    at_hand: Any = None

    def digest(self) -> str | None:
        """Return what tells this list from another, or None where it is not at hand."""
        return None if self.at_hand is None else checkpoint.input_digest([self.at_hand, dict(self.defaults)])


@dataclass(frozen=True)
class Opening:
    """Opens the workshop of a task instance.

    :param scope: dag id, run id, task id, map index.
    :param attempt: As Airflow counts; its start is that of this process.
    :param retries: As the task has them now.
    :param resumed: Whether this process goes on after a pause, as Airflow says; it may be mistaken (its issue 62845).
    :param pauses: Whether there can be pauses at all.
    """

    hook: NanoBananaHook
    retrieval: Retrieval
    shelf: Shelf
    commission: Commission
    scope: tuple[str, ...]
    attempt: Attempt
    retries: int
    try_number: int
    rules: Rules
    resumed: bool
    pauses: bool

    def open(self) -> Workshop:
        """Return the workshop, ready for a stretch of work.

        What failed before is taken up again, what earlier runs landed is found, and the rest is estimated.

        :raises ToApisError: Something is wrong with what was asked for, or could not be read; nothing was sent.
        """
        noted = checkpoint.load_checkpoint(self.shelf)
        book = checkpoint.load_input(self.shelf, self.attempt.max_tries, self.retries)
        resumed = self.resumed and book is not None and noted is not None and noted.try_number == self.try_number
        # A pause that lost its records follows a stretch that may have sent anything.
        first = not (self.attempt.retry or self.attempt.cleared or self.resumed)
        ledger = Ledger.load(self.shelf, first=first or (book is not None and book.first))
        content, book = self._content(book, ledger, first=first)
        orders, former, digests = _unpack(content)
        uploads = checkpoint.load_uploads(self.shelf, self.attempt.max_tries)
        references = References.of(self.hook, digests=digests, urls=uploads, bound=True)
        shop = self._workshop(orders, references, ledger, noted, resumed=resumed, former=former)
        if not resumed:
            self._tell_of_another_list(book)
            reopen(shop)
            take_up(shop)
        if not resumed or (noted and noted.searching):
            searched = reuse(
                shop,
                until=self.hook.clock() + _SEARCH_SECONDS if self.pauses else math.inf,
                verify=self.attempt.cleared and book.try_number == self.try_number,
            )
            shop.notebook.keep(searching=bool(shop.unverified), searched=searched)
            self._estimate(shop)
        if self.commission.preflight_balance and shop.halt is None and any(map(shop.doubtful, shop.unsent())):
            shop.preflight = lambda: self._check_balance(shop)
        ledger.save()
        # Built now: what keeps any call from being sent is known before anything is written ahead, and the ledger
        # says that nothing was sent.
        _ = self.hook.client
        return shop

    def _content(
        self, book: checkpoint.Book | None, ledger: Ledger, *, first: bool
    ) -> tuple[dict[str, Any], checkpoint.Book]:
        """Return what this round is to make, and the book it is kept in; kept now if this is the round's beginning."""
        if book is not None:
            return book.content, book
        references = References.of(self.hook, bound=True)
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
        check_room(self.shelf, len(orders))
        content = _pack(orders, references.digests, self._left_over(orders, ledger))
        book = checkpoint.Book(
            self.attempt.max_tries,
            first,
            content,
            retries=self.retries,
            try_number=self.try_number,
            given=self.commission.digest(),
        )
        checkpoint.save_input(self.shelf, book)
        return content, book

    def _left_over(self, orders: list[Order], ledger: Ledger) -> list[Order]:
        """Return what the list before a clear had that is paid and not landed, and that this list has not."""
        earlier = checkpoint.load_earlier_input(self.shelf, self.attempt.max_tries, self.retries)
        if earlier is None:
            return []
        try:
            before, older, _ = _unpack(earlier.content)
        except TransientFailure as unreadable:
            log.warning("%s What it holds is listed by its ids.", unreadable.message)
            return []
        return left_over(before, older, orders, ledger, self.hook.clock())

    def _tell_of_another_list(self, book: checkpoint.Book) -> None:
        """Say that an attempt goes on with the list it has, where another one is given by now."""
        given = self.commission.digest()
        if None not in (given, book.given) and given != book.given:
            log.warning(
                "What is asked for now differs from what try %d was asked for. This attempt goes on with the list of "
                "that try, so that nothing is bought twice. Clear the task once more to take the new list.",
                book.try_number,
            )

    def _workshop(
        self,
        orders: list[Order],
        references: References,
        ledger: Ledger,
        noted: checkpoint.Note | None,
        *,
        resumed: bool,
        former: list[Order],
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
            till=Till(budget, ledger.items(), [*orders, *former]),
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
            former=former,
            halt=InsufficientCredits(note.halted) if note.halted else None,
        )

    def _note(self, noted: checkpoint.Note | None, *, resumed: bool) -> checkpoint.Note:
        """Return the note of this attempt: the last process's, or a new one with what was learnt before."""
        note = checkpoint.Note(self.try_number, self.attempt.started_at)
        if noted is None:
            return note
        learnt = replace(note, blind=noted.blind, proved=noted.proved, blocked=noted.blocked)
        return noted if resumed else learnt

    def _estimate(self, shop: Workshop) -> None:
        """Say what is going to be bought, what perhaps is, and whether the account can pay for the former."""
        if shop.unverified:
            return
        unsent = shop.unsent()
        estimate = shop.budget.estimate(filter(shop.to_buy, unsent), shop.till.counted, shop.till.bills)
        log.info("%s", estimate.line())
        doubtful = [order for order in unsent if not shop.to_buy(order)]
        if doubtful:
            perhaps = shop.budget.estimate(filter(shop.perhaps_to_buy, doubtful), bills=shop.till.bills)
            log.info(
                "%d more may have been bought by an earlier attempt: they are looked for before any is. Up to %d of "
                "them, %s, are bought if what was sent for them was not accepted, failed or has expired.",
                *(len(doubtful), perhaps.images, dollars(perhaps.total_usd)),
            )
        if self.commission.preflight_balance and estimate.images:
            try:
                check_balance(self.hook.balance(), estimate)
            except InsufficientCredits as poor:
                if not doubtful and not shop.running() and not shop.former:
                    raise
                shop.stop_buying(poor)

    def _check_balance(self, shop: Workshop) -> None:
        """Compare the account with what is to be bought, now that nothing is in doubt any more."""
        to_buy = [order for order in shop.unsent() if not shop.doubtful(order)]
        check_balance(self.hook.balance(), shop.budget.estimate(to_buy, shop.till.counted, shop.till.bills))


def _pack(orders: list[Order], digests: Mapping[str, str], former: list[Order]) -> dict[str, Any]:
    return {"orders": [_plain(order) for order in orders], "digests": dict(digests), "former": [*map(_plain, former)]}


def _plain(order: Order) -> list[Any]:
    return [order.request.model_dump(mode="json", exclude_defaults=True), order.name, order.occurrence, order.digest]


def _unpack(content: Any) -> tuple[list[Order], list[Order], dict[str, str]]:
    """Return the orders, those that an earlier list left over, and the digests of their references."""
    try:
        orders, former = (
            [
                Order(index, ImageRequest.model_validate(request), name, occurrence, digest)
                for index, (request, name, occurrence, digest) in enumerate(rows)
            ]
            for rows in (content["orders"], content.get("former", ()))
        )
        return orders, former, dict(content["digests"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TransientFailure(
            f"What this batch was asked for cannot be understood ({type(error).__name__}); nothing was sent now. It "
            "was written by another version of this provider, or by hand.",
            charged="unknown",
        ) from error


def reopen(shop: Workshop) -> None:
    """Take up again what ended without an image, where another attempt may bring it, and what is no longer in place."""
    landed = [(order, entry.landed) for order in shop.orders if (entry := shop.entry(order)).landed is not None]
    # By the name it has: a request that got another name keeps its picture.
    stems = {order.key: PurePosixPath(file.name).stem for order, file in landed if file}
    present = shop.retrieval.landing.present(set(stems.values()))
    gone = [order for order, _ in landed if order.key in stems and stems[order.key] not in present]
    lost = {order.key for order in gone}
    for order in shop.orders:
        entry = shop.entry(order)
        anew = shop.bought_again(order)
        if entry.status == "failed" and _again(shop, entry):
            expired = entry.error is not None and entry.error.code == EXPIRED
            shop.reopen(order, anew=anew or entry.refunded or expired)
        elif entry.landed is not None and (order.key in lost or _wanted_anew(shop, entry)):
            shop.reopen(order, anew=anew or entry.record is None or _wanted_anew(shop, entry))
        elif entry.status == "open" and entry.submitted_at is not None:
            shop.reopen(order, anew=anew)
    _tell_lost(shop, gone, "gone from the destination")
    extra_images.take_over(shop)


def _tell_lost(shop: Workshop, lost: Sequence[Order], how: str) -> None:
    if lost:
        anew = sum(shop.to_buy(order) for order in lost)
        log.warning(
            "%d images that were in place are %s. Those whose links live are landed again for free; %d are to be "
            "bought again.",
            *(len(lost), how, anew),
        )


def _again(shop: Workshop, entry: Entry) -> bool:
    """Whether a failure may be worth another attempt: looking is free, and a clear asks for it once."""
    cleared = shop.attempt.cleared and _before_clear(shop, entry)
    return entry.error is None or entry.error.again or entry.error.charged == "unknown" or cleared


def _wanted_anew(shop: Workshop, entry: Entry) -> bool:
    """Whether the user cleared the task for another picture of the same request, and this is not it yet."""
    made_for = entry.record.regeneration if entry.record else 0
    # What was bought before the clear and landed after it serves, too.
    return not shop.rules.reuse_existing and made_for != shop.regeneration and _before_clear(shop, entry)


def _before_clear(shop: Workshop, entry: Entry) -> bool:
    return entry.record is None or shop.attempt.seems_cleared_since(entry.record)


def reuse(shop: Workshop, until: float, *, verify: bool) -> int:
    """Find what earlier runs landed for the same requests: it is verified and costs nothing.

    :param verify: Whether to look at what this run landed, too: a clear relies on no file that may have been cut short
        or replaced since.
    :return: How many orders the search has come past.
    """
    ahead = shop.orders[shop.notebook.note.searched :]
    # A broken file leaves no other trace than that the search came past it.
    blank = [order for order in ahead if shop.rules.reuse_existing and shop.untouched(order)]
    landed = {order.key: file for order in ahead if verify and (file := shop.entry(order).landed)}
    wanted = [(order.key, order.stem()) for order in blank]
    wanted += [(key, PurePosixPath(file.name).stem) for key, file in landed.items()]
    if not wanted:
        return len(shop.orders)
    found = find_landed(shop.retrieval.landing, wanted, enough=lambda: shop.hook.clock() >= until)
    beside = extra_images.find(
        shop, {key: stem for key, stem in wanted if key in found.images}, lambda: shop.hook.clock() >= until
    )
    for order in blank:
        if image := found.images.get(order.key):
            shop.reused(order, image, beside.get(order.key, ()))
    _take_back(shop, [order for order in ahead if order.key in landed], found)
    shop.unverified = frozenset(found.unverified)
    if reused := sum(order.key in found.images for order in blank):
        log.info("%d of %d images are in place already and cost nothing", reused, len(shop.orders))
    left = (position for position, order in enumerate(shop.orders) if order.key in found.unverified)
    return next(left, len(shop.orders))


def _take_back(shop: Workshop, landed: Sequence[Order], found: Reusable) -> None:
    """Take up again what lies under its name and is no whole image; another whole image there is left as it is."""
    for order in landed:
        if (image := found.images.get(order.key)) is not None:
            shop.verified(order, image)
    broken = [order for order in landed if order.key not in found.images and order.key not in found.unverified]
    for order in broken:
        shop.reopen(order, anew=shop.bought_again(order) or shop.entry(order).record is None)
    _tell_lost(shop, broken, "no whole images any more")
