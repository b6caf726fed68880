"""A month of DAG runs, in virtual time: the bank, ``spend``, the page, the metrics and the results say the same sum.

Two DAGs with one destination, one with a destination of its own, and the three-task form beside them; with retries,
kills, clears, backfills, refunds, new versions, shared purchases, lost races and links that expired. On an Airflow that
keeps no state over the tries of a task (before 3.3) the bank, ``spend`` and the page agree, too.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana import metrics
from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.batch.costs import micros
from airflow_provider_nanobanana.batch.spend_reader import SpendReader, list_place
from airflow_provider_nanobanana.emulator.faults.rules import word_rules
from airflow_provider_nanobanana.emulator.service import EmulatedService
from airflow_provider_nanobanana.landing.image_store import open_storage
from airflow_provider_nanobanana.operators.nanobanana import (
    NanoBananaDownloadOperator,
    NanoBananaSubmitOperator,
)
from airflow_provider_nanobanana.sensors.nanobanana import NanoBananaSensor
from airflow_provider_nanobanana.ui.confinement import parse_folder
from airflow_provider_nanobanana.ui.gallery import read_gallery
from airflow_provider_nanobanana.ui.manifests import GalleryPointer
from airflow_provider_nanobanana.ui.spend import SpendPage, page_json
from tests.integration.batch.harness import GenerateTask
from tests.support.gallery_site import gallery_roots
from tests.support.task_runner import Run, TaskInstance, attempt
from tests.support.task_state_store import MemoryTaskStateStore

DAY = 86_400.0
#: DAG and folder of each kind of run; the first two share a destination.
FOLDERS = {"kites": "shared", "hats": "shared", "boats": "own"}
DEAR = {"prompt": "a poster", "resolution": "4K", "name": "poster"}


@dataclass
class Counted:
    """What was sent to Airflow's metrics, in place of a backend."""

    sums: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def incr(self, name: str, count: int, tags: Any) -> None:
        self.sums[name] += count

    def timing(self, *args: Any, **options: Any) -> None:
        pass

    timer = timing


@dataclass(frozen=True)
class Pointer:
    dag_id: str
    destination: str
    readable: bool = True


@dataclass
class MonthTask(GenerateTask):
    """The generate task of one DAG run."""

    dag_id: str = "dag"

    def instance(self) -> TaskInstance:
        ti = super().instance()
        ti.dag_id = self.dag_id
        return ti


