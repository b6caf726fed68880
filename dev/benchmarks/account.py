"""Two triggerer processes and 32 workers on one account: does everybody get along without being refused?"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from dev.benchmarks.bench import Bench, Figures, Measured
from dev.benchmarks.child import Child, child
from dev.benchmarks.emulator import Account, Answer, Rates, account
from dev.benchmarks.figures import Window, together, windows
from dev.benchmarks.subject import Report, Side, Subject, subject

_WIDTH = 10.0
_TRIGGERERS = 2
#: After the last submit what still runs is completed, so that a run ends in time.
_LAST_LOOKS = 5.0


@dataclass(frozen=True)
class Size:
    """How much is going on.

    :param waiting: Image tasks that are waited for from the start, shared out among the triggerers.
    :param seconds: For which the workers submit.
    """

    waiting: int = 1000
    workers: int = 32
    seconds: int = 75


def one_machine(bench: Bench) -> Measured:
    """Measure with all workers on one machine, ours and the baseline."""
    ours, baseline = (measure(bench, side, machines=1) for side in ("ours", "baseline"))
    return _measured(bench, 1, ours, baseline)


def many_machines(bench: Bench) -> Measured:
    """Measure with each worker on a machine of its own, so that nothing but the account is shared."""
    machines = _size(bench).workers
    return _measured(bench, machines, measure(bench, "ours", machines), None)


def _size(bench: Bench) -> Size:
    return Size(20, 4, 15) if bench.quick else Size()


def _measured(bench: Bench, machines: int, ours: Figures, baseline: Figures | None) -> Measured:
    size, rates = _size(bench), Rates()
    setting = {
        "waiting": size.waiting,
        "workers": size.workers,
        "machines": machines,
        "triggerers": _TRIGGERERS,
        "seconds": size.seconds,
        "submit_rate": _submit_rate(bench),
        "query_rate": rates.queries,
    }
    notes = [] if baseline else ["without anything shared between workers the baseline is the same"]
    return Measured(setting, ours, baseline, notes)


def _submit_rate(bench: Bench) -> float:
    return 1.0 if bench.quick else 5.0


def measure(bench: Bench, side: Side, machines: int) -> Figures:
    """Let the triggerers wait and the workers submit, and read what everybody was answered."""
    size, name = _size(bench), f"account-{side}-{machines}"
    folder = bench.fresh(name)
    rates = Rates()
    with ExitStack() as stack:
        bank = stack.enter_context(account(folder, rates, bench.seed))
        connection = bank.connection_json(submit_rate=_submit_rate(bench), query_rate=rates.queries)
        clients = [
            stack.enter_context(subject(side, folder / f"triggerer-{number}", connection))
            for number in range(_TRIGGERERS)
        ]
        words = ("dev.benchmarks.submit_process", side, str(size.workers), str(size.seconds), str(machines))
        workers = stack.enter_context(child(folder / "workers", connection, *words, patience=size.seconds + 300))
        bought = bank.buy(size.waiting)
        bank.change(submit_rate=_submit_rate(bench))
        begin = time.time()
        for number, client in enumerate(clients):
            client.watch(bought[number::_TRIGGERERS])
        workers.send({"go": True})
        bench.say(f"{name}: {size.waiting} image tasks waiting, {size.workers} workers submit for {size.seconds} s")
        submitted, failed = _hand_on(workers, clients)
        end = time.time()
        bench.say(f"{name}: {submitted} submitted, {len(failed)} failed; waiting for the last")
        time.sleep(_LAST_LOOKS)
        bank.complete_all()
        reports = [client.report() for client in clients]
        return _figures(bank, begin, end, reports, {"submitted": submitted, "failed": len(failed), "why": failed[:3]})


def _hand_on(workers: Child, clients: list[Subject]) -> tuple[int, list[str]]:
    """Give each image task that was submitted to a triggerer, by turns; return how many, and what failed."""
    submitted, failed = 0, list[str]()
    while "done" not in (told := workers.receive()):
        if "failed" in told:
            failed.append(told["failed"])
        else:
            clients[submitted % len(clients)].watch([(told["id"], float(told["at"]))])
            submitted += 1
    failed += ["a worker died"] * told["died"]
    return submitted, failed


def _figures(bank: Account, begin: float, end: float, reports: list[Report], submits: Figures) -> Figures:
    # The pause before the first window of polls and the purchases of the preparation are not part of it.
    answers = [answer for answer in bank.answers() if answer.at >= begin and answer.point in ("status", "submit")]
    parts = {
        "all": _windows(answers, begin),
        "submits": _windows([answer for answer in answers if answer.point == "submit"], begin),
        "polls": _windows([answer for answer in answers if answer.point == "status"], begin),
    }
    figures: dict[str, Any] = {
        **submits,
        "submit_seconds": end - begin,
        "watched": sum(sum(report.outcomes.values()) + len(report.errors) for report in reports),
        "detected": sum(len(report.detected) for report in reports),
        "errors": [error for report in reports for error in report.errors][:5],
        "windows": {name: [window.as_dict() for window in found] for name, found in parts.items()},
    }
    for name, found in parts.items():
        figures[name] = _after_the_first(found)
    return figures


def _windows(answers: list[Answer], begin: float) -> list[Window]:
    return windows(((answer.at, answer.status) for answer in answers), begin, _WIDTH)


def _after_the_first(found: list[Window]) -> Figures:
    later = together(found[1:])
    worst = max((window.share for window in found[1:]), default=0.0)
    return {"answers": later.answers, "limited": later.limited, "share": later.share, "worst_window": worst}
