"""The real submission loop on the ledger, killed at any side effect: one charge an item."""

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
from airflow_provider_nanobanana.durable.ledger import Ledger, LedgerRecordStore
from airflow_provider_nanobanana.durable.ledger_entry import ItemError
from airflow_provider_nanobanana.durable.reconcile import SubmissionPolicy
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionIdentity
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.submission.workflow import Submission, SubmissionListener
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.durable import HTTP_TIMEOUT, SCOPE, SUBMIT_RATE, Killed, PostOutcome, Simulation
from tests.support.ledger import NOW
from tests.support.session import make_session

ITEMS = 5
RULES = SubmissionPolicy(http_timeout=HTTP_TIMEOUT)
REQUESTS = [ImageRequest.parse({"prompt": f"kite {number}"}) for number in range(ITEMS)]
KEYS = [f"{request.fingerprint()[:20]}.0" for request in REQUESTS]

fates = st.builds(
    PostOutcome,
    st.sampled_from(["ok", "ok", "ok", "lost", "lost_before", "limited"]),
    st.sampled_from([0.0, 0.1, HTTP_TIMEOUT]),
    st.sampled_from([0.0, 15.0, 60.0]),
)


@dataclass
class Life:
    """What becomes of one attempt.

    :param effects: Side effects until it is killed; None lets it live.
    :param valid: Seconds within which what is written ahead may be POSTed.
    :param saves: After how many orders it saves.
    """

    effects: int | None = None
    fates: list[PostOutcome] = field(default_factory=list)
    valid: float = 10.0
    saves: int = 2
    fails: bool = False


lives = st.builds(
    Life, st.integers(0, 60), st.lists(fates, max_size=8), st.sampled_from([0.0, 10.0, 100.0]), st.integers(1, 6),
    st.booleans(),
)  # fmt: skip


class FakeService:
    """One task instance: the bank, the store, and an attempt after the other."""

    def __init__(self) -> None:
        self.simulation, self.texts, self.tries, self.writes = Simulation(), dict[str, str](), 0, 0
        self._left: int | None = None
        self._fates: Iterator[PostOutcome] = iter(())

    def attempt(self, life: Life) -> None:
        """Run one attempt; it may be killed."""
        self.tries += 1
        self._left, self._fates = life.effects, iter(life.fates)
        with suppress(Killed):
            self._batch(life)

    def _batch(self, life: Life) -> None:
        attempt = TaskAttempt.of(try_number=self.tries, max_tries=99, retries=99, started_at=self.simulation.now)
        ledger = Ledger.load(self, first=not (attempt.retry or attempt.cleared))
        self._take_stock(ledger)
        identities = [SubmissionIdentity(SCOPE, request.fingerprint()) for request in REQUESTS]
        ahead = {}
        for key, identity in zip(KEYS, identities, strict=True):
            kept = ledger.get(key).record
            if (kept is None and (ledger.complete or not attempt.retry)) or (kept and kept.state is RecordState.QUEUED):
                generation, until = kept.generation if kept else 0, self.simulation.now + life.valid
                ahead[key] = attempt.intent(identity, generation, client_ids=True, may_leave_at=until)
                ledger.put_record(key, ahead[key])
        ledger.save()
        self.writes = 0
        for number, identity in enumerate(identities):
            session = make_session(self, clock=lambda: self.simulation.now, sleep=self._sleep)
            record_store = LedgerRecordStore(ledger, KEYS[number])
            buy = Submission(
                session, REQUESTS[number], identity=identity, attempt=attempt, policy=RULES, record_store=record_store,
                rate_limiter=SubmitRateLimiter(SUBMIT_RATE, self.simulation.rate_state), wait_for_slot=True,
                written_ahead=ahead.get(KEYS[number]),
            )  # fmt: skip
            self.number = number
            try:
                buy.run()
            except errors.ToApisError as error:
                assert error.retryable, error
            if number % life.saves == 0:
                ledger.save()
        ledger.save()
        if life.fails:
            # The service gives up on one; the next attempt finds that out and buys its next generation.
            self.simulation.charges[-1].status = ImageTaskStatus.FAILED

    def _take_stock(self, ledger: Ledger) -> None:
        """Note confirmed failures, as the batch does when it collects."""
        for key, entry in ledger.items():
            found = self.simulation.find(entry.record.image_task_id or "") if entry.record else None
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
        self.simulation.now += seconds

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
        found = self.simulation.find(call.image_task_id)
        if found is None:
            raise errors.ImageTaskNotFound("not there")
        return found.model()

    def _post(self, client_id: str) -> ImageTask:
        fate = next(self._fates, PostOutcome())
        if fate.kind == "limited":
            raise errors.RateLimited("slower", retry_after=1.0)
        if fate.kind == "lost_before":
            self.simulation.now += HTTP_TIMEOUT
            raise errors.SubmissionUnknown("lost")
        bought = self.simulation.accept(client_id, self.number, fate)
        self._effect()
        if fate.kind == "lost":
            self.simulation.now += HTTP_TIMEOUT
            raise errors.SubmissionUnknown("lost")
        self.simulation.now += fate.commits_in
        return bought.model()

    def paid(self) -> list[int]:
        return sorted(bought.want for bought in self.simulation.charges if bought.status is not ImageTaskStatus.FAILED)


