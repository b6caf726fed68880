"""Money of several runs that want the same images, against the bank's: whatever happens, in whatever order.

Each run is a ``BatchState`` with a ledger of its own that is restarted at any moment. What the runs say they paid is
together what the bank booked, and what each says its images cost is the sum over its images.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_nanobanana.batch.costs import MILLION, Cost
from airflow_provider_nanobanana.batch.outcome import FailedItem
from airflow_provider_nanobanana.batch.report import BatchReport
from airflow_provider_nanobanana.batch.spend import summarise
from airflow_provider_nanobanana.batch.spend_records import manifest_records
from airflow_provider_nanobanana.batch.state import BatchState
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.models import ImageTask
from tests.support.batch import bought_by, in_place, items, make_state, note_image_task
from tests.support.campaign import of_campaign
from tests.support.responses import COMPLETED, FAILED, NOW, RUNNING

LISTED = 25_000
#: Two runs and one image are enough for every story, and each is told sooner.
RUNS = range(2)
WANTED = items(["a kite"])
runs = st.sampled_from(RUNS)
wishes = st.sampled_from(range(len(WANTED)))


@dataclass
class Wish:
    """What one run knows of one image, told without any of our code.

    :param current: Its image task.
    :param bought: Every image task that it paid for it.
    :param lost: Those whose picture is not the one in place.
    :param foreign: Whether somebody else's image was found in place of the current image task's.
    """

    current: str | None = None
    bought: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    in_place: bool = False
    foreign: bool = False


class Money(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stores = [InMemoryStateStore() for _ in RUNS]
        self.states: list[BatchState] = []
        self.wishes = [[Wish() for _ in WANTED] for _ in RUNS]
        #: What the bank has booked, in millionths of a dollar, and whose account of money it is.
        self.booked: dict[str, int] = {}
        self.payer: dict[str, int] = {}

    @initialize(limit=st.sampled_from([None, 100.0]))
    def begin(self, limit: float | None) -> None:
        self.limit = limit
        logging.getLogger("airflow_provider_nanobanana.batch.state").setLevel(logging.ERROR)
        self.states = [self._process(run) for run in RUNS]

    def _process(self, run: int) -> BatchState:
        return make_state(WANTED, self.stores[run], max_cost_usd=self.limit)

    def _buy_at_bank(self, run: int) -> str:
        image_task_id = f"task {len(self.booked)}"
        self.booked[image_task_id] = LISTED
        self.payer[image_task_id] = run
        return image_task_id

    def _holders(self, image_task_id: str) -> list[tuple[int, int]]:
        return [
            (run, number)
            for run in RUNS
            for number, wish in enumerate(self.wishes[run])
            if wish.current == image_task_id and not wish.in_place
        ]

    def _is_heard(self, image_task_id: str) -> bool:
        """Whether all that have an image task still hear what the service says of it: who has landed it does not."""
        buyer = self.wishes[self.payer[image_task_id]]
        having = [wish for wishes in self.wishes for wish in wishes if wish.current == image_task_id]
        return any(wish is one for wish in having for one in buyer) and not any(wish.in_place for wish in having)

    def _shown(self, image_task_id: str, body: Mapping[str, Any] = RUNNING) -> ImageTask:
        """Return an image task as the service shows it, with what it is booked at."""
        billing = {"status": "settled", "cost_usd": str(self.booked[image_task_id] / MILLION)}
        return bought_by(image_task_id, body, billing=billing)

    def _observe(self, run: int, number: int, image_task: ImageTask) -> None:
        self.states[run].costs.observe(WANTED[number], image_task.id, image_task)

    def teardown(self) -> None:
        logging.getLogger("airflow_provider_nanobanana.batch.state").setLevel(logging.NOTSET)

    # --- what may happen --------------------------------------------------------------------------------------------

    @rule(run=runs, number=wishes)
    def buy(self, run: int, number: int) -> None:
        """The first one, or another because the one before was lost."""
        wish, state = self.wishes[run][number], self.states[run]
        if wish.in_place:
            return
        state.costs.reserve(WANTED[number])
        wish.current = self._buy_at_bank(run)
        wish.bought.append(wish.current)
        wish.foreign = False
        note_image_task(state, WANTED[number], bought_by(wish.current))

    @rule(run=runs, number=wishes)
    def refused(self, run: int, number: int) -> None:
        """About to be bought, and not accepted; what was shared is over by then."""
        wish, state = self.wishes[run][number], self.states[run]
        if wish.in_place or (wish.current and self.payer[wish.current] != run):
            return
        state.costs.reserve(WANTED[number])
        state.costs.release(WANTED[number])

    @rule(run=runs, number=wishes)
    def share(self, run: int, number: int) -> None:
        other = 1 - run
        wish, theirs = self.wishes[run][number], self.wishes[other][number].current
        if wish.in_place or theirs is None or self.payer[theirs] != other:
            return
        wish.current = theirs
        wish.foreign = False
        note_image_task(self.states[run], WANTED[number], self._shown(theirs), shared=True)

    @rule(run=runs, number=wishes, micros=st.sampled_from([0, 1, 20_000, LISTED, 134_000]))
    def bill(self, run: int, number: int, micros: int) -> None:
        current = self.wishes[run][number].current
        if current is None or not self._is_heard(current):
            return
        self.booked[current] = micros
        for holder, which in self._holders(current):
            self._observe(holder, which, self._shown(current, COMPLETED))

    @rule(run=runs, number=wishes)
    def refund(self, run: int, number: int) -> None:
        current = self.wishes[run][number].current
        if current is None or not self._is_heard(current):
            return
        self.booked[current] = 0
        for holder, which in self._holders(current):
            self._observe(holder, which, bought_by(current, FAILED))
            failure = FailedItem.from_error(WANTED[which], errors.ImageTaskFailed("no", charged="no"))
            self.states[holder].mark_failed(failure)

    @rule(run=runs, number=wishes)
    def land(self, run: int, number: int) -> None:
        wish = self.wishes[run][number]
        if wish.current and not wish.in_place:
            self.states[run].mark_stored(WANTED[number], in_place(f"{number}"))
            wish.in_place = True

    @rule(run=runs, number=wishes)
    def lose_a_race(self, run: int, number: int) -> None:
        wish = self.wishes[run][number]
        if wish.current is None or wish.in_place or self.payer[wish.current] != run:
            return
        self.states[run].mark_lost_race(WANTED[number], wish.current, in_place(f"{number}"), in_place_of="another run")
        wish.lost.add(wish.current)
        wish.in_place = wish.foreign = True

    @rule(run=runs, number=wishes)
    def reuse(self, run: int, number: int) -> None:
        """Nothing was ever sent for it, or its buyer has landed it."""
        wish = self.wishes[run][number]
        if wish.in_place or (wish.current and self.payer[wish.current] == run):
            return
        self.states[run].mark_reused(WANTED[number], in_place(f"{number}"))
        wish.in_place = wish.foreign = True

    @rule(run=runs, number=wishes)
    def find_what_was_paid(self, run: int, number: int) -> None:
        """Before Airflow 3.3: an earlier attempt of this very run had bought it, and the claims say so."""
        wish = self.wishes[run][number]
        if wish.in_place or wish.bought or wish.current:
            return
        wish.bought.append(self._buy_at_bank(run))
        self.states[run].mark_reused(WANTED[number], in_place(f"{number}"), paid=Cost(LISTED / MILLION, listed=True))
        wish.in_place = True

    @rule(run=runs, number=wishes)
    def delete_the_file(self, run: int, number: int) -> None:
        """It is taken up again; where it has an image task, that is looked up and found."""
        wish, state = self.wishes[run][number], self.states[run]
        if not wish.in_place:
            return
        wish.in_place = wish.foreign = False
        state.reopen(WANTED[number])
        if wish.current is not None:
            wish.lost.discard(wish.current)
            note_image_task(state, WANTED[number], self._shown(wish.current))

    @precondition(lambda self: self.states)
    @rule(run=runs)
    def restart(self, run: int) -> None:
        """The next process reads the ledger, and polls what is not in place."""
        self.states[run].save()
        self.states[run] = self._process(run)
        for number, wish in enumerate(self.wishes[run]):
            if wish.current is not None and not wish.in_place:
                self._observe(run, number, self._shown(wish.current))

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def paid_is_what_the_bank_booked(self) -> None:
        paid = [round(state.costs.totals()["paid_usd"] * MILLION) for state in self.states]
        booked: Counter[int] = Counter()
        for image_task_id, micros in self.booked.items():
            booked[self.payer[image_task_id]] += micros
        assert paid == [booked[run] for run, _ in enumerate(self.states)]

    @invariant()
    def cost_and_lost_races_are_what_the_images_say(self) -> None:
        for run, state in enumerate(self.states):
            totals = state.costs.totals()
            cost = lost = 0
            for wish in self.wishes[run]:
                cost += sum(self.booked[each] for each in wish.bought if each not in wish.lost)
                lost += sum(self.booked[each] for each in wish.lost)
                if wish.current and wish.current not in wish.bought and not wish.foreign:
                    cost += self.booked[wish.current]
            assert (round(totals["cost_usd"] * MILLION), round(totals["lost_race"] * MILLION)) == (cost, lost)

    @invariant()
    def the_manifest_adds_up(self) -> None:
        for state in self.states:
            whole = BatchReport(state.outcomes(), state.costs.totals()).manifest(
                run={"dag_id": "dag"}, destination="s3://bucket", now=NOW
            )
            every = [*whole["images"], *whole["failed"]]
            for name in ("cost_usd", "paid_usd", "lost_race"):
                assert round(sum(each[name] for each in every) * MILLION) == round(whole[name] * MILLION)
            for image in whole["images"]:
                assert not (image["shared"] and image["reused"])
            # What the result says is what ``spend`` and the page make of the manifest.
            sums = summarise(manifest_records(whole, "s3://bucket").records).totals
            assert sums.plain()["paid_usd"] == whole["paid_usd"] and sums.plain()["lost_race_usd"] == whole["lost_race"]
            assert (sums.shared, sums.reused, sums.earlier) == (whole["shared"], whole["reused"], 0)
            assert sums.bought + sums.shared + sums.reused == whole["count"]
            assert sums.missing + sums.refunded + sums.failed == whole["failed_count"]

    @invariant()
    def the_limit_counts_what_is_paid(self) -> None:
        for state in self.states:
            if self.limit is not None:
                assert state.costs.counted_usd >= state.costs.totals()["paid_usd"]


TestMoney = Money.TestCase
TestMoney.settings = settings(
    max_examples=of_campaign(50, 5_000),
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
