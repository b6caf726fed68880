"""How large XCom, manifest and index are, and how long they take, for a table of so many rows with eight more columns::

    .venv/bin/python -m dev.measure_results [--images 10000]

Makes them as generate does, in a temporary folder, and asks DuckDB for one prompt in the index.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.batch.costs import Charge, Cost, Spent, totals
from airflow_provider_nanobanana.batch.items import BatchItem
from airflow_provider_nanobanana.batch.manifest import index_lines
from airflow_provider_nanobanana.batch.outcome import StoredItem
from airflow_provider_nanobanana.batch.report import MOST_IN_XCOM, BatchReport
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.toapis.models import ImageRequest

_NOW = 1795698873.0
_PROMPT = "product photo of {}, {}, front view, white seamless background, soft shadow below"
_COLOURS = ("red", "blue", "green", "black", "white", "sand", "mint")
_PRICE = Spent.on([Charge(Cost(0.025))])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    count = parser.parse_args().images
    images = [_image(number) for number in range(count)]
    report = BatchReport(images, totals(image.spent for image in images))
    run = {"dag_id": "catalogue", "run_id": "scheduled__2026-11-26", "task_id": "pictures", "map_index": -1}

    small = BatchReport(images[:MOST_IN_XCOM], totals(())).result("s3://bucket/manifest.json")
    sizes = [len(json.dumps(record)) for record in small["images"]]
    kept = sum(record["meta"] is not None for record in small["images"])
    print(f"XCom: {len(json.dumps(small)):,} bytes for {len(sizes)} images, at most {max(sizes)} each; meta in {kept}")
    print(f"XCom of all: {len(json.dumps(report.result('s3://bucket/manifest.json'))):,} bytes")
    with tempfile.TemporaryDirectory() as scratch:
        store = ImageStore(scratch)
        content: dict[str, Any] = {}
        _timed("manifest", lambda: content.update(report.manifest(run=run, destination=store.uri(""), now=_NOW)))
        _timed("written", lambda: store.write_manifest("manifest-x", content))
        _timed("written while it works", lambda: store.write_manifest("manifest-y", content, compact=True))
        index = store.reserved("index")
        _timed("index", lambda: index.write("x.jsonl", "".join(index_lines(content)).encode()))
        for path in (Path(scratch) / "manifest-x.json", Path(scratch) / ".nanobanana" / "index" / "x.jsonl"):
            size = path.stat().st_size
            print(f"{path.name}: {size:,} bytes, {size / count:,.0f} an image")
        _timed("query", lambda: _query(f"{scratch}/.nanobanana/index/*.jsonl"))


def _image(number: int) -> StoredItem:
    name = f"SKU-{number:05d}"
    request = ImageRequest(prompt=_PROMPT.format(f"running shoe {number}", _COLOURS[number % 7]), model="nano_banana_2")
    meta = {
        "sku": name,
        "title": f"Running shoe {number}",
        "colour": _COLOURS[number % 7],
        "price": 49.9 + number % 50,
        "stock": number % 400,
        "category": "shoes/running/men",
        "season": "2026-winter",
        "updated": "2026-11-20T08:00:00",
    }
    digest = request.fingerprint()
    item = BatchItem(number, request, name, 0, digest, meta)
    image = {
        "uri": f"s3://my_aws_connection@my-bucket/catalogue/{item.key}.png",
        "id": f"tsk_img_{digest[:26].upper()}",
        "index": 0,
        "sha256": digest,
        "bytes": 1_400_000 + number,
        "format": "png",
        "width": 1024,
        "height": 1024,
    }
    return StoredItem(item, image, _PRICE, times={"submitted_at": _NOW + number / 7})


def _timed(what: str, act: Callable[[], object]) -> None:
    started = time.process_time()
    act()
    seconds = time.process_time() - started
    # Apart: whoever counts each allocation takes ten times as long.
    tracemalloc.start()
    act()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{what}: {seconds:.2f} s of CPU, {peak / 1e6:,.0f} MB at most")


def _query(files: str) -> None:
    import duckdb

    where = "prompt LIKE '%running shoe 77,%'"
    found = duckdb.execute(f"SELECT uri, meta->>'price' FROM read_json('{files}') WHERE {where}").fetchall()
    assert len(found) == 1


if __name__ == "__main__":
    main()
