"""The buying side of a stretch: every order through its own durable decision, all at the account's pace."""

from __future__ import annotations

import heapq
import logging
import math
from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.outcome import Failed
from airflow_provider_nanobanana.durable.ledger import LedgerJournal
from airflow_provider_nanobanana.durable.reservation import foresee
from airflow_provider_nanobanana.hooks.observer import Observer
from airflow_provider_nanobanana.hooks.pace import Pace
from airflow_provider_nanobanana.hooks.submission import Submission
from airflow_provider_nanobanana.hooks.till import OverBudget
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.hooks.workshop import Workshop
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

#: Seconds of submits that are written ahead with one write; after a kill so many are looked up.
_WAVE_SECONDS: Final = 5.0
#: A submit of a wave leaves within so many seconds of the write, or is written anew.
_WAVE_LASTS: Final = 45.0
_FEWEST_THREADS, _MOST_THREADS = 4, 48
#: Seconds a submit may take while others are sent: decides the number of threads.
_SLOW_SUBMIT: Final = 1.0
#: What concerns the account and not one order.
_HALTS: Final = (
    errors.AuthenticationFailed,
    errors.PermissionRefused,
    errors.InsufficientCredits,
    errors.ConfigurationError,
)
#: What passes; orders that met it are taken up again later.
_PASSES: Final = (errors.NotAccepted, errors.TransientFailure, errors.SubmissionUnknown)
#: The account's limit, or so many troubles in a row, are not the order's own: the rest waits for the next stretch.
_LIMITS: Final = (errors.RateLimited, errors.ServiceUnavailable)
_MOST_IN_A_ROW: Final = 5
#: What all orders may share, a wrong model id for one: so many refused alike before any was accepted are enough.
_ALIKE: Final = (errors.InvalidRequest, errors.ModelNotFound)
_MOST_ALIKE: Final = 20
_LONGEST_REST: Final = 0.5

#: One order under way; yields the seconds until its next step.
Steps = Generator[float, None, "ImageTask"]


