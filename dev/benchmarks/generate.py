"""One Generate task with thousands of requests: how fast, in how much memory, with how much state, and killed."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from dev.benchmarks.bench import Bench, Figures, Measured
from dev.benchmarks.emulator import Account, Rates, account
from dev.benchmarks.scenarios.generate_store import Sizes
from dev.benchmarks.scenarios.generate_task import Played, TaskRun

#: Where there is a file system in memory, images go there: thousands of files are not what is measured.
_MEMORY = Path("/dev/shm")  # a folder of its own is made in it
#: Kills lie in this part of the way from the first submit to the last image in place.
_FIRST_KILL, _LAST_KILL = 0.02, 0.9


@dataclass(frozen=True)
class Size:
    """What is asked for, of which account.

    :param options: Of the operator.
    :param kills: How often the worker process is killed.
    """

    count: int
    rates: Rates
    options: Figures
    kills: int = 0


#: The default account and model, in real time.
_DEFAULT = Size(2000, Rates(submits=5), {"size": "1:1", "resolution": "1K"})
#: The largest account; small pictures, since two cores cannot draw and check 33 large ones a second.
_SVIP = Size(
    10_000,
    Rates(submits=100 / 3, queries=500),
    {"size": "1:1", "resolution": "0.5K", "model": "gemini-3.1-flash-image-preview"},
)
#: Four times the default account's rates and speed, so that five attempts more take minutes, not half an hour.
_KILLS = Size(1000, Rates(submits=20, queries=200, time_scale=0.25), _DEFAULT.options, kills=5)


def two_thousand(bench: Bench) -> Measured:
    """Measure 2,000 requests at the default limits, in real time."""
    quick = Size(40, Rates(submits=5, queries=50, time_scale=0.2), _DEFAULT.options)
    return _measured(bench, "generate-2000", quick if bench.quick else _DEFAULT)


def ten_thousand(bench: Bench) -> Measured:
    """Measure 10,000 requests at the limits of the largest account, in real time."""
    quick = Size(150, Rates(submits=100 / 3, queries=500, time_scale=0.1), _SVIP.options)
    return _measured(bench, "generate-10000", quick if bench.quick else _SVIP)


def kills(bench: Bench) -> Measured:
    """Kill the worker process five times at random points of the way; every attempt goes on where the last died."""
    quick = Size(60, Rates(submits=10, queries=100, time_scale=0.1), _DEFAULT.options, kills=1)
    return _measured(bench, "generate-kills", quick if bench.quick else _KILLS)


def kill_points(count: int, number: int, seed: int) -> list[int]:
    """Return at what progress to kill: images accepted plus images in place, so up to twice the count."""
    dice = random.Random(seed)
    return sorted(dice.sample(range(int(2 * count * _FIRST_KILL), int(2 * count * _LAST_KILL)), number))


def _measured(bench: Bench, name: str, size: Size) -> Measured:
    folder = bench.fresh(name)
    with ExitStack() as stack:
        parent = _MEMORY if _MEMORY.is_dir() else folder
        images = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-", dir=parent)))
        bank = stack.enter_context(account(folder, size.rates, bench.seed))
        connection = bank.connection_json(submit_rate=size.rates.submits, query_rate=size.rates.queries)
        prompts = [f"picture {number} of a catalogue" for number in range(size.count)]
        options = {**size.options, "requests": prompts, "destination": images.as_uri()}
        run = TaskRun(folder, connection, options, lambda: progress(bank, images), _named(bench, name))
        played = run.play(kill_points(size.count, size.kills, bench.seed))
        figures = _figures(size, played, bank, images) | {"ledger": Sizes.of(folder / "state").as_dict()}
    bench.say(f"{name}: {figures['landed']} of {size.count} in {figures['wall_seconds']:.0f} s")
    setting = {"count": size.count, **size.options, "kills": size.kills, **asdict(size.rates)}
    return Measured(setting, figures)


def _named(bench: Bench, name: str) -> Any:
    return lambda line: bench.say(f"{name}: {line}")


def progress(bank: Account, images: Path) -> int:
    """Return how many images were accepted plus how many are in place."""
    return sum(bank.counts("submit").get(status, 0) for status in (200, 201)) + sum(1 for _ in _pictures(images))


def _pictures(images: Path) -> Iterator[Path]:
    return (path for path in images.iterdir() if not path.name.startswith((".", "manifest-")))


def _figures(size: Size, played: Played, bank: Account, images: Path) -> Figures:
    books = _books(bank)
    created = [task["created"] for task in books["image_tasks"]]
    wall = played.ended - played.began
    submitting = max(created) - min(created) if created else 0.0
    manifest = played.result.get("manifest")
    listed = Path(unquote(urlsplit(manifest).path)).read_text() if manifest else '{"images": []}'
    polls, submits = bank.counts("status"), bank.counts("submit")
    return {
        "count": size.count,
        "landed": sum(1 for _ in _pictures(images)),
        "image_bytes": sum(path.stat().st_size for path in _pictures(images)),
        "charges": books["count"],
        "duplicates": len(books["duplicates"]),
        "lost": len(lost(books["image_tasks"], json.loads(listed)["images"])),
        "wall_seconds": wall,
        "share": size.count / (size.rates.submits * wall),
        "submit_seconds": submitting,
        "submit_share": size.count / (size.rates.submits * submitting) if submitting else 0.0,
        "first_image_seconds": min((path.stat().st_mtime for path in _pictures(images)), default=0.0) - played.began,
        "last_submit_seconds": max(created, default=0.0) - played.began,
        "polls": sum(polls.values()),
        "limited": {"submits": submits.get(429, 0), "polls": polls.get(429, 0)},
        **played.stretch_figures(),
        "tries": played.stretches[-1].try_number,
        "kills": played.kills,
        "waits": played.waits,
        "errors": played.errors[:5],
        "event_bytes": max(played.event_bytes, default=0),
        "trigger_bytes": max(played.trigger_bytes, default=0),
        "result_bytes": len(json.dumps(played.result)),
        "manifest_bytes": len(listed.encode()),
    }


def _books(bank: Account) -> dict[str, Any]:
    with httpx.Client(trust_env=False, timeout=60) as http:
        return dict(http.get(f"{bank.url}/emulator/ledger").raise_for_status().json())


def lost(charged: list[dict[str, Any]], landed: list[dict[str, Any]]) -> list[str]:
    """Return the ids of image tasks that were paid and of which the manifest has no image."""
    there = {image["id"] for image in landed}
    return [task["id"] for task in charged if not task["refunded"] and task["id"] not in there]
