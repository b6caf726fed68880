"""What it costs that purchases are claimed beside their files: the same Generate task with and without claims.

- `claims`, `claims-s3`: tasks of 2,000 requests with `claims="off"` and `"auto"` by turns (off, auto, auto, off; with
  the store one of each), into a folder of the machine's disk, and into a store that speaks S3 (moto's, 40 ms added to
  each call). The account allows 40 submits a second (25 with the store), eight (five) times the default, so that what
  claims cost shows; nothing completes meanwhile. Seconds run from when the worker process has loaded Airflow to the
  last submit as the service saw it, means where there are two runs. The load is the system's, of one minute, before and
  after each run; two cores have nothing left at 2. The processes run at a higher priority than others (nice -10).
- The other run of the 2,000 begins when all are bought and none is done; its seconds are those of its first worker
  process, which finds the image task of each and waits. With the store that takes minutes, as moto looks through all
  its files for each listing; the calls are per image of all 2,000. The next run finds 10,000 images of 0.5K (1,000 in
  the store) that were put there beforehand, verifies each and buys nothing; its seconds are those of the whole task.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal

from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.emulator.images import ImageSpec, render
from dev.benchmarks.child import Child, child
from dev.benchmarks.emulator import Account, Rates, account
from dev.benchmarks.generate import TaskRun
from dev.benchmarks.s3_process import BUCKET
from dev.benchmarks.scenario import Bench, Figures, Goal, Measured, Scenario

Kind = Literal["local", "s3"]
_MODEL = "gemini-3.1-flash-image-preview"
_OPTIONS = {"size": "1:1", "resolution": "0.5K", "model": _MODEL}
_PIXELS = 512


@dataclass(frozen=True)
class Sizes:
    """What is asked for.

    :param rate: Submits a second that the account allows.
    :param in_place: Requests of the next run.
    :param delay: Seconds added to each call to the store.
    :param turns: Without and with claims, in this order.
    """

    rate: float
    count: int = 2000
    in_place: int = 10_000
    delay: float = 0.0
    turns: tuple[str, ...] = ("off", "auto", "auto", "off")


_SIZES: dict[Kind, Sizes] = {"local": Sizes(40.0), "s3": Sizes(25.0, in_place=1000, delay=0.04, turns=("off", "auto"))}
_QUICK: dict[Kind, Sizes] = {
    "local": Sizes(20.0, count=40, in_place=50),
    "s3": Sizes(10.0, count=40, in_place=50, delay=0.04),
}
_DEFAULT_RATE = 5.0
#: Queries a second; not what is measured.
_QUERY_RATE = 500.0


@dataclass
class Place:
    """Where images go, fresh for each run.

    :param environment: What workers need for it.
    """

    root: str
    environment: dict[str, str] = field(default_factory=dict)

    def destination(self, name: str) -> str:
        """Return a destination that nobody else has."""
        return f"{self.root}/{name}"

    def calls(self) -> dict[str, int]:
        """Return the calls to the store since this was last asked, by kind; none for a folder."""
        return {}

    def put(self, destination: str, names: list[str], content: bytes) -> None:
        """Put files there, past everything that is measured."""
        folder = Path(destination.removeprefix("file://"))
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(content)


@dataclass
class StorePlace(Place):
    """A bucket of the slow store."""

    store: Child | None = None
    endpoint: str = ""
    delay: float = 0.0

    def calls(self) -> dict[str, int]:
        assert self.store is not None
        return dict(self.store.ask(count=True)["calls"])

    def put(self, destination: str, names: list[str], content: bytes) -> None:
        import boto3

        assert self.store is not None
        self.store.ask(delay=0.0)
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=self.endpoint, **keys)
        prefix = destination.partition(f"{BUCKET}/")[2]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content), names))
        self.store.ask(delay=self.delay)


@contextmanager
def place(kind: Kind, folder: Path, delay: float) -> Iterator[Place]:
    """Give a place for images for a while."""
    if kind == "local":
        images = folder / "images"
        yield Place(images.as_uri())
        shutil.rmtree(images, ignore_errors=True)
        return
    with child(folder / "store", "{}", "s3_process", delay) as store:
        endpoint = store.receive()["endpoint"]
        extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": "a-key", "password": "a-secret", "extra": extra}
        environment = {"AIRFLOW_CONN_STORE": json.dumps(connection), "AWS_EC2_METADATA_DISABLED": "true"}
        yield StorePlace(f"s3://store@{BUCKET}", environment, store, endpoint, delay)


def measure(kind: Kind, bench: Bench) -> Measured:
    """Measure all of it at one destination."""
    sizes = (_QUICK if bench.quick else _SIZES)[kind]
    folder = bench.fresh(f"claims-{kind}")
    with place(kind, folder, sizes.delay) as where:
        figures = _compare(bench, folder, where, sizes.count, sizes.rate, turns=sizes.turns)
        figures["overlap"] = _overlap(bench, folder, where, sizes.rate, sizes.count)
        figures["rerun"] = _rerun(bench, folder, where, sizes.in_place)
    return Measured(asdict(sizes), figures)


def _requests(count: int) -> list[dict[str, str]]:
    return [{"prompt": "one picture of a catalogue", "name": f"picture-{number}"} for number in range(count)]


def _task(bench: Bench, folder: Path, connection: str, where: Place, options: Figures) -> TaskRun:
    return TaskRun(
        folder,
        connection,
        {**_OPTIONS, **options},
        progress=lambda: 0,
        say=lambda line: bench.say(f"claims: {folder.name}: {line}"),
        run_id=folder.name,
        environment=where.environment,
    )


def _connection(service: Account, rate: float) -> str:
    return service.connection_json(submit_rate=rate, query_rate=_QUERY_RATE)


def _compare(bench: Bench, folder: Path, where: Place, count: int, rate: float, *, turns: Sequence[str]) -> Figures:
    """Buy the same with and without claims by turns, each time at a destination of its own."""
    runs: dict[str, list[Figures]] = {"off": [], "auto": []}
    for turn, mode in enumerate(turns):
        name = f"{count}-{turn}-{mode}"
        (folder / name).mkdir()
        with account(
            folder / name, Rates(submit_rate=rate, query_rate=_QUERY_RATE, latency=7200, sigma=0), bench.seed
        ) as service:
            options = {"requests": _requests(count), "destination": where.destination(name), "claims": mode}
            run = _task(bench, folder / name, _connection(service, rate), where, options)
            where.calls()
            load = os.getloadavg()[0]
            run.first_slice()
            made = {**_bought(service, run, rate), "load": [load, os.getloadavg()[0]], "calls": where.calls()}
        runs[mode].append(made)
        bench.say(f"claims: {name}: {made}")
    seconds = {mode: fmean(one["to_last_submit"] for one in made) for mode, made in runs.items()}
    return {
        "count": count,
        "rate": rate,
        "runs": runs,
        "seconds": seconds,
        "share": {mode: fmean(one["share"] for one in made) for mode, made in runs.items()},
        "ratio": seconds["auto"] / seconds["off"],
        "calls_per_image": {mode: _per_image(made, count) for mode, made in runs.items()},
    }


def _bought(service: Account, run: TaskRun, rate: float) -> Figures:
    began = run.slices[0]["told_at"]
    accepted = sorted(answer["at"] for answer in service.answers("submit") if answer["status"] == 200)
    return {
        "to_first_submit": accepted[0] - began,
        "to_last_submit": accepted[-1] - began,
        "share": (len(accepted) - 1) / (rate * (accepted[-1] - accepted[0])),
        "charges": service.ledger()["count"],
        "limited": service.counts("submit").get(429, 0),
        "worker_cpu_seconds": sum(one["cpu_seconds"] for one in run.slices),
        "slices": len(run.slices),
        "errors": run.errors,
    }


def _per_image(runs: list[Figures], count: int) -> dict[str, float]:
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run["calls"])
    return {kind: number / (count * len(runs)) for kind, number in sorted(total.items())}


def _rerun(bench: Bench, folder: Path, where: Place, count: int) -> Figures:
    """Ask for what is in place already."""
    destination = where.destination("rerun")
    (folder / "rerun").mkdir()
    items = build_items(_requests(count), defaults=_OPTIONS, default_model=_MODEL, digest_of=lambda _: "")
    picture = render(ImageSpec("one picture", "in place", _PIXELS, _PIXELS))
    where.put(destination, [f"{item.stem()}.png" for item in items], picture)
    with account(folder / "rerun", Rates(submit_rate=5, query_rate=_QUERY_RATE), bench.seed) as service:
        options = {"requests": _requests(count), "destination": destination}
        run = _task(bench, folder / "rerun", _connection(service, _DEFAULT_RATE), where, options)
        where.calls()
        began, load = time.time(), os.getloadavg()[0]
        run.run()
        figures = {
            "count": count,
            "seconds": time.time() - began,
            "charges": service.ledger()["count"],
            "reused": run.result.get("reused"),
            "worker_cpu_seconds": run.slices[0]["cpu_seconds"],
            "load": [load, os.getloadavg()[0]],
            "calls_per_image": _per_image([{"calls": where.calls()}], count),
        }
    bench.say(f"claims: rerun: {figures}")
    return figures


def _overlap(bench: Bench, folder: Path, where: Place, rate: float, count: int) -> Figures:
    """Run a task that wants what another one has bought and waits for."""
    destination = where.destination("overlap")
    with account(folder, Rates(submit_rate=rate, query_rate=_QUERY_RATE, latency=7200, sigma=0), bench.seed) as service:
        for name in ("first", "second"):
            (folder / name).mkdir()
            options = {"requests": _requests(count), "destination": destination}
            run = _task(bench, folder / name, _connection(service, rate), where, options)
            where.calls()
            asked = sum(service.counts("status").values())
            began, load = time.time(), os.getloadavg()[0]
            outcome = run.first_slice()
            figures = {
                "count": count,
                "rate": rate,
                "state": outcome["state"],
                "seconds": time.time() - began,
                "charges": service.ledger()["count"],
                "queries_per_image": (sum(service.counts("status").values()) - asked) / count,
                "worker_cpu_seconds": run.slices[0]["cpu_seconds"],
                "load": [load, os.getloadavg()[0]],
                "calls_per_image": _per_image([{"calls": where.calls()}], count),
            }
            bench.say(f"claims: overlap, {name}: {figures}")
    return figures


def _seconds(of: Figures) -> str:
    change = 100 * (of["ratio"] - 1)
    loads = [load for runs in of["runs"].values() for run in runs for load in run["load"]]
    seconds = of["seconds"]
    return (
        f"{seconds['auto']:.1f} s, without claims {seconds['off']:.1f} s ({change:+.1f} %; the machine's load was "
        f"{min(loads):.0f} to {max(loads):.0f})"
    )


def _took(of: Figures) -> str:
    return f"{of['seconds']:.0f} s, {of['worker_cpu_seconds']:.0f} s of CPU (load {fmean(of['load']):.0f})"


def _tried(of: Figures) -> str:
    """Say how many of its images a first slice came to, where that shows: each costs one try to claim it."""
    tries = of["calls_per_image"].get("PUT claims", 1.0)
    return "" if tries >= 1 else f"; it came to {100 * tries:.0f} % of its images in that slice"


def _calls(of: Figures) -> str:
    """Return the calls of one image in words, the most frequent first; what is rarer than one in 200 is left out."""
    kinds = sorted(of.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{number:.2g} {kind}" for kind, number in kinds if number >= 0.005)


def _more_calls(of: Figures) -> dict[str, float]:
    """Return what claims add to the calls of one image."""
    off, auto = (of["calls_per_image"][mode] for mode in ("off", "auto"))
    return {kind: number - off.get(kind, 0.0) for kind, number in auto.items()}


def _is_as_fast(of: Figures) -> bool:
    """Whether claims cost 5 % at most, and each image was paid once."""
    paid_once = all(run["charges"] == of["count"] for runs in of["runs"].values() for run in runs)
    return bool(paid_once and of["ratio"] <= 1.05)


def _goals(where: str) -> list[Goal]:
    return [
        Goal(
            f"2,000 requests with claims, {where}: seconds to the last submit",
            "at most 5 % more than without, each paid once",
            _seconds,
            lambda ours, _: _is_as_fast(ours),
        ),
        Goal(
            "the same: share of the submit rate, first to last submit",
            "at most 5 % less than without",
            lambda of: f"{100 * of['share']['auto']:.1f} %, without claims {100 * of['share']['off']:.1f} %",
            lambda ours, _: ours["share"]["auto"] >= 0.95 * ours["share"]["off"],
        ),
        Goal(
            "another run of them while they are being made",
            "no further charge",
            lambda of: f"{of['overlap']['charges']:,} charges for both, {_took(of['overlap'])}{_tried(of['overlap'])}",
            lambda ours, _: (
                ours["overlap"]["charges"] == ours["overlap"]["count"] and ours["overlap"]["state"] == "deferred"
            ),
        ),
        Goal(
            f"next run of requests whose images are in place, {where}",
            "0 charges",
            lambda of: f"{of['rerun']['charges']} charges for {of['rerun']['count']:,}, {_took(of['rerun'])}",
            lambda ours, _: ours["rerun"]["charges"] == 0 and ours["rerun"]["reused"] == ours["rerun"]["count"],
        ),
    ]


_STORE_GOALS = [
    Goal(
        "the same: calls to the store that claims add to an image; in a run that shares all; in one that reuses all",
        "1 PUT and books",
        lambda of: "; ".join(
            map(_calls, (_more_calls(of), of["overlap"]["calls_per_image"], of["rerun"]["calls_per_image"]))
        ),
        lambda ours, _: sum(_more_calls(ours).values()) <= 1.1,
    ),
]

SCENARIOS = [
    Scenario("claims", partial(measure, "local"), _goals("local folder")),
    Scenario("claims-s3", partial(measure, "s3"), [*_goals("S3 + 40 ms a call"), *_STORE_GOALS]),
]
