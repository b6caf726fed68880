"""What import-linter (``make lint``) cannot say of the source: who buys, what a DAG file loads, what handlers do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.versions import REVIEWS, gives

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "airflow_provider_nanobanana"
NAME = PACKAGE.name
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "PIL",
    "httpx",
    "pandas",
    "numpy",
    "fastapi",
    "starlette",
    "uvicorn",
    "fsspec",
    "upath",
    f"{NAME}.toapis.client",
)
#: What a DAG file, a worker about to run one task of it, or a command line imports.
LIGHT = [
    f"{NAME}.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}"
    for folder in ("operators", "sensors", "decorators", "triggers", "hooks", "cli")
    for path in sorted((PACKAGE / folder).glob("[!_]*.py"))
    # Below Airflow 3.1 a look for the operator that asks a person loads all of Airflow's web server.
    if gives(REVIEWS) or path.stem != "review"
] + [f"{NAME}.retry_policy", f"{NAME}.exceptions"]


def label(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def names(path: Path) -> set[str]:
    """Return every name, attribute and imported name of a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize(
    ("name", "files"),
    [
        # The one call that buys an image; who sends it, and who tries it out for a person who wants to know.
        ("submit_call", {"submission/workflow.py", "submission/trial.py"}),
        # Nobody makes up a call of his own.
        ("ApiCall", {"toapis/protocol.py", "toapis/client.py"}),
    ],
)
def test_only_a_submission_buys(name: str, files: set[str]) -> None:
    ours = [path for path in FILES if "emulator" not in path.parts]
    assert {label(path) for path in ours if name in names(path)} == files


def test_dag_files_import_nothing_heavy_of_ours() -> None:
    """One interpreter for all of them: Airflow itself takes seconds to import."""
    code = f"""
import sys, importlib
import airflow.sdk, airflow.triggers.base, airflow.providers.common.compat.sdk
before = set(sys.modules)
for module in {LIGHT!r}:
    importlib.import_module(module)
    new = set(sys.modules) - before
    heavy = sorted(m for m in new if m in {HEAVY!r} or m.partition(".")[0] in {HEAVY!r})
    assert not heavy, (module, heavy)
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "fine"


#: A lost metric or lineage alone is no bug of ours; what a thread meets is raised where its result is asked for.
KEEP_ERRORS = ("lineage.py", "metrics.py", "worker_threads.py")


@pytest.mark.parametrize("path", [path for path in FILES if label(path) not in KEEP_ERRORS], ids=label)
def test_no_exception_is_swallowed_whole(path: Path) -> None:
    """A handler of everything may clean up and raise on, and nothing else."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            assert not broad or any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), node.lineno
