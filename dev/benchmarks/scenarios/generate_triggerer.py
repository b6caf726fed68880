"""The process in which a deferred Generate task waits: each trigger is rebuilt from JSON, its first event is told."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from functools import partial
from typing import Any

from dev.benchmarks.child import answer, own_stdout


async def fire(path: str, kwargs: dict[str, Any]) -> Any:
    """Run a trigger until its first event, and return what is in it."""
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**kwargs)
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def main() -> None:
    """Serve one parent on one event loop, as a triggerer does."""
    tell = partial(answer, own_stdout())
    tell({"ready": True})
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            tell({"event": runner.run(fire(**json.loads(line)))})


if __name__ == "__main__":
    main()