@dataclass
class Month:
    """A month of runs.

    :param batch: Has the service, the clock and the folder.
    """

    batch: GenerateTask
    counted: Counted
    random: random.Random
    tasks: dict[tuple[str, str], MonthTask] = field(default_factory=dict)
    results: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pointers: set[Pointer] = field(default_factory=set)
    #: What the sensors have counted as paid, and returned: in the three-task form no other result knows of money.
    sensors: int = 0

    def __post_init__(self) -> None:
        # This month: the files have the times of the machine's own clock.
        self.first_day = datetime.now(UTC).replace(day=1, hour=6, minute=0, second=0, microsecond=0)
        self.batch.clock.now = self.first_day.timestamp()

    @property
    def has_store(self) -> bool:
        return self.batch.store is not None

    @property
    def now(self) -> float:
        return self.batch.clock.now

    def go_to(self, day: int) -> None:
        """Let time pass until the morning of a day of the month, from 0."""
        wanted = (self.first_day + timedelta(days=day)).timestamp()
        self.batch.clock.sleep(max(0.0, wanted - self.now))

    def task(self, dag_id: str, run_id: str) -> MonthTask:
        """Return the task of a run, a new one where there was none."""
        batch = self.batch
        if (dag_id, run_id) not in self.tasks:
            self.tasks[dag_id, run_id] = MonthTask(
                *(batch.emulator, batch.clock, batch.crash_points, batch.folder / FOLDERS[dag_id]),
                store=MemoryTaskStateStore() if self.has_store else None,
                run_id=run_id,
                dag_id=dag_id,
            )
        return self.tasks[dag_id, run_id]

    def run(self, dag_id: str, run_id: str, requests: Any, **options: Any) -> Run:
        """Run one attempt of a run's task, and look at what it leaves in XCom."""
        task = self.task(dag_id, run_id)
        run = task.attempt(requests=requests, **options)
        self.look_at(dag_id, task.xcoms)
        if "return_value" in task.xcoms:
            self.results[dag_id, run_id] = task.xcoms["return_value"]
        return run

    def look_at(self, dag_id: str, xcoms: Any) -> None:
        if told := xcoms.get("nanobanana_gallery"):
            self.pointers.add(Pointer(dag_id, told["destination"]))

    def pipeline(self, dag_id: str, run_id: str, prompts: list[str]) -> None:
        """Run the three tasks of a run, one mapped submit for each prompt; the last one twice."""
        ids = []
        for number, prompt in enumerate(prompts):
            ti = TaskInstance(
                dag_id, run_id, "submit", number, store=MemoryTaskStateStore() if self.has_store else None
            )
            ids.append(attempt(NanoBananaSubmitOperator(task_id="submit", prompt=prompt), ti).result)
        self.batch.clock.sleep(60.0)
        before = dict(self.counted.sums)
        ti = TaskInstance(dag_id, run_id, "wait", store=MemoryTaskStateStore() if self.has_store else None)
        # Cleared once: on an Airflow that keeps state over the tries nothing counts a second time.
        for _ in range(2 if self.has_store else 1):
            waiting = NanoBananaSensor(task_id="wait", image_task_ids=ids, deferrable=False, allow_partial=True)
            entries = attempt(waiting, ti).result
        names = ("nanobanana.cost_micro_usd", "nanobanana.paid_micro_usd")
        cost, paid = (self.counted.sums[name] - before.get(name, 0) for name in names)
        assert cost == paid == sum(micros(entry["cost_usd"] or 0.0) for entry in entries)
        self.sensors += paid
        folder = self.batch.folder / "pipeline"
        for _ in range(2):
            ti = TaskInstance(dag_id, run_id, "download")
            attempt(NanoBananaDownloadOperator(task_id="download", images=entries, destination=folder.as_uri()), ti)
            self.look_at(dag_id, ti.xcoms)

    # --- what may happen on a day -----------------------------------------------------------------------------------

    def _plain(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        self.run(dag_id, run_id, [*prompts, DEAR])

    def _killed(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """A worker is killed, perhaps twice; then it goes on. (A metric may be lost with a kill at the landing.)"""
        for _ in range(self.random.randint(1, 2)):
            point = self.random.choice(
                ["before submit", "submit under way", "after submit", "before write", "before land"]
            )
            self.run(dag_id, run_id, prompts, crash_on=(point, self.random.randint(1, 3)), surely=False)
        assert self.run(dag_id, run_id, prompts).error is None

    def _refunded(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        self.run(dag_id, run_id, [*prompts, f"{run_id} [[fail]]"], allow_partial=True)

    def _refunded_and_retried(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        for _ in range(3):
            self.run(dag_id, run_id, [*prompts, f"{run_id} [[fail]]"])

    def _cleared(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        self.run(dag_id, run_id, prompts)
        self.task(dag_id, run_id).clear()
        assert self.run(dag_id, run_id, prompts).error is None

    def _backfilled(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """Another run of the same date: all is in place."""
        self.run(dag_id, run_id, prompts)
        self.run(dag_id, f"backfill__{run_id}", prompts)

    def _shared(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """One run stops waiting; another waits for its purchases and uses them. Then the first one goes on."""
        self.run(dag_id, run_id, prompts, timeout=1)
        other = {"kites": "hats", "hats": "kites"}.get(dag_id, dag_id)
        assert self.run(other, f"other-{run_id}", [*prompts, f"more of {run_id}"]).result["shared"] == 3
        assert self.run(dag_id, run_id, prompts).error is None

    def _lost_race(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """Somebody without claims is faster."""
        self.run(dag_id, run_id, prompts[:1], timeout=1)
        assert self.run(dag_id, f"fast-{run_id}", prompts[:1], claims="off").error is None
        self.run(dag_id, run_id, prompts[:1])

    def _expired(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """Nobody fetched the pictures in time: a retry buys them again."""
        self.run(dag_id, run_id, prompts[:2], timeout=1)
        self.batch.clock.sleep(30 * 3_600.0)
        assert self.run(dag_id, run_id, prompts[:2], on_expired="resubmit").error is None

    def _three_tasks(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        self.pipeline(dag_id, run_id, [*prompts, f"{run_id} [[fail]]"])

    def _cleared_for_others(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """A clear with another list: the manifest names the first one no more."""
        self.run(dag_id, run_id, prompts)
        self.task(dag_id, run_id).clear()
        self.run(dag_id, run_id, [prompts[0], f"other than {run_id}"])

    def _new_versions(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """Twice a person wants another picture of the first."""
        named = [{"prompt": prompt, "name": prompt.replace(" ", "-")} for prompt in prompts]
        self.run(dag_id, run_id, named)
        for _ in range(2):
            self.task(dag_id, run_id).clear()
            self.run(dag_id, run_id, named, redo=[named[0]["name"]])

    def _deleted(self, dag_id: str, run_id: str, prompts: list[Any]) -> None:
        """Somebody deletes the pictures, and clears the task when their links have expired."""
        self.run(dag_id, run_id, prompts[:2])
        for image in self.results[dag_id, run_id]["images"]:
            Path(image["uri"].removeprefix("file://")).unlink()
        self.batch.clock.sleep(2 * DAY)
        self.task(dag_id, run_id).clear()
        assert self.run(dag_id, run_id, prompts[:2]).error is None

    # --- what they say ----------------------------------------------------------------------------------------------

    @property
    def bank(self) -> int:
        """What the account was charged, refunds taken off, in millionths of a USD."""
        sold = self.batch.emulator.ledger()["image_tasks"]
        return sum(micros(task["charged_usd"]) for task in sold if not task["refunded"])

    def page(self, *dags: str) -> dict[str, Any]:
        """What the page shows to somebody who may read these DAGs, all where none is given."""
        said = [
            GalleryPointer(pointer.dag_id, parse_folder(pointer.destination), pointer.readable)
            for pointer in self.pointers
        ]
        # What is local is shown only where the settings name it.
        with gallery_roots([pointer.destination for pointer in self.pointers]):
            spend = SpendPage().read(lambda since: said, self.now)
        return page_json(spend, lambda told: set(told) & set(dags or told))

    def command(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """What the command prints."""
        capsys.readouterr()
        destinations = sorted({pointer.destination for pointer in self.pointers})
        assert main(["spend", *destinations, "--json", "--by", "dag", "--by", "run", "--by", "day"]) == 0
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        return printed

    def told_by_books(self) -> int:
        """What only books tell of: before Airflow 3.3 what earlier tries paid for what the last one did not find."""
        places = [list_place(open_storage(uri)) for uri in sorted({pointer.destination for pointer in self.pointers})]
        records = SpendReader(places, lambda uri, why: None).records()
        return sum(record.paid or 0 for record in records if record.outcome == "booked")


EVENTS = (
    *("plain", "killed", "refunded", "refunded_and_retried", "cleared", "backfilled", "shared", "lost_race"),
    *("expired", "three_tasks", "cleared_for_others", "new_versions", "deleted"),
)


@pytest.fixture
def month(quick: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Month]:
    counted = Counted()
    monkeypatch.setattr(metrics, "_stats", lambda: counted)
    accept = EmulatedService.accept

    def accept_as_it_says(service: EmulatedService, submission: Any, shapes: Any) -> Any:
        return accept(service, submission, {**shapes, **{rule.kind: rule for rule in word_rules(submission.prompt)}})

    # Calls that do not travel meet no words in prompts.
    monkeypatch.setattr(EmulatedService, "accept", accept_as_it_says)
    before = quick.clock.now
    yield Month(quick, counted, random.Random(14))
    quick.clock.now = max(before, quick.clock.now)


def summed(rows: list[dict[str, Any]], name: str = "paid_usd") -> int:
    return sum(micros(row[name]) for row in rows)


def test_a_month_comes_to_what_the_bank_says(month: Month, capsys: pytest.CaptureFixture[str]) -> None:
    dags = list(FOLDERS)
    events = [*EVENTS, *EVENTS]
    month.random.shuffle(events)
    for day, what in enumerate(events):
        month.go_to(day)
        prompts = [f"picture {day}-{number}" for number in range(1, 4)]
        getattr(month, f"_{what}")(month.random.choice(dags), f"{what}-{day}", prompts)

    bank, printed, shown = month.bank, month.command(capsys), month.page()
    tables = [shown["month"][name]["tables"] for name in shown["months"]]
    assert bool(shown["skipped"]) is not month.has_store and bank > 2_000_000
    assert micros(printed["totals"]["paid_usd"]) == bank
    assert summed([shown["month"][name]["totals"] for name in shown["months"]]) == bank
    for by in ("dag", "run", "day"):
        assert sum(summed(table[by]) for table in tables) == summed(printed["by"][by]) == bank
    names = ("bought", "shared", "reused", "refunded", "missing", "booked", "failed")
    for name in names:
        assert sum(shown["month"][one]["totals"][name] for one in shown["months"]) == printed["totals"][name]
    assert all(printed["totals"][name] for name in ("bought", "shared", "reused", "refunded"))
    by_dag = {row["dag"]: micros(row["paid_usd"]) for row in printed["by"]["dag"]}
    for dag_id in dags:
        alone = month.page(dag_id)
        assert summed([alone["month"][name]["totals"] for name in alone["months"]]) == by_dag[dag_id]
        assert {row["key"][0] for name in alone["months"] for row in alone["month"][name]["tables"]["run"]} == {dag_id}

    results = sum(micros(result["paid_usd"]) for result in month.results.values()) + month.sensors
    counted = month.counted.sums["nanobanana.paid_micro_usd"]
    galleries = [
        read_gallery(json.loads(path.read_text()), parse_folder(path.parent.as_uri())).totals["paid_usd"]
        for path in month.batch.folder.rglob("manifest-*.json")
    ]
    assert sum(map(micros, filter(None, galleries))) == results, "what the galleries say, the three-task form's, too"
    if month.has_store:
        said = {of: micros(result["paid_usd"]) for of, result in month.results.items()}
        by_run = {(row["dag"], row["run"]): micros(row["paid_usd"]) for row in printed["by"]["run"]}
        assert said == {of: by_run[of] for of in said}
        assert bank == results == counted and month.told_by_books() == 0
    else:
        # A try knows of earlier ones what they paid for images in place; metrics, what a try has put in place itself.
        assert bank == results + month.told_by_books() and results < bank
        assert counted < bank


@pytest.mark.parametrize("what", EVENTS)
def test_each_event_alone_comes_to_what_the_bank_says(
    month: Month, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    getattr(month, f"_{what}")("kites", what, ["picture 1", "picture 2", "picture 3"])
    shown = month.page()
    paid = summed([shown["month"][name]["totals"] for name in shown["months"]])
    assert micros(month.command(capsys)["totals"]["paid_usd"]) == paid == month.bank > 0
