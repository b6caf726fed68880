"""One Generate task with thousands of requests: how fast, in how much memory, with how much state, and killed.

- `generate-2000`, `generate-10000`: one task instance of the Generate operator in real time, latencies included, at
  the limits of the default account (5 submits and 50 queries a second, 1K pictures) and of the largest (33.3 and 500,
  0.5K pictures, since two cores cannot draw and verify 33 of 1K a second). Every slice of work is a fresh process,
  timed from its start to its end, and its peak is what its kernel counted (`VmHWM`); triggers are rebuilt from JSON in
  another process. The task's state store is a folder and answers faster than Airflow's API. The share is requests
  over submit rate times the whole time, waits included, from the first process to the last submit or to the last image
  in place. A worker is held with nothing to do while none of its requests is under way, no image is being landed and
  the ledger is not being written, for more than two seconds at a stretch, until it ends its slice. Images are in a
  file system in memory.
- `generate-first`: the same with 1 and with 20 requests: how long after it was ready the first picture is in place.
- `generate-kills`: the worker process of such a task is killed (SIGKILL) at five random points between the first
  submit and 90 % of the way, and retried at once. The account is four times as fast as the default one.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dev.benchmarks.child import Child, child
from dev.benchmarks.emulator import Account, Rates, account
from dev.benchmarks.scenario import Bench, Figures, Goal, Measured, Scenario

#: Where there is a file system in memory, images go there: thousands of files are not what is measured.
_MEMORY = Path("/dev/shm")  # a folder of its own is made in it
_RETRIES = 10
#: Seconds before a retry after an error; a killed attempt is retried at once.
_RETRY_DELAY = 5.0
#: A value of Airflow's task state store holds so many bytes of JSON (``[state_store] max_value_storage_bytes``).
_STATE_VALUE = 65_535


#: What the first picture may wait for, in seconds after it is ready.
_FIRST_PICTURE = 10.0


@dataclass(frozen=True)
class Size:
    """What is asked for, of which account.

    :param count: Requests.
    :param options: Of the operator.
    :param kills: How often the worker process is killed.
    """

    count: int
    rates: Rates
    options: Figures
    kills: int = 0


_1K = {"size": "1:1", "resolution": "1K"}
#: Small pictures for the largest account: two cores cannot draw and verify 33 large ones a second.
_HALF_K = {"size": "1:1", "resolution": "0.5K", "model": "gemini-3.1-flash-image-preview"}
_SIZES = {
    "generate-2000": Size(2000, Rates(submit_rate=5), _1K),
    "generate-10000": Size(10_000, Rates(submit_rate=100 / 3, query_rate=500), _HALF_K),
    # Four times the default account's rates and speed, so that five attempts more take minutes, not half an hour.
    "generate-kills": Size(1000, Rates(submit_rate=20, query_rate=200, time_scale=0.25), _1K, kills=5),
}
_QUICK = {
    "generate-2000": Size(40, Rates(submit_rate=5, time_scale=0.2), _1K),
    "generate-10000": Size(150, Rates(submit_rate=100 / 3, query_rate=500, time_scale=0.1), _HALF_K),
    "generate-kills": Size(60, Rates(submit_rate=10, query_rate=100, time_scale=0.1), _1K, kills=1),
}


def measure(name: str, bench: Bench) -> Measured:
    """Run one task instance of the Generate operator to its end."""
    size = (_QUICK if bench.quick else _SIZES)[name]
    figures = _run(name, size, bench)
    return Measured({"count": size.count, **size.options, "kills": size.kills, **asdict(size.rates)}, figures)


def measure_first(bench: Bench) -> Measured:
    """Run one small task after the other, and see when their first pictures come."""
    rates = Rates(submit_rate=5, time_scale=0.2 if bench.quick else 1.0)
    runs = {str(count): _run(f"generate-first-{count}", Size(count, rates, _1K), bench) for count in (1, 20)}
    return Measured({**_1K, **asdict(rates)}, {"runs": runs})


def _run(name: str, size: Size, bench: Bench) -> Figures:
    folder = bench.fresh(name)
    with ExitStack() as stack:
        parent = _MEMORY if _MEMORY.is_dir() else folder
        images = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-", dir=parent)))
        service = stack.enter_context(account(folder, size.rates, bench.seed))
        connection = service.connection_json(submit_rate=size.rates.submit_rate, query_rate=size.rates.query_rate)
        prompts = [f"picture {number} of a catalogue" for number in range(size.count)]
        run = TaskRun(
            folder,
            connection,
            {**size.options, "requests": prompts, "destination": images.as_uri()},
            progress=lambda: _progress(service, images),
            say=lambda line: bench.say(f"{name}: {line}"),
        )
        began = time.time()
        run.run(kill_points(size.count, size.kills, bench.seed))
        wall_seconds = time.time() - began
        submit_seconds = max(task["created"] for task in service.ledger()["image_tasks"]) - began
        figures = {
            "count": size.count,
            **_charges(service, images, run.result),
            "wall_seconds": wall_seconds,
            "share": size.count / (size.rates.submit_rate * wall_seconds),
            "submit_seconds": submit_seconds,
            "submit_share": size.count / (size.rates.submit_rate * submit_seconds),
            "polls": sum(service.counts("status").values()),
            "limited": {kind: service.counts(kind).get(429, 0) for kind in ("submit", "status")},
            **run.figures(),
        }
    bench.say(f"{name}: {figures['landed']} of {size.count} in {wall_seconds:.0f} s")
    return figures


def kill_points(count: int, number: int, seed: int) -> list[int]:
    """Return at what progress to kill: images accepted plus images in place, from 2 % to 90 % of twice the count."""
    return sorted(random.Random(seed).sample(range(int(0.04 * count), int(1.8 * count)), number))


def _progress(service: Account, images: Path) -> int:
    """Return how many images were accepted plus how many are in place."""
    counts = service.counts("submit")
    return counts.get(200, 0) + counts.get(201, 0) + sum(1 for _ in _pictures(images))


def _pictures(images: Path) -> Iterator[Path]:
    return (path for path in images.iterdir() if not path.name.startswith((".", "manifest-")))


def _charges(service: Account, images: Path, result: Mapping[str, Any]) -> Figures:
    """Return what is in place (``landed``), and what the service charged."""
    manifest = result.get("manifest")
    listed = json.loads(Path(unquote(urlsplit(manifest).path)).read_text())["images"] if manifest else []
    ledger = service.ledger()
    return {
        "landed": sum(1 for _ in _pictures(images)),
        "charges": ledger["count"],
        "duplicates": len(ledger["duplicates"]),
        "lost": len(lost(ledger["image_tasks"], listed)),
        "result_bytes": len(json.dumps(result)),
        "first_picture": first_picture(
            {image["id"]: Path(unquote(urlsplit(image["uri"]).path)).stat().st_mtime for image in listed},
            ledger["image_tasks"],
        ),
    }


def first_picture(written: Mapping[str, float], charged: list[dict[str, Any]]) -> Figures | None:
    """Return the ``latency`` of the picture that was there first, and its ``delay`` behind that, in seconds.

    :param written: When each file was written, by the id of its image task.
    :return: None where there is no picture.
    """
    if not written:
        return None
    first = min(written, key=written.__getitem__)
    task = next(task for task in charged if task["id"] == first)
    return {"latency": task["completed"] - task["created"], "delay": written[first] - task["completed"]}


def lost(charged: list[dict[str, Any]], listed: list[dict[str, Any]]) -> list[str]:
    """Return the ids of image tasks that were paid and of which the manifest has no image."""
    there = {image["id"] for image in listed}
    return [task["id"] for task in charged if not task["refunded"] and task["id"] not in there]


def state_sizes(folder: Path) -> Figures:
    """Return how many ``values`` a state store holds, bytes in ``total``, and the ``largest`` that was ever set."""
    kept = [path.stat().st_size for path in folder.glob("*.json")]
    written = (folder / "writes").read_text().split() if kept else []
    return {"values": len(kept), "total": sum(kept), "largest": max(map(int, written), default=0)}


@dataclass
class TaskRun:
    """A task instance, from its first attempt to its end: slice, wait, slice.

    :param folder: Where its state, its logs and its Airflow home are.
    :param connection: Airflow's connection as JSON.
    :param options: Of the operator.
    :param progress: Says how far the batch has come; only asked where a kill is due.
    :param say: Called with one line at a time.
    :param run_id: Of the DAG run.
    :param environment: Further variables of its processes.
    :param kills: How far the batch had come at each kill.
    :param waits: Seconds of each wait in the triggerer.
    """

    folder: Path
    connection: str
    options: Figures
    progress: Callable[[], int]
    say: Callable[[str], None]
    run_id: str = "run"
    environment: Mapping[str, str] = field(default_factory=dict)
    result: Figures = field(default_factory=dict)
    slices: list[Figures] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    event_bytes: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def run(self, kill_at: Sequence[int] = ()) -> None:
        """Run attempt after attempt until one succeeds or none is left.

        :param kill_at: Progress at which the worker process is killed, one point after the other.
        """
        points = list(kill_at)
        try_number = 1
        resume: Figures | None = None
        with self._child("triggerer") as triggerer:
            while try_number <= _RETRIES + 1:
                outcome = self._run_slice(try_number, resume, points[0] if points else None)
                resume = None
                if outcome["state"] == "deferred":
                    resume = self._wait(triggerer, outcome)
                    continue
                if outcome["state"] == "success":
                    self.result = outcome["result"]
                    return
                if outcome["state"] == "killed":
                    self.kills.append(self.progress())
                    points.pop(0)
                else:
                    self.errors.append(outcome["error"])
                    time.sleep(_RETRY_DELAY)
                try_number += 1

    def first_slice(self) -> Figures:
        """Run only the first worker process, and return what came of it."""
        return self._run_slice(1, None, None)

    def figures(self) -> Figures:
        """Return what it took."""
        return {
            "slices": self.slices,
            "longest_slice": max(each["seconds"] for each in self.slices),
            "idle_seconds": sum(each["idle_seconds"] for each in self.slices),
            "peak_bytes": max(each["peak_bytes"] for each in self.slices),
            "kills": self.kills,
            "waits": self.waits,
            "errors": self.errors[:5],
            "event_bytes": max(self.event_bytes, default=0),
            "ledger": state_sizes(self.folder / "state"),
        }

    def _child(self, role: str, *arguments: object) -> AbstractContextManager[Child]:
        folder = self.folder / role
        return child(folder, self.connection, "generate_process", role, *arguments, more=self.environment)

    def _run_slice(self, try_number: int, resume: Figures | None, kill_at: int | None) -> Figures:
        """Run one worker process to its end, or kill it once the batch has come so far."""
        began = time.time()
        with self._child("worker", self.folder / "state") as worker:
            job = {"options": self.options, "run_id": self.run_id, "retries": _RETRIES, "try_number": try_number}
            told_at = time.time()
            worker.send(**job, resume=resume)
            outcome = self._outcome(worker, kill_at)
        taken = {
            "end": outcome["state"],
            "try_number": try_number,
            "told_at": told_at,
            "seconds": time.time() - began,
            "cpu_seconds": outcome.pop("cpu_seconds", 0.0),
            "peak_bytes": outcome.pop("peak_bytes", 0),
            "idle_seconds": outcome.pop("idle_seconds", 0.0),
        }
        number = len(self.slices)
        self.slices.append(taken)
        shutil.copy(self.folder / "worker" / "process.log", self.folder / f"slice-{number}.log")
        self.say(f"slice {number}, try {try_number}: {taken['end']} after {taken['seconds']:.1f} s")
        return outcome

    def _outcome(self, worker: Child, kill_at: int | None) -> Figures:
        while kill_at is not None and not worker.has_answered(0.3):
            if self.progress() >= kill_at:
                worker.kill()
                return {"state": "killed"}
        return worker.receive()

    def _wait(self, triggerer: Child, outcome: Figures) -> Figures:
        """Return what to resume with."""
        began = time.time()
        event = triggerer.ask(trigger=outcome["trigger"])["event"]
        self.event_bytes.append(len(json.dumps(event)))
        self.waits.append(time.time() - began)
        self.say(f"waited {self.waits[-1]:.1f} s without a worker")
        return {"method": outcome["method"], "event": event}


def _complete(of: Figures) -> bool:
    """Whether every image is in place and every one was paid once."""
    return bool(of["landed"] == of["charges"] == of["count"] and not of["duplicates"] and not of["lost"])


def _paid(of: Figures) -> str:
    return f"{of['landed']:,} images, {of['charges']:,} charges"


def _sizes_in_words(of: Figures) -> str:
    sizes = (of["ledger"]["largest"], of["event_bytes"], of["result_bytes"])
    return f"{', '.join(f'{size:,} B' for size in sizes)} (ledger {of['ledger']['total'] / 1000:.0f} kB)"


def _sizes_met(ours: Figures, baseline: Figures) -> bool:
    return bool(
        ours["ledger"]["largest"] <= _STATE_VALUE and ours["event_bytes"] < 4000 and ours["result_bytes"] < 4000
    )


def _delay(of: Figures) -> float:
    return float(of["first_picture"]["delay"]) if of["first_picture"] else math.inf


def _scale_goals(title: str, today: float) -> list[Goal]:
    return [
        Goal(
            f"{title}: share of the account's submit rate, first process to last submit",
            "≥ 95 %, each image there, paid once",
            lambda of: f"{100 * of['submit_share']:.1f} % ({of['submit_seconds']:.0f} s); {_paid(of)}",
            lambda ours, _: ours["submit_share"] >= 0.95 and _complete(ours),
        ),
        Goal(
            "the same, to the last image",
            "more than before",
            lambda of: f"{100 * of['share']:.0f} % ({of['wall_seconds']:.0f} s)",
            lambda ours, _: ours["share"] > today,
            today=f"{100 * today:.0f} %",
        ),
        Goal(
            "the same: worker seconds held with nothing to do",
            "0",
            lambda of: f"{of['idle_seconds']:.0f} s of {sum(each['seconds'] for each in of['slices']):.0f} s",
            lambda ours, _: round(ours["idle_seconds"]) == 0,
        ),
        Goal(
            "the same: the first picture in place, after it was ready",
            f"≤ {_FIRST_PICTURE:.0f} s",
            lambda of: f"{_delay(of):.1f} s",
            lambda ours, _: _delay(ours) <= _FIRST_PICTURE,
        ),
        Goal(
            "the same: peak memory of its worker processes",
            "< 400 MB",
            lambda of: f"{of['peak_bytes'] / 1_000_000:.0f} MB",
            lambda ours, _: ours["peak_bytes"] < 400_000_000,
        ),
        Goal(
            "the same: largest state value, trigger event, XCom",
            f"≤ {_STATE_VALUE:,} B, < 4,000 B, < 4,000 B",
            _sizes_in_words,
            _sizes_met,
        ),
    ]


_KILL_GOAL = Goal(
    "1,000 requests in one Generate task, its worker killed 5 times",
    "charges = images, nothing lost",
    lambda of: f"{len(of['kills'])} kills, {_paid(of)}, {of['wall_seconds']:.0f} s",
    lambda ours, _: len(ours["kills"]) == 5 and _complete(ours),
)

_FIRST_GOAL = Goal(
    "1 and 20 requests in one Generate task: the first picture in place, after it was ready",
    f"≤ {_FIRST_PICTURE:.0f} s each",
    lambda of: ", ".join(f"{_delay(run):.1f} s" for run in of["runs"].values()),
    lambda ours, _: all(_delay(run) <= _FIRST_PICTURE and _complete(run) for run in ours["runs"].values()),
)

SCENARIOS = [
    *(
        Scenario(name, partial(measure, name), goals)
        for name, goals in (
            ("generate-2000", _scale_goals("2,000 requests in one Generate task, 5 submits/s", 0.71)),
            ("generate-10000", _scale_goals("10,000 requests in one Generate task, 33 submits/s", 0.69)),
            ("generate-kills", [_KILL_GOAL]),
        )
    ),
    Scenario("generate-first", measure_first, [_FIRST_GOAL]),
]
