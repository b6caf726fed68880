"""What the ledger says of a retry and a clear is what they then do, whatever was killed or failed before.

Random histories of one task instance, some beside another run that wants the same files; then its ledger is put into
words, and the next attempt is made. Each image is bought, used or left as its words said.
"""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_nanobanana.batch.ledger_words import TaskLedger, ledger_words
from airflow_provider_nanobanana.batch.task_ledger import TaskFacts, read_task_ledger
from airflow_provider_nanobanana.durable.claims import Claim
from airflow_provider_nanobanana.durable.image_outlook import WantedImage
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.emulator.ledger import Failure, ImageTask
from airflow_provider_nanobanana.landing.image_store import ImageStore, open_storage
from airflow_provider_nanobanana.landing.versions import reject, rejected_stems, split_stem, take_back
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED
from tests.integration.batch import harness
from tests.integration.batch.conftest import HTTP_TIMEOUT
from tests.integration.batch.harness import GenerateTask
from tests.support.task_state_store import MemoryTaskStateStore

REQUESTS = [{"prompt": "one"}, {"prompt": "two", "name": "two"}, {"prompt": "three"}, {"prompt": "four"}]
DAY = 86_400.0
#: Histories of a run of a test.
HISTORIES = 8


def read(batch: GenerateTask) -> TaskLedger:
    """Return the ledger as somebody reads it who looks from outside."""
    if batch.store is None:
        texts = {key: value for key, value in batch.xcoms.items() if isinstance(value, str)}
    else:
        texts = {key: json.loads(value) for key, value in batch.store.rows.items()}
    task = TaskFacts(
        "dag",
        batch.run_id,
        "generate",
        -1,
        try_number=batch.tries,
        max_tries=batch.max_tries,
        survives=batch.store is not None,
        survives_clear=not batch.discards,
    )
    storage = open_storage(batch.folder)
    return read_task_ledger(InMemoryStateStore(texts), task, storage, source="a test", now=batch.clock.now)


class World:
    """What happens to a task instance, drawn by lot."""

    def __init__(self, batch: GenerateTask, dice: random.Random) -> None:
        self.batch = batch
        self.dice = dice
        self.happened: list[str] = []
        self.dated: set[Path] = set()
        self.handed_out: set[str | None] = set()
        self.waits = [100.0, 4_000.0, DAY + 100.0]

    def live(self) -> None:
        """Let a few things happen, the first of them an attempt."""
        self.attempt()
        for _ in range(self.dice.randrange(4)):
            acts = [
                self.attempt,
                self.reject,
                self.fail,
                self.refuse,
                self.wait,
                self.lose_file,
                self.clear,
                self.other,
                self.slow,
            ]
            self.dice.choice([*acts, self.see_the_end, self.forget])()

    def note(self, what: str) -> None:
        self.happened.append(what)

    def attempt(self, batch: GenerateTask | None = None) -> None:
        crash = None if self.dice.random() < 0.3 else self.dice.randrange(15, 130)
        run = (batch or self.batch).attempt(requests=REQUESTS, crash_at=crash)
        self.date_claims()
        self.note(f"attempt of {(batch or self.batch).run_id}, crash at {crash}: {run.error or 'no error'}"[:160])

    def forget(self) -> None:
        """The connection leads to another account by now, or the service has forgotten."""
        ledger = self.batch.emulator.service.ledger
        for task in self.tasks():
            if self.dice.random() < 0.3:
                self.note(f"{task.prompt} is forgotten")
                ledger.image_tasks.pop(task.id, None)
                for same in ledger.by_client_id.values():
                    same[:] = [one for one in same if one is not task]

    def see_the_end(self) -> None:
        """Something ends at the service, and an attempt sees how."""
        self.dice.choice([self.fail, self.refuse, self.wait])()
        run = self.batch.attempt(requests=REQUESTS)
        self.note(f"a whole attempt: {run.error or 'no error'}"[:160])
        self.date_claims()

    def date_claims(self) -> None:
        """Let what was claimed be as old as the clock of the test says."""
        for path in self.batch.folder.glob(".nanobanana/claims/*.json"):
            if path not in self.dated:
                os.utime(path, (self.batch.clock.now, self.batch.clock.now))
                self.dated.add(path)

    def slow(self) -> None:
        """Let images take longer than an attempt waits."""
        self.note("images take an hour")
        self.batch.emulator.configure(latency=3_600)

    def other(self) -> None:
        """Another run wants the same files."""
        store = MemoryTaskStateStore() if self.batch.store else None
        self.attempt(replace(self.batch, run_id=f"other {self.dice.random()}", store=store, tries=0, xcoms={}))

    def clear(self) -> None:
        self.note("clear")
        self.batch.clear()

    def wait(self) -> None:
        seconds = self.waits.pop(self.dice.randrange(len(self.waits))) if self.waits else 100.0
        self.note(f"{seconds:.0f} s pass")
        self.batch.clock.sleep(seconds)

    def lose_file(self) -> None:
        files = sorted(self.batch.folder.glob("*.png"))
        if files:
            lost = self.dice.choice(files)
            self.note(f"{lost.name} is gone")
            self.handed_out.add(self.prompt_of(lost.name))
            lost.unlink()

    def reject(self) -> None:
        """A person rejects a picture, whichever version, or wants it after all."""
        store = ImageStore(self.batch.folder.as_uri())
        if self.batch.files:
            stem = self.dice.choice(self.batch.files).removesuffix(".png")
            back = stem in rejected_stems(store)
            self.note(f"{stem} is {'wanted after all' if back else 'rejected'}")
            if back:
                take_back(store, stem)
            else:
                reject(store, stem, by="uma", comment="", now=self.batch.clock.now)

    def fail(self) -> None:
        self._end(Failure("generation_failed", "sorry", "object"))

    def refuse(self) -> None:
        self._end(Failure(CONTENT_REFUSED.code, "no", "object"))

    def _end(self, failure: Failure) -> None:
        """Let the service fail what it has not handed out yet."""
        landed = {self.prompt_of(name) for name in self.batch.files} | self.handed_out
        for task in self.tasks():
            if task.prompt not in landed and task.failure is None and self.dice.random() < 0.6:
                self.note(f"{task.prompt} {failure.code}")
                task.failure = failure
                task.done = min(task.done, self.batch.clock.now)

    def tasks(self) -> list[ImageTask]:
        return list(self.batch.emulator.service.ledger.image_tasks.values())

    def prompt_of(self, name: str) -> str | None:
        stems = {
            split_stem(row.image.identity.stem)[0]: row.label for row in read(self.batch).rows if row.image is not None
        }
        stem = split_stem(name.removesuffix(".png"))[0]
        return {"#0": "one", "two": "two", "#2": "three", "#3": "four"}.get(stems.get(stem, ""))

    def find(self, target: str | None) -> ImageTask | None:
        ledger = self.batch.emulator.service.ledger
        ids = {task.submission.client_business_id: task for task in self.tasks()}
        return ledger.image_tasks.get(target or "") or ids.get(target)


