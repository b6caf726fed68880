"""What the DAG runs of a campaign want and how far they are: :class:`SeparateRuns`, :class:`OverlappingRuns`. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dev.stack.airflow_api import FINISHED, Record


class Workload(Protocol):
    """What runs want."""

    @property
    def task_id(self) -> str:
        """The mapped task that buys."""

    def sizes(self) -> list[int]:
        """Return the number of buying task instances of each run."""

    def conf(self, number: int, size: int, run_id: str, images: Path) -> dict[str, Any]:
        """Return the conf of a run, the first of which has number 0."""

    def wanted_by(self, number: int, run_id: str, map_index: int) -> frozenset[str]:
        """Return the prompts that a buying task instance asks for."""

    def done(self, instances: Sequence[Record], size: int) -> float:
        """Return how many of a run's buying task instances are done; what follows them counts as a part."""


@dataclass(frozen=True)
class SeparateRuns:
    """Submit, wait and download; each run has prompts and a destination of its own."""

    images: int
    run_size: int
    task_id: str = "submit"

    def sizes(self) -> list[int]:
        """Return one task instance an image."""
        whole, rest = divmod(self.images, self.run_size)
        return [self.run_size] * whole + ([rest] if rest else [])

    def conf(self, number: int, size: int, run_id: str, images: Path) -> dict[str, Any]:
        """Return the number of images and a folder of the run's own."""
        return {"images": size, "destination": (images / run_id).as_uri()}

    def wanted_by(self, number: int, run_id: str, map_index: int) -> frozenset[str]:
        """Return the one prompt of a submit, as the DAG makes it."""
        return frozenset({f"{run_id} {map_index}"})

    def done(self, instances: Sequence[Record], size: int) -> float:
        """Return how much is done, in images: 70 % is submitting, the rest waiting and downloading."""
        ended = [one["task_id"] for one in instances if one["state"] in FINISHED]
        begun = any(one["task_id"] == self.task_id and one["state"] == "running" for one in instances)
        share = 0.15 * ended.count("wait") + 0.15 * ended.count("download")
        return 0.7 * ended.count(self.task_id) + size * share + 0.01 * begun


@dataclass(frozen=True)
class OverlappingRuns:
    """Mapped batches at one destination: neighbours in a run share pictures, and so do neighbouring runs.

    :param images: Different pictures in all.
    :param run_size: Batches of a run.
    :param batch: Pictures of a batch; batch ``n`` of a run begins one picture after batch ``n - 1``.
    :param times: How many runs want a picture, about.
    """

    images: int
    run_size: int
    batch: int = 3
    times: float = 2.0
    task_id: str = "generate"

    @property
    def runs(self) -> int:
        """The number of runs."""
        return max(2, math.ceil(self.images * self.times / (self.run_size + self.batch - 1)))

    def sizes(self) -> list[int]:
        """Return one task instance a batch."""
        return [self.run_size] * self.runs

    def names(self, number: int, map_index: int) -> list[str]:
        """Return the names of the pictures of a batch."""
        first = number * self.images // self.runs + map_index
        return [f"picture-{(first + step) % self.images:03d}" for step in range(self.batch)]

    def conf(self, number: int, size: int, run_id: str, images: Path) -> dict[str, Any]:
        """Return the batches and the one folder."""
        batches = [[request(name) for name in self.names(number, index)] for index in range(size)]
        return {"batches": batches, "destination": (images / "all").as_uri()}

    def wanted_by(self, number: int, run_id: str, map_index: int) -> frozenset[str]:
        """Return the prompts of a batch."""
        return frozenset(request(name)["prompt"] for name in self.names(number, map_index))

    def done(self, instances: Sequence[Record], size: int) -> float:
        """Return how many batches are done."""
        own = [one["state"] for one in instances if one["task_id"] == self.task_id]
        return sum(state in FINISHED for state in own) + 0.01 * ("running" in own)


def request(name: str) -> dict[str, str]:
    """Return the request of a picture."""
    return {"name": name, "prompt": f"{name}, wanted by many"}


def names_in_place(stems: Sequence[str]) -> Mapping[str, int]:
    """Return of each picture of :class:`OverlappingRuns` how many files there are, by its prompt."""
    prompts = [request("-".join(stem.split("-")[:2]))["prompt"] for stem in stems]
    return {prompt: prompts.count(prompt) for prompt in prompts}
