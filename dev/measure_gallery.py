"""What the gallery costs: seconds until one sees pictures, and what it does to the rest of Airflow::

    .venv/bin/python -m dev.measure_gallery [--images 500]

Starts an Airflow with an emulator behind it, lets one task make the images with their thumbnails and another one
without, and measures: the first picture and all of them, in the system's Chromium; the latency of another call of
Airflow's API while thumbnails are made, against that of the same call when nothing else goes on; what loading the
plugin costs a process that serves nothing; and how much is sent for the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from dev.stack.airflow_stack import AirflowStack
from dev.stack.browser import Site, no_browser, started_browser
from dev.stack.console import Progress, run_program
from dev.stack.emulator_process import start_emulator
from dev.stack.processes import REPO, Processes

if TYPE_CHECKING:
    from playwright.sync_api import Page

_DAGS = """
from airflow.sdk import DAG, task

def prompts(params):
    words = " in the light of a late afternoon" * 4
    return [{"prompt": f"picture {n}{words}", "name": f"picture-{n}"} for n in range(params["count"])]

for made in (True, False):
    with DAG(f"measured_{made}", default_args={"retries": 2}, params={"count": 1, "destination": ""}):
        task.nanobanana(destination="{{ params.destination }}", thumbnails=made, task_id="pictures")(prompts)()
"""
#: Runs in a process of its own, as each task of Airflow is one.
_IMPORT = """
import json, sys, time
import airflow.sdk, psutil
from airflow.providers.common.compat.sdk import AirflowPlugin, conf
conf.get("core", "dags_folder")
process = psutil.Process()
before, memory, began = len(sys.modules), process.memory_info().rss, time.process_time()
import airflow_provider_nanobanana.ui.plugin
cpu, grown = time.process_time() - began, process.memory_info().rss - memory
print(json.dumps({"ms CPU": cpu * 1e3, "MB": grown / 1e6, "modules": len(sys.modules) - before}))
"""
_SEEN = """() => [...document.querySelectorAll('.nb-card img')]
    .some((image) => image.complete && image.naturalWidth)"""
_ALL_IN_VIEW = """() => {
    const images = [...document.querySelectorAll('.nb-card img')].filter((image) => {
        const box = image.getBoundingClientRect();
        return box.bottom > 0 && box.top < innerHeight;
    });
    return images.length > 0 && images.every((image) => image.complete && image.naturalWidth);
}"""
#: Brings each picture into view, and resolves when all have been loaded.
_ALL = """async () => {
    const images = [...document.querySelectorAll('.nb-card img')];
    for (const image of images) image.loading = 'eager';
    await Promise.all(images.map((image) => image.decode().catch(() => null)));
    return images.filter((image) => image.naturalWidth).length;
}"""
_WEIGHT = """() => performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
    .map((entry) => [new URL(entry.name).pathname.split('/').slice(2, 4).join('/'), entry.transferSize])"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    count = parser.parse_args(arguments).images
    return run_program(lambda processes, progress: _measure(processes, progress, count))


def _measure(processes: Processes, progress: Progress, count: int) -> int:
    if missing := no_browser():
        progress.say(missing)
        return 2
    with tempfile.TemporaryDirectory(prefix="nanobanana-gallery-") as name:
        folder = Path(name)
        dags = folder / "dags"
        dags.mkdir()
        (dags / "measured.py").write_text(_DAGS)
        service = start_emulator(
            processes, folder / "emulator.log", latency=0, submit_rate=0, query_rate=0, burst_seconds=60
        )
        env = {**service.environment, "AIRFLOW__NANOBANANA__GALLERY_ROOTS": folder.as_uri()}
        stack = AirflowStack(folder / "airflow", [dags], env=env, say=progress.say, processes=processes)
        stack.start()
        runs = {}
        for dag_id in ("measured_True", "measured_False"):
            stack.api.wait_for_dag(dag_id)
            began = time.monotonic()
            conf = {"count": count, "destination": (folder / dag_id).as_uri()}
            runs[dag_id] = stack.api.trigger(dag_id, conf)
            state = stack.api.wait_for_run(dag_id, runs[dag_id], timeout=1800)
            progress.say(f"{count} images of {dag_id}: {state} after {time.monotonic() - began:.0f} s")
        _show("plugin loaded in a process that serves nothing", _import_cost())
        with started_browser() as browser:
            site = Site(browser, stack.url, stack.password)
            _show_latency(site, "measured_False", runs["measured_False"], count)
            _show_pages(site, "measured_True", runs["measured_True"], "thumbnails in storage")
            _show_pages(site, "measured_False", runs["measured_False"], "none in storage, half of them made before")
    return 0


