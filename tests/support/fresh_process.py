"""Runs a test in a process of its own: what it counts is not to depend on the thousands of tests before it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_HERE: Final = "NANOBANANA_FRESH_PROCESS"
_ROOT: Final = Path(__file__).parents[2]


def in_fresh_process(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test by a pytest that runs nothing else; it fails with what that one says."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        if _HERE in os.environ:
            test(*args, **kwargs)
            return
        node = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", node]
        ended = subprocess.run(
            command, cwd=_ROOT, env=os.environ | {_HERE: "1"}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout
        assert "1 passed" in ended.stdout, ended.stdout

    return run
