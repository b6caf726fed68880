"""What each shape must keep: pictures are bought by one task and by three, and a clear of both buys nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_api import AirflowApi
from tests.system.harness import Run

GENERATE = "nanobanana_generate"
PIPELINE = "nanobanana_pipeline"
#: What clears must run again; the other tasks buy and land nothing.
_TASKS = {GENERATE: ("pictures",), PIPELINE: ("submit", "wait", "download")}


@dataclass(frozen=True)
class Place:
    """Where pictures are landed.

    :param uri: Gives the destination of a folder's name.
    :param pictures: Gives the pictures of such a folder by name, each with the hash of its bytes.
    """

    uri: Callable[[str], str]
    pictures: Callable[[str], dict[str, str]]


def local_place(folder: Path) -> Place:
    """Return the folders below a local one."""

    def pictures(name: str) -> dict[str, str]:
        found = (folder / name).glob("*.png")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    return Place(lambda name: (folder / name).as_uri(), pictures)


def start(api: AirflowApi, dag_id: str, **conf: Any) -> Run:
    """Start a run."""
    api.wait_for_dag(dag_id)
    return Run(api, dag_id, api.trigger(dag_id, conf))


def buy(api: AirflowApi, emulator: Emulator, place: Place) -> tuple[Run, Run]:
    """Buy three pictures in each form, at once; each is charged once, and in place.

    :return: The run with one task, and the one with three.
    """
    wanted = {dag_id: [f"{dag_id} {number}" for number in range(3)] for dag_id in _TASKS}
    runs = [start(api, dag_id, prompts=prompts, destination=place.uri(dag_id)) for dag_id, prompts in wanted.items()]
    for run in runs:
        assert run.wait(420) == "success", run.states()
    charged = charges(emulator)
    for prompt in (prompt for prompts in wanted.values() for prompt in prompts):
        assert charged[prompt] == 1, (prompt, charged)
    for dag_id in wanted:
        assert len(place.pictures(dag_id)) == 3, dag_id
    return runs[0], runs[1]


def clear(runs: Iterable[Run], emulator: Emulator, place: Place) -> None:
    """Clear runs and let them end again: nothing is charged, and no picture is written anew."""
    charged = charges(emulator)
    pictures = {dag_id: place.pictures(dag_id) for dag_id in _TASKS}
    run_again(runs)
    assert charges(emulator) == charged
    assert {dag_id: place.pictures(dag_id) for dag_id in _TASKS} == pictures


def run_again(runs: Iterable[Run]) -> None:
    """Clear runs and let them end again."""
    before = {run: _tries(run) for run in runs}
    for run in before:
        run.clear(*_TASKS[run.dag_id])
    for run, tries in before.items():
        assert run.wait(420) == "success", run.states()
        # It did run again; Airflow may have needed more tries for it.
        assert all(number > first for number, first in zip(_tries(run), tries, strict=True)), (tries, _tries(run))


def _tries(run: Run) -> list[int]:
    found = [one for task in _TASKS[run.dag_id] for one in run.instances(task)]
    return [one["try_number"] for one in sorted(found, key=lambda one: (one["task_id"], one["map_index"]))]


def charges(emulator: Emulator) -> dict[str, int]:
    """Return how often each prompt was charged, refunds left out."""
    return dict(Counter(task["prompt"] for task in emulator.ledger()["image_tasks"] if not task["refunded"]))
