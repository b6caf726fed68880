"""Any sequence of crashes, retries, clears, failures, late look-ups and changes: one charge for one wanted image."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.reconcile import MAX_GENERATIONS, SubmissionPolicy
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.campaign import of_campaign
from tests.support.durable import HTTP_TIMEOUT, Charge, PostOutcome, SimulatedAttempt, Simulation

#: What the DAG says at first; a clear may find another number there.
RETRIES = 3
#: Each generation: ten look-ups and waits, a POST sent four times, a lost answer with ten more; each with its writes.
MOST_STEPS = 80 * MAX_GENERATIONS

fates = st.builds(
    PostOutcome,
    st.sampled_from(["ok", "ok", "lost", "lost", "lost_before", "limited"]),
    st.sampled_from([0.0, 0.1, 10.0, HTTP_TIMEOUT]),
    st.sampled_from([0.0, 1.0, 15.0, 30.0, 60.0]),
)
requests = [ImageRequest.parse({"prompt": f"kite {number}"}) for number in range(3)]


class PaidOnce(RuleBasedStateMachine):
    """Airflow, a user and a bank at their worst.

    A *want* is one image that somebody asked for: the first run is one; a clear with a changed request, a clear with
    ``reuse_existing=False`` after the result was handed on are the next. What failed was refunded and does not count,
    nor does what had expired when a clear bought again because it was told to. Everything else is the same want.
    Without a store, or after it was wiped, a request that changes between attempts is another want, and so is every
    clear with ``reuse_existing=False``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.simulation, self.live, self.want, self.wanted = Simulation(), list[SimulatedAttempt](), 0, 0
        self.request, self.tries, self.max_tries, self.blind = 0, 0, RETRIES, False
        self.retries, self.tries_before_clear = RETRIES, 0
        self.handed_on = self.settled = self.store = False
        #: Which requests attempts were started with, by want.
        self.asked: set[tuple[int, int]] = set()
        self.allowed = SubmissionPolicy()
        self._no_echo = patch("airflow_provider_nanobanana.submission.workflow.verify_support")
        self._no_echo.start()

    @initialize(
        store=st.booleans(),
        reuse=st.booleans(),
        unknown=st.sampled_from(["resubmit", "resubmit", "fail"]),
        expired=st.sampled_from(["fail", "fail", "resubmit"]),
        clear_rebuys=st.booleans(),
    )
    def begin(self, store: bool, reuse: bool, unknown: str, expired: str, clear_rebuys: bool) -> None:
        self.store = store
        self.allowed = SubmissionPolicy(
            reuse_existing=reuse,
            on_unknown_submission=unknown,  # type: ignore[arg-type]
            on_expired=expired,  # type: ignore[arg-type]
            http_timeout=HTTP_TIMEOUT,
            clear_rebuys=clear_rebuys,
        )

    # --- attempts --------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.settled and len(self.live) < (2 if self.store else 1))
    @rule(ahead=st.sampled_from([0.0, 0.0, 100.0, -100.0]))
    def start(self, ahead: float) -> None:
        """A first try, a retry, or, while another attempt lives, the work of a scheduler that took it for dead."""
        self.tries += 1
        self.asked.add((self.want, self.request))
        attempt = TaskAttempt.of(
            try_number=self.tries,
            max_tries=self.max_tries,
            retries=self.retries,
            started_at=self.simulation.now + ahead,
        )
        clear_number = 0 if self.allowed.reuse_existing else attempt.tries_before_clear
        self.live.append(
            SimulatedAttempt(
                self.simulation, self.want, requests[self.request], attempt, self.allowed, shared=self.store,
                clear_number=clear_number, ahead=ahead,
            )
        )  # fmt: skip

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 1), steps=st.integers(1, 12), fate=fates)
    def step(self, which: int, steps: int, fate: PostOutcome) -> None:
        live = self.live[which % len(self.live)]
        for _ in range(steps):
            if not live.ended:
                self._step(live, fate)
        self._gather()

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 1), series=st.lists(fates, max_size=4))
    def finish(self, which: int, series: list[PostOutcome]) -> None:
        live = self.live[which % len(self.live)]
        following: Iterator[PostOutcome] = iter(series)
        while not live.ended:
            assert live.steps < MOST_STEPS, f"an endless loop, at {live.at}"
            self._step(live, next(following, PostOutcome()) if live.at == "post" else PostOutcome())
        self._gather()

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        live = self.live.pop(which % len(self.live))
        live.kill()
        # A kill between hand_on and the return leaves a result that was handed on.
        self.handed_on |= live.at == "return"

    @precondition(lambda self: self.settled)
    @rule()
    def success_is_not_recorded(self) -> None:
        """Killed after execute() returned, or failed by Airflow while resuming: it retries what had succeeded."""
        self.settled = False

    def _step(self, live: SimulatedAttempt, fate: PostOutcome) -> None:
        for other in self.live:
            if live.wake > self.simulation.now and other is not live and other.at == "post":
                # No time passes between an intent and its POST: a process that stands still there is a known limit.
                other.post_outcome = fate
                other.step()
        live.post_outcome = fate
        self._write_off()
        live.step()
        self._write_off()

    def _write_off(self) -> None:
        """What expired before a clear is acted on is bought again where told; without a record, by its retries too."""
        told = self.allowed.clear_rebuys or not self.allowed.reuse_existing
        if told and self.tries_before_clear and not self._acted_on_clear():
            for bought in self.simulation.charges:
                bought.written_off |= bought.expired(self.simulation.now)

    def _acted_on_clear(self) -> bool:
        return self.simulation.row is not None and self.simulation.row.try_number > self.tries_before_clear

    def _gather(self) -> None:
        for live in [live for live in self.live if live.ended]:
            self.live.remove(live)
            if live.bought is not None:
                self.settled = self.handed_on = True
            else:
                self._check_failure(live)

    def _check_failure(self, live: SimulatedAttempt) -> None:
        """``charged`` tells the truth about the image task it names, or else about every one of the want."""
        error = live.error
        assert error is not None
        mine = [b for b in self._living() if error.image_task_id in (None, b.id) and b.want == live.want]
        assert error.charged != "no" or not mine, f"it says that nothing was charged: {error.message}"

    # --- the user --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.tries > 0 and (self.store or not self.live))
    @rule(request=st.sampled_from([0, 0, 1, 2]), same=st.booleans(), retries=st.sampled_from([RETRIES, RETRIES, 1]))
    def clear(self, request: int, same: bool, retries: int) -> None:
        """Clear a task that is not running for Airflow; a process it took for dead may live on."""
        request = self.request if same else request
        without_memory = not self.store or self.blind
        # Without reuse, a process from before the clear that still lives buys for itself: a known limit.
        again = not self.allowed.reuse_existing and (self.handed_on or without_memory or bool(self.live))
        if request != self.wanted or request != self.request or again:
            self.want += 1
            self.handed_on = False
        self.request = self.wanted = request
        self.tries_before_clear, self.retries = self.tries, retries
        self.max_tries, self.settled = self.tries + retries, False

    @precondition(lambda self: not self.settled and self.tries > 0)
    @rule(request=st.sampled_from([0, 1, 2]))
    def request_changes(self, request: int) -> None:
        """``{{ ti.try_number }}``, ``now()``: another request at the retry, without a clear."""
        # Before any attempt acted on a clear it is as if the clear had brought the change.
        self.want += request != self.request and not self._acted_on_clear()
        self.request = request

    @precondition(lambda self: self.store and not self.live)
    @rule()
    def wipe(self) -> None:
        """The store loses the record; as on Airflow before 3.3, a changed request is another image then."""
        self.simulation.row, self.blind = None, True
        others = {self.wanted, *(request for want, request in self.asked if want == self.want)} - {self.request}
        self.want += bool(others) or not self.allowed.reuse_existing

    @precondition(lambda self: self.store and not self.live and len(self.simulation.rows) > 1)
    @rule(lost=st.integers(1, 4))
    def fall_behind(self, lost: int) -> None:
        """A failover loses the last writes, a success too, and the task is retried; by then what was bought shows."""
        rows = self.simulation.rows
        del rows[max(1, len(rows) - lost) :]
        self.simulation.row = rows[-1]
        self.simulation.now += HTTP_TIMEOUT + 60.0
        self.settled = False
        self.want += bool({request for want, request in self.asked if want == self.want} - {self.request})
        self.start(ahead=0.0)
        self.finish(which=0, series=[])

    # --- the service -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self._running())
    @rule(which=st.integers(0, 5), refused=st.booleans())
    def fail_remotely(self, which: int, refused: bool) -> None:
        running = self._running()
        bought = running[which % len(running)]
        bought.status, bought.refused = ImageTaskStatus.FAILED, refused

    @precondition(lambda self: self._running())
    @rule()
    def complete(self) -> None:
        for bought in self._running():
            bought.status, bought.completed = ImageTaskStatus.COMPLETED, self.simulation.now

    @precondition(lambda self: not any(live.at == "post" for live in self.live))
    @rule(seconds=st.sampled_from([0.5, 10.0, 45.0, 100.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.simulation.now += seconds

    # --- what must hold --------------------------------------------------------------------------------------------

    def _running(self) -> list[Charge]:
        return [
            b
            for b in self.simulation.charges
            if b.status is ImageTaskStatus.RUNNING and b.accepted <= self.simulation.now
        ]

    def _living(self) -> list[Charge]:
        return [b for b in self.simulation.charges if b.status is not ImageTaskStatus.FAILED and not b.written_off]

    @invariant()
    def no_want_is_paid_twice(self) -> None:
        living = self._living()
        if self.allowed.on_expired == "resubmit":
            living = [b for b in living if not b.expired(self.simulation.now)]
        paid = [b.want for b in living]
        assert len(paid) == len(set(paid)), f"paid twice: {living}"

    def teardown(self) -> None:
        try:
            for live in self.live:
                live.kill()
        finally:
            self._no_echo.stop()


def test_a_wait_that_is_given_up_never_says_that_nothing_was_charged_while_another_attempt_buys() -> None:
    """Found by hypothesis, once in some thousand runs: two attempts after a clear, one at the end of the line."""
    state = PaidOnce()
    state.begin(store=True, reuse=False, unknown="resubmit", expired="fail", clear_rebuys=False)
    try:
        state.start(ahead=0.0)
        state.step(which=0, steps=4, fate=PostOutcome())
        state.step(which=0, steps=5, fate=PostOutcome())
        state.complete()
        state.clear(request=0, same=False, retries=RETRIES)
        state.start(ahead=0.0)
        state.start(ahead=0.0)
        state.step(which=0, steps=4, fate=PostOutcome())
        state.time_passes(10.0)
        state.step(which=1, steps=9, fate=PostOutcome("limited"))
        state.step(which=1, steps=2, fate=PostOutcome())
        state.step(which=0, steps=1, fate=PostOutcome())
        while state.live:
            state.finish(which=0, series=[])
        state.no_want_is_paid_twice()
    finally:
        state.teardown()


PaidOnce.TestCase.settings = settings(
    max_examples=of_campaign(75, 5_000),
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestPaidOnce = PaidOnce.TestCase
