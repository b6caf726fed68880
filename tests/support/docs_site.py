"""The documentation as a site, built once for the tests that look at it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import REPO


def build_site(folder: Path) -> Path:
    """Build the documentation into a folder as ``make docs`` builds it: a warning ends it.

    Skips the test where the extra ``[docs]`` is not installed.
    """
    for needed in ("material", "mkdocstrings"):
        pytest.importorskip(needed, reason="the extra [docs] is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder
