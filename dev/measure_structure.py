"""How easily the package is read, in numbers: lines, circles, imports, and the way of a prompt through the files.

Measures the package that Python finds first, so that two trees can be compared with one script::

    PYTHONPATH=/path/to/a/tree .venv/bin/python dev/measure_structure.py [lines imports trace time]

``trace`` makes two images with the generate operator against the emulator, in this process, and follows the calls. The
way of a prompt is every function of the package (without the emulator) in the order in which it is called first. A
*stay* is a run of such functions in one file; a *climb* leads to a file that imports, directly or not, the one left.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

NAME = "airflow_provider_nanobanana"
RUNS = 15
OPERATORS = f"{NAME}.operators.nanobanana"

Graph = Mapping[str, set[str]]


def package() -> Path:
    """Return the folder of the package, without importing it."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None and spec.origin is not None, f"{NAME} is not on the path"
    return Path(spec.origin).parent


def sources(root: Path) -> dict[str, Path]:
    """Return the package's files by their path below it, without the emulator's."""
    paths = {str(path.relative_to(root)): path for path in sorted(root.rglob("*.py"))}
    return {name: path for name, path in paths.items() if not name.startswith("emulator/")}


def import_graph(root: Path) -> Graph:
    """Return which file imports which, also in functions and under TYPE_CHECKING."""
    files = sources(root)

    def file_of(module: str) -> str | None:
        inside = module.removeprefix(f"{NAME}.").replace(".", "/") if module != NAME else ""
        return next((name for name in (f"{inside}.py", f"{inside}/__init__.py".lstrip("/")) if name in files), None)

    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        imported: set[str | None] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {file_of(alias.name) for alias in node.names if alias.name.startswith(NAME)}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NAME):
                parent = file_of(node.module or "")
                imported |= {file_of(f"{node.module}.{alias.name}") or parent for alias in node.names}
        graph[name] = {other for other in imported if other is not None and other != name}
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Return the files that a file imports, directly or not."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting.extend(new)
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of files that import each other in a circle."""
    below = {name: reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in below[name] if name in below[other])) for name in graph if name in below[name]
    }
    return [list(group) for group in sorted(groups)]


def show_lines(root: Path) -> None:
    """Print the lines of each package."""
    lines = Counter[str]()
    files = Counter[str]()
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        folder = inside.parts[0] if len(inside.parts) > 1 else "(top)"
        lines[folder] += len(path.read_text().splitlines())
        files[folder] += 1
    for folder, number in sorted(lines.items()):
        print(f"  {folder:<14} {number:>6} lines {files[folder]:>4} files")
    emulator = lines["emulator"]
    print(f"  without the emulator {lines.total() - emulator:,} lines, with it {lines.total():,}")


def show_imports(root: Path) -> None:
    """Print what imports what: circles, arrows, modules with one importer."""
    graph = import_graph(root)
    modules = {name for name in graph if not name.endswith("__init__.py")}
    arrows = [(name, other) for name in modules for other in graph[name] & modules]
    importers = Counter(other for _, other in arrows)
    found = circles(graph)
    print(f"  modules {len(modules)}, file-to-file imports {len(arrows)}")
    print(f"  modules with exactly one importer {sum(importers[name] == 1 for name in modules)}")
    print(f"  circles {len(found)}, files in them {sum(map(len, found))}")
    for group in found:
        print(f"    {', '.join(group)}")


def show_time() -> None:
    """Print how long a fresh process takes to import the operators, in all and beyond Airflow's own imports."""
    code = f"""
import time
start = time.perf_counter()
import airflow.sdk, airflow.triggers.base, airflow.providers.common.compat.sdk
airflow = time.perf_counter()
import {OPERATORS}
print(time.perf_counter() - start, time.perf_counter() - airflow)
"""
    environment = {**os.environ, "PYTHONPATH": str(package().parent)}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        for _ in range(RUNS)
    ]
    whole, ours = zip(*(map(float, run.stdout.split()[-2:]) for run in runs), strict=True)
    print(
        f"  import {OPERATORS}: {statistics.median(whole) * 1000:.0f} ms, of which beyond Airflow's own imports "
        f"{statistics.median(ours) * 1000:.0f} ms (medians of {RUNS} fresh processes)"
    )


class TaskInstance(SimpleNamespace):
    """A task instance whose XComs are a mapping."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, key: str, **_: Any) -> Any:
        return self.xcoms.get(key)


def make_two_images() -> None:
    """Run the generate operator on two prompts, in this process and without a triggerer."""
    from airflow_provider_nanobanana.emulator import Emulator
    from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator

    names = {"dag_id": "trace", "run_id": "run", "task_id": "generate", "map_index": -1}
    ti = TaskInstance(**names, try_number=1, max_tries=2, xcoms={})
    with tempfile.TemporaryDirectory() as folder, Emulator(latency=0) as emulator:
        os.environ["AIRFLOW_CONN_NANOBANANA_DEFAULT"] = emulator.connection_json()
        operator = NanoBananaGenerateOperator(
            task_id="generate", destination=folder, requests=["a red kite", "a blue kite"], deferrable=False,
            poke_interval=0.2, retries=2,
        )  # fmt: skip
        result = operator.execute({"ti": ti})  # type: ignore[typeddict-item]
        assert result["count"] == emulator.ledger()["count"] == 2


def way_of_a_prompt(root: Path) -> list[str]:
    """Return the file of each function that two images lead through, in the order of the first calls."""
    way: dict[tuple[str, str, int], str] = {}
    prefix = f"{root}{os.sep}"
    begun = False

    def notice(frame: FrameType, event: str, _: Any) -> None:
        nonlocal begun
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(prefix) or code.co_name.startswith("<"):
            return
        name = code.co_filename.removeprefix(prefix)
        begun = begun or (name.startswith("operators") and code.co_name == "execute")
        # The body of a class is no call; its code has the class's name and runs at import.
        if begun and not name.startswith("emulator") and code.co_flags & 0x2:
            way.setdefault((name, code.co_qualname, code.co_firstlineno), name)

    threading.setprofile(notice)
    sys.setprofile(notice)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            make_two_images()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(way.values())


def show_trace(root: Path) -> None:
    """Print the way of a prompt: files entered, stays, climbs, moves between folders."""
    way = way_of_a_prompt(root)
    stays = [name for number, name in enumerate(way) if number == 0 or way[number - 1] != name]
    graph = import_graph(root)
    moves = list(itertools.pairwise(stays))
    climbs = [(left, entered) for left, entered in moves if left in reachable(graph, entered)]
    between = [move for move in moves if Path(move[0]).parent != Path(move[1]).parent]
    print(f"  functions {len(way)}, files entered {len(set(stays))}, stays {len(stays)}")
    print(f"  climbs back up {len(climbs)}, moves between folders {len(between)}")
    print(f"  {' > '.join(dict.fromkeys(stays))}")


def main() -> None:
    chosen = sys.argv[1:] or ["lines", "imports", "trace", "time"]
    root = package()
    print(root.parent)
    shows = {"lines": show_lines, "imports": show_imports, "trace": show_trace, "time": lambda _: show_time()}
    for name in chosen:
        print(name)
        shows[name](root)


if __name__ == "__main__":
    main()
