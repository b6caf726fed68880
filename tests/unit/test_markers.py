"""What ``make matrix`` leaves out on the other Airflows depends on none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.airflow_reach import reaches_airflow

REPO = Path(__file__).resolve().parents[2]
UNIT = REPO / "tests" / "unit"


def test_what_is_not_marked_imports_no_airflow() -> None:
    """In a process to which there is none; ``make matrix`` runs these tests so, too."""
    files = [path for path in UNIT.rglob("test_*.py") if not reaches_airflow(path)]
    assert {"toapis", "emulator", "landing", "batch"} <= {path.relative_to(UNIT).parts[0] for path in files}
    program = "import runpy, sys; import tests.support.no_airflow; [runpy.run_path(path) for path in sys.argv[1:]]"
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, files)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.parametrize(
    ("content", "reaches"),
    [
        ("import json", False),
        ("from airflow_provider_nanobanana.toapis import errors", False),
        ("import airflow", True),
        ("def late():\n    from airflow.sdk import DAG", True),
        ("PATCHED = 'airflow.sdk.DAG'", True),
        ("PROGRAM = 'import sys; import airflow'", True),
        ("ARGUMENTS = ['-m', 'airflow_provider_nanobanana.hooks.nanobanana']", True),
        ("from airflow_provider_nanobanana.operators import nanobanana", True),
        ("from tests.support import task_runner", True),
        ("from airflow_provider_nanobanana.__main__ import main", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from airflow.sdk import DAG", False),
        ("if True:\n    import airflow.sdk", True),
    ],
)
def test_a_chain_of_imports_is_followed_to_its_end(content: str, reaches: bool, tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text(content)
    assert reaches_airflow(file) is reaches


def test_what_every_test_of_a_folder_imports_counts() -> None:
    assert reaches_airflow(REPO / "tests" / "integration" / "test_environment.py")


def test_skips_by_version_are_written_in_one_place() -> None:
    asks = re.compile(r"AIRFLOW_V_\d|version\(.apache-airflow.\)|airflow\.__version__")
    files = [*(REPO / "tests").rglob("test_*.py"), *(REPO / "tests").rglob("conftest.py")]
    assert [path for path in files if asks.search(path.read_text()) and path != Path(__file__)] == []
