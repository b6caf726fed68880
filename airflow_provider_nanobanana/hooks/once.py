"""Values that are made once each, whoever asks first, also when several threads ask at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

V = TypeVar("V")


class Once(Generic[V]):
    """Values by key, each made by the first who asks for it; the others wait for that one.

    A failure goes to everyone who waits and is forgotten: who asks later makes the value anew.

    :param made: Values that are there already.
    """

    def __init__(self, made: Mapping[str, V] | None = None) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, V] = dict(made or {})
        self._futures: dict[str, Future[V]] = {}

    def get(self, key: str, make: Callable[[], V]) -> V:
        """Return the value of a key, made by ``make`` where nobody made it yet."""
        with self._lock:
            if key in self._values:
                return self._values[key]
            future = self._futures.get(key)
            if future is None:
                ours = self._futures[key] = Future()
        return self._made(key, make, ours) if future is None else future.result()

    def values(self) -> dict[str, V]:
        """Return a copy of what was made so far."""
        with self._lock:
            return dict(self._values)

    def _made(self, key: str, make: Callable[[], V], future: Future[V]) -> V:
        try:
            value = make()
        except BaseException as failure:
            with self._lock:
                del self._futures[key]
            future.set_exception(failure)
            raise
        with self._lock:
            self._values[key] = value
            del self._futures[key]
        future.set_result(value)
        return value