@pytest.fixture(autouse=True, scope="module")
def no_echo() -> Iterator[None]:
    with patch("airflow_provider_nanobanana.submission.workflow.verify_support"):
        yield


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(lives, st.sampled_from([0.0, 5.0, 300.0]), st.booleans()), max_size=6))
def test_every_item_is_paid_once_whatever_is_killed(history: list[tuple[Life, float, bool]]) -> None:
    """``wiped``: as before Airflow 3.3, where XComs end with the try; the derived ids carry on then."""
    service = FakeService()
    for life, pause, wiped in history:
        service.attempt(life)
        service.simulation.now += pause
        if wiped:
            service.texts.clear()
    while service.tries < len(history) + 3:
        service.attempt(Life())
    assert service.paid() == list(range(ITEMS))


def test_what_is_written_ahead_costs_no_write_an_order() -> None:
    service = FakeService()
    service.attempt(Life(saves=99, valid=100.0))
    # After the first of them and at the end.
    assert (service.writes, service.paid()) == (2, list(range(ITEMS)))


def test_what_outlasts_its_moment_is_written_again_before_it_leaves() -> None:
    service = FakeService()
    service.attempt(Life(saves=99, valid=-1.0))
    assert (service.writes, service.paid()) == (ITEMS + 2, list(range(ITEMS)))


@pytest.mark.parametrize("reason", ["reference", "listener"])
def test_what_is_written_ahead_and_does_not_leave_is_queued_again(reason: str) -> None:
    store, identity = InMemoryStateStore(), SubmissionIdentity(SCOPE, REQUESTS[0].fingerprint())
    attempt = TaskAttempt(NOW, max_tries=9, retry=False, tries_before_clear=0)
    ledger = Ledger.load(store, first=True)
    intent = attempt.intent(identity, 0, client_ids=True, may_leave_at=NOW + 45)
    ledger.put_record(KEYS[0], intent)
    ledger.save()

    class Broken(SubmissionListener):
        def before_submit(self) -> None:
            raise errors.TransientFailure("no", charged="no")

    service = FakeService()
    request = REQUESTS[0]
    if reason == "reference":
        request = request.model_copy(update={"reference_images": ("file:///nowhere/a.png",)})
    submission = Submission(
        make_session(service, clock=lambda: NOW, sleep=lambda _: None), request, identity=identity, attempt=attempt,
        policy=RULES, record_store=LedgerRecordStore(ledger, KEYS[0]),
        rate_limiter=SubmitRateLimiter(SUBMIT_RATE, service.simulation.rate_state),
        listener=Broken(), written_ahead=intent,
    )  # fmt: skip
    with pytest.raises(errors.ToApisError):
        submission.run()
    assert Ledger.load(store).get(KEYS[0]).record == intent, "whoever comes after a kill looks it up"
    ledger.save()
    kept = Ledger.load(store).get(KEYS[0]).record
    assert kept is not None and kept.state is RecordState.QUEUED and service.paid() == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (errors.RateLimited("slower", http_status=429, retry_after=60.0), [("limited", NOW + 3, NOW)]),
        (errors.ContentRefused("no", http_status=400), [("passed", NOW + 3, None)]),
        (errors.SubmissionUnknown("lost", http_status=502), [("passed", NOW + 3, None)]),
        (errors.SubmissionUnknown("lost"), []),
    ],
)
def test_the_rate_goes_by_what_was_answered_and_when_its_post_left(
    answer: errors.ToApisError, told: list[tuple[str, float, float | None]]
) -> None:
    heard: list[tuple[str, float, float | None]] = []
    now = NOW

    class Client:
        def call(self, call: Any, policy: Any = None) -> ImageTask:
            nonlocal now
            now += 3
            if call.kind is CallKind.SUBMIT:
                raise answer
            raise Killed

    class Limiter(SubmitRateLimiter):
        def on_rate_limited(self, now: float, retry_after: float | None, sent: float | None = None) -> None:
            heard.append(("limited", now, sent))

        def on_success(self, now: float) -> None:
            heard.append(("passed", now, None))

    attempt = TaskAttempt.of(try_number=1, max_tries=1, retries=1, started_at=NOW)
    submission = Submission(
        make_session(Client(), clock=lambda: now, sleep=lambda _: None), REQUESTS[0],
        identity=SubmissionIdentity(SCOPE, REQUESTS[0].fingerprint()), attempt=attempt, policy=RULES,
        record_store=LedgerRecordStore(Ledger.load(FakeService(), first=True), KEYS[0]),
        rate_limiter=Limiter(SUBMIT_RATE, Simulation().rate_state),
    )  # fmt: skip
    with pytest.raises((errors.ToApisError, Killed)):
        submission.run()
    assert heard == told
