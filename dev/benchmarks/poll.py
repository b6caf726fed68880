"""1,000 image tasks submitted at once; and 60 of them, several rounds: how late, at what price."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

from dev.benchmarks.bench import Bench, Figures, Measured
from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.figures import Spread, curve, reached
from dev.benchmarks.subject import SIDES, Report, Side, subject

_INTERVAL = 5.0


@dataclass(frozen=True)
class Case:
    """What one process under test is given: ``count`` image tasks of one account, submitted at once."""

    name: str
    side: Side
    count: int
    rates: Rates
    seed: int


@dataclass(frozen=True)
class Round:
    """What it made of them; moments are epoch seconds.

    :param completed: When the service says that each image task was completed.
    :param answers: How many answers of each status the status route gave.
    """

    count: int
    submitted: float
    completed: dict[str, float]
    answers: dict[int, int]
    report: Report

    def delays(self) -> list[float]:
        """Return the seconds from completion to detection of what was detected."""
        detected = self.report.detected
        return [moment - self.completed[image_task_id] for image_task_id, moment in detected.items()]


def play(bench: Bench, case: Case) -> Round:
    """Submit at once and let one process wait."""
    folder = bench.fresh(case.name)
    with account(folder, case.rates, case.seed) as bank:
        connection = bank.connection_json(query_rate=case.rates.queries)
        with subject(case.side, folder, connection, interval=_INTERVAL) as client:
            submitted = time.time()
            bought = bank.buy(case.count)
            client.watch(bought)
            bench.say(f"{case.name}: {case.count} image tasks submitted in {time.time() - submitted:.1f} s")
            report = client.report()
        made = Round(case.count, submitted, bank.completions(), bank.counts(), report)
    late = f"{Spread.of(made.delays()).mean:.1f} s late on average" if report.detected else "none detected"
    bench.say(f"{case.name}: {len(report.detected)} detected, {late}, answers {made.answers}")
    return made


def figures(rounds: Sequence[Round]) -> Figures:
    """Return the figures of several rounds, pooled."""
    answers: Counter[int] = Counter()
    for each in rounds:
        answers.update(each.answers)
    delays = [delay for each in rounds for delay in each.delays()]
    reports = [each.report for each in rounds]
    count = sum(each.count for each in rounds)
    return {
        "count": count,
        "detected": len(delays),
        "errors": [error for report in reports for error in report.errors][:5],
        "answers": answers.total(),
        "limited": answers[429],
        "statuses": {str(status): number for status, number in sorted(answers.items())},
        "polls_per_image": answers.total() / max(1, count),
        "delay": Spread.of(delays).as_dict() if delays else None,
        "delay_curve": curve(delays),
        "lag": max((dict(report.lag) for report in reports), key=lambda lag: lag["p99"]),
        "cpu_seconds": sum(report.cpu_seconds for report in reports),
        "scheduled_seconds": reports[0].scheduled_seconds,
        "completed_by": reached(rounds[0].completed.values(), rounds[0].submitted),
        "detected_by": reached(rounds[0].report.detected.values(), rounds[0].submitted),
    }


def thousand(bench: Bench) -> Measured:
    """Measure 1,000 image tasks at 50 queries a second, first ours, then the baseline, in turn."""
    count, rates = (30, Rates(queries=5, time_scale=0.8)) if bench.quick else (1000, Rates())
    cases = {side: Case(f"poll-1000-{side}", side, count, rates, bench.seed) for side in SIDES}
    sides = {side: figures([play(bench, case)]) for side, case in cases.items()}
    return Measured({"count": count, "interval": _INTERVAL, **asdict(rates)}, sides["ours"], sides["baseline"])


def sixty(bench: Bench) -> Measured:
    """Measure 60 image tasks, for which the budget does not bind; all rounds at once, each with its own account."""
    count, rounds, rates = (5, 1, Rates(time_scale=0.8)) if bench.quick else (60, 5, Rates())
    cases = [
        Case(f"poll-60-{side}-{number}", side, count, rates, bench.seed + number)
        for side, number in product(SIDES, range(rounds))
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        made = list(pool.map(partial(play, bench), cases))
    pooled = {
        side: figures([one for case, one in zip(cases, made, strict=True) if case.side == side]) for side in SIDES
    }
    setting = {"count": count, "rounds": rounds, "interval": _INTERVAL, **asdict(rates)}
    return Measured(setting, pooled["ours"], pooled["baseline"])
