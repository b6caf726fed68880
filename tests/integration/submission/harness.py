"""SubmitTask: one Submit task instance, attempt by attempt, each of which may crash at a side effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from airflow_provider_nanobanana.submission import client_ids
from tests.integration.submission.crash_points import HTTP_TIMEOUT, Crash, CrashHarness
from tests.support.ledger import kept_record
from tests.support.task_runner import RUN_STARTED, Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore


@dataclass
class SubmitTask:
    """One Submit task instance with its store, if any, and Airflow's counts.

    :param options: The operator's, over ``prompt="a red kite"``.
    :param run_started: When its run began; another installation's run of the same ids begins at another moment.
    :param run_due: When its run was due; where somebody starts it by hand, that moment.
    :param namespace: The connection's.
    """

    harness: CrashHarness
    store: MemoryTaskStateStore | None
    retries: int = 3
    tries: int = 0
    max_tries: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    map_index: int = -1
    run_started: datetime = RUN_STARTED
    run_due: datetime = RUN_STARTED
    namespace: str = ""

    def attempt(self, crash_on: str = "", occurrence: int = 1) -> Run:
        """Run the next try in a process of its own; after a crash there is no result and no error."""
        client_ids._checked.clear()
        return self.attempt_in_same_process(crash_on, occurrence)

    def attempt_in_same_process(self, crash_on: str = "", occurrence: int = 1) -> Run:
        """Run the next try in the process of the one before, with what that process remembers."""
        self.tries += 1
        crash_points, row = self.harness.crash_points, self.store
        crash_points.passed, crash_points.crash_on = [], (crash_on, occurrence) if crash_on else None
        ti = TaskInstance(
            task_id="submit", map_index=self.map_index, try_number=self.tries, max_tries=self.max_tries, store=row,
            run_started=self.run_started, run_due=self.run_due,
        )  # fmt: skip
        try:
            with self._connection():
                run = attempt(self.operator(), ti)
            crash_points.reach("returned")
        except Crash:
            return Run(ti=ti)
        finally:
            crash_points.crash_on = None
        assert not crash_on, f"it never came to {crash_on} ({occurrence}): {crash_points.passed}"
        return run

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """Give the connection of this installation its namespace, if it has one."""
        with pytest.MonkeyPatch.context() as patch:
            if self.namespace:
                connection = self.harness.emulator.connection_json(timeout=HTTP_TIMEOUT, namespace=self.namespace)
                patch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
            yield

    def bought_by(self, crash_on: str) -> list[str]:
        """Run the next try, which crashes; return the ids of the image tasks paid by then."""
        self.attempt(crash_on)
        return self.charges

    def operator(self) -> NanoBananaSubmitOperator:
        options = {"prompt": "a red kite", **self.options}
        return NanoBananaSubmitOperator(task_id="submit", retries=self.retries, **options)

    def clear(self) -> None:
        """Clear the task as Airflow does while it does not run: it gets all of its retries again."""
        self.max_tries = self.tries + self.retries

    def lose_record(self) -> None:
        """Delete the record from the store."""
        assert self.store is not None
        self.store.rows.clear()

    @property
    def state(self) -> str | None:
        """The state in the stored record, if there is one."""
        return str(kept_record(self.store).state) if self.store and self.store.rows else None

    @property
    def charges(self) -> list[str]:
        """The ids of the image tasks that are paid and not refunded, in the order of the charges."""
        return [entry["id"] for entry in self.harness.emulator.ledger()["image_tasks"] if not entry["refunded"]]

    @property
    def accepted(self) -> int:
        """How many submits the service accepted, refunded ones too."""
        return int(self.harness.emulator.ledger()["count"])

    def seconds(self, since: float) -> float:
        """Return the seconds since a moment, by the clock of hook and service."""
        return self.harness.clock.now - since
