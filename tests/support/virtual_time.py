"""An event loop whose clock jumps: hours of waiting pass in milliseconds, and a wait for nothing is an error."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

#: Where the virtual wall clock starts, in epoch seconds.
START = 1_790_000_000.0


class _Selector(selectors.DefaultSelector):
    """Passes the time instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits and nothing will ever happen")
        self.passed += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in which ``asyncio.sleep`` takes no time."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.passed

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        raise AssertionError(context["message"])


def now() -> float:
    """Return the virtual wall clock, in epoch seconds."""
    return START + asyncio.get_running_loop().time()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end and check that nothing is left running."""

    async def alone() -> T:
        try:
            return await coroutine
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"left running: {left}"

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(alone())
