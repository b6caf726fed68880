"""An account of 500 queries a second and 5,000 image tasks in one process: how much of the rate is used."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from statistics import NormalDist

from dev.benchmarks.bench import Bench, Measured
from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.figures import per_second
from dev.benchmarks.subject import subject

#: The window begins so many seconds after the first poll.
_RUN_UP = 2.0
_NO_BASELINE = "not run: 5,000 clients of their own need about 4.4 GB and three minutes of blocked loop to open"


def five_thousand(bench: Bench) -> Measured:
    """Measure polls per second while more polls are wanted than the account allows.

    Polls are wanted by what is unfinished, every ``interval`` seconds: the budget binds until only
    ``queries * interval`` image tasks are unfinished, a moment that follows from the distribution of the latencies.
    """
    count, interval = (100, 5.0) if bench.quick else (5000, 5.0)
    rates = Rates(queries=10, time_scale=1.2) if bench.quick else Rates(queries=500, time_scale=3.0)
    folder = bench.fresh("poll-5000")
    with account(folder, rates, bench.seed) as bank:
        connection = bank.connection_json(query_rate=rates.queries)
        with subject("ours", folder, connection, interval=interval, limit=600) as client:
            bought = bank.buy(count)
            end = min(created for _, created in bought) + slack_age(rates, count, interval)
            client.watch(bought)
            bench.say(f"poll-5000: {count} image tasks; more polls wanted than allowed for {end - time.time():.0f} s")
            time.sleep(max(0.0, end - time.time()))
            bank.complete_all()
            report = client.report()
        answers = [answer for answer in bank.answers() if answer.point == "status"]
        limited = bank.counts().get(429, 0)
    start = min(answer.at for answer in answers) + _RUN_UP
    rate = per_second((answer.at for answer in answers if answer.status == 200), start, end)
    bench.say(f"poll-5000: {rate:.0f} polls/s over {end - start:.0f} s, {len(report.detected)} detected")
    ours = {
        "count": count,
        "detected": len(report.detected),
        "polls_per_second": rate,
        "window_seconds": end - start,
        "limited": limited,
        "answers": len(answers),
        "lag": dict(report.lag),
        "cpu_seconds": report.cpu_seconds,
        "scheduled_seconds": report.scheduled_seconds,
    }
    return Measured({"count": count, "interval": interval, **asdict(rates)}, ours, None, [_NO_BASELINE])


def slack_age(rates: Rates, count: int, interval: float) -> float:
    """Return the age at which so many of ``count`` image tasks have ended that the rate serves the rest.

    :raises ValueError: The rate serves all of them.
    """
    finished = 1 - rates.queries * interval / count
    if finished <= 0:
        raise ValueError("the rate serves all of them: no budget binds")
    return rates.latency * rates.time_scale * math.exp(rates.sigma * NormalDist().inv_cdf(finished))
