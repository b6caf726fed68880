"""Write what this release leaves behind: ``make upgrade-data``, once a release, before its tag.

Each scenario works in virtual time against the emulator, and stops where a process would be killed or deferred. The
data set of a release is never written again; ``test_data.py`` holds it by its hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

import airflow_provider_nanobanana
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.versions import reject
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaSubmitOperator
from airflow_provider_nanobanana.polling.latency import LatencyEstimator
from airflow_provider_nanobanana.stored_forms import FORMS, REVIEW
from airflow_provider_nanobanana.submission import claims, client_ids
from tests.integration.batch.harness import GenerateTask, SharedClock, install_crash_points
from tests.integration.upgrade.world import DATA, PLACE, Downloading, Recording, download, files_of, sold
from tests.support.task_runner import RUN_STARTED, TaskInstance, attempt, sensor
from tests.support.task_state_store import MemoryTaskStateStore

#: Epoch seconds at which each scenario begins.
START: Final = 1_795_800_000.0
HTTP_TIMEOUT: Final = 30
VERSIONS: Final = "versions.json"
HASHES: Final = "hashes.json"
#: Releases that left something behind.
RELEASES_WITH_DATA: Final = sorted(path.parent.name for path in DATA.glob(f"*/{VERSIONS}"))
REQUESTS: Final[list[Any]] = [
    "a red kite",
    {"prompt": "a boat", "name": "boat", "resolution": "4K", "meta": {"sku": "SKU-1"}},
    {"prompt": "a hat", "variant": "b"},
    "a shoe",
]


#: What a person decided is kept by keys that are made of the pictures' URIs, so these are always the same.
REVIEWED: Final = Path("/tmp/nanobanana-upgrade-review/images")


class Deferred(BaseException):
    """The task was deferred, and the process that did so has ended."""


@contextmanager
def world(folder: Path, *, store: bool, seed: int = 7) -> Iterator[GenerateTask]:
    """Give a generate task in a world of its own.

    :param store: Whether Airflow has a task state store.
    :param seed: Of the ids that the service gives out; a world that goes on from a recording has another one.
    """
    clock = SharedClock()
    clock.now = START
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(latency=10, sigma=0, submit_rate=0, query_rate=0, seed=seed, clock=clock) as emulator,
    ):
        patch.setattr(client_ids, "_checked", {})
        patch.setattr(claims, "_boot_id", lambda: "a-machine-of-then")
        patch.setattr(LatencyEstimator, "first_poll_age", lambda self, kind: 0.0)
        patch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json(timeout=HTTP_TIMEOUT))
        crash_points = install_crash_points(patch, emulator, clock, sockets=True, pictures=False)
        yield GenerateTask(emulator, clock, crash_points, folder, MemoryTaskStateStore() if store else None)


def recording(batch: GenerateTask, deferral: TaskDeferred | None = None, **task: Any) -> Recording:
    """Return what is left now."""
    known = {
        "tries": batch.tries,
        "max_tries": batch.max_tries,
        "retries": batch.retries,
        "run_id": batch.run_id,
        "run_started": RUN_STARTED.isoformat(),
    }
    texts = None if batch.store is None else dict(batch.store.rows)
    xcoms = json.loads(json.dumps(batch.xcoms).replace(str(batch.folder), PLACE))
    assert str(batch.folder) not in json.dumps(texts), "no path of this machine"
    return Recording(
        release=airflow_provider_nanobanana.__version__,
        now=batch.clock.now,
        task={**known, **task},
        service=sold(batch.emulator),
        store=texts,
        xcoms=xcoms,
        files=files_of(batch.folder),
        deferral=None if deferral is None else _plain(deferral),
    )


def _plain(deferral: TaskDeferred) -> dict[str, Any]:
    """Return a deferral as Airflow's database keeps it."""
    from airflow.sdk.serde import serialize  # type: ignore[import-untyped,unused-ignore]

    path, kwargs = deferral.trigger.serialize()
    return {
        "classpath": path,
        "kwargs": kwargs,
        "stored": serialize(kwargs),
        "method": deferral.method_name,
        "next_kwargs": deferral.kwargs or {},
    }


