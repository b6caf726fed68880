"""What one more waiting trigger costs.

- `memory`: nothing completes; resident memory with 20 triggers, and again with 1,000 more (200 for the baseline),
  each polled at least once.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from dev.benchmarks.child import child
from dev.benchmarks.emulator import Account, Rates, account
from dev.benchmarks.scenario import SIDES, Bench, Figures, Goal, Measured, Scenario, Side

#: Nothing completes; nothing is refused, so that what is counted is waiting and nothing else.
_RATES = Rates(query_rate=0.0, latency=100_000.0, sigma=0.0)
_QUERY_RATE = 200.0
#: Triggers that are there before: the first ones of a process import modules and open connections.
_WARM = 20
_LONGEST = 120.0


def measure(bench: Bench) -> Measured:
    """Measure both sides at once: neither needs the machine for itself."""
    more: dict[Side, int] = {"ours": 100, "baseline": 10} if bench.quick else {"ours": 1000, "baseline": 200}
    with ThreadPoolExecutor(len(SIDES)) as pool:
        ours, baseline = pool.map(lambda side: _measure_side(bench, side, more[side]), SIDES)
    return Measured({"query_rate": _QUERY_RATE, "warm": _WARM}, ours, baseline)


def _measure_side(bench: Bench, side: Side, more: int) -> Figures:
    """Compare a process that holds a few waiting triggers with the same process that holds many."""
    folder = bench.fresh(f"memory-{side}")
    with account(folder, _RATES, bench.seed) as service:
        connection = service.connection_json(query_rate=_QUERY_RATE)
        with child(folder, connection, "trigger_process", side) as triggers:
            submitted = service.submit(_WARM + more)
            triggers.send(watch=submitted[:_WARM])
            _until_polled(service, 2 * _WARM)
            before = int(triggers.ask(memory=True)["memory"])
            triggers.send(watch=submitted[_WARM:])
            _until_polled(service, 2 * (_WARM + more))
            after = int(triggers.ask(memory=True)["memory"])
            triggers.ask(end="cancel")
    bench.say(f"memory-{side}: {before / 1e6:.1f} MB, with {more} more waiting triggers {after / 1e6:.1f} MB")
    return {"triggers": more, "before": before, "after": after, "bytes_per_trigger": (after - before) / more}


def _until_polled(service: Account, polls: int) -> None:
    """Wait until so many polls were answered, and 5 s for what they leave behind to be cleared away."""
    deadline = time.monotonic() + _LONGEST
    while sum(service.counts().values()) < polls and time.monotonic() < deadline:
        time.sleep(1.0)
    time.sleep(5.0)


SCENARIOS = [
    Scenario(
        "memory",
        measure,
        [
            Goal(
                "resident memory of one more waiting trigger",
                "< 30 kB",
                lambda of: f"{of['bytes_per_trigger'] / 1000:.1f} kB",
                lambda ours, _: ours["bytes_per_trigger"] < 30_000,
            )
        ],
    )
]
