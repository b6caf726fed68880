"""Rows of docs/durability.md: other installations, other runs and other map indexes of the same ids."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_nanobanana import compat
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.submission import client_ids
from airflow_provider_nanobanana.toapis.classify import CallKind
from airflow_provider_nanobanana.toapis.client import ToApisClient
from tests.integration.submission.crash_points import CrashHarness
from tests.integration.submission.harness import SubmitTask
from tests.support.task_runner import RUN_STARTED
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.text import flat

DAY = 86_400.0
#: What tells two schedulers that start the same run "at once" apart.
A_MOMENT = timedelta(microseconds=1)


@pytest.fixture
def staging(harness: CrashHarness) -> SubmitTask:
    return SubmitTask(harness, MemoryTaskStateStore())


@pytest.fixture(params=["a clear keeps the record", "a clear discards it; started by hand"])
def prod(harness: CrashHarness, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SubmitTask:
    """The same DAG, run and task in a second Airflow on the same account, and again after the run was deleted."""
    discards = request.param != "a clear keeps the record"
    monkeypatch.setattr(compat, "clear_discards_task_state", lambda: discards)
    due = RUN_STARTED + A_MOMENT if discards else RUN_STARTED
    return SubmitTask(harness, MemoryTaskStateStore(), run_started=RUN_STARTED + A_MOMENT, run_due=due)


@pytest.mark.parametrize("later", [0.0, 90_000.0])
def test_r45_another_installation_has_the_same_ids(staging: SubmitTask, prod: SubmitTask, later: float) -> None:
    """Killed before its POST, prod hands on nothing of staging's, nor fails on what has expired there."""
    bought_by_staging = staging.attempt().result
    staging.harness.clock.sleep(later)
    prod.attempt(crash_on="before submit")
    run = prod.attempt()
    assert run.error is None
    assert prod.charges == [bought_by_staging, run.result]


def test_what_failed_in_another_installation_is_not_taken_for_ones_own(staging: SubmitTask, prod: SubmitTask) -> None:
    bought_by_prod = prod.bought_by(crash_on="after submit")
    staging.harness.emulator.fault(on="submit", kind="failed", times=1)
    staging.attempt()
    assert [prod.attempt().result] == bought_by_prod == prod.charges


@pytest.mark.parametrize("namespaces", [("staging", "prod"), ("", "prod"), ("staging", "")])
@pytest.mark.parametrize("named", [{}, {"name": "kite"}])
def test_r46_another_installation_with_a_namespace_of_its_own(
    harness: CrashHarness, namespaces: tuple[str, str], named: dict[str, str]
) -> None:
    staging, prod = (SubmitTask(harness, None, namespace=namespace, options=named) for namespace in namespaces)
    bought_by_prod = prod.attempt().result
    bought_by_staging = staging.attempt().result
    assert prod.attempt().result == bought_by_prod
    assert staging.attempt().result == bought_by_staging
    assert prod.charges == [bought_by_prod, bought_by_staging]


@pytest.mark.parametrize("crash_on", ["before submit", "after submit"])
def test_r47_a_run_is_deleted_and_made_again(staging: SubmitTask, prod: SubmitTask, crash_on: str) -> None:
    """Its rows of the store go with it, and its tries begin at 1."""
    before, again = staging, prod
    bought = before.attempt().result
    again.attempt(crash_on=crash_on)
    run = again.attempt()
    assert again.charges == [bought, run.result]


@pytest.fixture
def discarding(recorded: SubmitTask, monkeypatch: pytest.MonkeyPatch) -> SubmitTask:
    """A task instance of an Airflow of which a clear discards the record."""
    monkeypatch.setattr(compat, "clear_discards_task_state", lambda: True)
    return recorded


def clear_finished(task: SubmitTask) -> None:
    """Clear a task of a finished run, which begins anew, on an Airflow that discards what the task remembers."""
    task.clear()
    task.lose_record()
    task.run_started += timedelta(days=1)


