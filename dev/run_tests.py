"""``make test``: three lanes of tests side by side: much of their time is waiting, for Airflow and for pictures.

One lane has the integration tests, one all that start no Airflow (the unit tests). The third has the system tests, and
after them, in a process of their own, those with a browser (Playwright keeps an asyncio loop, in which no other test
could run one). Each process collects only what it runs. What the integration tests print is shown as it comes, what the
others printed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest

#: How much less urgent the others are than the system tests.
_NICENESS = 10
_INTEGRATION = ("-m", "not system", "tests/integration")
_OTHERS = ("-m", "not system", "tests", "--ignore=tests/integration")
_SYSTEM = ("-m", "system and not browser", "tests", "--ignore=tests/integration", "--ignore=tests/unit")
_BROWSER = ("-m", "browser", "tests/browser")


def main(arguments: Sequence[str]) -> int:
    """Run all.

    :param arguments: What pytest is given beside the folder; with a choice of marks (``-m``) it is one run.
    :return: 0, or the exit code of a part that is not green; 130 after Ctrl-C.
    """
    if "-m" in arguments:
        return _start([*arguments, "tests"]).wait()
    with tempfile.TemporaryFile() as of_others, tempfile.TemporaryFile() as of_system:
        parts = [_start([*arguments, *_SYSTEM], "system", of_system)]
        parts.append(_start([*arguments, *_OTHERS], "others", of_others))
        parts.append(_start([*arguments, *_INTEGRATION]))
        # Airflow's processes wait for each other, and give up on one that gets no processor.
        for part in parts[1:]:
            os.setpriority(os.PRIO_PROCESS, part.pid, _NICENESS)
        try:
            parts[0].wait()
            parts.append(_start([*arguments, *_BROWSER], "system", of_system))
            codes = [part.wait() for part in parts]
        except KeyboardInterrupt:  # which the terminal sent them, too
            for part in parts:
                part.wait()
            return 130
        for title, output in (
            ("the tests that start no Airflow", of_others),
            ("the system tests and those with a browser", of_system),
        ):
            output.seek(0)
            print(f"\n--- {title}, run beside the others ---", flush=True)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return exit_code(codes)


def exit_code(codes: Sequence[int]) -> int:
    """Return the exit code of all by those of its parts: one in which no test was chosen is no fault."""
    chosen = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return next((code for code in chosen if code), 0) if chosen else int(pytest.ExitCode.NO_TESTS_COLLECTED)


def _start(arguments: Sequence[str], lane: str = "", output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start pytest.

    :param lane: Named, it has an ``AIRFLOW_HOME`` of its own: each writes Airflow's configuration into it.
    """
    home = Path(os.environ["AIRFLOW_HOME"])
    env = {**os.environ, "AIRFLOW_HOME": str(home.with_name(f"{home.name}-{lane}") if lane else home)}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.Popen(command, env=env, stdout=output, stderr=None if output is None else subprocess.STDOUT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
