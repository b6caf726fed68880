"""``make overlap``: runs that ask for the same pictures at the same place, in one real Airflow and in two.

The bank is the emulator, over HTTP: nothing costs money. Each part prints what was charged, what landed, and what the
tasks say they paid.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from dev.constraints import known_versions
from dev.stack.airflow_venv import HOME, run_in_venv


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts one after another.

    :return: 0 if every promise was kept; 1 if one was broken; 2 if Airflow did not start; 130 after Ctrl-C.
    """
    from tests.overlap.parts import PARTS

    parser = argparse.ArgumentParser(prog="python -m tests.overlap", description=__doc__)
    versions = known_versions()
    parser.add_argument("part", nargs="*", help=f"which to run, of {', '.join(PARTS)} (all)")
    parser.add_argument("--airflow", choices=versions, metavar="VERSION", help=f"one of {', '.join(versions)}")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a part is stuck (%(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; known are {', '.join(PARTS)}")
    if options.airflow is not None:
        return run_in_venv(options.airflow, "tests.overlap", *options.part, "--limit", str(options.limit))
    return _run([PARTS[name] for name in options.part or PARTS], options.limit)


def _run(parts: Sequence[object], limit: float) -> int:
    from dev.stack.console import Progress, run_program
    from dev.stack.processes import Processes
    from tests.overlap.parts import Part
    from tests.overlap.report import as_text
    from tests.overlap.runner import Demonstration

    airflow = version("apache-airflow")
    folder: Path = HOME / airflow / "overlap"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def work(processes: Processes, progress: Progress) -> int:
        outcomes = []
        with Demonstration(folder, processes, progress.say) as demonstration:
            for part in parts:
                assert isinstance(part, Part)
                progress.say(f"--- {part.name}: {part.what}")
                outcomes.append(demonstration.run(part, limit))
                print(f"\n{as_text(airflow, outcomes[-1:])}\n", flush=True)
        text = as_text(airflow, outcomes)
        (folder / "report.txt").write_text(text + "\n")
        (folder / "report.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=2) + "\n")
        print(text, flush=True)
        return int(any(one.broken() for one in outcomes))

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main())
