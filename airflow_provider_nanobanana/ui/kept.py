"""``Kept``: what was made a while ago and is still right; the last used ones, up to a number and a weight."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key; safe to use from several threads.

    :param most: Values.
    :param most_weight: Of all of them together.
    :param weigh: Returns the weight of one.
    """

    def __init__(self, most: int, most_weight: int, weigh: Callable[[T], int]) -> None:
        self._most, self._most_weight, self._weigh = most, most_weight, weigh
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._weight = 0

    def get(self, key: Hashable, seconds: float, make: Callable[[], T]) -> T:
        """Return a value that is at most so old, a new one where there is none."""
        now = time.monotonic()
        with self._lock:
            made_at, value = self._values.get(key, (None, None))
            if made_at is not None and now - made_at < seconds:
                self._values.move_to_end(key)
                return value  # type: ignore[return-value]
        value = make()
        with self._lock:
            self._drop(key)
            self._values[key] = (now, value)
            self._weight += self._weigh(value)
            while len(self._values) > self._most or self._weight > self._most_weight:
                self._drop(next(iter(self._values)))
        return value

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()
            self._weight = 0

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self._weight -= self._weigh(self._values.pop(key)[1])
