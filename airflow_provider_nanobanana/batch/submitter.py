"""The buying side of a stretch: every order through its own durable decision, all at the account's pace."""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.admission import AdmissionControl, SubmitDeferred
from airflow_provider_nanobanana.batch.cost_tracker import BudgetExceeded
from airflow_provider_nanobanana.batch.state import Killed, name_ids
from airflow_provider_nanobanana.durable.ledger import LedgerRecordStore, foresee
from airflow_provider_nanobanana.submission.client_ids import mark_supported
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.submission.workflow import Submission, SubmissionListener
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)

#: Seconds of submits that are written ahead with one write; after a kill so many are looked up.
_WRITE_AHEAD_SECONDS: Final = 5.0
#: A submit of a wave leaves within so many seconds of the write, or is written anew.
_WRITE_AHEAD_VALID_SECONDS: Final = 45.0
_FEWEST_THREADS, _MOST_THREADS = 4, 48
#: Seconds a submit may take while others are sent: decides the number of threads.
_SLOW_SUBMIT: Final = 1.0
_LONGEST_REST: Final = 0.5
_IN_DOUBT: Final = "It is not known yet whether an earlier submit of it was accepted; the next look goes on from here."

#: One order under way; yields the seconds until its next step.
Steps = Generator[float, None, "ImageTask"]