def killed(point: str, occurrence: int, **options: Any) -> Callable[[GenerateTask], Recording]:
    """Return the scenario of a first try that is killed at a point."""

    def run(batch: GenerateTask) -> Recording:
        batch.attempt(requests=REQUESTS, crash_on=(point, occurrence), **options)
        assert point in batch.crash_points.passed, sorted(set(batch.crash_points.passed))
        return recording(batch, requests=REQUESTS)

    return run


def deferred(batch: GenerateTask) -> Recording:
    """A first try that waits for its images without a worker."""

    def stop() -> None:
        raise Deferred

    batch.on_pause = stop
    try:
        batch.attempt(requests=REQUESTS)
    except Deferred:
        return recording(batch, batch.pauses[-1], requests=REQUESTS)
    raise AssertionError("it was not deferred")


def growing(batch: GenerateTask) -> Recording:
    """A first try that waits for one image with the others in place, and a manifest that says so."""
    batch.emulator.fault(on="submit", kind="latency", seconds=400, times=1)

    def stop() -> None:
        if any(batch.folder.glob("*.png")):
            raise Deferred

    batch.on_pause = stop
    try:
        batch.attempt(requests=REQUESTS)
    except Deferred:
        assert batch.manifest["count"] and not batch.manifest["finished"]
        return recording(batch, batch.pauses[-1], requests=REQUESTS)
    raise AssertionError("it did not wait with images in place")


def done(batch: GenerateTask) -> Recording:
    """A task that has ended, with an image that failed at the service."""
    requests = [*REQUESTS, "a glove [[fail]]"]
    assert batch.attempt(requests=requests, allow_partial=True).error is None
    return recording(batch, requests=requests)


def redone(batch: GenerateTask) -> Recording:
    """A run that was reviewed, and a second one that made the rejected image anew and was killed on the way."""
    assert batch.attempt(requests=REQUESTS).error is None
    (boat,) = batch.folder.glob("boat-*.png")
    reject(ImageStore(batch.folder.as_uri()), boat.stem, by="anna", comment="too blue", now=batch.clock.now)
    batch.next_run("tuesday")
    batch.attempt(requests=REQUESTS, crash_on=("submit under way", 1))
    return recording(batch, requests=REQUESTS, dead=boat.stem)


GENERATE: Final[dict[str, Callable[[GenerateTask], Recording]]] = {
    "intent": killed("submit under way", 2),
    "submitted": killed("before land", 1),
    "partly_landed": killed("before land", 3),
    "landed_unsaid": killed("before manifest", 1),
    "deferred": deferred,
    "growing": growing,
    "done": done,
    "redone": redone,
}


def reviewed(batch: GenerateTask) -> Recording:
    """A review that was answered, and waits for a destination that takes no rejection."""
    from airflow_provider_nanobanana.batch.review import Decision, pictures
    from airflow_provider_nanobanana.operators import review

    batch.folder = REVIEWED
    shutil.rmtree(REVIEWED.parent, ignore_errors=True)
    made = batch.attempt(requests=REQUESTS)
    images = made.result["images"]
    asked = pictures(images)
    batch.xcoms[review.ASKED_KEY] = {"version": REVIEW.version, "pictures": asked}
    decision = Decision(asked, frozenset([*asked][:3]), "anna", "too blue")
    context: Any = {"ti": TaskInstance(task_id="review")}
    now = batch.clock.now
    deferral = review._deferral(context, decision, now + 60, now + 3600)
    images = json.loads(json.dumps(images).replace(str(batch.folder), PLACE))
    return recording(batch, deferral, images=images, rejected=[*asked][3])


