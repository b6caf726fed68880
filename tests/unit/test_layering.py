"""Imports point downwards, the core stands alone, DAG files stay light, and nothing grows without bound."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "airflow_provider_nanobanana"
NAME = PACKAGE.name
FILES = sorted(PACKAGE.rglob("*.py"))
#: From the bottom up; a package may import its own level's packages only where they are in one row.
LAYERS = (
    ("toapis",),
    ("batch",),
    ("durable", "hooks", "landing", "storage"),
    ("triggers",),
    ("operators", "sensors", "decorators", "plugins"),
)
CORES = ("toapis", "batch")
#: What reads a clock, a disk, a socket or the dice, or leaves a trace; nothing of it decides about a batch.
IMPURE = {"asyncio", "datetime", "io", "logging", "os", "pathlib", "random", "shutil", "socket", "threading", "time"}
SHELLS = tuple(f"{NAME}.toapis.{module}" for module in ("client", "download", "http", "route"))
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
#: What a DAG file, or a worker about to run one task of it, imports.
LIGHT = [
    f"{NAME}.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}"
    for folder in ("operators", "sensors", "decorators", "triggers")
    for path in sorted((PACKAGE / folder).glob("[!_]*.py"))
] + [f"{NAME}.{path.stem}" for stem in ("links", "retry_policy", "exceptions") for path in PACKAGE.glob(f"{stem}.py")]


def label(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports(path: Path) -> Iterator[str]:
    """Yield every module a file names in an import, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("path", [path for path in FILES if "toapis" in path.parts], ids=label)
def test_the_core_names_neither_airflow_nor_anything_above_it(path: Path) -> None:
    for module in imports(path):
        root = module.partition(".")[0]
        assert root in sys.stdlib_module_names or root in ("pydantic", "httpx", NAME), module
        assert root != NAME or module == NAME or module.startswith(f"{NAME}.toapis"), module
        assert root != "httpx" or path.name == "http.py", "one module knows httpx"


@pytest.mark.parametrize("path", sorted((PACKAGE / "batch").glob("*.py")), ids=label)
def test_a_batch_is_decided_by_what_is_passed_in(path: Path) -> None:
    for module in imports(path):
        root = module.partition(".")[0]
        assert root in sys.stdlib_module_names - IMPURE or module.startswith((f"{NAME}.toapis", f"{NAME}.batch")), (
            module
        )
        assert not module.startswith(SHELLS), module


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_point_downwards(path: Path) -> None:
    def level(part: str) -> int | None:
        return next((number for number, row in enumerate(LAYERS) if part in row), None)

    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imports(path):
        if not module.startswith(f"{NAME}."):
            continue
        other = module.split(".")[1]
        assert other != "emulator" or own == "emulator", "nothing imports the emulator"
        ours, theirs = level(own), level(other)
        assert ours is None or theirs is None or theirs <= ours, f"{own} imports {other}"


def test_the_core_runs_without_airflow() -> None:
    modules = [f"{NAME}.{core}.{path.stem}" for core in CORES for path in (PACKAGE / core).glob("[!_]*.py")]
    modules += [f"{NAME}.durable"]
    code = f"""
import sys
sys.modules["airflow"] = None
import importlib
for module in {modules!r}:
    importlib.import_module(module)
ours = [m for m in sys.modules if m.startswith("{NAME}.") and m != "{NAME}.durable"]
above = [m for m in ours if m.split(".")[1] not in {CORES!r}]
assert not above, above
print("fine")
"""
    assert run(code) == "fine\n"


def test_dag_files_import_nothing_heavy_of_ours() -> None:
    """One interpreter for all of them: Airflow itself takes seconds to import."""
    code = f"""
import sys, importlib
import airflow.sdk, airflow.triggers.base, airflow.providers.common.compat.sdk
before = set(sys.modules)
for module in {[*LIGHT, f"{NAME}.hooks.nanobanana"]!r}:
    importlib.import_module(module)
    new = set(sys.modules) - before
    heavy = sorted(m for m in new if m in {HEAVY!r} or m.partition(".")[0] in {HEAVY!r})
    assert not heavy, (module, heavy)
print("fine")
"""
    assert run(code).splitlines()[-1] == "fine"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines from ``def`` to the end, the docstring's left out."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_function_is_over_40_lines(path: Path) -> None:
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [f"{f.name}: {body_lines(f)}" for f in functions if body_lines(f) > 40] == []


@pytest.mark.parametrize("path", [path for path in FILES if label(path) != "metrics.py"], ids=label)
def test_no_exception_is_swallowed_whole(path: Path) -> None:
    """A handler of everything may clean up and raise on, and nothing else; a lost metric alone is no bug of ours."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            assert not broad or any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), node.lineno
