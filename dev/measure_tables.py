"""How long the preparation of a batch from a Parquet file takes, and how much memory its process needs::

    .venv/bin/python -m dev.measure_tables [--rows 10000] [--columns 8] [--variants 1]

Makes a file of rows with a name, a prompt's columns and eight of the user's own, and prepares it with the real
``BatchPreparation`` in a process of its own: once with the task state store of Airflow 3.3, once without one. Nothing
is sent: the preparation ends before the first submit. Prints seconds, those of its CPU (the machine may be busy), the
process's peak and the bytes of the snapshot.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CONNECTION = json.dumps({"conn_type": "nanobanana", "password": "sk-none", "host": "http://127.0.0.1:9"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the file, prepare it in processes of their own, print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=8, help="beside name, product and colour")
    parser.add_argument("--variants", type=int, default=1)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    parser.add_argument("--store", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.prepare:
        print(json.dumps(_prepare(Path(options.prepare), options.variants, with_store=options.store)))
        return 0
    with tempfile.TemporaryDirectory(prefix="nanobanana-tables-") as name:
        folder = Path(name)
        size = _make_file(folder / "rows.parquet", options.rows, options.columns)
        print(f"{options.rows:,} rows, {options.columns} columns beside three: {size / 1e6:.1f} MB of Parquet")
        for store in ([], ["--store"]):
            command = [sys.executable, "-m", "dev.measure_tables", "--prepare", name, *store]
            command += ["--variants", str(options.variants)]
            ended = subprocess.run(command, check=True, capture_output=True, text=True)
            facts = json.loads(ended.stdout.splitlines()[-1])
            print(
                f"{'with' if store else 'without'} a state store: {facts['items']:,} images prepared in "
                f"{facts['seconds']:.1f} s ({facts['cpu']:.1f} s of CPU), {facts['peak'] / 1000:.0f} MB at most "
                f"({facts['before'] / 1000:.0f} before), {facts['stored'] / 1e6:.1f} MB stored"
            )
    return 0


def _make_file(path: Path, rows: int, columns: int) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    table: dict[str, list[Any]] = {
        "name": [f"SKU-{number:05}" for number in range(rows)],
        "product": [f"espresso cup no. {number}" for number in range(rows)],
        "colour": ["red", "blue", "green", "black"] * (rows // 4) + ["red"] * (rows % 4),
    }
    for column in range(columns):
        kind = column % 4
        table[f"own_{column}"] = [
            (f"text of row {n}, column {column}", n / 7, n, n % 3 == 0 or None)[kind] for n in range(rows)
        ]
    parquet.write_table(pa.table(table), path)
    return path.stat().st_size


def _prepare(folder: Path, variants: int, *, with_store: bool) -> dict[str, Any]:
    import os

    os.environ["AIRFLOW_CONN_NANOBANANA_DEFAULT"] = _CONNECTION
    from airflow_provider_nanobanana.batch.preparation import BatchPreparation
    from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
    from tests.support.task_runner import TaskInstance
    from tests.support.task_state_store import MemoryTaskStateStore

    store = MemoryTaskStateStore() if with_store else None
    ti = TaskInstance(store=store)
    operator = NanoBananaGenerateOperator(
        task_id="task",
        destination=(folder / "images").as_uri(),
        requests=(folder / "rows.parquet").as_uri(),
        prompt="{product}, {colour}, on a café table",
        variants=variants,
    )
    found: dict[str, Any] = {}

    class Prepared(Exception):
        """The preparation is over."""

    def stop(self: Any, context: Any, state: Any, began: float) -> Any:
        found["items"] = len(state.items)
        found["seconds"] = time.monotonic() - started
        found["cpu"] = time.process_time() - busy
        raise Prepared

    operator._run = stop.__get__(operator)  # type: ignore[method-assign]
    context: Any = {"ti": ti, "task_instance": ti, **({"task_state_store": store} if store else {})}
    assert BatchPreparation.prepare is not None  # imported before the clock runs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, busy = time.monotonic(), time.process_time()
    with contextlib.suppress(Prepared):
        operator.execute(context)
    stored = sum(map(len, store.rows.values())) if store else sum(len(json.dumps(x)) for x in ti.xcoms.values())
    return {**found, "before": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "stored": stored}


if __name__ == "__main__":
    sys.exit(main())
