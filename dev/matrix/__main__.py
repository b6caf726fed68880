"""``make matrix``: run the parts of each row, one after another; a part that fails stops no other."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dev.constraints import known_versions
from dev.matrix.environments import LOWEST, Environment, chosen, install, version_of
from dev.matrix.parts import Part, parts_of
from dev.matrix.results import Result, read_junit, table, unknown_skips, write_skips
from dev.stack.airflow_venv import REPO


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    :return: 0, or the worst exit code of all parts; a row without an interpreter counts as skipped.
    """
    options = _options(arguments)
    results: list[Result] = []
    for environment, interpreter in chosen(options.airflow, options.python):
        parts = parts_of(environment, fast=options.fast, full=options.full)
        if interpreter is None:
            _say(f"Python {environment.python} is not on this machine: Airflow {environment.airflow} is skipped")
            nothing = Result(environment.airflow, environment.python, "all", verdict="skipped: no such Python here")
            results.append(nothing)
            continue
        results += _run_row(environment, interpreter, parts)
    if options.accept_skips:
        write_skips(results)
    elif not options.full:
        results = [_compared(result) for result in results]
    text = table(results)
    print(f"\n{text}", flush=True)
    (REPO / ".matrix").mkdir(exist_ok=True)
    (REPO / ".matrix" / "table.md").write_text(f"{text}\n")
    return max((abs(result.exit_code) for result in results), default=0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.matrix", description=__doc__)
    versions = [*known_versions(), LOWEST]
    parser.add_argument("--airflow", choices=versions, metavar="VERSION", help=f"one of {', '.join(versions)}")
    parser.add_argument("--python", help="the interpreter to use, by name or path")
    parser.add_argument("--fast", action="store_true", help="only the tests that name something of Airflow")
    parser.add_argument("--full", action="store_true", help="every test, crash campaigns and all system tests too")
    parser.add_argument("--accept-skips", action="store_true", help="write down the skips instead of comparing them")
    options = parser.parse_args(arguments)
    if options.python is not None and version_of(options.python) is None:
        parser.error(f"there is no Python {options.python!r} on this machine")
    return options


def _run_row(environment: Environment, interpreter: str, parts: Sequence[Part]) -> list[Result]:
    began = time.monotonic()
    try:
        python = install(environment, interpreter, _say)
    except subprocess.CalledProcessError as error:
        _say(f"Airflow {environment.airflow} could not be installed: {error}")
        seconds = time.monotonic() - began
        return [
            Result(environment.airflow, environment.python, "install", 0, 1, 0, seconds, 2, verdict="not installed")
        ]
    seconds = time.monotonic() - began
    installed = [Result(environment.airflow, environment.python, "install", seconds=seconds)] if seconds > 1 else []
    return installed + [_run_part(environment, python, part) for part in parts]


def _run_part(environment: Environment, python: Path, part: Part) -> Result:
    _say(f"Airflow {environment.airflow}, Python {environment.python}: {part.name}")
    home = environment.folder / "airflow"
    junit = environment.folder / "junit.xml"
    junit.unlink(missing_ok=True)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "example_dags"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", *part.arguments]
    began = time.monotonic()
    code = subprocess.run(command, cwd=REPO, env=env, check=False).returncode
    result = Result(environment.airflow, environment.python, part.name, exit_code=code, verdict="RED" if code else "")
    result = dataclasses.replace(result, seconds=time.monotonic() - began)
    if not junit.exists():
        return result
    passed, failed, skipped, reasons = read_junit(junit)
    return dataclasses.replace(result, passed=passed, failed=failed, skipped=skipped, version_skips=reasons)


def _compared(result: Result) -> Result:
    """Return a result that is red where its skips are others than those that are written down."""
    difference = unknown_skips(result) if result.exit_code == 0 else ""
    return dataclasses.replace(result, exit_code=1, verdict=difference) if difference else result


def _say(line: str) -> None:
    print(f"\n--- {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
