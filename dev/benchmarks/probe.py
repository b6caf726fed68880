"""What a process can see of itself: how late its event loop is, how much memory and CPU it uses."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

_STEP = 0.05


class LagProbe:
    """Sleeps 50 ms again and again on the loop under test and notes how much longer each sleep took, in seconds."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_STEP)
            self.lags.append(max(0.0, time.perf_counter() - before - _STEP))


def resident_bytes() -> int:
    """Return this process's resident memory (Linux only)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
