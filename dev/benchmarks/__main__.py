"""``make bench``: measure, say which goals are met, write the page.

Scenarios of which none is named all run; figures of the others stay as they are. A goal that is missed is a finding,
not a failure: the exit status is 0.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from inspect import cleandoc
from pathlib import Path

from rich.console import Console

from dev.benchmarks import (
    account,
    answers,
    claims,
    decode,
    generate,
    memory,
    plot,
    poll,
    report,
    ten_thousand,
    three_ways,
    transport,
    triggerer,
    two_processes,
)
from dev.benchmarks.scenario import FOLDER, Bench, Scenario
from dev.stack.processes import REPO

#: Whose ``SCENARIOS`` there are; the order is that of the page.
_MODULES = (
    poll,
    two_processes,
    ten_thousand,
    answers,
    transport,
    memory,
    account,
    triggerer,
    generate,
    three_ways,
    claims,
    decode,
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for module in _MODULES for scenario in module.SCENARIOS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios one after another and write the page after each.

    :return: 0, or 130 after Ctrl-C.
    :raises KeyError: A goal is about a figure that a scenario that was just run has not.
    """
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console(log_path=False, markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    bench = Bench(options.seed, options.quick, console.log)
    commit = report.commit()
    results = write(options.docs, {})  # what is missing for it shows before anything is measured
    if options.render:
        console.print(report.terminal_table(list(SCENARIOS.values()), results))
    fresh: list[str] = []
    try:
        for name in [] if options.render else options.scenario or list(SCENARIOS):
            console.rule(name)
            began = time.monotonic()
            measured = SCENARIOS[name].measure(bench)
            minutes = (time.monotonic() - began) / 60
            today = datetime.now(UTC).date().isoformat()
            made = report.Result(today, commit, _command(options), options.seed, report.machine(), measured, minutes)
            results = write(options.docs, {name: made})
            console.print(report.terminal_table([SCENARIOS[name]], results))
            fresh.append(name)
    except KeyboardInterrupt:
        console.log("interrupted")
        return 130
    console.print(f"Written to {options.docs / 'benchmarks.md'}")
    for name in fresh:  # last, since what was measured in an hour must not be lost
        for goal in SCENARIOS[name].goals:
            goal.judge(results[name].measured)
    return 0


def write(docs: Path, made: dict[str, report.Result]) -> dict[str, report.Result]:
    """Write figures, page and picture, together with what was found earlier; return all of it."""
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "benchmarks.json"
    known = {**report.load(path), **made}
    results = {name: known[name] for name in SCENARIOS if name in known}
    report.store(path, results)
    (docs / "benchmarks.md").write_text(markdown(results))
    if "poll-1000" in results:
        others = results["poll-limiters"].measured.ours["runs"] if "poll-limiters" in results else {}
        plot.draw(results["poll-1000"].measured, others, docs / report.PLOT)
    return results


def markdown(results: Mapping[str, report.Result]) -> str:
    """Return the page; the docstring of each module says how its scenarios are measured."""
    explanations = [cleandoc(module.__doc__ or "").partition("\n\n")[2] for module in _MODULES]
    page = report.page(list(SCENARIOS.values()), results, explanations)
    measured = {name: result.measured for name, result in results.items()}
    return page + answers.page(measured) + account.page(measured)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks", description=__doc__)
    add = parser.add_argument
    add("scenario", nargs="*", help=f"which to run, of {', '.join(SCENARIOS)} (all)")
    add("--seed", type=int, default=1, help="decides the latencies (%(default)s)")
    add("--quick", action="store_true", help="a smoke run with a few image tasks; writes nothing to docs")
    add("--render", action="store_true", help="measure nothing, write the page again from its figures")
    add("--docs", type=Path, help="where benchmarks.md, .json and .svg go (docs; .bench with --quick)")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; known are {', '.join(SCENARIOS)}")
    options.docs = options.docs or (FOLDER if options.quick else REPO / "docs")
    return options


def _command(options: argparse.Namespace) -> str:
    """Return the command as it is to be typed again, without the folders of this machine."""
    chosen = [*options.scenario, *(["--quick"] if options.quick else []), "--seed", str(options.seed)]
    return shlex.join(["python", "-m", "dev.benchmarks", *chosen])


if __name__ == "__main__":
    sys.exit(main())
