"""``make test``: the system tests beside all others, since theirs is mostly waiting, for Airflow and for pictures.

After the system tests, in a process of their own, come those with a browser (Playwright keeps an asyncio loop, in which
no other test could run one). What the others print is shown as it comes, what these two printed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

#: How much less urgent the others are than the system tests.
_NICENESS = 10


def main(arguments: Sequence[str]) -> int:
    """Run all.

    :param arguments: What pytest is given beside the folder; with a choice of marks (``-m``) it is one run.
    :return: 0, or the exit code of a part that is not green; 130 after Ctrl-C.
    """
    if "-m" in arguments:
        return _start(arguments, os.environ).wait()
    home = Path(os.environ["AIRFLOW_HOME"])
    # A home of its own: each writes Airflow's configuration into it.
    environment = {**os.environ, "AIRFLOW_HOME": str(home.with_name(f"{home.name}-system"))}
    with tempfile.TemporaryFile() as output:
        parts = [_start([*arguments, "-m", "system and not browser"], environment, output)]
        parts.append(_start([*arguments, "-m", "not system"], os.environ))
        # Airflow's processes wait for each other, and give up on one that gets no processor.
        os.setpriority(os.PRIO_PROCESS, parts[-1].pid, _NICENESS)
        try:
            parts[0].wait()
            parts.append(_start([*arguments, "-m", "browser"], environment, output))
            codes = [part.wait() for part in (parts[1], parts[0], parts[2])]
        except KeyboardInterrupt:  # which the terminal sent them, too
            for part in parts:
                part.wait()
            return 130
        output.seek(0)
        print("\n--- the system tests and those with a browser, run beside the others ---", flush=True)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return exit_code(codes)


def exit_code(codes: Sequence[int]) -> int:
    """Return the exit code of all by those of its parts: one in which no test was chosen is no fault."""
    chosen = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return next((code for code in chosen if code), 0) if chosen else int(pytest.ExitCode.NO_TESTS_COLLECTED)


def _start(
    arguments: Sequence[str], env: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *arguments, "tests"]
    return subprocess.Popen(command, env=env, stdout=output, stderr=None if output is None else subprocess.STDOUT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