def _import_cost() -> dict[str, float]:
    """Return CPU, memory and modules of loading the plugin, the median of five processes."""
    found = [
        json.loads(subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, cwd=REPO).stdout)
        for _ in range(5)
    ]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _show_latency(site: Site, dag_id: str, run_id: str, count: int) -> None:
    """Measure another call of the API when nothing goes on, and while thumbnails are made for six and for sixty."""
    headers = {"Authorization": f"Bearer {site.token('admin')}"}
    with httpx.Client(base_url=site.url, headers=headers, trust_env=False, timeout=120) as http:
        answer = http.get(f"/nanobanana/api/gallery/{dag_id}", params={"run_id": run_id}).raise_for_status().json()
        (shown,) = [each for each in answer["tasks"] if each["cards"]]
        keys = [card["key"] for card in shown["cards"]]

        def thumbnail(key: str) -> int:
            asked = {"run_id": run_id, "task_id": shown["task_id"], "map_index": "-1", "key": key}
            return len(http.get(f"/nanobanana/api/thumb/{dag_id}", params=asked).raise_for_status().content)

        idle = _latencies(http, lambda: time.sleep(5))
        _show("another call, idle", _summary(idle))
        for parallel, chosen in ((6, keys[: count // 4]), (60, keys[count // 4 : count // 2])):
            began = time.monotonic()
            busy = _latencies(http, lambda keys=chosen, most=parallel: _in_parallel(thumbnail, keys, most))  # type: ignore[misc]
            seconds = time.monotonic() - began
            ratio = statistics.median(busy) / statistics.median(idle)
            _show(
                f"another call, while {len(chosen)} thumbnails are made, {parallel} at once ({seconds:.1f} s)",
                {**_summary(busy), "median against idle": ratio, "max against idle": max(busy) / max(idle)},
            )
        again = time.monotonic()
        sizes = [thumbnail(key) for key in keys[: count // 4]]
        _show(
            "one thumbnail again",
            {"ms": 1e3 * (time.monotonic() - again) / len(sizes), "kB": statistics.mean(sizes) / 1e3},
        )


def _in_parallel(work: Callable[[str], int], keys: Sequence[str], most: int) -> None:
    with ThreadPoolExecutor(most) as pool:
        list(pool.map(work, keys))


def _latencies(http: httpx.Client, meanwhile: Callable[[], None]) -> list[float]:
    """Return the milliseconds of calls that are made one after another as long as something else goes on."""
    over = threading.Event()
    found: list[float] = []

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            http.get("/api/v2/dags", params={"limit": 10}).raise_for_status()
            found.append(1e3 * (time.monotonic() - began))
            over.wait(0.05)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        meanwhile()
    finally:
        over.set()
        asker.join()
    return found


def _summary(milliseconds: Sequence[float]) -> dict[str, float]:
    return {"ms median": statistics.median(milliseconds), "ms max": max(milliseconds), "calls": len(milliseconds)}


def _show_pages(site: Site, dag_id: str, run_id: str, title: str) -> None:
    """Measure the page for a new visitor, and again with what the browser kept."""
    with site.visit() as page:
        for visit in ("first visit", "second visit"):
            measured = dict(_page_times(page, f"nanobanana/view/{dag_id}/{quote(run_id, safe='')}"))
            _show(f"page, {title}, {visit}", measured)


def _page_times(page: Page, path: str) -> Iterator[tuple[str, Any]]:
    page.set_default_timeout(300_000)
    began = time.monotonic()
    page.goto(path, wait_until="commit")
    for name, condition in (("s first picture", _SEEN), ("s all in view", _ALL_IN_VIEW)):
        page.wait_for_function(condition, polling=20)
        yield name, time.monotonic() - began
    weights = page.evaluate(_WEIGHT)
    for part in ("static", "api/gallery", "api/thumb"):
        yield f"kB {part}", sum(size for where, size in weights if where.startswith(part)) / 1e3
    began = time.monotonic()
    yield "pictures", page.evaluate(_ALL)
    yield "s until all are there", time.monotonic() - began


def _show(title: str, values: dict[str, float]) -> None:
    print(f"{title}: " + ", ".join(f"{name} {value:,.4g}" for name, value in values.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
