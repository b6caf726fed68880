"""Ten thousand waits, one trigger each, in one process.

- `poll-10000`: 10,000 image tasks submitted as fast as the service takes them, 500 queries/s, latencies as ever. The
  bound is simulated: for the moments at which the service's ledger says that each was created and completed, what our
  schedule comes to when each query is answered at once and one leaves every 2 ms exactly. It is our own schedule, so a
  worse one raises the bound as well: this goal watches what transport and event loop add, and `poll-1000` watches the
  schedule, against a constant. Full garbage collections are measured apart, and so is what one takes before there is
  any trigger: Python halts the process for them, and what it looks through is mostly Airflow's. The baseline is 10,000
  of Airflow's own `DateTimeTrigger`, which ask nobody anything.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.polling.schedule import PollQueue, first_poll_at, next_poll_at
from dev.benchmarks.child import child
from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.scenario import POLL_INTERVAL, Bench, Figures, Goal, Measured, Scenario, seconds, spread

_WARM = 20
_LONGEST = 400.0


def measure(bench: Bench) -> Measured:
    """Measure our triggers, then as many of Airflow's own."""
    count = 200 if bench.quick else 10_000
    rates = Rates(query_rate=20, time_scale=0.3) if bench.quick else Rates(query_rate=500)
    ours = _ours(bench, count, rates)
    airflow = _airflow(bench, count)
    note = f"{count:,} of Airflow's own DateTimeTriggers, which ask nobody"
    return Measured({"count": count, "interval": POLL_INTERVAL, **asdict(rates)}, ours, airflow, [note])


def _ours(bench: Bench, count: int, rates: Rates) -> Figures:
    folder = bench.fresh("poll-10000-ours")
    with account(folder, rates, bench.seed) as service:
        connection = service.connection_json(query_rate=rates.query_rate)
        with child(folder, connection, "waits_process", "ours") as process:
            process.ask(warm=service.submit(_WARM))
            submitted = service.submit(count)
            process.send(watch=submitted)
            bench.say(f"poll-10000: {count} submitted")
            report = process.ask(end=_LONGEST)
        completed = {task["id"]: task["completed"] for task in service.ledger()["image_tasks"]}
        statuses = service.counts()
    wanted = dict(submitted)
    delays = [at - completed[one] for one, at in report["detected"].items() if one in wanted]
    bound = simulated_delay(
        [(wanted[one], completed[one]) for one in wanted if completed[one] is not None],
        rate=rates.query_rate,
        interval=POLL_INTERVAL,
        begin=report["began"],
        seed=bench.seed,
    )
    bench.say(f"poll-10000: {len(delays)} detected, {fmean(delays):.2f} s late, bound {bound:.2f} s")
    return {
        "count": count,
        "detected_count": len(delays),
        "delay": spread(delays),
        "bound": bound,
        "answers": sum(statuses.values()),
        "limited": statuses.get(429, 0),
        **_figures(report, count),
    }


def _airflow(bench: Bench, count: int) -> Figures:
    folder = bench.fresh("poll-10000-airflow")
    targets = [(str(number), time.time()) for number in range(count + _WARM)]
    with child(folder, "{}", "waits_process", "airflow") as process:
        process.ask(warm=targets[:_WARM])
        process.send(watch=targets[_WARM:])
        report = process.ask(end=5.0 if bench.quick else 30.0)
    bench.say("poll-10000: Airflow's own triggers measured")
    return {"count": count, "delay": None, **_figures(report, count)}


def _figures(report: Figures, count: int) -> Figures:
    kept = ("errors", "stall", "start_stall", "collections", "own_collection", "cpu_seconds")
    sizes = {"bytes_per_wait": report["memory"] / count, "peak_bytes_per_wait": report["peak"] / count}
    return {name: report[name] for name in kept} | sizes


def simulated_delay(
    moments: Sequence[tuple[float, float]], *, rate: float, interval: float, begin: float, seed: int
) -> float:
    """Return the mean seconds from completion to detection with queries that are answered at once.

    :param moments: When each image task was created and completed, in epoch seconds.
    :param rate: Queries per second, evenly spaced.
    :param begin: When waiting begins.
    """
    dice = random.Random(seed)
    queue, latencies = PollQueue(), LatencyEstimator()
    tasks = {str(number): moment for number, moment in enumerate(moments)}
    for name, (created, _) in tasks.items():
        queue.add(name, first_poll_at(created, latencies.first_poll_age("x"), now=begin), math.inf)
    delays: list[float] = []
    now = begin
    while (following := queue.next_moment(rate)) is not None:
        now = max(now + 1 / rate, following)
        due = queue.pop_due(now, rate)
        if due is None:
            continue
        created, completed = tasks[due[0]]
        if completed > now:
            queue.requeue(due[0], next_poll_at([interval], None, now=now, jitter=dice.uniform(-1, 1)))
            continue
        queue.discard(due[0])
        latencies.observe("x", completed - created)
        delays.append(now - completed)
    return fmean(delays)


def _ratio(of: Figures) -> float:
    return float(of["delay"]["mean"] / of["bound"]) if of["delay"] else math.inf


def _delay(of: Figures) -> str:
    if not of["delay"]:
        return "asks nobody"
    found = f"{of['detected_count']:,} of {of['count']:,} detected"
    return f"{_ratio(of):.2f} times ({of['delay']['mean']:.1f} s of {of['bound']:.1f} s); {found}"


def _stall(of: Figures) -> str:
    collections = of["collections"]
    return (
        f"{seconds(of['stall'])}; {collections['count']} full collections of up to {seconds(collections['longest'])} "
        f"({seconds(of['own_collection'])} without any trigger)"
    )


def _memory(of: Figures) -> str:
    return f"{of['bytes_per_wait'] / 1000:.1f} kB (at most {of['peak_bytes_per_wait'] / 1000:.1f} kB while they poll)"


def _on_time(ours: Figures, _: Mapping[str, object]) -> bool:
    return _ratio(ours) <= 1.15 and ours["detected_count"] == ours["count"] and not ours["errors"]


SCENARIOS = [
    Scenario(
        "poll-10000",
        measure,
        [
            Goal(
                "10,000 image tasks, one trigger each, 500 queries/s: mean delay over the simulated bound",
                "≤ 1.15 times, every one detected",
                _delay,
                _on_time,
            ),
            Goal(
                "the same: longest stall of the event loop, starting included; full garbage collections apart",
                "< 50 ms",
                _stall,
                lambda ours, _: ours["stall"] < 0.05,
            ),
            Goal(
                "the same: memory that a waiting trigger adds",
                "< 6 kB",
                _memory,
                lambda ours, _: ours["bytes_per_wait"] < 6_000,
                today="8.6 kB",
            ),
        ],
    )
]