class Buyer:
    """Submits the orders of a workshop that have no image task yet, or finds what earlier attempts bought for them."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._pace = Pace.of(shop.hook.settings)
        rate = shop.hook.settings.submit_rate
        self._wave = max(_FEWEST_THREADS, math.ceil(rate * _WAVE_SECONDS))
        self._threads = min(max(_FEWEST_THREADS, math.ceil(rate * _SLOW_SUBMIT)), _MOST_THREADS)
        self._numbers = count()
        self._in_a_row = 0
        self._alike: Counter[tuple[type, str | None]] = Counter()
        self._accepted = any(shop.image_task_id(order) for order in shop.orders)
        self._limited = False
        self._reserved: deque[Order] = deque()
        self._sleeping: list[tuple[float, int, Order, Steps]] = []
        self._active: dict[Future[float | ImageTask], tuple[Order, Steps]] = {}

    def buy(self, orders: Iterable[Order], until: float) -> None:
        """Buy one order after another; after ``until`` (epoch seconds) only calls under way are brought to their end.

        What may be paid already is looked for first, so that the limit of cost counts it.
        """
        wanted = sorted(orders, key=lambda order: not self._shop.doubtful(order))
        feed = deque(wanted)
        try:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="buyer") as pool:
                while True:
                    self._start_due(pool, until)
                    self._start_new(pool, feed, until)
                    if not self._active and not self._sleeping:
                        break
                    self._await_one()
        finally:
            # Nothing is under way any more: from here on the shelf may say what really happened.
            self._shop.ledger.release([order.key for order in wanted])

    def _start_due(self, pool: ThreadPoolExecutor, until: float) -> None:
        now = self._shop.hook.clock()
        if now >= until:
            # Their records say that they are to be looked for; so the next stretch does.
            self._sleeping.clear()
        while self._sleeping and self._sleeping[0][0] <= now and self._room():
            _, _, order, steps = heapq.heappop(self._sleeping)
            self._go(pool, order, steps)

    def _start_new(self, pool: ThreadPoolExecutor, feed: deque[Order], until: float) -> None:
        while self._room() and not self._stopped() and self._shop.hook.clock() < until:
            if not self._reserved and not self._reserve(feed):
                return
            if not self._may_start(self._reserved[0]):
                feed.clear()
                return
            order = self._reserved.popleft()
            self._go(pool, order, self._steps(order))

    def _may_start(self, order: Order) -> bool:
        """Whether an order's turn has come: to be looked for always, to be bought while there is money for it."""
        shop = self._shop
        if shop.doubtful(order):
            return True
        if shop.halt is not None or shop.broke:
            return False
        try:
            shop.till.about_to_buy(order)
        except OverBudget:
            shop.broke = True
        return not shop.broke

    def _stopped(self) -> bool:
        """Whether nothing more is started in this stretch, not even a look."""
        halt = self._shop.halt
        refused = halt is not None and not isinstance(halt, errors.InsufficientCredits)
        return refused or self._limited or self._in_a_row >= _MOST_IN_A_ROW

    def _room(self) -> bool:
        return len(self._active) < self._threads

    def _reserve(self, feed: deque[Order]) -> bool:
        """Write the next wave ahead, together with what became of the last; say whether there is one."""
        shop = self._shop
        self._reserved.extend(feed.popleft() for _ in range(min(self._wave, len(feed))))
        fresh = [order for order in self._reserved if not shop.doubtful(order)]
        intents = {
            order.key: foresee(
                shop.identity(order, shop.regeneration),
                shop.attempt,
                shop.entry(order),
                client_ids=shop.rules.client_ids,
            )
            for order in fresh
        }
        shop.ledger.reserve(intents, until=shop.hook.clock() + _WAVE_LASTS)
        if shop.blind:
            # What was written ahead could not be told from what was sent, so each submit has a write of its own.
            shop.ledger.release(intents)
        shop.save()
        return bool(self._reserved)

    def _steps(self, order: Order) -> Steps:
        shop, blind = self._shop, self._shop.blind
        return Submission(
            shop.hook,
            order.request,
            identity=shop.identity(order, shop.regeneration),
            attempt=shop.attempt,
            rules=replace(shop.rules, on_unknown_submission="fail") if blind else shop.rules,
            journal=LedgerJournal(shop.ledger, order.key, strict=blind),
            pace=self._pace,
            references=shop.references,
            adopt=shop.adopt,
            observer=_Listener(shop, order),
        ).steps()

    def _go(self, pool: ThreadPoolExecutor, order: Order, steps: Steps) -> None:
        self._active[pool.submit(_advance, steps)] = (order, steps)

    def _await_one(self) -> None:
        rest = self._sleeping[0][0] - self._shop.hook.clock() if self._sleeping else _LONGEST_REST
        rest = min(max(rest, 0.0), _LONGEST_REST)
        if not self._active:
            self._shop.hook.sleep(rest)
            return
        done, _ = wait(self._active, timeout=rest, return_when=FIRST_COMPLETED)
        for future in done:
            order, steps = self._active.pop(future)
            self._conclude(order, steps, future)

    def _conclude(self, order: Order, steps: Steps, future: Future[float | ImageTask]) -> None:
        shop = self._shop
        try:
            said = future.result()
        except OverBudget:
            shop.broke = True
        except errors.ToApisError as error:
            self._fail(order, error)
        else:
            if isinstance(said, float):
                heapq.heappush(self._sleeping, (shop.hook.clock() + said, next(self._numbers), order, steps))
            else:
                self._in_a_row, self._accepted = 0, True
                shop.bought(order, said)

    def _fail(self, order: Order, error: errors.ToApisError) -> None:
        """Note what an order met instead of an image task."""
        shop = self._shop
        if error.charged == "no":
            shop.till.settled(order)
        if isinstance(error, _HALTS):
            shop.troubles[order.key] = shop.halt = error
        elif isinstance(error, _PASSES):
            log.warning("Request %s: %s", order.label, error.message)
            shop.troubles[order.key] = error
            self._in_a_row += 1
            self._limited = self._limited or isinstance(error, _LIMITS)
        else:
            self._in_a_row = 0
            if isinstance(error, errors.SubmissionUnfindable):
                log.error("Request %s: %s", order.label, error.message)  # whole: it says what to adopt
            cost = shop.till.cost(order)
            shop.failed(Failed.raised(order, error, cost=cost, on_expired=shop.on_expired))
            self._halt_if_alike(error)

    def _halt_if_alike(self, error: errors.ToApisError) -> None:
        """Submit no more once so many orders were refused for the same reason and none was accepted."""
        if isinstance(error, _ALIKE) and not self._accepted:
            kind = (type(error), error.code)
            self._alike[kind] += 1
            if self._alike[kind] == _MOST_ALIKE:
                log.error("The first %d requests were refused alike; no more are sent.", _MOST_ALIKE)
                self._shop.halt = error.reworded(f"Not sent, as others were refused before it: {error.message}")


class _Listener(Observer):
    """Keeps the till of one order right; ten thousand of them say nothing at a person's level."""

    def __init__(self, shop: Workshop, order: Order) -> None:
        self._shop, self._order = shop, order

    def says(self, line: str) -> None:
        log.debug("Request %s: %s", self._order.label, line)

    def saw(self, image_task: ImageTask) -> None:
        self._shop.till.saw(self._order, image_task.id, image_task)

    def about_to_buy(self) -> None:
        self._shop.till.about_to_buy(self._order)


def _advance(steps: Steps) -> float | ImageTask:
    """Take an order's next step; return the seconds until the one after it, or its image task."""
    try:
        return next(steps)
    except StopIteration as end:
        image_task: ImageTask = end.value
        return image_task