def resolve(words: str, it: ImageTask | None, claimed: ImageTask | None, now: float) -> str:
    """Return what a predicate comes to when it is known what the service answers."""
    words = re.sub(r" \(with [^()]*\)", "", words)
    while nested := re.search(r"asks the service for what [^()]* claimed \(([^()]*)\)", words):
        words = words.replace(nested[0], resolve(f"asks the service: {nested[1]}", claimed, None, now))
    if not words.startswith("asks the service: "):
        return words
    parts = words.removeprefix("asks the service: ").split("; if it ")
    parts[0] = parts[0].removeprefix("if it ")
    courses: dict[str, str] = {}
    for part in parts:
        conditions, _, course = part.partition(", ")
        courses |= dict.fromkeys(conditions.split(" or "), course)
    return courses[answer(it, now, courses)]


def answer(it: ImageTask | None, now: float, courses: dict[str, str]) -> str:
    if it is None:
        return "is not there"
    if it.failure is not None:
        return "was refused" if it.failure.code == CONTENT_REFUSED.code else "failed"
    return "has expired" if it.done + DAY <= now and "has expired" in courses else "is there"


def foretold(world: World, image: WantedImage, words: str, now: float) -> str:
    record = image.entry.record
    seen = image.claim.claim if image.claim is not None else None
    claim_id = seen.client_business_id if isinstance(seen, Claim) else None
    record_id = (record.image_task_id or record.client_business_id) if record else None
    return resolve(words, world.find(record_id or claim_id), world.find(claim_id), now)


