"""``BatchRunner``: works on a batch for one slice, and says what to wait for until the next.

A slice submits for as long as anything can be submitted, and lands meanwhile what is ready; the ledger is saved as it
goes and, whatever happens, at the end. A slice that could do nothing but wait ends, and no worker is needed until the
next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_provider_nanobanana.batch import removed_items
from airflow_provider_nanobanana.batch.collector import ResultCollector
from airflow_provider_nanobanana.batch.progress import PAUSE_SECONDS, ProgressLog, wake_at
from airflow_provider_nanobanana.batch.submitter import BatchSubmitter
from airflow_provider_nanobanana.durable.claims import ClaimHeld
from airflow_provider_nanobanana.polling.latency import latency_key
from airflow_provider_nanobanana.submission.claim_sweep import sweep_claims
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_nanobanana.batch.items import BatchItem
    from airflow_provider_nanobanana.batch.state import BatchState

log = LineLogger(__name__)

#: Seconds that landing gets at the end of a slice whose time is over.
_LAST_ROUNDS: Final = 10.0
#: Seconds between two rounds of collecting while the buying goes on.
_BETWEEN_ROUNDS: Final = 2.0
#: Seconds since the last purchase of a batch at its end, at most, if claims are to be removed after it.
_PURCHASED_LATELY: Final = 86400.0
#: What is sat out without a worker, as long as an attempt waits at all.
_WORTH_WAITING: Final[errors.Family] = (*errors.SUBMIT_LIMIT_ERRORS, errors.SubmissionUnknown, ClaimHeld)


@dataclass(frozen=True)
class WaitSpec:
    """What a batch waits for between two slices; moments are epoch seconds.

    :param image_task_ids: What is waited for; empty when it is a moment alone.
    :param wake_at: When to wake whatever has happened.
    :param enough: How many of them must have ended to wake before.
    """

    image_task_ids: list[str]
    created_at: list[float | None]
    kinds: list[str]
    wake_at: float
    enough: int


class BatchRunner:
    """Runs the slices of one process.

    :param on_progress: Called between two rounds of landing.
    """

    def __init__(self, state: BatchState, on_progress: Callable[[], object] = lambda: None) -> None:
        self._state = state
        self._on_progress = on_progress
        self._collector = ResultCollector(state)
        self._progress = ProgressLog(state.session.clock(), state.progress(), state.session.settings.submit_rate)
        self._stuck = self._ready_not_landed = self._cut_short = False
        self._first = True

    def run_slice(self, seconds: float) -> None:
        """Work until the slice is over or nothing is left to do.

        :param seconds: After so many it ends, whatever there is to submit or to land; what failed for a moment is tried
            again in the next.
        :raises ToApisError: What keeps it from going on at all; what was done by then is saved.
        """
        state = self._state
        before, over = state.progress(), state.session.clock() + seconds
        state.last_errors = {}
        state.stops.budget_exhausted = False
        self._ready_not_landed = False
        with self._saving():
            if self._first:
                self._first = False
                self._collector.collect_missing_extras()
            blocked = state.stops.storage_blocked
            if state.costs.waits_for_bills:
                # What it bills for the first decides whether the limit lets others be bought.
                self._collector.collect(state.running(), lambda: state.session.clock() >= over)
            if state.budget.max_cost_usd is not None:
                # So does what was paid of earlier lists.
                self._collect_former(over)
            if wanted := self._items_to_submit():
                self._submit(wanted, over)
            last = state.session.clock() + _LAST_ROUNDS
            if blocked or state.progress().pending == before.pending:
                late = max(over, last)
                self._ready_not_landed = not self._collector.collect(state.running(), lambda: self._is_over(late))
            else:
                # Once it is over, this says only whether something is due: the next slice lands it while it submits.
                self._ready_not_landed = not self._collector.collect_ready(lambda: self._is_over(over))
            self._collect_former(max(over, last))
        if state.stops.killed:
            raise state.stops.killed.reworded(
                f"Airflow ended this attempt: nothing more was bought. Image tasks under way: {len(state.running())}; "
                "they stay paid, and the next attempt, or a clear, finds and lands them.",
                charged="yes" if state.running() else "unknown",
            )
        moved = state.progress() != before
        self._cut_short = state.progress().pending < before.pending and state.session.clock() >= over
        self._stuck = bool(state.last_errors) and not moved
        if state.stops.budget_exhausted and moved and (rest := state.pending()):
            # A refund may have made room for it.
            state.stops.budget_exhausted = not state.costs.can_afford(rest[0])

    def can_go_on(self) -> bool:
        """Whether its time alone ended the last slice, and the next one would submit at once."""
        stops = self._state.stops
        held_up = stops.stops_all or stops.budget_exhausted or stops.storage_blocked
        return self._cut_short and not held_up and bool(self._state.pending())

    def next_wait(self) -> WaitSpec | None:
        """Return what to wait for next, or None when the batch has ended or comes no further in this attempt."""
        state = self._state
        running, unsent = [*state.running(), *removed_items.awaited_items(state)], state.pending()
        stops = state.stops
        more = 0 if stops.stops_all else sum(item.request.model not in stops.model_errors for item in unsent)
        if (not running and not more) or (self._stuck and not self._is_worth_waiting(running)):
            return None
        now = state.session.clock()
        progress = state.progress()
        # What could not be landed just now has ended: it is tried again later, and not because it has ended.
        awaited = [item for item in running if item.key not in state.last_errors]
        soon = bool(more) or self._ready_not_landed or not awaited or (stops.storage_blocked and bool(unsent))
        # The first image of a batch is there soon after it is ready, whatever else there is to wait for.
        news = progress.stored or progress.failed or stops.storage_blocked or len(awaited) < len(running)
        first = not news
        if soon and not first:
            # Much of what runs may have ended by now, and Airflow must not resume within seconds.
            awaited = []
        at_last = max(now + PAUSE_SECONDS, state.last_progress() + state.timeout)
        return WaitSpec(
            image_task_ids=[state.image_task_id(item) or "" for item in awaited],
            created_at=[state.entry(item).submitted_at for item in awaited],
            kinds=[latency_key(item.request.model, item.request.resolution) for item in awaited],
            wake_at=wake_at(
                now,
                max(map(state.deadline, awaited), default=at_last),
                more_to_do=soon,
                asked=self._asked_by_account(unsent),
            ),
            enough=1 if first else len(awaited),
        )

    def _asked_by_account(self, unsent: Sequence[BatchItem]) -> float:
        """Return for how many seconds the account takes no submit, as far as it said."""
        met = (self._state.last_errors.get(item.key) for item in unsent)
        limits = (error for error in met if isinstance(error, errors.SUBMIT_LIMIT_ERRORS))
        return max((error.retry_after or 0.0 for error in limits), default=0.0)

    def log_progress(self, *, last: bool = False) -> None:
        """Log how far the batch has come, unless that was logged lately.

        :param last: Log it in any case.
        """
        state = self._state
        if line := self._progress.line(state.session.clock(), state.progress(), state.costs.paid_usd, last=last):
            log.info("%s", line)

    def _is_over(self, moment: float) -> bool:
        """Whether a moment has come; said between two rounds of landing, with how far the batch has come."""
        self.log_progress()
        self._on_progress()
        return self._state.session.clock() >= moment

    def sweep_claims(self) -> None:
        """Remove claims of more than a week ago where this batch bought anything; once it has ended, and is told of."""
        state, bought_at = self._state, self._state.last_purchase()
        # On a local disk all ages are by this machine's clock: not where that is days ahead of the service's.
        lately = bought_at is not None and state.session.clock() - bought_at < _PURCHASED_LATELY
        if state.claims is not None and lately and not state.stops.killed:
            sweep_claims(state.claims, state.downloader.store)

    def _is_worth_waiting(self, running: Sequence[BatchItem]) -> bool:
        """Whether a slice that met errors and came no further is followed by another in this attempt."""
        state = self._state
        if any(item.key not in state.last_errors for item in running):
            return True
        limited = any(isinstance(error, _WORTH_WAITING) for error in state.last_errors.values())
        return limited and state.session.clock() < state.last_progress() + state.timeout

    def _items_to_submit(self) -> list[BatchItem]:
        """Return the items to submit, or at least to look up."""
        state = self._state
        stops = state.stops
        if stops.stops_lookups:
            return []
        unsent = state.pending()
        unknown = [item for item in unsent if state.needs_lookup(item)]
        if stops.storage_blocked and not unknown and not state.running():
            stops.storage_works()
        # What an earlier attempt may have bought is found and landed, whatever else cannot be had.
        return unknown if stops.account_error or stops.storage_blocked else unsent

    def _collect_former(self, until: float) -> None:
        """Land what is ready of the list before a clear; what keeps it from that is no matter of this batch."""
        state = self._state
        try:
            if left := removed_items.pollable_items(state):
                self._collector.collect(left, lambda: state.session.clock() >= until)
        except errors.ToApisError as error:
            log.warning("What the list before the clear left over could not be landed for now: %s", error.message)
        awaited = {item.key for item in removed_items.awaited_items(state)}
        for item in state.former_items:
            state.last_errors.pop(item.key, None)
            if item.key not in awaited:
                # Nobody waits for it any more, and so nothing is held back until its bill is seen.
                state.costs.stop_waiting_for_bill(item)

    def _submit(self, wanted: list[BatchItem], until: float) -> None:
        state, over = self._state, threading.Event()
        with WorkerPool(1, thread_name_prefix="slice") as side:
            collecting = side.submit(self._collect_until, over)
            try:
                BatchSubmitter(state).submit(wanted, until)
            finally:
                over.set()
            collecting.result()

    def _collect_until(self, over: threading.Event) -> None:
        try:
            with wrap_unexpected_errors("The images that are ready were not landed"):
                while not over.wait(_BETWEEN_ROUNDS):
                    self._collector.collect_due(over.is_set)
                    self.log_progress()
                    self._on_progress()
        except errors.ToApisError as error:
            # Nothing more is bought while nobody lands it.
            self._state.stops.account_error = error
            raise

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Save at the end, whatever happened; what is raised is what happened first."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, errors.ToApisError):
                self._state.stops.account_error = error
            with suppress(errors.TransientFailure):
                self._state.save()
            raise
        self._state.save()