@pytest.mark.parametrize("crash_on", ["after submit", "after write", "returned"])
def test_r54_a_finished_task_is_cleared_and_its_record_discarded(discarding: SubmitTask, crash_on: str) -> None:
    occurrence = 3 if crash_on == "after write" else 1
    discarding.attempt(crash_on, occurrence)
    bought = discarding.charges
    assert len(bought) == 1
    for _ in range(2):
        clear_finished(discarding)
        start = discarding.harness.clock.now
        assert [discarding.attempt().result] == bought == discarding.charges
        assert discarding.seconds(start) == 0, "one look, and no wait"


def test_r55_a_request_that_is_changed_and_changed_back(discarding: SubmitTask) -> None:
    first = discarding.attempt().result
    for prompt in ("a blue kite", "a red kite", "a blue kite"):
        clear_finished(discarding)
        discarding.options = {"prompt": prompt}
        run = discarding.attempt()
        assert (run.result == first) is (prompt == "a red kite")
    assert discarding.charges == [first, run.result]


def test_r56_what_failed_what_expired_and_what_is_wanted_once_more(discarding: SubmitTask) -> None:
    discarding.harness.emulator.fault(on="submit", kind="failed", times=1)
    discarding.attempt()
    clear_finished(discarding)
    bought = discarding.attempt().result
    assert discarding.charges == [bought], "the next generation after the refunded one"
    discarding.harness.clock.sleep(DAY + 1)
    clear_finished(discarding)
    assert bought in flat(discarding.attempt().error), "paid and lost is not bought again silently"
    discarding.options = {"reuse_existing": False}
    clear_finished(discarding)
    discarding.attempt(crash_on="after submit")
    again = discarding.attempt()
    assert discarding.charges == [bought, again.result]


def test_r57_a_running_task_is_cleared_and_its_record_discarded(discarding: SubmitTask) -> None:
    """It is killed and tried again; the run goes on."""
    bought = discarding.bought_by(crash_on="after submit")
    discarding.lose_record()
    assert [discarding.attempt().result] == bought == discarding.charges


@pytest.mark.parametrize("crash_on", ["after submit", "returned"])
def test_r48_a_finished_run_is_cleared_and_begins_anew(recorded: SubmitTask, crash_on: str) -> None:
    bought = recorded.bought_by(crash_on=crash_on)
    recorded.clear()
    recorded.run_started += timedelta(days=1)
    assert [recorded.attempt().result] == bought
    recorded.clear()
    recorded.options = {"prompt": "a blue kite"}
    assert recorded.attempt().result not in bought
    recorded.clear()
    recorded.options = {}
    assert [recorded.attempt().result] == bought, "looked for by the id that it was bought under"
    assert len(recorded.charges) == 2


# --- map indexes -----------------------------------------------------------------------------------------------------

PROMPTS = [f"kite {number}" for number in range(5)]


class MappedTask:
    """A mapped Submit of which the upstream lists prompts in any order.

    :param store: Whether there is a task state store.
    :param names: Whether each prompt has a name.
    """

    def __init__(self, harness: CrashHarness, *, store: bool, names: bool) -> None:
        self.harness, self.store, self.names = harness, store, names
        self.tasks: list[SubmitTask] = []

    def run(self, prompts: list[str]) -> dict[str, str]:
        """Clear what ran before, run a task instance for each prompt, and return what it handed on by prompt."""
        for task in self.tasks:
            task.clear()
        for index in range(len(self.tasks), len(prompts)):
            store = MemoryTaskStateStore() if self.store else None
            self.tasks.append(SubmitTask(self.harness, store, map_index=index))
        handed_on = {}
        for task, prompt in zip(self.tasks, prompts, strict=False):
            task.options = {"prompt": prompt, "name": prompt.replace(" ", "-") if self.names else None}
            handed_on[prompt] = task.attempt().result
        return handed_on

    @property
    def charges(self) -> list[str]:
        return self.tasks[0].charges


