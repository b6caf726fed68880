"""The buying side of a stretch: every order through its own durable decision, all at the account's pace."""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.outcome import Failed
from airflow_provider_nanobanana.durable.ledger import LedgerJournal
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.durable.reservation import foresee
from airflow_provider_nanobanana.hooks.pace import Pace
from airflow_provider_nanobanana.hooks.submission import Submission
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.orders import Order
    from airflow_provider_nanobanana.durable.record import Record
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
#: What concerns the account and not one order: no other order would fare better.
_HALTS: Final = (
    errors.AuthenticationFailed,
    errors.PermissionRefused,
    errors.InsufficientCredits,
    errors.ConfigurationError,
)
#: What passes; orders that met it are taken up again later.
_PASSES: Final = (errors.NotAccepted, errors.TransientFailure, errors.SubmissionUnknown)
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
        self._reserved: deque[Order] = deque()
        self._sleeping: list[tuple[float, int, Order, Steps]] = []
        self._active: dict[Future[float | ImageTask], tuple[Order, Steps]] = {}

    def buy(self, orders: Iterable[Order], until: float) -> None:
        """Buy one order after another; after ``until`` (epoch seconds) only what is under way is brought to its end."""
        feed = deque(orders)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="buyer") as pool:
            while True:
                self._start_due(pool)
                self._start_new(pool, feed, until)
                if not self._active and not self._sleeping:
                    break
                self._await_one()
        self._shop.ledger.release(order.key for order in self._reserved)
        self._shop.ledger.save()

    def _start_due(self, pool: ThreadPoolExecutor) -> None:
        while self._sleeping and self._sleeping[0][0] <= self._shop.hook.clock() and self._room():
            _, _, order, steps = heapq.heappop(self._sleeping)
            self._go(pool, order, steps)

    def _start_new(self, pool: ThreadPoolExecutor, feed: deque[Order], until: float) -> None:
        shop = self._shop
        while self._room() and not (shop.halt or shop.trouble) and shop.hook.clock() < until:
            if not self._reserved and not self._reserve(feed):
                return
            order = self._reserved.popleft()
            if not shop.may_buy(order):
                self._reserved.appendleft(order)
                feed.clear()
                return
            self._go(pool, order, self._steps(order))

    def _room(self) -> bool:
        return len(self._active) < self._threads

    def _reserve(self, feed: deque[Order]) -> bool:
        """Write the next wave ahead, together with what became of the last; say whether there is one."""
        shop = self._shop
        self._reserved.extend(feed.popleft() for _ in range(min(self._wave, len(feed))))
        intents = {order.key: self._foreseen(order) for order in self._reserved if self._fresh(order)}
        shop.ledger.reserve(intents, until=shop.hook.clock() + _WAVE_LASTS)
        shop.ledger.save()
        return bool(self._reserved)

    def _fresh(self, order: Order) -> bool:
        """Whether the next thing to happen to an order is a POST, not a look."""
        record = self._shop.entry(order).record
        unsure = record is not None and record.state is not RecordState.QUEUED
        return not unsure and not (self._shop.attempt.retry and record is None)

    def _foreseen(self, order: Order) -> Record:
        shop = self._shop
        identity = shop.identity(order, shop.regeneration)
        return foresee(identity, shop.attempt, shop.entry(order), client_ids=shop.rules.client_ids)

    def _steps(self, order: Order) -> Steps:
        shop = self._shop
        return Submission(
            shop.hook,
            order.request,
            identity=shop.identity(order, shop.regeneration),
            attempt=shop.attempt,
            rules=shop.rules,
            journal=LedgerJournal(shop.ledger, order.key, strict=not shop.rules.client_ids),
            pace=self._pace,
            references=shop.references,
            adopt=shop.adopt,
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
        except _HALTS as error:
            shop.halt = shop.halt or error
            shop.not_bought(order)
        except _PASSES as error:
            log.warning("Request %s: %s", order.label, error.message)
            shop.trouble = shop.trouble or error
            shop.not_bought(order)
        except errors.ToApisError as error:
            shop.failed(Failed.raised(order, error, on_expired=shop.on_expired))
        else:
            if isinstance(said, float):
                heapq.heappush(self._sleeping, (shop.hook.clock() + said, next(self._numbers), order, steps))
            else:
                shop.bought(order, said)


def _advance(steps: Steps) -> float | ImageTask:
    """Take an order's next step; return the seconds until the one after it, or its image task."""
    try:
        return next(steps)
    except StopIteration as end:
        image_task: ImageTask = end.value
        return image_task