def submit(batch: GenerateTask, crash_on: tuple[str, int] | None, *, limited: bool = False) -> Recording:
    """One submit task: killed at a point, ended, or queued where the account's rate is used up."""
    ti = TaskInstance(task_id="submit", try_number=1, max_tries=9, store=batch.store, xcoms=batch.xcoms)
    operator = NanoBananaSubmitOperator(task_id="submit", **SUBMIT, retries=9)
    if limited:
        batch.emulator.fault(on="submit", kind="rate_limit", times=99)
    context: Any = {"ti": ti, "task_instance": ti}
    context |= {"dag_run": _DagRun()} | ({} if batch.store is None else {"task_state_store": batch.store})
    batch.crash_points.crash_on = crash_on
    batch.tries = 1
    deferral = None
    try:
        batch.xcoms["return_value"] = operator.execute(context)
    except TaskDeferred as queued:
        deferral = queued
    except BaseException as ended:
        if type(ended).__name__ != "Crash":
            raise
    assert (deferral is not None) == limited
    return recording(batch, deferral, options=SUBMIT)


class _DagRun:
    start_date = run_after = RUN_STARTED


SUBMIT: Final[dict[str, Any]] = {"prompt": "a red kite", "name": "kite", "meta": {"sku": "SKU-1"}}


def pipeline(batch: GenerateTask) -> Recording:
    """Submit, sensor and download up to the download's end, and the sensor's trigger as it was meanwhile."""
    row = submit(batch, None)
    ids = [row.xcoms["return_value"]]
    requests = [row.xcoms["nanobanana_request"]]
    operator = sensor(ids, deferrable=True, poke_interval=5, timeout=900)
    ti = TaskInstance(task_id="wait")
    counted = MemoryTaskStateStore()
    wait: Any = {"ti": ti, "task_instance": ti, "task_state_store": counted}
    try:
        operator.execute(wait)
        raise AssertionError("it was not deferred")
    except TaskDeferred as pause:
        deferral = pause
    batch.clock.sleep(30)
    records = sensor(ids, deferrable=True).execute_complete(wait, None)
    batch.xcoms.clear()
    land = Downloading(task_id="download", xcoms=batch.xcoms, left=requests)
    images = attempt(download(records, batch.folder), land)
    assert images.error is None
    batch.xcoms["return_value"] = images.result
    return recording(batch, deferral, ids=ids, records=records, requests=requests, counted=counted.rows)


def main(release: str) -> int:
    """Write the data set of a release that has none."""
    folder = DATA / release
    if folder.exists():
        print(f"{folder} is there, and stays as it is. Raise __version__ for another one.", file=sys.stderr)
        return 1
    logging.disable(logging.CRITICAL)
    scenarios: dict[str, tuple[bool, Callable[[GenerateTask], Recording]]] = {}
    for name, run in GENERATE.items():
        scenarios |= {f"generate_{name}": (True, run), f"generate_{name}_xcom": (False, run)}
    scenarios["submit_intent"] = (True, lambda batch: submit(batch, ("submit under way", 1)))
    scenarios["submit_intent_xcom"] = (False, lambda batch: submit(batch, ("submit under way", 1)))
    scenarios["submit_submitted"] = (True, lambda batch: submit(batch, ("after write", 3)))
    scenarios["submit_done"] = (True, lambda batch: submit(batch, None))
    scenarios["submit_queued"] = (True, lambda batch: submit(batch, None, limited=True))
    scenarios["submit_queued_xcom"] = (False, lambda batch: submit(batch, None, limited=True))
    scenarios["pipeline"] = (True, pipeline)
    scenarios["review"] = (True, reviewed)
    for name, (store, run) in scenarios.items():
        with tempfile.TemporaryDirectory() as place, world(Path(place) / "images", store=store) as batch:
            run(batch).write(folder, name)
        print(f"{name}: {(folder / f'{name}.json').stat().st_size:,} bytes")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    versions = {"commit": commit, "forms": {form.name: form.version for form in FORMS}}
    (folder / VERSIONS).write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")
    hashes = {path.name: set_hash(path) for path in DATA.iterdir() if path.is_dir()}
    (DATA / HASHES).write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")
    return 0


def set_hash(folder: Path) -> str:
    """Return the hash of a data set: of all names and bytes in it."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else airflow_provider_nanobanana.__version__))
