"""What happens to one submitting task instance, told attempt by attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.submission.crash_points import Crash, Stage
from tests.support.ledger import kept_record
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore


@dataclass
class Story:
    """One task instance: its store, if any, and Airflow's counts.

    :param options: The operator's, over ``prompt="a red kite"``.
    """

    stage: Stage
    store: MemoryTaskStateStore | None
    retries: int = 3
    tries: int = 0
    max_tries: int = 3
    options: dict[str, Any] = field(default_factory=dict)

    def attempt(self, crash_on: str = "", occurrence: int = 1) -> Run:
        """Run the next try, in a process of its own; it may crash, and has neither result nor error then."""
        client_ids._checked.clear()
        return self.attempt_in_same_process(crash_on, occurrence)

    def attempt_in_same_process(self, crash_on: str = "", occurrence: int = 1) -> Run:
        """Run the next try where something may have been learnt before."""
        self.tries += 1
        tape, row = self.stage.tape, self.store
        tape.passed, tape.crash_on = [], (crash_on, occurrence) if crash_on else None
        ti = TaskInstance(task_id="submit", try_number=self.tries, max_tries=self.max_tries, store=row)
        try:
            run = attempt(self.operator(), ti)
            tape.point("returned")
        except Crash:
            return Run(ti=ti)
        finally:
            tape.crash_on = None
        assert not crash_on, f"it never came to {crash_on} ({occurrence}): {tape.passed}"
        return run

    def bought_by(self, crash_on: str) -> list[str]:
        """Run the next try, which crashes; return what has been paid by then."""
        self.attempt(crash_on)
        return self.charges

    def operator(self) -> NanoBananaSubmitOperator:
        options = {"prompt": "a red kite", **self.options}
        return NanoBananaSubmitOperator(task_id="submit", retries=self.retries, **options)

    def clear(self) -> None:
        """Clear as Airflow does whatever is not running: a new round of retries."""
        self.max_tries = self.tries + self.retries

    def wipe(self) -> None:
        """Lose the record."""
        assert self.store is not None
        self.store.rows.clear()

    @property
    def state(self) -> str | None:
        """What the record says, if there is one."""
        return str(kept_record(self.store).state) if self.store and self.store.rows else None

    @property
    def charges(self) -> list[str]:
        """The ids of what was paid and not refunded, in the order of the charges."""
        return [entry["id"] for entry in self.stage.emulator.ledger()["image_tasks"] if not entry["refunded"]]

    @property
    def accepted(self) -> int:
        """How many submits the service accepted, refunded ones too."""
        return int(self.stage.emulator.ledger()["count"])

    def seconds(self, since: float) -> float:
        """Return how long ago that was, by the clock of hook and service."""
        return self.stage.clock.now - since
