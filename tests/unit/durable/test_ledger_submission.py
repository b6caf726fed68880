"""The real submission loop on the ledger, killed at any side effect: one charge an order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.ledger import Ledger, LedgerRecordStore, foresee
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, LedgerEntry
from airflow_provider_nanobanana.durable.reconcile import Action, ReconcileInput, SubmissionPolicy, reconcile
from airflow_provider_nanobanana.durable.record import SubmissionIdentity
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.submission.workflow import Submission
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask, ImageTaskStatus
from tests.support.durable import HTTP_TIMEOUT, SCOPE, SUBMIT_RATE, Fate, Killed, World
from tests.support.ledger import NOW
from tests.support.session import make_session

ORDERS = 5
RULES = SubmissionPolicy(http_timeout=HTTP_TIMEOUT)
REQUESTS = [ImageRequest.parse({"prompt": f"kite {number}"}) for number in range(ORDERS)]
KEYS = [f"{request.fingerprint()[:20]}.0" for request in REQUESTS]

fates = st.builds(
    Fate,
    st.sampled_from(["ok", "ok", "ok", "lost", "lost_before", "limited"]),
    st.sampled_from([0.0, 0.1, HTTP_TIMEOUT]),
    st.sampled_from([0.0, 15.0, 60.0]),
)


@dataclass
class Life:
    """What becomes of one attempt.

    :param effects: Side effects until it is killed; None lets it live.
    :param wave: Seconds for which its reservations hold.
    :param saves: After how many orders it saves.
    """

    effects: int | None = None
    fates: list[Fate] = field(default_factory=list)
    wave: float = 10.0
    saves: int = 2
    fails: bool = False


lives = st.builds(
    Life, st.integers(0, 60), st.lists(fates, max_size=8), st.sampled_from([0.0, 10.0, 100.0]), st.integers(1, 6),
    st.booleans(),
)  # fmt: skip


class Shop:
    """One task instance: the bank, the shelf, and an attempt after the other."""

    def __init__(self) -> None:
        self.world, self.texts, self.tries, self.writes = World(), dict[str, str](), 0, 0
        self._left: int | None = None
        self._fates: Iterator[Fate] = iter(())

    def attempt(self, life: Life) -> None:
        """Run one attempt; it may be killed."""
        self.tries += 1
        self._left, self._fates = life.effects, iter(life.fates)
        with suppress(Killed):
            self._batch(life)

    def _batch(self, life: Life) -> None:
        attempt = TaskAttempt.of(try_number=self.tries, max_tries=99, retries=99, started_at=self.world.now)
        ledger = Ledger.load(self, first=not (attempt.retry or attempt.cleared))
        self._take_stock(ledger)
        identities = [SubmissionIdentity(SCOPE, request.fingerprint()) for request in REQUESTS]
        intents = {
            key: foresee(identity, attempt, ledger.get(key), client_ids=True)
            for key, identity in zip(KEYS, identities, strict=True)
        }
        ledger.reserve(intents, self.world.now + life.wave)
        ledger.save()
        self.writes = 0
        for number, identity in enumerate(identities):
            session = make_session(self, clock=lambda: self.world.now, sleep=self._sleep)
            journal = LedgerRecordStore(ledger, KEYS[number])
            buy = Submission(
                session, REQUESTS[number], identity=identity, attempt=attempt, rules=RULES, journal=journal,
                pace=SubmitRateLimiter(SUBMIT_RATE, self.world.slate), wait_for_slot=True,
            )  # fmt: skip
            self.number = number
            try:
                buy.run()
            except errors.ToApisError as error:
                assert error.retryable, error
            ledger.release([KEYS[number]])
            if number % life.saves == 0:
                ledger.save()
        ledger.save()
        if life.fails:
            # The service gives up on one; the next attempt finds that out and buys its next generation.
            self.world.books[-1].status = ImageTaskStatus.FAILED

    def _take_stock(self, ledger: Ledger) -> None:
        """Note confirmed failures, as the batch does before it plans a wave."""
        for key, entry in ledger.items():
            found = self.world.find(entry.record.image_task_id or "") if entry.record else None
            if found and found.status is ImageTaskStatus.FAILED:
                ledger.update(key, status="failed", error=ItemError("generation_failed", "no", "no"), cost=0.0)

    # --- side effects -------------------------------------------------------------------------------------------------

    def _effect(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def _sleep(self, seconds: float) -> None:
        self._effect()
        self.world.now += seconds

    def read(self, name: str) -> str | None:
        self._effect()
        return self.texts.get(name)

    def write(self, name: str, text: str) -> None:
        self._effect()
        self.texts[name] = text
        self.writes += 1
        self._effect()

    def call(self, call: Any, policy: Any = None) -> ImageTask:
        self._effect()
        if call.kind is CallKind.SUBMIT:
            return self._post(call.body["client_business_id"])
        found = self.world.find(call.image_task_id)
        if found is None:
            raise errors.ImageTaskNotFound("not there")
        return found.model()

    def _post(self, client_id: str) -> ImageTask:
        fate = next(self._fates, Fate())
        if fate.kind == "limited":
            raise errors.RateLimited("slower", retry_after=1.0)
        if fate.kind == "lost_before":
            self.world.now += HTTP_TIMEOUT
            raise errors.SubmissionUnknown("lost")
        bought = self.world.accept(client_id, self.number, fate)
        self._effect()
        if fate.kind == "lost":
            self.world.now += HTTP_TIMEOUT
            raise errors.SubmissionUnknown("lost")
        self.world.now += fate.commits_in
        return bought.model()

    def paid(self) -> list[int]:
        return sorted(bought.want for bought in self.world.books if bought.status is not ImageTaskStatus.FAILED)


@pytest.fixture(autouse=True, scope="module")
def no_echo() -> Iterator[None]:
    with patch("airflow_provider_nanobanana.submission.workflow.verify_support"):
        yield


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(lives, st.sampled_from([0.0, 5.0, 300.0]), st.booleans()), max_size=6))
def test_every_order_is_paid_once_whatever_is_killed(history: list[tuple[Life, float, bool]]) -> None:
    """``wiped``: as before Airflow 3.3, where XComs end with the try; the derived ids carry on then."""
    shop = Shop()
    for life, pause, wiped in history:
        shop.attempt(life)
        shop.world.now += pause
        if wiped:
            shop.texts.clear()
    while shop.tries < len(history) + 3:
        shop.attempt(Life())
    assert shop.paid() == list(range(ORDERS))


def test_a_foreseen_wave_costs_no_write_an_order() -> None:
    shop = Shop()
    shop.attempt(Life(saves=99, wave=100.0))
    # After the first of them and at the end.
    assert (shop.writes, shop.paid()) == (2, list(range(ORDERS)))


def test_a_foreseen_second_generation_costs_no_write_an_order() -> None:
    shop = Shop()
    shop.attempt(Life(saves=99, wave=100.0))
    for bought in shop.world.books:
        bought.status = ImageTaskStatus.FAILED
    shop.attempt(Life(saves=99, wave=100.0))
    assert (shop.writes, shop.paid(), len(shop.world.books)) == (2, list(range(ORDERS)), 2 * ORDERS)


def test_a_wave_that_outlasts_its_reservation_goes_on_with_a_write_an_order() -> None:
    shop = Shop()
    shop.attempt(Life(saves=99, wave=-1.0))
    assert (shop.writes, shop.paid()) == (ORDERS + 2, list(range(ORDERS)))


@pytest.mark.parametrize(("whole", "verb"), [(True, Action.SUBMIT), (False, Action.LOOK_UP)])
def test_a_retry_looks_only_for_what_may_have_been_sent(whole: bool, verb: Action) -> None:
    shelf = InMemoryStateStore()
    first = Ledger.load(shelf, first=whole)
    first.put("another", LedgerEntry())
    first.save()
    retry, identity = (
        TaskAttempt(NOW, max_tries=9, retry=True, tries_before_clear=0),
        SubmissionIdentity(SCOPE, "f" * 64),
    )
    ledger = Ledger.load(shelf)
    ledger.reserve({"k": foresee(identity, retry, LedgerEntry(), client_ids=True)}, NOW + 45)
    kept = LedgerRecordStore(ledger, "k").read()
    assert reconcile(ReconcileInput(identity, retry, RULES, record=kept), NOW).action is verb