class BatchSubmitter:
    """Submits the orders of a workshop that have no image task yet, or finds what earlier attempts bought for them."""

    def __init__(self, shop: BatchState) -> None:
        self._shop = shop
        self._pace = SubmitRateLimiter.of(shop.session.settings)
        rate = shop.session.settings.submit_rate
        self._wave = max(_FEWEST_THREADS, math.ceil(rate * _WRITE_AHEAD_SECONDS))
        self._threads = min(max(_FEWEST_THREADS, math.ceil(rate * _SLOW_SUBMIT)), _MOST_THREADS)
        self._numbers = count()
        self._gate = AdmissionControl(shop)
        self._reserved: deque[BatchItem] = deque()
        self._postponed: deque[BatchItem] = deque()
        self._sleeping: list[tuple[float, int, BatchItem, Steps]] = []
        self._bought: list[str] = []
        self._active: dict[Future[float | ImageTask], tuple[BatchItem, Steps]] = {}

    def submit(self, orders: Iterable[BatchItem], until: float) -> None:
        """Buy one order after another; after ``until`` (epoch seconds) only calls under way are brought to their end.

        What may be paid already is looked for first, so that the limit of cost counts it.
        """
        wanted = sorted(orders, key=lambda order: not self._shop.needs_lookup(order))
        self._gate.begin(wanted)
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
            self._tell_bought()

    def _start_due(self, pool: ThreadPoolExecutor, until: float) -> None:
        now = self._shop.session.clock()
        if now >= until:
            # Their records say that they are to be looked for; so the next stretch does.
            for _, _, order, _ in self._sleeping:
                self._shop.last_errors.setdefault(order.key, errors.SubmissionUnknown(_IN_DOUBT))
            self._sleeping.clear()
        while self._sleeping and self._sleeping[0][0] <= now and self._room():
            _, _, order, steps = heapq.heappop(self._sleeping)
            self._go(pool, order, steps)

    def _start_new(self, pool: ThreadPoolExecutor, feed: deque[BatchItem], until: float) -> None:
        if not self._gate.in_doubt:
            self._reserved.extendleft(reversed(self._postponed))
            self._postponed.clear()
        while self._room() and not self._gate.closed and self._shop.session.clock() < until:
            if not self._reserved and not self._reserve(feed):
                return
            turn = self._gate.decide(self._reserved[0], alone=not self._active)
            if turn == "not yet":
                return
            order = self._reserved.popleft()
            if turn == "now":
                self._go(pool, order, self._steps(order))
            elif turn == "end":
                feed.clear()
                self._reserved.clear()

    def _room(self) -> bool:
        return len(self._active) < self._threads

    @property
    def _strict(self) -> bool:
        """Whether each submit has a write of its own: what it bought may not be found again by its client id."""
        return not self._shop.client_ids_resolve

    def _reserve(self, feed: deque[BatchItem]) -> bool:
        """Write the next wave ahead, together with what became of the last; say whether there is one."""
        shop = self._shop
        if feed:
            self._tell_bought()
        # One after another until it is known that what was bought can be found again by its client id.
        wave = 1 if shop.client_ids_resolve is None else self._wave
        self._reserved.extend(feed.popleft() for _ in range(min(wave, len(feed))))
        fresh = [order for order in self._reserved if not shop.needs_lookup(order)]
        intents = {
            order.key: foresee(
                shop.identity(order, shop.regeneration),
                shop.attempt,
                shop.entry(order),
                client_ids=shop.rules.client_ids,
            )
            for order in fresh
        }
        shop.ledger.reserve(intents, until=shop.session.clock() + _WRITE_AHEAD_VALID_SECONDS)
        if self._strict:
            # What was written ahead could not be told from what was sent, so each submit has a write of its own.
            shop.ledger.release(intents)
        shop.save()
        return bool(self._reserved)

    def _tell_bought(self) -> None:
        """Name what was bought since: whatever becomes of this attempt, its log says what is paid."""
        if self._bought:
            log.info("%d image tasks are paid: %s", len(self._bought), name_ids(self._bought))
        self._bought = []

    def _steps(self, order: BatchItem) -> Steps:
        shop = self._shop
        return Submission(
            shop.session,
            order.request,
            identity=shop.identity(order, shop.regeneration),
            attempt=shop.attempt,
            rules=replace(shop.rules, on_unknown_submission="fail") if shop.client_ids_resolve is False else shop.rules,
            journal=LedgerRecordStore(shop.ledger, order.key, strict=self._strict),
            pace=self._pace,
            references=shop.references,
            adopt=shop.adopt,
            observer=_ItemListener(shop, self._gate, order),
        ).steps()

    def _go(self, pool: ThreadPoolExecutor, order: BatchItem, steps: Steps) -> None:
        self._active[pool.submit(_advance, steps)] = (order, steps)

    def _await_one(self) -> None:
        rest = self._sleeping[0][0] - self._shop.session.clock() if self._sleeping else _LONGEST_REST
        rest = min(max(rest, 0.0), _LONGEST_REST)
        if not self._active:
            self._shop.session.sleep(rest)
            return
        done, _ = wait(self._active, timeout=rest, return_when=FIRST_COMPLETED)
        for future in done:
            order, steps = self._active.pop(future)
            self._conclude(order, steps, future)

    def _conclude(self, order: BatchItem, steps: Steps, future: Future[float | ImageTask]) -> None:
        shop = self._shop
        try:
            said = future.result()
        except BudgetExceeded:
            shop.budget_exhausted = True
            self._gate.on_known(order)
        except SubmitDeferred:
            self._postponed.append(order)
            self._gate.on_known(order)
        except errors.ToApisError as error:
            self._gate.on_error(order, error)
        else:
            if isinstance(said, float):
                heapq.heappush(self._sleeping, (shop.session.clock() + said, next(self._numbers), order, steps))
            else:
                self._gate.on_submitted(order)
                shop.mark_submitted(order, said)
                self._bought.append(said.id)


class _ItemListener(SubmissionListener):
    """Keeps the till of one order right; ten thousand of them say nothing at a person's level."""

    def __init__(self, shop: BatchState, gate: AdmissionControl, order: BatchItem) -> None:
        self._shop, self._gate, self._order = shop, gate, order

    def on_decision(self, line: str) -> None:
        log.debug("Request %s: %s", self._order.label, line)

    def on_found(self, image_task: ImageTask) -> None:
        shop = self._shop
        if shop.image_task_id(self._order) is None and not shop.adopt:
            mark_supported(shop.session)
        shop.costs.observe(self._order, image_task.id, image_task)

    def before_submit(self) -> None:
        self._gate.check(self._order)

    def after_wait(self) -> None:
        if isinstance(self._shop.account_error, Killed):
            raise self._shop.account_error


def _advance(steps: Steps) -> float | ImageTask:
    """Take an order's next step; return the seconds until the one after it, or its image task."""
    try:
        return next(steps)
    except StopIteration as end:
        image_task: ImageTask = end.value
        return image_task
