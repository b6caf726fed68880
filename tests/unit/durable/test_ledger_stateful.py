"""Writing ahead, saves, kills and second attempts in any order: what was POSTed is never loaded as unsent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_provider_nanobanana.durable.ledger import Ledger, LedgerRecordStore
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, LedgerEntry
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from tests.support.campaign import of_campaign
from tests.support.ledger import NOW, Breakage, BrittleStateStore, key, landed, record

#: Three chunks, which are made small for it.
ITEMS, KEYS = 7, 3
UNSEEN_FOR = 90.0

Outcome = Literal["ok", "lost", "refused", "killed"]

item_numbers = st.integers(0, ITEMS - 1)
attempts = st.integers(0, 1)
breakages = st.sampled_from(["", "", "", "", "refused", "kept", "read"])


@dataclass
class Post:
    """One charge, until it is refunded."""

    generation: int
    at: float
    stands: bool = True


@dataclass
class Worker:
    """One attempt that lives.

    :param ahead: What it has written ahead and not POSTed.
    :param overtaken: Whether another one wrote since it began: what it has not changed itself, it may know no more.
    """

    ledger: Ledger
    overtaken: bool = False
    ahead: dict[int, SubmissionRecord] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)

    def entry(self, number: int) -> LedgerEntry:
        return self.ledger.get(key(number))


class NothingSentIsForgotten(RuleBasedStateMachine):
    """Two attempts at most, a bank that knows the truth, and a store that breaks now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.now, self.first = BrittleStateStore(), NOW, True
        self.workers: list[Worker] = []
        self.acting: Worker | None = None
        self.texts: dict[str, str] = {}
        self.service: dict[int, list[Post]] = {number: [] for number in range(ITEMS)}
        self._small = patch("airflow_provider_nanobanana.durable.ledger.MAX_KEYS", KEYS)
        self._small.start()

    def teardown(self) -> None:
        self._small.stop()

    # --- attempts -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 2)
    @rule()
    def start(self) -> None:
        self.workers.append(Worker(Ledger.load(self.store, first=self.first)))
        self.first = False

    @precondition(lambda self: self.workers)
    @rule(which=attempts)
    def kill(self, which: int) -> None:
        self.workers.remove(self._worker(which))

    @precondition(lambda self: self.workers)
    @rule(which=attempts, numbers=st.sets(item_numbers), seconds=st.sampled_from([0.0, 10.0, 100.0]), breaks=breakages)
    def write_ahead(self, which: int, numbers: set[int], seconds: float, breaks: Breakage) -> None:
        worker = self._worker(which)
        for number in numbers - worker.ahead.keys():
            if self._is_unsent(worker.entry(number)):
                intent = replace(self._next(number, worker.entry(number)), may_have_left_at=self.now + seconds)
                worker.ledger.put_record(key(number), intent)
                worker.ahead[number] = intent
                worker.touched.add(number)
        if not self._save(worker, breaks):
            self._take_back(worker, set(worker.ahead))

    @precondition(lambda self: self.workers)
    @rule(which=attempts, numbers=st.sets(item_numbers), save=st.booleans(), breaks=breakages)
    def take_back(self, which: int, numbers: set[int], save: bool, breaks: Breakage) -> None:
        worker = self._worker(which)
        self._take_back(worker, numbers & worker.ahead.keys())
        if save and not self._save(worker, breaks):
            self._take_back(worker, set(worker.ahead))

    @precondition(lambda self: self.workers)
    @rule(which=attempts, breaks=breakages)
    def save(self, which: int, breaks: Breakage) -> None:
        self._save(self._worker(which), breaks)

    @precondition(lambda self: self.workers)
    @rule(which=attempts, number=item_numbers, outcome=st.sampled_from(["ok", "ok", "lost", "refused", "killed"]),
          breaks=breakages)  # fmt: skip
    def post(self, which: int, number: int, outcome: Outcome, breaks: Breakage) -> None:
        worker = self._worker(which)
        if number not in worker.ahead and not self._may_post(number, worker.entry(number)):
            return
        worker.touched.add(number)
        record_store = LedgerRecordStore(worker.ledger, key(number))
        ahead = worker.ahead.pop(number, None)
        if ahead is not None and self.now <= ahead.may_have_left_at:
            intent = ahead
        else:
            intent = replace(self._next(number, worker.entry(number)), may_have_left_at=self.now)
            try:
                with self._broken(breaks):
                    record_store.write(intent)
            except TransientFailure:
                return
        post = Post(intent.generation, self.now)
        if outcome != "refused":
            self.service[number].append(post)
        if outcome == "ok":
            record_store.write(record(number, RecordState.SUBMITTED, intent.generation))
        elif outcome == "refused":
            record_store.write(replace(intent, state=RecordState.QUEUED))
        elif outcome == "killed":
            self.workers.remove(worker)

    @precondition(lambda self: self.workers)
    @rule(which=attempts, number=item_numbers)
    def look(self, which: int, number: int) -> None:
        """Ask the service, as an attempt does for an item whose record says that something may be under way."""
        worker = self._worker(which)
        kept = worker.entry(number).record
        if number in worker.ahead or kept is None or kept.state is RecordState.QUEUED:
            return
        worker.touched.add(number)
        found = next((post for post in self.service[number] if post.generation == kept.generation), None)
        record_store = LedgerRecordStore(worker.ledger, key(number))
        if found and found.stands:
            record_store.write(record(number, RecordState.SUBMITTED, kept.generation))
        elif found:
            record_store.write(record(number, RecordState.SUBMITTED, kept.generation))
            fault = ItemError("generation_failed", "no", "no")
            worker.ledger.update(key(number), status="failed", error=fault, cost=0.0)

    @precondition(lambda self: self.workers)
    @rule(which=attempts, number=item_numbers)
    def land(self, which: int, number: int) -> None:
        worker = self._worker(which)
        kept = worker.entry(number).record
        if kept is not None and kept.state is RecordState.SUBMITTED and self._stands(number):
            worker.touched.add(number)
            changes = {"status": "landed", "stored": landed(number).stored, "cost": 0.025}
            worker.ledger.update(key(number), record=kept.with_state(RecordState.DONE), **changes)

    # --- the service -------------------------------------------------------------------------------------------------

    @rule(number=item_numbers)
    def fail_remotely(self, number: int) -> None:
        for post in self.service[number]:
            post.stands = False

    @rule(seconds=st.sampled_from([1.0, 20.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def whoever_did_not_write_is_overtaken(self) -> None:
        texts = dict(self.store.texts)
        for worker in self.workers:
            worker.overtaken |= texts != self.texts and worker is not self.acting
        self.texts = texts

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def whoever_loads_it_is_led_to_what_was_posted(self) -> None:
        ledger = Ledger.load(self.store)
        for number, posts in self.service.items():
            for post in (post for post in posts if post.stands):
                kept = ledger.get(key(number)).record
                assert kept is not None and kept.state is not RecordState.QUEUED, f"{number} is loaded as unsent"
                assert kept.generation == post.generation, f"{number} is looked for under another id"
                assert kept.state is not RecordState.INTENT or kept.may_have_left_at >= post.at, (
                    f"{number} is believed too early"
                )

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        for posts in self.service.values():
            assert sum(post.stands for post in posts) <= 1

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _worker(self, which: int) -> Worker:
        self.acting = self.workers[which % len(self.workers)]
        return self.acting

    def _stands(self, number: int) -> bool:
        return any(post.stands for post in self.service[number])

    def _may_post(self, number: int, entry: LedgerEntry) -> bool:
        """As the decision core: not while something may be under way that cannot be seen yet."""
        kept = entry.record
        if kept is None or kept.state is RecordState.QUEUED or entry.refunded:
            return True
        if kept.state is not RecordState.INTENT or self.now < kept.may_have_left_at + UNSEEN_FOR:
            return False
        return all(post.generation != kept.generation for post in self.service[number])

    def _is_unsent(self, entry: LedgerEntry) -> bool:
        return entry.record is None or entry.record.state is RecordState.QUEUED

    def _next(self, number: int, entry: LedgerEntry) -> SubmissionRecord:
        generation = entry.record.generation + entry.refunded if entry.record else 0
        return record(number, RecordState.INTENT, generation)

    @contextmanager
    def _broken(self, breaks: Breakage) -> Iterator[None]:
        self.store.breaks = breaks
        try:
            yield
        finally:
            self.store.breaks = ""

    def _take_back(self, worker: Worker, numbers: set[int]) -> None:
        for number in numbers:
            unsent = worker.ahead.pop(number).with_state(RecordState.QUEUED, may_have_left_at=self.now)
            worker.ledger.put_record(key(number), unsent)

    def _save(self, worker: Worker, breaks: Breakage) -> bool:
        try:
            with self._broken(breaks):
                worker.ledger.save()
        except TransientFailure:
            return False
        again = Ledger.load(self.store)
        for number in worker.touched:
            back = again.get(key(number)) == worker.entry(number)
            assert back or worker.overtaken, "what was saved does not come back"
        worker.touched.clear()
        return True


NothingSentIsForgotten.TestCase.settings = settings(
    max_examples=of_campaign(75, 5_000), stateful_step_count=40, deadline=None, database=None
)
TestNothingSentIsForgotten = NothingSentIsForgotten.TestCase