@pytest.mark.parametrize("late", [0, HTTP_TIMEOUT])
def test_the_words_come_true(quick: GenerateTask, monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    monkeypatch.setattr(harness, "PAUSE", 20.0)
    batch = quick
    seed = os.environ.get("NANOBANANA_SEED", "14")
    for number in range(HISTORIES):
        check_one_history(batch, random.Random(f"{seed}/{number}"), f"{seed}/{number}", late)


def test_what_is_in_quarantine_stays_there(quick: GenerateTask) -> None:
    """The pictures here are smaller than was asked for."""
    batch = quick
    batch.options = {"on_suspect": "quarantine"}
    batch.attempt(requests=REQUESTS)
    assert batch.charges == len(REQUESTS)
    for row in ledger_words(read(batch), batch.clock.now)["rows"]:
        assert row["state"].startswith("in quarantine"), row
        assert row["retry"] == row["clear"] and row["retry"].startswith("leaves it in quarantine and buys nothing")
    batch.attempt(requests=REQUESTS)
    batch.clear()
    batch.attempt(requests=REQUESTS)
    assert (batch.charges, batch.files) == (len(REQUESTS), [])
    batch.options = {"on_suspect": "warn"}
    batch.attempt(requests=REQUESTS)
    assert (batch.charges, len(batch.files)) == (len(REQUESTS), len(REQUESTS))


@pytest.mark.parametrize("clears", [True, False])
def test_a_rejected_picture_is_bought_anew(quick: GenerateTask, clears: bool) -> None:
    """As after each review: what reads the requests anew makes a new version; a retry with a store goes on."""
    batch, word = quick, "clear" if clears else "retry"
    batch.attempt(requests=REQUESTS)
    reject(ImageStore(batch.folder.as_uri()), stem_of(batch, "two"), by="uma", comment="", now=batch.clock.now)
    words = ledger_words(read(batch), batch.clock.now)
    assert words["summary"][1] == "4 images: 3 in place, 1 rejected."
    assert ("clear buys 1, uses 3" in words["summary"][4], words["rows"][1]["state"]) == (True, "in place, rejected")
    buys = [row[f"{word}_buys"] == "yes" for row in words["rows"]]
    assert buys == [False, clears or batch.store is None, False, False]
    if clears:
        batch.clear()
    batch.attempt(requests=REQUESTS)
    assert batch.charges == len(REQUESTS) + sum(buys)


@pytest.mark.parametrize("redo", [True, False])
def test_a_rejected_version_is_bought_anew_where_redo_names_it(quick: GenerateTask, redo: bool) -> None:
    batch = quick
    batch.attempt(requests=REQUESTS)
    batch.next_run("second")
    batch.attempt(requests=REQUESTS, redo=["two"])
    reject(ImageStore(batch.folder.as_uri()), stem_of(batch, "two"), by="uma", comment="", now=batch.clock.now)
    row, charges = ledger_words(read(batch), batch.clock.now)["rows"][1], batch.charges
    assert row["clear"] == "uses it and buys nothing (with redo it buys a new version)"
    assert row["clear_buys"] == "perhaps"
    batch.clear()
    batch.attempt(requests=REQUESTS, redo=["two"] if redo else [])
    assert batch.charges == charges + redo


def test_a_newer_version_of_another_run_is_used_where_the_first_is_rejected(quick: GenerateTask) -> None:
    batch = quick
    batch.attempt(requests=REQUESTS)
    first = stem_of(batch, "two")
    other = replace(batch, run_id="other", store=MemoryTaskStateStore() if batch.store else None, tries=0, xcoms={})
    other.attempt(requests=REQUESTS, redo=["two"])
    reject(ImageStore(batch.folder.as_uri()), first, by="uma", comment="", now=batch.clock.now)
    row, charges = ledger_words(read(batch), batch.clock.now)["rows"][1], batch.charges
    assert row["clear"].startswith("uses it and buys nothing")
    batch.clear()
    batch.attempt(requests=REQUESTS)
    assert (batch.charges, charges) == (charges, len(REQUESTS) + 1)


def stem_of(batch: GenerateTask, name: str) -> str:
    return next(Path(image["uri"]).stem for image in batch.manifest["images"] if image["name"] == name)


def check_one_history(batch: GenerateTask, dice: random.Random, seed: str, late: int) -> None:
    batch.begin_again()
    batch.emulator.configure(lookup_delay=dice.choice([0, 30]), latency=10)
    batch.crash_points.late = late
    batch.discards = dice.random() < 0.5
    world = World(batch, dice)
    world.live()
    clears = dice.random() < 0.5
    now, ledger = batch.clock.now, read(batch)
    plain = ledger_words(ledger, now)
    before = {task.id for task in world.tasks()}
    arriving = len(batch.clock.in_flight)
    if clears:
        batch.clear()
    run = batch.attempt(requests=REQUESTS)
    bought = [task.prompt for task in world.tasks() if task.id not in before]
    if not ledger.rows:
        return
    stems = {path.stem for path in batch.folder.glob("*.png")}
    for row, said, request in zip(ledger.rows, plain["rows"], REQUESTS, strict=False):
        words = said["clear" if clears else "retry"]
        image = (row.cleared if clears else row.retried) or row.image
        assert image is not None
        course = foretold(world, image, words, now)
        about = (seed, request, words, course, said["state"], world.happened, str(run.error))
        number = bought.count(request["prompt"])
        in_place = image.identity.stem in stems
        if "buys nothing" in course:
            assert number <= (arriving and late > 0), about
            running = any(task.prompt == request["prompt"] and task.done > batch.clock.now for task in world.tasks())
            # What this task has given up may have been put in place by another run.
            others = image.in_place and course.startswith("leaves it")
            assert in_place == ("uses it" in course) or running or others, about
        elif "fails" in course:
            assert number == 0 and (not in_place or image.in_place), about
        else:
            assert "buys it" in course, about
            assert number == 1, about
        buys = said["clear_buys" if clears else "retry_buys"]
        assert buys == "perhaps" or (buys == "yes") == ("buys it" in course), about
