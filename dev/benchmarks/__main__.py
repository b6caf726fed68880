"""``make bench``: measure, say which goals are met, write the page.

Scenarios of which none is named all run; figures of the others stay as they are. A goal that is missed is a finding,
not a failure: the exit status is 0.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from demo.progress import Progress
from demo.settings import REPO
from dev.benchmarks import account, generate, machine, memory, plot, poll, results, triggerer
from dev.benchmarks import report as page
from dev.benchmarks import three_ways as generate_vs
from dev.benchmarks.bench import Bench, Scenario
from dev.benchmarks.scenarios import fast

SCENARIOS: dict[str, Scenario] = {
    "poll-1000": poll.thousand,
    "poll-60": poll.sixty,
    "poll-5000": fast.five_thousand,
    "memory": memory.memory,
    "account-1": account.one_machine,
    "account-32": account.many_machines,
    "triggerer": triggerer.three_hundred,
    "generate-2000": generate.two_thousand,
    "generate-10000": generate.ten_thousand,
    "generate-kills": generate.kills,
    "generate-vs": generate_vs.three_ways,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios one after another and write the page after each.

    :return: 0, or 130 after Ctrl-C.
    """
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    chosen = options.scenario or list(SCENARIOS)
    docs = options.docs or (options.folder if options.quick else REPO / "docs")
    progress = Progress()
    bench = Bench(options.folder.resolve(), options.seed, options.quick, progress.say)
    found: results.Results = {}
    try:
        for name in [] if options.render else chosen:
            progress.say(f"--- {name}")
            measured = SCENARIOS[name](bench)
            today = datetime.now(UTC).date().isoformat()
            found[name] = results.Result(today, _command(options), options.seed, machine.describe(), measured)
            _write(docs, found)
            print("\n".join(["", *page.verdicts(found, [name]), ""]), flush=True)
    except KeyboardInterrupt:
        progress.say("interrupted")
        return 130
    kept = _write(docs, found)
    print("\n".join(["", *page.verdicts(kept, list(kept)), "", f"Written to {docs / 'benchmarks.md'}"]))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks", description=__doc__)
    add = parser.add_argument
    add("scenario", nargs="*", help=f"which to run, of {', '.join(SCENARIOS)} (all)")
    add("--seed", type=int, default=1, help="decides the latencies (%(default)s)")
    add("--quick", action="store_true", help="a smoke run with a few image tasks; writes nothing to docs")
    add("--render", action="store_true", help="measure nothing, write the page anew from its figures")
    add("--docs", type=Path, help="where benchmarks.md, .json and .svg go (docs)")
    add("--folder", type=Path, default=REPO / ".bench", help="where logs go (.bench)")
    options = parser.parse_args(arguments)
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; known are {', '.join(SCENARIOS)}")
    return options


def _command(options: argparse.Namespace) -> str:
    """Return the command as it is to be typed again, without the folders of this machine."""
    chosen = [*options.scenario, *(["--quick"] if options.quick else []), "--seed", str(options.seed)]
    return shlex.join(["python", "-m", "dev.benchmarks", *chosen])


def _write(docs: Path, found: results.Results) -> results.Results:
    """Write figures, page and picture, together with what was found earlier; return all of it."""
    path = docs / "benchmarks.json"
    kept = results.merged(results.load(path), found, SCENARIOS)
    results.store(path, kept)
    (docs / "benchmarks.md").write_text(page.page(kept))
    if "poll-1000" in kept and plot.drawable(kept["poll-1000"]):
        plot.draw(kept["poll-1000"], docs / page.PLOT)
    return kept


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
