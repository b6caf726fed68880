"""``make test``: the tests in parts, some of them side by side, since much of their time is waiting.

The system tests start Airflow's processes, and after them, in a process of their own, come those with a browser too
(Playwright keeps an asyncio loop, in which no other test could run one). Beside them run the parts that start no
Airflow, and the targets of make that were asked for. What a part printed is shown when it has ended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

#: All but the system tests: Airflow's processes give up on one that gets no processor.
_LESS_URGENT: Final = ("nice", "-n", "10")
#: How many of the parts without Airflow run at a time.
_AT_ONCE: Final = 3


@dataclass(frozen=True)
class Part:
    """One process of pytest, or one target of make.

    :param command: The whole command.
    :param counts: Whether it is pytest, whose last line says how many tests there were.
    """

    name: str
    command: tuple[str, ...]
    urgent: bool = False
    counts: bool = True


@dataclass(frozen=True)
class Ended:
    """What a part came to.

    :param output: What it printed.
    :param cpu_seconds: Of it and of its processes that have ended.
    """

    part: Part
    code: int
    output: str
    seconds: float
    cpu_seconds: float


def _tests(name: str, marks: str, *paths: str, urgent: bool = False) -> Part:
    return Part(name, (sys.executable, "-m", "pytest", "-m", marks, *paths), urgent)


_WITHOUT_AIRFLOW: Final = "not system"
_UNIT: Final = ("tests/unit/batch", "tests/unit/durable", "tests/unit/landing")
_REPO: Final = Path(__file__).parents[1]
_BATCH: Final = "tests/integration/batch"
#: Its files, of which each part of two has every other one: much of their time is waiting.
_OF_BATCH: Final = sorted(str(path.relative_to(_REPO)) for path in (_REPO / _BATCH).glob("test_*.py"))
_PAGES: Final = ("tests/browser/test_gallery.py", "tests/browser/test_pages.py")
#: A browser before an Airflow that is none, and before the documentation.
PAGES: Final = _tests("browser, pages", "browser", *_PAGES)
#: One after another.
SYSTEM: Final = (
    _tests(
        "system", "system and not browser", "tests", "--ignore=tests/integration", "--ignore=tests/unit", urgent=True
    ),
    _tests("browser", "browser", "tests/browser", *(f"--ignore={path}" for path in _PAGES), urgent=True),
)
#: Whichever is next, the longest first; the last one has what no other has.
OTHERS: Final = (
    _tests("integration, batches", _WITHOUT_AIRFLOW, *_OF_BATCH[::2]),
    _tests("integration, batches too", _WITHOUT_AIRFLOW, *_OF_BATCH[1::2]),
    _tests("integration, all else", _WITHOUT_AIRFLOW, "tests/integration", f"--ignore={_BATCH}"),
    _tests("unit, images and batches", _WITHOUT_AIRFLOW, *_UNIT),
    _tests(
        "all else", _WITHOUT_AIRFLOW, "tests", "--ignore=tests/integration", *(f"--ignore={path}" for path in _UNIT)
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Run all.

    :param arguments: What each pytest is given, too; with a choice of marks (``-m``) it is one run.
        ``--beside=types,wheel`` are targets of make that run beside the tests, one after another.
    :return: 0, or the exit code of a part that is not green; 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--beside", default="")
    options, given = parser.parse_known_args(arguments)
    if "-m" in given:
        return subprocess.run([sys.executable, "-m", "pytest", *given, "tests"], check=False).returncode
    beside = [Part(name, ("make", name), counts=False) for name in options.beside.split(",") if name]
    pools = [ThreadPoolExecutor(1), ThreadPoolExecutor(1), ThreadPoolExecutor(_AT_ONCE)]
    run = partial(_run, given=given)
    began = time.monotonic()
    futures: list[Future[Ended]] = []
    try:
        for pool, parts in zip(pools, (SYSTEM, beside, (PAGES, *OTHERS)), strict=True):
            futures += [pool.submit(run, part) for part in parts]
        ended = [_shown(future.result()) for future in as_completed(futures)]
    except KeyboardInterrupt:  # which the terminal sent the parts, too
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        return 130
    print(f"\n{summary(ended)} in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return exit_code([one.code for one in ended])


def exit_code(codes: Sequence[int]) -> int:
    """Return the exit code of all by those of its parts: one in which no test was chosen is no fault."""
    chosen = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return next((code for code in chosen if code), 0) if chosen else int(pytest.ExitCode.NO_TESTS_COLLECTED)


def summary(ended: Iterable[Ended]) -> str:
    """Say how many tests passed, failed and so on, by the last lines of the parts, and which parts are not green."""
    counts: Counter[str] = Counter()
    red = []
    for one in ended:
        if one.code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            red.append(one.part.name)
        if one.part.counts:
            last = one.output.rstrip().rpartition("\n")[2]
            counts.update({word: int(count) for count, word in re.findall(r"(\d+) ([a-z]+)(?=,| in )", last)})
    said = ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{said or 'no test'}; not green: {', '.join(red)}" if red else said or "no test"


def _run(part: Part, given: Sequence[str]) -> Ended:
    """Run a part to its end; each has an ``AIRFLOW_HOME`` of its own, into which Airflow writes its configuration."""
    home = Path(os.environ["AIRFLOW_HOME"])
    env = {**os.environ, "AIRFLOW_HOME": str(home.with_name(f"{home.name}-{re.sub('[^a-z]+', '-', part.name)}"))}
    command = [*(() if part.urgent else _LESS_URGENT), *part.command, *(given if part.counts else ())]
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    return Ended(part, process.returncode, said, time.monotonic() - began, used.ru_utime + used.ru_stime)


def _shown(ended: Ended) -> Ended:
    minutes = f"{ended.seconds / 60:.1f} minutes, {ended.cpu_seconds / 60:.1f} of CPU"
    print(f"\n--- {ended.part.name}: {minutes}, exit code {ended.code} ---", flush=True)
    print(ended.output, flush=True)
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
