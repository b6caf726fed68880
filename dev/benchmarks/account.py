"""Two triggerer processes and 32 workers on one account: does everybody get along without being refused?

- `account-1`, `account-32`: 1,000 image tasks wait from the start, 500 on each of two triggerer processes, while 32
  worker processes run the submit operator in a loop for 75 s, deferrals included, and the triggerers watch what they
  submitted. 5 submits and 50 queries a second for all together. Nobody knows of the others but through the service
  and, where workers are on one machine, through its temporary folder. The baseline's workers start one task a second
  each and send one POST; its tasks fail on a 429. Shares leave out the first 10 s.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import zip_longest
from typing import Any

from tabulate import tabulate

from dev.benchmarks.child import Child, child
from dev.benchmarks.emulator import Rates, account
from dev.benchmarks.scenario import Bench, Figures, Goal, Measured, Scenario, Side

_WIDTH = 10.0
_TRIGGERERS = 2
_RATES = Rates()
_KINDS = {"submit": "submits", "status": "polls"}


def measure(bench: Bench, *, one_machine: bool) -> Measured:
    """Measure with all workers on one machine, ours and the baseline; or ours with each on a machine of its own.

    In the latter nothing but the account is shared.
    """
    full = {"waiting": 1000, "workers": 32, "seconds": 75}
    sizes = {"waiting": 20, "workers": 4, "seconds": 15} if bench.quick else full
    rates = {"submit_rate": 1.0 if bench.quick else 5.0, "query_rate": _RATES.query_rate}
    machines = 1 if one_machine else sizes["workers"]
    setting = {**sizes, "machines": machines, "triggerers": _TRIGGERERS, **rates}
    ours = _measure_side(bench, "ours", setting)
    if not one_machine:
        return Measured(setting, ours, None, ["without anything shared between workers the baseline is the same"])
    return Measured(setting, ours, _measure_side(bench, "baseline", setting))


def _measure_side(bench: Bench, side: Side, setting: Mapping[str, Any]) -> Figures:
    """Let the triggerers wait and the workers submit, and read what everybody was answered."""
    waiting, workers, seconds, machines = (setting[name] for name in ("waiting", "workers", "seconds", "machines"))
    name = f"account-{side}-{machines}"
    folder = bench.fresh(name)
    with ExitStack() as stack:
        service = stack.enter_context(account(folder, _RATES, bench.seed))
        connection = service.connection_json(submit_rate=setting["submit_rate"], query_rate=setting["query_rate"])
        triggerers = [
            stack.enter_context(child(folder / f"triggerer-{number}", connection, "trigger_process", side))
            for number in range(_TRIGGERERS)
        ]
        arguments = (side, workers, seconds, machines)
        submitter = stack.enter_context(child(folder / "workers", connection, "submit_process", *arguments))
        submitted = service.submit(waiting)
        service.change(submit_rate=setting["submit_rate"])
        begin = time.time()
        for number, triggerer in enumerate(triggerers):
            triggerer.send(watch=submitted[number::_TRIGGERERS])
        submitter.send(go=True)
        bench.say(f"{name}: {waiting} image tasks waiting, {workers} workers submit for {seconds} s")
        count, failures = _watch_submitted(submitter, triggerers)
        bench.say(f"{name}: {count} submitted, {len(failures)} failed; waiting for the last")
        submit_seconds = time.time() - begin
        time.sleep(5.0)
        service.complete_all()  # so that a run ends in time
        reports = [triggerer.ask(end="wait") for triggerer in triggerers]
        parts = {plural: windows(service.answers(kind), begin) for kind, plural in _KINDS.items()}
    return {
        "submitted": count,
        "failed": len(failures),
        "why": failures[:3],
        "submit_seconds": submit_seconds,
        "watched": sum(report["watched"] for report in reports),
        "detected": sum(len(report["detected"]) for report in reports),
        "errors": [error for report in reports for error in report["errors"]][:5],
        "windows": parts,
        "all": share_of_429([window for part in parts.values() for window in part[1:]]),
        **{plural: share_of_429(part[1:]) for plural, part in parts.items()},
    }


def _watch_submitted(submitter: Child, triggerers: list[Child]) -> tuple[int, list[str]]:
    """Give each image task that was submitted to a triggerer, by turns; return how many, and what failed."""
    count = 0
    failures: list[str] = []
    while "done" not in (answer := submitter.receive()):
        if "failed" in answer:
            failures.append(answer["failed"])
        else:
            triggerers[count % len(triggerers)].send(watch=[(answer["id"], answer["at"])])
            count += 1
    return count, failures + ["a worker died"] * answer["died"]


def windows(answers: Iterable[Figures], begin: float) -> list[Figures]:
    """Count answers, given with ``at`` (seconds) and ``status``, from ``begin`` on, in windows of 10 s, gaps included.

    :return: For each window ``start`` in seconds after ``begin``, ``answers``, and ``limited``: those that were 429.
    """
    later = [(int((one["at"] - begin) // _WIDTH), one["status"]) for one in answers if one["at"] >= begin]
    total = Counter(number for number, _ in later)
    limited = Counter(number for number, status in later if status == 429)
    return [
        {"start": number * _WIDTH, "answers": total[number], "limited": limited[number]}
        for number in range(max(total, default=-1) + 1)
    ]


def share_of_429(part: list[Figures]) -> Figures:
    """Return what several windows add up to: ``answers``, ``limited``, and the ``share`` (0 to 1) of those."""
    answers = sum(window["answers"] for window in part)
    limited = sum(window["limited"] for window in part)
    return {"answers": answers, "limited": limited, "share": limited / answers if answers else 0.0}


def page(results: Mapping[str, Measured]) -> str:
    """Return the windows of all runs as a section of the page; empty without a run."""
    columns: dict[str, list[str]] = {}
    for name in ("account-1", "account-32"):
        if one := results.get(name):
            columns |= _columns(f"{name}, ours", one.ours)
            columns |= _columns(f"{name}, baseline", one.baseline or {"windows": {}})
    rows = [[f"{number * _WIDTH:.0f} s", *cells] for number, cells in enumerate(zip_longest(*columns.values()))]
    table = tabulate(rows, ["from", *columns], "github", missingval="", disable_numparse=True)
    return f"\n## 429s among the answers over time\n\n{table}\n" if columns else ""


def _columns(title: str, figures: Figures) -> dict[str, list[str]]:
    return {
        f"{title}: {kind}": [f"{one['limited']} of {one['answers']}" if one["answers"] else "" for one in part]
        for kind, part in figures["windows"].items()
        if kind in _KINDS.values()  # older results have their sum, too
    }


def _shown(of: Figures) -> str:
    parts = ", ".join(f"{name} {100 * of[name]['share']:.2f} %" for name in ("submits", "polls"))
    failed = of["failed"] + of["watched"] - of["detected"]
    return f"{100 * of['all']['share']:.2f} % ({parts}); {failed} of {of['watched'] + of['failed']} failed"


def _met(ours: Figures, baseline: Figures) -> bool:
    return bool(ours["all"]["share"] < 0.01 and not ours["failed"] and ours["watched"] == ours["detected"])


SCENARIOS = [
    Scenario(
        name,
        partial(measure, one_machine=one_machine),
        [
            Goal(
                f"2 triggerers and 32 workers, {where}, on one account: 429 after 10 s",
                "< 1 %, no task failed",
                _shown,
                _met,
            )
        ],
    )
    for name, one_machine, where in (
        ("account-1", True, "all on one machine"),
        ("account-32", False, "each worker on its own machine"),
    )
]
