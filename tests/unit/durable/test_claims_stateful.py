"""Any sequence of buyers, kills, stops, failures, clears and clocks at one destination: one living image task."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, get_args
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_nanobanana.durable import claims
from airflow_provider_nanobanana.durable.claims import POST_WINDOW
from airflow_provider_nanobanana.durable.reconcile import MIN_LOOKUPS, VISIBLE_AFTER_SECONDS, SubmissionPolicy
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.status_words import ImageTaskStatus
from tests.support.campaign import WHOLE, of_campaign
from tests.support.claim_search import decide, search
from tests.support.claim_world import IN_TIME, SLICE, Instance, Machine, Process, StoreFate, World
from tests.support.durable import HTTP_TIMEOUT, Charge, PostOutcome

WORKFLOW = "airflow_provider_nanobanana.submission.workflow"
HOUR = 3600.0
#: Until a claim whose owner is dead is taken over: its time, and the looks, each in a slice of its own.
SETTLED = POST_WINDOW + IN_TIME + (MIN_LOOKUPS + 2) * SLICE

fates = st.builds(
    PostOutcome,
    st.sampled_from(["ok", "ok", "lost", "lost", "lost_before", "limited"]),
    st.sampled_from([0.0, 0.1, 10.0, HTTP_TIMEOUT]),
    st.sampled_from([0.0, 1.0, 15.0, 30.0, 60.0]),
)
store_fates = st.lists(st.sampled_from(["ok", "ok", "ok", "ok", *get_args(StoreFate)]), max_size=8)
#: What ends an attempt without the image, and rightly so.
ENDS = (
    errors.ContentRefused,
    errors.ResultExpired,
    errors.SubmissionUnfindable,
    errors.ImageTaskNotFound,
    errors.ImageTaskFailed,
    errors.SubmissionUnknown,
)


class OneLivingImageTask(RuleBasedStateMachine):
    """Attempts, runs and installations, all alike, want one image; everything around them is at its worst."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.instances: list[Instance] = []
        self.machines = [Machine("a"), Machine("b", HOUR), Machine("c", -HOUR)]
        self.policies = [SubmissionPolicy()]
        self.damaged = False
        self.cleared = False
        self.clocks_set = False
        self._patches = [
            patch(f"{WORKFLOW}.verify_support"),
            patch(f"{WORKFLOW}.mark_supported"),
            patch(f"{WORKFLOW}.known_to_resolve", return_value=None),
        ]
        for one in self._patches:
            one.start()
        logging.disable(logging.ERROR)

    @initialize(
        stored=st.booleans(),
        lists=st.booleans(),
        unknown=st.sampled_from(["resubmit", "resubmit", "resubmit", "fail"]),
        expired=st.sampled_from(["fail", "resubmit"]),
        clear_rebuys=st.booleans(),
        blind=st.sampled_from([False, False, False, True]),
        times=st.sampled_from([True, True, False]),
    )
    def begin(
        self, stored: bool, lists: bool, unknown: Any, expired: Any, clear_rebuys: bool, blind: bool, times: bool
    ) -> None:
        """Begin; ``blind`` where ids do not resolve, ``times`` where the store keeps any."""
        self.world.lists_by_prefix = lists
        self.world.resolves = not blind
        self.world.keeps_times = times
        self.instances = [Instance(0, stored), Instance(1), Instance(2, stored=not stored)]
        self.policies = [
            SubmissionPolicy(
                client_ids=not blind, on_unknown_submission=unknown, on_expired=expired, clear_rebuys=clear_rebuys
            ),
            SubmissionPolicy(client_ids=not blind),
        ]

    # --- buyers ------------------------------------------------------------------------------------------------------

    def _live(self) -> list[Process]:
        return [process for process in self.world.processes if not process.ended]

    @precondition(lambda self: len(self._live()) < 4)
    @rule(instance=st.integers(0, 2), machine=st.integers(0, 2), policy=st.integers(0, 1), ahead=st.booleans())
    def start(self, instance: int, machine: int, policy: int, ahead: bool) -> None:
        """A first try, a retry, or a second process beside one that a scheduler took for dead."""
        Process(self.world, self.instances[instance], self.policies[policy], self.machines[machine], ahead=ahead)

    @precondition(lambda self: self._live())
    @rule(
        which=st.integers(0, 3),
        steps=st.integers(1, 12),
        outcomes=st.lists(fates, max_size=2),
        stores=store_fates,
        machine=st.integers(0, 2),
    )
    def step(self, which: int, steps: int, outcomes: list[PostOutcome], stores: list[StoreFate], machine: int) -> None:
        process = self._live()[which % len(self._live())]
        process.post_outcomes = outcomes
        process.store_fates = stores
        process.next_machine = self.machines[machine]
        for _ in range(steps):
            if not process.ended:
                process.step()

    @precondition(lambda self: self._live())
    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        self._live()[which % len(self._live())].kill()

    @precondition(lambda self: any(process.at == "post" for process in self._live()))
    @rule(outcome=fates)
    def kill_after_its_post_has_left(self, outcome: PostOutcome) -> None:
        process = next(process for process in self._live() if process.at == "post")
        process.post_outcomes = [PostOutcome("lost", outcome.commits_in, outcome.shown_in)]
        process.step(to=self.world.now)
        process.kill()

    # --- the user, the machines and the store ----------------------------------------------------------------------

    @precondition(lambda self: not self.damaged and self.world.resolves)
    @rule(instance=st.integers(0, 2))
    def clear(self, instance: int) -> None:
        """Clear a task that is not running for Airflow; a process that was taken for dead may live on."""
        one = self.instances[instance]
        one.max_tries = one.tries + one.retries
        self.cleared = True

    @rule()
    def clear_all(self) -> None:
        for number in range(3):
            if not self.damaged and self.world.resolves:
                self.clear(number)

    @precondition(lambda self: self.world.in_place)
    @rule()
    def delete_the_file(self) -> None:
        self.world.in_place = None

    @rule(machine=st.integers(0, 2), ahead=st.sampled_from([-HOUR, 0.0, HOUR]))
    def set_a_clock(self, machine: int, ahead: float) -> None:
        self.clocks_set |= self.machines[machine].ahead != ahead
        self.machines[machine].ahead = ahead

    @rule(instance=st.integers(0, 2))
    def lose_the_ledger(self, instance: int) -> None:
        memory = self.instances[instance].memory
        memory.row = memory.seen = None

    @precondition(lambda self: self._books())
    @rule(which=st.integers(0, 9), content=st.sampled_from([None, b"", b"{}", b'{"v":1,"entries":[]}', b"\xff"]))
    def damage_a_book(self, which: int, content: bytes | None) -> None:
        name = self._books()[which % len(self._books())]
        if content is None:
            del self.world.objects[name]
        else:
            self.world.objects[name] = (content, self.world.now)

    @precondition(lambda self: self.world.claims() and not self.cleared)
    @rule(content=st.sampled_from([b"", b"{", b'{"v":2}', b"\x00" * 9000]))
    def damage_the_highest_claim(self, content: bytes) -> None:
        """No clear comes after it: that would answer what nobody can read."""
        name = f"claims/{self.world.claims()[-1].name}.json"
        self.world.objects[name] = (content, self.world.objects[name][1])
        self.damaged = True

    def _books(self) -> list[str]:
        return [name for name in self.world.objects if name.startswith("books/")]

    # --- the service -----------------------------------------------------------------------------------------------

    def _running(self) -> list[Charge]:
        world = self.world
        return [c for c in world.charges if c.status is ImageTaskStatus.RUNNING and c.accepted <= world.now]

    @precondition(lambda self: self._running())
    @rule(refused=st.booleans())
    def fail_remotely(self, refused: bool) -> None:
        charge = self._running()[-1]
        charge.status = ImageTaskStatus.FAILED
        charge.refused = refused

    @precondition(lambda self: self._running())
    @rule()
    def complete(self) -> None:
        for charge in self._running():
            charge.status = ImageTaskStatus.COMPLETED
            charge.completed = self.world.now

    @rule(seconds=st.sampled_from([0.5, 10.0, 45.0, 89.0, 100.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(self.world.now + seconds)

    @rule()
    def a_day_passes(self) -> None:
        self.world.advance(self.world.now + IN_TIME + 1)
        self.complete()
        self.world.advance(self.world.now + 28 * HOUR)

    # --- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def one_image_task_lives(self) -> None:
        """I1, whatever the clocks say (I8), and whatever was written where (I10)."""
        living = self.world.alive()
        assert len(living) <= 1, f"two alive: {living}"
        assert not self.world.lost_races

    @invariant()
    def errors_tell_the_truth_about_the_money(self) -> None:
        for process in self.world.processes:
            if process.error is None:
                continue
            assert isinstance(process.error, (*ENDS, errors.TransientFailure)), process.error
            named = [c for c in self.world.alive() if c.id == process.error.image_task_id]
            assert process.error.charged != "no" or not named, process.error

    @precondition(lambda self: self.world.processes)
    @rule()
    def peace(self) -> None:
        """Whoever lives, or one more try, gets the image soon, where nothing forbids it: I6, I7."""
        world = self.world
        if not self._live():
            self.start(1, 0, 1, ahead=True)
        for process in self._live():
            process.post_outcomes = []
            process.store_fates = []
            process.next_machine = process.machine
        world.advance(world.now + IN_TIME)  # what is under way shows
        # Within a slice an attempt goes by its own clock, and waits as long as that was set back.
        until = world.now + 3 * (SETTLED + 60.0) + 2 * HOUR * (self.clocks_set and world.resolves and not self.damaged)
        for _ in range(6000):
            if not self._live():
                if world.in_place or any(isinstance(process.error, ENDS) for process in world.processes):
                    break
                self.start(1, 0, 1, ahead=True)
            if (self.damaged or not world.resolves) and world.now > until:
                break
            min(self._live(), key=lambda process: (process.wake, process.steps)).step()
            self.one_image_task_lives()
            for charge in self._running():
                if world.now > charge.accepted + 40.0:
                    self.complete()
        else:
            raise AssertionError(f"stuck: {[(process.at, process.steps) for process in self._live()]}")
        stopped = any(isinstance(process.error, ENDS) for process in world.processes)
        asked = world.resolves and not self.damaged
        assert stopped or not asked or world.now <= until, f"{world.now - until} s too late"

    def teardown(self) -> None:
        try:
            for process in self._live():
                process.kill()
            # I9: what is charged and not refunded is in place, or has expired unseen.
            alive = [c for c in self.world.charges if c.status is not ImageTaskStatus.FAILED]
            dead = [c for c in alive if c.expired(self.world.now)]
            assert len(alive) - len(dead) <= 1
        finally:
            logging.disable(logging.NOTSET)
            for one in self._patches:
                one.stop()


# --- stops at every line -------------------------------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[None]:
    with patch(f"{WORKFLOW}.verify_support"), patch(f"{WORKFLOW}.mark_supported"):
        yield


def _race(world: World, *, stopped: int, at: int, seconds: float) -> bool:
    """Let two buyers race, of whom one stands still before one of its side effects; return whether it came to that.

    The first to buy POSTs as late as it may, loses the answer, and dies; what it bought shows as late as it may.
    """
    owner, taker = (Process(world, Instance(number), SubmissionPolicy(), Machine(str(number))) for number in range(2))
    owner.post_outcomes = [PostOutcome("lost", HTTP_TIMEOUT, VISIBLE_AFTER_SECONDS)]
    late = world.now + POST_WINDOW - 1
    done = False
    while not (owner.ended and taker.ended):
        for process in (owner, taker):
            if not done and process is (owner, taker)[stopped] and process.steps == at:
                done = True
                if process.at != "post":
                    process.wake = world.now + seconds
        ready = [process for process in (owner, taker) if not process.ended]
        process = min(ready, key=lambda process: (max(process.wake, late * (process.at == "create")), process.steps))
        if process is owner and owner.at == "create":
            # From here on its right to POST runs out; it uses all of it.
            process.step()
            process.wake = max(process.wake, late)
        elif process is owner and owner.at == "answer":
            process.kill()
        else:
            process.step()
        assert len(world.alive()) <= 1, f"two alive, {stopped} stood still at step {at}"
        if world.charges and world.now > world.charges[0].shown + 30.0:
            _complete(world)
    return done


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("stopped", [0, 1], ids=["owner", "taker"])
@pytest.mark.parametrize("seconds", [100.0, 300.0, 100_000.0])
def test_whoever_stands_still_before_any_side_effect_buys_nothing_twice(stopped: int, seconds: float) -> None:
    at = 0
    while _race(World(), stopped=stopped, at=at, seconds=seconds):
        at += 1
    assert at > (5, 50)[stopped]


@pytest.mark.usefixtures("quiet")
def test_window_1_whoever_stands_still_between_the_clock_and_the_socket_buys_twice() -> None:
    """What the docs name: longer than the call and the time until it shows, at this one place; a lost race tells."""
    world = World(window_1=True)
    owner, taker = (Process(world, Instance(number), SubmissionPolicy(), Machine(str(number))) for number in range(2))
    while owner.at != "post":
        owner.step()
    taker_ends = world.now + 1000.0
    while not taker.ended:
        taker.step()
        if world.charges and world.now > world.charges[0].shown:
            _complete(world)
    assert world.now < taker_ends
    while not owner.ended:
        owner.step()
        _complete(world)
    assert [charge.id for charge in world.alive()] == ["tsk_0", "tsk_1"]
    assert world.in_place == "tsk_0"


def _complete(world: World) -> None:
    for charge in world.charges:
        if charge.status is ImageTaskStatus.RUNNING and world.now >= charge.shown:
            charge.status = ImageTaskStatus.COMPLETED
            charge.completed = world.now


@pytest.mark.usefixtures("quiet")
def test_of_many_who_want_a_refused_image_one_asks() -> None:
    """I14: 40 runs, and the service refuses the prompt after it took it."""
    world = World()
    buyers = [Process(world, Instance(number), SubmissionPolicy(), Machine(str(number % 3))) for number in range(40)]
    while live := [process for process in buyers if not process.ended]:
        min(live, key=lambda process: (process.wake, process.steps)).step()
        for charge in world.charges:
            charge.status = ImageTaskStatus.FAILED
            charge.refused = True
    assert len(world.charges) == 1
    assert {type(process.error) for process in buyers} == {errors.ContentRefused}
    assert {process.error.charged for process in buyers if process.error} == {"no"}


# --- everything that a few buyers can come to ----------------------------------------------------------------------

EXAMPLES = of_campaign(30, 2_000)
RESUBMIT = SubmissionPolicy()
STOP = SubmissionPolicy(on_unknown_submission="fail")
REBUY = SubmissionPolicy(on_expired="resubmit", clear_rebuys=True)
BLIND = SubmissionPolicy(client_ids=False)
SHORT: list[tuple[SubmissionPolicy, int, dict[str, int]]] = [
    (RESUBMIT, 2, {"kill": 1, "failed": 1, "generation": 2}),
    (STOP, 2, {"kill": 1, "clear": 1, "generation": 2}),
    (BLIND, 2, {"kill": 1, "release": 1, "generation": 2}),
    (RESUBMIT, 3, {"kill": 1, "generation": 2}),
]
#: In the campaign only: minutes.
LONG: list[tuple[SubmissionPolicy, int, dict[str, int]]] = [
    (RESUBMIT, 2, {"kill": 1, "retry": 1, "failed": 1, "lose": 1, "generation": 3}),
    (RESUBMIT, 2, {"kill": 1, "clear": 2, "failed": 1, "generation": 3}),
    (RESUBMIT, 2, {"refused": 1, "clear": 1, "lose_create": 1, "generation": 3}),
    (STOP, 2, {"kill": 1, "clear": 2, "lose": 1, "generation": 3}),
    (REBUY, 2, {"gone": 1, "kill": 1, "clear": 1, "generation": 3}),
    (BLIND, 2, {"kill": 1, "failed": 1, "release": 1, "generation": 3}),
    (RESUBMIT, 3, {"kill": 1, "failed": 1, "generation": 3}),
    (RESUBMIT, 3, {"clear": 2, "lose": 1, "generation": 3}),
]


@pytest.mark.parametrize(("policy", "buyers", "left"), SHORT + LONG if WHOLE else SHORT)
def test_no_order_of_events_makes_two_image_tasks_live(
    policy: SubmissionPolicy, buyers: int, left: dict[str, int]
) -> None:
    found = search(policy, buyers, **left)
    assert not found.story, "\n".join(found.story)
    assert found.complete
    assert found.states > 1000


def test_the_search_finds_window_1() -> None:
    found = search(RESUBMIT, 2, stall=1, generation=2)
    assert "P0 POSTs g0" in found.story
    assert found.story[-1] == "P1 POSTs g1"


def test_the_search_finds_what_a_clear_would_buy_that_answered_young_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_is_settled", lambda facts, top: claims._cleared(facts))
    decide.cache_clear()
    try:
        found = search(RESUBMIT, 2, clear=1, kill=1, generation=2)
    finally:
        decide.cache_clear()
    assert "takes over g0: unseen" in " ".join(found.story)


OneLivingImageTask.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOneLivingImageTask = OneLivingImageTask.TestCase