ORDERS = {
    "rotated": PROMPTS[1:] + PROMPTS[:1],
    "one removed": PROMPTS[1:],
    "one more at the front": ["a new kite", *PROMPTS],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("store", [True, False])
def test_r49_a_mapped_task_with_names_is_cleared_after_its_upstream_reordered(
    harness: CrashHarness, store: bool, order: str
) -> None:
    mapped = MappedTask(harness, store=store, names=True)
    first = mapped.run(PROMPTS)
    again = mapped.run(ORDERS[order])
    assert {prompt: again[prompt] for prompt in first if prompt in again} == {
        prompt: bought for prompt, bought in first.items() if prompt in again
    }
    new = len(set(again) - set(first))
    assert len(mapped.charges) == len(PROMPTS) + new
    assert mapped.run(PROMPTS) == first, "and back again"
    assert len(mapped.charges) == len(PROMPTS) + new


@pytest.mark.parametrize("store", [True, False])
def test_r50_a_mapped_task_without_names_is_cleared_after_its_upstream_reordered(
    harness: CrashHarness, store: bool
) -> None:
    mapped = MappedTask(harness, store=store, names=False)
    mapped.run(PROMPTS)
    harness.clock.sleep(600)
    mapped.run([PROMPTS[1], PROMPTS[0], *PROMPTS[2:]])
    assert len(mapped.charges) == len(PROMPTS) + 2, "each index buys what it has not had"


def test_r51_a_run_with_names_is_deleted_and_made_again(staging: SubmitTask, prod: SubmitTask) -> None:
    before, again = staging, prod
    before.options = again.options = {"name": "kite"}
    bought = before.attempt().result
    assert again.attempt().result == bought
    before.harness.clock.sleep(30 * DAY)
    once_more = SubmitTask(before.harness, MemoryTaskStateStore(), options={"name": "kite"})
    error = once_more.attempt().error
    assert isinstance(error, NanoBananaException)
    assert (error.charged, error.image_task_id) == ("yes", bought)
    assert "on_expired='resubmit'" in flat(error)
    assert before.charges == [bought]


def test_a_named_retry_finds_its_own_and_a_second_clear_buys_nothing(task: SubmitTask) -> None:
    task.options = {"name": "kite"}
    bought = task.bought_by(crash_on="after submit")
    assert [task.attempt().result] == bought
    task.clear()
    task.map_index = 7
    assert [task.attempt().result] == bought == task.charges


@pytest.mark.parametrize("before", ["", "kite"])
def test_a_name_that_is_given_or_left_out_later_buys_nothing(recorded: SubmitTask, before: str) -> None:
    recorded.options = {"name": before}
    bought = recorded.attempt().result
    recorded.options = {"name": "" if before else "kite"}
    recorded.clear()
    assert [recorded.attempt().result] == [bought] == recorded.charges


@pytest.mark.parametrize("name", ["a b", "../x", "kite.png", "n" * 81, ["kite"], "0123456789abcdef-1"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(task: SubmitTask, name: object) -> None:
    task.options = {"name": name}
    error = task.attempt().error
    assert "Nothing was sent and nothing was charged" in flat(error)
    assert task.accepted == 0


@pytest.mark.parametrize(("given", "same"), [(1984, "1984"), (7.0, "7")])
def test_numbers_of_a_table_name_as_their_texts_do(task: SubmitTask, given: object, same: str) -> None:
    task.options = {"name": given}
    bought = task.attempt().result
    task.clear()
    task.map_index, task.options = 3, {"name": same}
    assert task.attempt().result == bought


# --- the free check after a process's first submit -------------------------------------------------------------------


def test_two_image_tasks_under_one_id_are_no_sign_that_ids_do_not_resolve(
    unrecorded: SubmitTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other installation's is the newer one; it is said what to do about it."""
    exchange = ToApisClient._exchange
    sent: list[Any] = []

    def twice(client: ToApisClient, call: Any) -> Any:
        answer = exchange(client, call)
        if call.kind is CallKind.SUBMIT and not sent:
            sent.append(call)
            exchange(client, call)
        return answer

    monkeypatch.setattr(ToApisClient, "_exchange", twice)
    logging.disable(logging.NOTSET)
    run = unrecorded.attempt()
    assert client_ids.known_to_resolve(unrecorded.harness.emulator.api_url) is True
    assert run.result == unrecorded.charges[0] and len(unrecorded.charges) == 2
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_nanobanana")]
    [warning] = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert all(image in warning for image in unrecorded.charges) and "'namespace'" in warning
