"""Which test files can depend on the Airflow that runs: those from which a chain of imports leads to it.

A name in a text counts like an import, since a test patches what it names, and starts ``python -m`` of it. An import
for the type checker alone does not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_REPO: Final = Path(__file__).parents[2]
_ROOTS: Final = ("airflow_provider_nanobanana", "dev", "example_dags", "tests")
_NAME: Final = re.compile(rf"\b(?:airflow|{'|'.join(_ROOTS)})(?:\.\w+)+(?:\.$)?|\bimport airflow\b")


def airflow_marks(file: Path) -> list[str]:
    """Give the marks of a test file: ``airflow`` where it reaches Airflow, ``airflow_api`` where it names it itself."""
    marks = ["airflow"] if reaches_airflow(file) else []
    return [*marks, "airflow_api"] if any(_is_airflow(name) for name in _names(file)) else marks


def reaches_airflow(file: Path) -> bool:
    """Whether an import in a test file, in what it imports or in a ``conftest.py`` above it is one of Airflow.

    Of a ``conftest.py`` counts what every test below it imports, not what single fixtures do.
    """
    return _is_reached([file], _conftests(file.parent))


def folder_reaches_airflow(folder: Path) -> bool:
    """Whether the ``conftest.py`` of a folder, or one above it, imports Airflow for every test below it."""
    return _is_reached([], _conftests(folder))


def _conftests(folder: Path) -> list[Path]:
    above = [each / "conftest.py" for each in (folder, *folder.parents) if _REPO / "tests" in (each, *each.parents)]
    return [path for path in above if path.exists()]


def _is_reached(files: list[Path], conftests: list[Path]) -> bool:
    names = {name for conftest in conftests for name in _names(conftest, of_functions=False)}
    seen: set[Path] = set()
    while files or names:
        names.update(*(_names(file) for file in files))
        if any(_is_airflow(name) for name in names):
            return True
        seen.update(files)
        files = list({path for name in names for path in _files(name)} - seen)
        names = set()
    return False


def _is_airflow(name: str) -> bool:
    return name.partition(".")[0] == "airflow"


@cache
def _files(name: str) -> tuple[Path, ...]:
    """Give the files that the import of a dotted name runs, as far as they are ours; its end may be no module.

    One that ends with a dot stands for all modules of the package: the program adds the name.
    """
    parts = name.split(".")
    if parts[0] not in _ROOTS:
        return ()
    if not parts[-1]:
        return tuple(_REPO.joinpath(*parts[:-1]).glob("*.py"))
    packages = [_REPO.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1)]
    modules = [_REPO.joinpath(*parts[: length - 1], f"{parts[length - 1]}.py") for length in range(2, len(parts) + 1)]
    return tuple(path for path in (*packages, *modules) if path.exists())


@cache
def _names(file: Path, *, of_functions: bool = True) -> frozenset[str]:
    """Give the dotted names that a file imports, or has in its texts."""
    return frozenset(_found(ast.parse(file.read_bytes()), of_functions))


def _found(node: ast.AST, of_functions: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from (name.removeprefix("import ") for name in _NAME.findall(node.value))
    is_left_out = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not of_functions
    for child in () if is_left_out or _is_for_types(node) else ast.iter_child_nodes(node):
        yield from _found(child, of_functions)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
