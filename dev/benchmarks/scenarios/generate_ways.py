"""What a way of making images occupies: worker slots and CPU of Airflow's processes, and what that means for more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from demo.sessions import members

_STEP = 0.2
_WORKER = "airflow worker -- LocalExecutor"
_IDLE = "<idle>"


@dataclass(frozen=True)
class Way:
    """What one way took.

    :param images: How many it made.
    :param measured: How many of those were really made; the rest is reckoned.
    :param wall_seconds: From the start of the DAG run to its end.
    :param worker_seconds: For which worker slots were occupied, all together.
    :param cpu_seconds: Of all of Airflow's processes, beyond what an idle Airflow uses.
    :param failed: How many images are missing of those that were really asked for.
    """

    images: int
    measured: int
    wall_seconds: float
    worker_seconds: float
    cpu_seconds: float
    failed: int

    def scaled(self, images: int, slots: int) -> Way:
        """Return what more images would take at least, with so many worker slots, each image costing what it costs.

        Slots and CPU grow in proportion. The wall clock grows by what the further images occupy of all slots: no slot
        is ever free, and no further image waits for its latency, which favours this way.

        :raises ValueError: It is not more.
        """
        if images < self.images or not self.images:
            raise ValueError(f"{self.images} images cannot stand for {images}")
        factor = images / self.images
        further = self.worker_seconds * (factor - 1)
        return replace(
            self,
            images=images,
            wall_seconds=self.wall_seconds + further / slots,
            worker_seconds=self.worker_seconds + further,
            cpu_seconds=self.cpu_seconds * factor,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def occupied(titles: Iterable[str]) -> int:
    """Return how many of these processes are worker slots with a task in them, by their titles."""
    return sum(_WORKER in title and _IDLE not in title for title in titles)


class Meter:
    """Watches the processes of a stack while something goes on.

    :param sessions: The sessions of its components.
    :param scheduler: The process whose children are the worker slots.
    """

    def __init__(self, sessions: list[int], scheduler: int) -> None:
        self._sessions = sessions
        self._scheduler = psutil.Process(scheduler)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.worker_seconds = 0.0
        self.cpu_seconds = 0.0
        self.seconds = 0.0

    def measure(self, work: Callable[[], None]) -> None:
        """Do something and note what it took."""
        before, began = self._cpu(), time.monotonic()
        self._thread.start()
        try:
            work()
        finally:
            self._over.set()
            self._thread.join()
        self.cpu_seconds, self.seconds = self._cpu() - before, time.monotonic() - began

    def _cpu(self) -> float:
        """Return the CPU seconds of all processes, those included that have ended and were waited for."""
        total = 0.0
        for pid in members(self._sessions):
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_STEP):
            now = time.monotonic()
            self.worker_seconds += occupied(self._titles()) * (now - last)
            last = now

    def _titles(self) -> Iterable[str]:
        for process in self._scheduler.children():
            try:
                yield " ".join(process.cmdline())
            except psutil.Error:
                continue
