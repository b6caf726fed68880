"""``BatchSubmitter``: gives each pending item of a batch its image task, at the account's rate.

What an earlier attempt may have bought is looked up first, and only looked up. What certainly was not sent is bought:
for a group of items (five seconds of submits) an intent is put into the ledger and saved with one write, then each is
POSTed. So for every POST an intent of exactly that request and generation is in the store before it, and after a kill
the next attempt looks each of them up. What a clean end leaves unsent is ``queued`` again.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch.admission import AdmissionControl
from airflow_provider_nanobanana.batch.state import name_ids
from airflow_provider_nanobanana.durable.claims import POST_WINDOW, Sighting
from airflow_provider_nanobanana.durable.ledger import LedgerRecordStore
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.submission.claims import ImageClaims, InPlace, MachineClock
from airflow_provider_nanobanana.submission.client_ids import mark_supported
from airflow_provider_nanobanana.submission.rate_limiter import MAX_BLOCKING_WAIT, SubmitRateLimiter
from airflow_provider_nanobanana.submission.workflow import Submission, SubmissionListener
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.worker_threads import TaskEnded, WorkerPool

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState
    from airflow_provider_nanobanana.submission.claims import ClaimFolder, PurchaseBook, Shared
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = LineLogger(__name__)

#: Seconds of submits that are written ahead with one write; after a kill so many are looked up.
_WRITE_AHEAD_SECONDS: Final = 5.0
_FEWEST_THREADS, _MOST_THREADS = 4, 48
#: Seconds a submit may take while others are sent: decides the number of threads.
_SLOW_SUBMIT: Final = 1.0
#: The same of creating a claim at the destination before it.
_SLOW_CLAIM: Final = 1.0
_LONGEST_WAIT: Final = 0.5
_UNKNOWN: Final = (
    "It is not known yet whether an earlier submit of it was accepted; the next look-up goes on from here."
)

#: One item under way: yields the seconds until its next step, returns its image task, or None if it was not sent.
Steps = Generator[float, None, "ImageTask | None"]


@dataclass(frozen=True)
class _Admitted:
    """An item that may be bought.

    :param intent: Its intent, written ahead; None where its submission has to write its own.
    :param claims: The claims beside its file; None where purchases are not claimed.
    """

    item: BatchItem
    intent: SubmissionRecord | None
    claims: ImageClaims | None


@dataclass
class _UnderWay:
    """An item whose submission is under way."""

    item: BatchItem
    steps: Steps
    book: PurchaseBook | None


class BatchSubmitter:
    """Submits the pending items of one slice; use an object of this class once."""

    def __init__(self, state: BatchState) -> None:
        self._state = state
        self._limiter = SubmitRateLimiter.of(state.session.settings)
        rate = state.session.settings.submit_rate
        self._group_size = max(_FEWEST_THREADS, math.ceil(rate * _WRITE_AHEAD_SECONDS))
        slow = _SLOW_SUBMIT + (0.0 if state.claims is None else _SLOW_CLAIM)
        # No more than get a slot without queueing for so long that they would be sent away.
        in_reach = max(1, math.floor(rate * MAX_BLOCKING_WAIT))
        self._threads = min(max(_FEWEST_THREADS, math.ceil(rate * slow)), _MOST_THREADS, in_reach)
        self._admission = AdmissionControl(state)
        self._machine_clock = MachineClock(state.session.clock)
        #: Within a limit of cost or balance nothing is bought before it is known what is paid already.
        self._settle_first = state.budget.max_cost_usd is not None or state.preflight is not None
        self._to_look_up: deque[BatchItem] = deque()
        self._unsettled: set[str] = set()
        self._unsent: deque[BatchItem] = deque()
        self._admitted: deque[_Admitted] = deque()
        self._numbers = count()
        self._sleeping: list[tuple[float, int, _UnderWay]] = []
        self._active: dict[Future[float | ImageTask | None], _UnderWay] = {}
        self._books: Counter[PurchaseBook] = Counter()
        self._bought: list[str] = []

    def submit(self, items: Iterable[BatchItem], until: float) -> None:
        """Submit one item after another; after ``until`` (epoch seconds) only calls under way are brought to their end.

        It ends when nothing is left but what is looked up again later.

        :raises TransientFailure: The ledger could not be saved; no POST left that it does not know of.
        """
        for item in items:
            (self._to_look_up if self._state.needs_lookup(item) else self._unsent).append(item)
        self._unsettled = {item.key for item in self._to_look_up}
        try:
            with WorkerPool(self._threads, thread_name_prefix="submitter") as pool:
                while True:
                    self._resume_due(pool, until)
                    self._start_new(pool, until)
                    self._leave_sleeping(until)
                    if not self._active and not self._sleeping:
                        break
                    self._await_one(pool)
        finally:
            for admitted in self._admitted:
                self._take_back(admitted)
            self._log_bought()
            if self._state.claims is not None:
                self._close_books(self._state.claims)

    def _close_books(self, claims: ClaimFolder) -> None:
        """Write the books that are still open; what was paid is saved first where a hanging destination may end it."""
        if self._state.stops.killed:
            with suppress(errors.TransientFailure):  # raised by whoever saves after this
                self._state.save()
        claims.close_books()

    def _resume_due(self, pool: WorkerPool, until: float) -> None:
        now = self._state.session.clock()
        while now < until and self._sleeping and self._sleeping[0][0] <= now and self._has_room():
            _, _, one = heapq.heappop(self._sleeping)
            self._go(pool, one)

    def _leave_sleeping(self, until: float) -> None:
        """Leave to the next slice what nothing but time would hold this one for; its records say to look it up."""
        now = self._state.session.clock()
        idle = not self._active and bool(self._sleeping) and self._sleeping[0][0] > now + MAX_BLOCKING_WAIT
        if now < until and not idle:
            return
        for _, _, one in self._sleeping:
            if (sighting := self._record_sighting(one.item)) is not None:
                seen = sighting.at(self._machine_clock.machine, self._machine_clock.uptime())
                self._state.ledger.update(one.item.key, sighting=seen)
            self._state.last_errors.setdefault(one.item.key, errors.SubmissionUnknown(_UNKNOWN))
        self._sleeping.clear()

    def _record_sighting(self, item: BatchItem) -> Sighting | None:
        """Return since when the record of an item, as it stands, is known; None where its claim tells that."""
        entry = self._state.entry(item)
        if self._state.claims is not None or entry.record is None:
            return None
        version = f"{entry.record.client_business_id} {entry.record.may_have_left_at}"
        known = entry.sighting
        return known if known is not None and known.claim == version else Sighting(version)

    def _read_at(self, item: BatchItem) -> float | None:
        """Return when an earlier slice on this machine left the record of an item as it stands, in epoch seconds.

        The wait for what it may have bought goes on from then, in however many slices; None where it begins now.
        """
        sighting = self._record_sighting(item)
        age = sighting.age(self._machine_clock.machine, self._machine_clock.uptime()) if sighting else 0.0
        return self._state.session.clock() - age if age > 0 else None

    def _start_new(self, pool: WorkerPool, until: float) -> None:
        while self._has_room() and not self._admission.closed and self._state.session.clock() < until:
            if self._to_look_up:
                item = self._to_look_up.popleft()
                looked_up = self._submission(_Admitted(item, None, self._claims(item, None)))
                self._go(pool, _UnderWay(item, looked_up.steps(may_submit=False), None))
            elif self._admitted or self._admit():
                admitted = self._admitted.popleft()
                if self._admission.stopped(admitted.item):
                    self._take_back(admitted)
                else:
                    book = admitted.claims.book if admitted.claims else None
                    self._go(pool, _UnderWay(admitted.item, self._submission(admitted).steps(), book))
            else:
                return

    def _has_room(self) -> bool:
        return len(self._active) < self._threads

    def _admit(self) -> bool:
        """Admit the next group of items, write it ahead, and say whether there is one.

        What became of the group before is saved with it.
        """
        state = self._state
        if not self._unsent or (self._settle_first and self._unsettled):
            return False
        size = self._group_size
        if state.client_ids_resolve is None:
            # One after another until it is known that what was bought can be found again by its client id.
            size = 0 if self._active else 1
        group: list[BatchItem] = []
        while self._unsent and len(group) < size:
            admission = self._admission.decide(self._unsent[0])
            if admission == "wait":
                break
            item = self._unsent.popleft()
            if admission == "submit":
                group.append(item)
            elif admission == "stop":
                self._unsent.clear()
        if group:
            self._log_bought()
            self._write_group_ahead(group)
        return bool(group)

    def _write_group_ahead(self, group: list[BatchItem]) -> None:
        """Put the intents of a group into the ledger, save it, and open the book of what becomes of their claims."""
        state = self._state
        now = state.session.clock()
        book = None
        for item in group:
            # Where what is bought may not be found again, nobody waits for others to learn what became of it.
            if state.claims is not None and (book is None or not state.client_ids_resolve):
                book = state.claims.open_book()
            self._admitted.append(self._write_ahead(item, now, self._claims(item, book)))
            if book is not None:
                self._books[book] += 1
        state.save()

    def _write_ahead(self, item: BatchItem, now: float, claims: ImageClaims | None) -> _Admitted:
        """Put the intent of an item into the ledger; the item may be POSTed once the ledger was saved.

        There is no intent where the item's submission has to write its own: its generations, or the claims of others,
        have to be looked up first, or what it buys may not be found again, so that an intent that was not used must not
        be taken for one that was.
        """
        state = self._state
        identity = state.identity(item, state.clear_number)
        entry = state.entry(item)
        record = entry.record
        if record is not None and not record.matches(identity):
            return _Admitted(item, None, claims)
        intent = state.attempt.intent(
            identity,
            record.generation if record else 0,
            client_ids=state.policy.client_ids,
            may_leave_at=now + POST_WINDOW,
        )
        if claims is not None and entry.sighting is None:
            claims.proposed = claims.propose()
            if state.policy.client_ids:
                intent = replace(intent, generation=0, client_business_id=claims.proposed.client_business_id)
        if state.client_ids_resolve and (claims is None or claims.proposed is not None):
            state.ledger.put_record(item.key, intent)
            return _Admitted(item, intent, claims)
        state.ledger.put_record(item.key, intent.with_state(RecordState.QUEUED, may_have_left_at=now))
        return _Admitted(item, None, claims)

    def _take_back(self, admitted: _Admitted) -> None:
        """Note of an admitted item that nothing was sent for it."""
        self._state.costs.release(admitted.item)
        if admitted.intent is not None:
            now = self._state.session.clock()
            unsent = admitted.intent.with_state(RecordState.QUEUED, may_have_left_at=now)
            self._state.ledger.put_record(admitted.item.key, unsent)

    def _log_bought(self) -> None:
        """Name what was bought since: whatever becomes of this attempt, its log says what is paid."""
        if self._bought:
            count = len(self._bought)
            tasks = "image task is" if count == 1 else "image tasks are"
            log.info("%d %s paid:\n  %s", count, tasks, name_ids(self._bought))
        self._bought = []

    def _claims(self, item: BatchItem, book: PurchaseBook | None) -> ImageClaims | None:
        """Return the claims beside the file of an item."""
        state = self._state
        if state.claims is None:
            return None
        stem = item.stem(state.name_suffix)
        return ImageClaims(
            folder=state.claims,
            session=state.session,
            stem=stem,
            digest=item.fingerprint,
            book=book,
            attempt=state.attempt,
            policy=state.policy,
            find=lambda: state.downloader.store.find(stem),
            sightings=_ItemSightings(state, item),
            wait_until=state.attempt.started_at + state.timeout,
            ids_resolve=lambda: state.client_ids_resolve,
            adopt=state.adopt,
            model=item.request.model,
        )

    def _submission(self, admitted: _Admitted) -> Submission:
        state = self._state
        item = admitted.item
        resolve = state.client_ids_resolve
        # Where what was bought may not be found again, each record has a write of its own.
        record_store = LedgerRecordStore(
            state.ledger,
            item.key,
            strict=not resolve,
            cost_fields=lambda image_task_id: state.costs.ledger_fields(item, image_task_id),
        )
        return Submission(
            state.session,
            item.request,
            identity=state.identity(item, state.clear_number),
            attempt=state.attempt,
            policy=replace(state.policy, on_unknown_submission="fail") if resolve is False else state.policy,
            record_store=record_store,
            rate_limiter=self._limiter,
            references=state.references,
            adopt=state.adopt,
            listener=_ItemListener(state, item),
            written_ahead=admitted.intent,
            claims=admitted.claims,
            shared=state.entry(item).shared,
            read_at=self._read_at(item),
        )

    def _go(self, pool: WorkerPool, one: _UnderWay) -> None:
        self._active[pool.submit(_advance, one.steps)] = one

    def _await_one(self, pool: WorkerPool) -> None:
        # One that is due waits for room, and that comes with an end of those under way.
        wakes = bool(self._sleeping) and self._has_room()
        seconds = self._sleeping[0][0] - self._state.session.clock() if wakes else _LONGEST_WAIT
        seconds = min(max(seconds, 0.0), _LONGEST_WAIT)
        if not self._active:
            self._state.session.sleep(seconds)
            return
        done, _ = wait(self._active, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in done:
            one = self._active.pop(future)
            if self._conclude(one, future) and one.book is not None:
                self._books[one.book] -= 1
                if not self._books[one.book]:
                    pool.submit(one.book.close)

    def _settle(self, item: BatchItem) -> None:
        """Take note that it is known what earlier attempts bought of an item."""
        self._unsettled.discard(item.key)
        self._state.looked_up.add(item.key)

    def _conclude(self, one: _UnderWay, future: Future[float | ImageTask | None]) -> bool:
        """Take note of what an item came to, and say whether its submission is over."""
        state = self._state
        item = one.item
        try:
            result = future.result()
        except InPlace as found:
            self._settle(item)
            self._admission.on_found()
            state.costs.release(item)
            state.mark_reused(item, found.image)
            return True
        except TaskEnded:
            # The task is being ended: what else is under way may still be answered, and is noted then.
            return True
        except errors.ToApisError as error:
            if self._admission.on_error(item, error):
                self._settle(item)
            return True
        if isinstance(result, float):
            heapq.heappush(self._sleeping, (state.session.clock() + result, next(self._numbers), one))
            return False
        self._settle(item)
        if result is None:
            state.costs.release(item)
            self._unsent.append(item)
            return True
        self._admission.on_found()
        shared = state.entry(item).shared
        state.mark_submitted(item, result, shared=shared)
        if not shared:
            self._bought.append(f"{item.label}={result.id}")
        return True


class _ItemListener(SubmissionListener):
    """Keeps the costs of one item right, and its submit back where one stops; ten thousand items log at debug level."""

    def __init__(self, state: BatchState, item: BatchItem) -> None:
        self._state = state
        self._item = item

    def on_decision(self, text: str) -> None:
        log.debug("%s: %s", self._item.label, text)

    def on_found(self, image_task: ImageTask) -> None:
        state = self._state
        if state.image_task_id(self._item) is None and not state.adopt:
            mark_supported(state.session)
        state.costs.observe(self._item, image_task.id, image_task)

    def on_shared(self, shared: Shared) -> None:
        log.info("%s: using image task %s of %s.", self._item.label, shared.image_task.id, shared.claim.by)
        self._state.costs.observe(self._item, shared.image_task.id, shared.image_task, "shared")

    def before_submit(self) -> None:
        if error := self._state.stops.error_for(self._item.request.model):
            # A copy, since several threads raise it; what it says of the money is of the item that met it.
            raise error.reworded(error.message, charged="no")


class _ItemSightings:
    """Remembers in the ledger since when the claim on an item's image is known."""

    def __init__(self, state: BatchState, item: BatchItem) -> None:
        self._state = state
        self._item = item

    def sighting(self) -> Sighting | None:
        return self._state.entry(self._item).sighting

    def remember(self, sighting: Sighting | None) -> None:
        if sighting != self.sighting():
            self._state.ledger.update(self._item.key, sighting=sighting)


def _advance(steps: Steps) -> float | ImageTask | None:
    """Take an item's next step; return the seconds until the one after it, or how the steps ended."""
    try:
        return next(steps)
    except StopIteration as end:
        image_task: ImageTask | None = end.value
        return image_task
