"""What one more waiting trigger costs in resident memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from dev.benchmarks.bench import Bench, Figures, Measured
from dev.benchmarks.emulator import Account, Rates, account
from dev.benchmarks.subject import SIDES, Side, subject

#: Nothing completes; nothing is refused, so that what is counted is waiting and nothing else.
_RATES = Rates(queries=0.0, latency=100_000.0, sigma=0.0)
_QUERY_RATE = 200.0
#: Triggers that are there before: the first ones of a process import modules and open connections.
_WARM = 20
_SETTLE = 5.0
_LONGEST = 120.0


def memory(bench: Bench) -> Measured:
    """Measure both sides at once: neither needs the machine for itself."""
    more: dict[Side, int] = {"ours": 100, "baseline": 10} if bench.quick else {"ours": 1000, "baseline": 200}
    with ThreadPoolExecutor(len(SIDES)) as pool:
        ours, baseline = pool.map(lambda side: measure(bench, side, more[side]), SIDES)
    return Measured({"query_rate": _QUERY_RATE, "warm": _WARM}, ours, baseline)


def measure(bench: Bench, side: Side, more: int) -> Figures:
    """Compare a process that holds a few waiting triggers with the same process that holds many."""
    folder = bench.fresh(f"memory-{side}")
    with account(folder, _RATES, bench.seed) as bank:
        connection = bank.connection_json(query_rate=_QUERY_RATE)
        with subject(side, folder, connection, limit=1000) as client:
            bought = bank.buy(_WARM + more)
            client.watch(bought[:_WARM])
            _until_polled(bank, 2 * _WARM)
            before = client.memory()
            client.watch(bought[_WARM:])
            _until_polled(bank, 2 * _WARM + 2 * more)
            after = client.memory()
            client.report(stop=True)
    bench.say(f"memory-{side}: {before / 1e6:.1f} MB, with {more} more waiting triggers {after / 1e6:.1f} MB")
    return {"triggers": more, "before": before, "after": after, "bytes_per_trigger": (after - before) / more}


def _until_polled(bank: Account, polls: int) -> None:
    """Wait until so many polls were answered, and a little for what they leave behind to be cleared away."""
    deadline = time.monotonic() + _LONGEST
    while sum(bank.counts().values()) < polls and time.monotonic() < deadline:
        time.sleep(1.0)
    time.sleep(_SETTLE)
