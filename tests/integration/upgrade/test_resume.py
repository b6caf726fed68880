"""What a release left behind is resumed by the code as it is: nothing is bought again, and everything lands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.durable.counted import not_counted_before
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaReviewOperator, NanoBananaSubmitOperator
from airflow_provider_nanobanana.ui.confinement import parse_folder
from airflow_provider_nanobanana.ui.gallery import is_manifest_of, read_gallery
from airflow_provider_nanobanana.ui.task_records import _manifest
from tests.integration.batch.harness import GenerateTask
from tests.integration.upgrade.record import RELEASES_WITH_DATA, REVIEWED
from tests.integration.upgrade.world import Downloading, Recording, download
from tests.support.manifests import manifest_faults
from tests.support.task_runner import RUN_STARTED, TaskInstance, attempt, fire, sensor
from tests.support.task_state_store import MemoryTaskStateStore
from tests.support.versions import AIRFLOW, REVIEWS, needs

pytestmark = pytest.mark.parametrize("release", RELEASES_WITH_DATA)
KILLED = ("intent", "submitted", "partly_landed", "landed_unsaid")
STORES = pytest.mark.parametrize("kind", ["", "_xcom"], ids=["store", "xcom"])
FOUR = 4


def restore(batch: GenerateTask, release: str, name: str) -> Recording:
    """Put a recording into the world of a test, at the moment at which it stopped."""
    left = Recording.read(release, name)
    batch.clock.now = left.now
    left.restore_service(batch.emulator)
    left.restore_files(batch.folder)
    batch.tries, batch.max_tries, batch.retries = (left.task[name] for name in ("tries", "max_tries", "retries"))
    batch.run_id = left.task["run_id"]
    batch.store = None if left.store is None else MemoryTaskStateStore()
    if batch.store is not None and left.store is not None:
        batch.store.rows.update(left.store)
    batch.xcoms.update(left.restored_xcoms(batch.folder))
    return left


def spent(batch: GenerateTask, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what the command line says of the destination."""
    capsys.readouterr()
    main(["spend", batch.folder.as_uri(), "--json"])
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


@STORES
@pytest.mark.parametrize("then", ["retry", "clear", "another run"])
@pytest.mark.parametrize("state", KILLED)
def test_what_a_killed_try_bought_is_landed_and_what_it_did_not_buy_is_bought_once(
    batch: GenerateTask, release: str, state: str, then: str, kind: str
) -> None:
    left = restore(batch, release, f"generate_{state}{kind}")
    before = batch.charges
    if then == "clear":
        batch.clear()
    elif then == "another run":
        batch.next_run("another")
    run = batch.attempt(requests=left.task["requests"])
    assert run.error is None and run.result["count"] == FOUR
    assert before <= batch.charges == FOUR, "each picture is paid once, whoever began it"
    assert {row["id"] for row in left.service} <= {task["id"] for task in batch.emulator.ledger()["image_tasks"]}
    assert len(batch.files) == FOUR and manifest_faults(batch.manifest) == []


@STORES
@pytest.mark.parametrize("state", ["deferred", "growing"])
def test_a_deferred_trigger_starts_fires_and_its_task_goes_on(
    batch: GenerateTask, release: str, state: str, kind: str
) -> None:
    left = restore(batch, release, f"generate_{state}{kind}")
    assert left.deferral is not None
    batch.clock.sleep(500)
    trigger = left.trigger(shift=time.time() - left.now - 60)
    event = asyncio.run(fire(trigger))
    assert event["outcome"] in ("finished", "enough") and event["counts"]["completed"] >= 1
    assert left.deferral["method"] == "execute_complete"
    run = batch._follow({"requests": left.task["requests"]}, {"event": event, **left.deferral["next_kwargs"]})
    assert run.error is None and run.result["count"] == FOUR and batch.charges == FOUR
    assert batch.manifest["finished"] is True


@STORES
@pytest.mark.parametrize("state", ["deferred", "growing"])
def test_the_trigger_is_what_airflow_makes_of_its_database(
    batch: GenerateTask, release: str, state: str, kind: str
) -> None:
    left = Recording.read(release, f"generate_{state}{kind}")
    assert left.deferral is not None
    # Airflow before 3.2 stored triggers in another way, which is its own business.
    if AIRFLOW >= (3, 2):
        from airflow.sdk.serde import deserialize  # type: ignore[import-untyped,unused-ignore]

        assert deserialize(left.deferral["stored"]) == left.deferral["kwargs"]
    kept = left.trigger().serialize()
    assert kept[0] == left.deferral["classpath"], "a class path never changes"
    assert kept[1].items() >= left.deferral["kwargs"].items()


@STORES
@pytest.mark.parametrize("then", ["retry", "clear", "another run"])
def test_what_was_done_is_used_and_only_what_failed_is_bought(
    batch: GenerateTask, release: str, then: str, kind: str
) -> None:
    left = restore(batch, release, f"generate_done{kind}")
    assert batch.charges == FOUR and batch.posts == FOUR + 1
    if then == "clear":
        batch.clear()
    elif then == "another run":
        batch.next_run("another")
    run = batch.attempt(requests=[*left.task["requests"][:FOUR]], allow_partial=True)
    assert run.error is None and run.result["count"] == FOUR
    assert batch.charges == FOUR, "what is paid is used"
    # A retry goes on with the list that it began with, and tries again what was refunded.
    again = 1 if then == "retry" and batch.store is not None else 0
    assert batch.posts == FOUR + 1 + again


@STORES
def test_gallery_and_spend_read_what_was_written(
    batch: GenerateTask, release: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(batch, release, f"generate_done{kind}")
    manifest = json.loads((batch.folder / Path(batch.xcoms["nanobanana_gallery"]["manifest"]).name).read_text())
    assert _manifest(batch.xcoms["nanobanana_gallery"]) == batch.xcoms["return_value"]["manifest"]
    assert is_manifest_of(manifest, "dag", "run", "generate", -1)
    shown = read_gallery(manifest, parse_folder(batch.folder.as_uri()))
    assert (shown.totals["images"], shown.totals["failed"]) == (FOUR, 1)
    found = spent(batch, capsys)
    assert found["totals"]["paid_usd"] == batch.emulator.ledger()["net_usd"] == shown.totals["paid_usd"]
    (index,) = (batch.folder / ".nanobanana" / "index").glob("*.jsonl")
    assert len(index.read_text().splitlines()) == FOUR


@STORES
def test_a_growing_manifest_counts_what_is_under_way(
    batch: GenerateTask, release: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(batch, release, f"generate_growing{kind}")
    found = spent(batch, capsys)
    assert found["totals"]["paid_usd"] == batch.emulator.ledger()["net_usd"]


@STORES
def test_a_version_that_was_taken_for_a_run_is_its_own_and_a_rejection_stands(
    batch: GenerateTask, release: str, kind: str
) -> None:
    left = restore(batch, release, f"generate_redone{kind}")
    assert batch.charges == FOUR + 1
    run = batch.attempt(requests=left.task["requests"])
    assert run.error is None and batch.charges == FOUR + 1, "the version that was bought is not bought again"
    (boat,) = [image for image in run.result["images"] if image["name"] == "boat"]
    assert boat["version"] == 2 and not boat["uri"].endswith(f"{left.task['dead']}.png")
    batch.next_run("wednesday")
    again = batch.attempt(requests=left.task["requests"])
    assert again.error is None and batch.charges == FOUR + 1, "and the next run uses it"


def test_claims_of_more_than_a_day_ago_hold_nobody_up(batch: GenerateTask, release: str) -> None:
    """Their links are dead: who still wants the pictures buys each once."""
    left = restore(batch, release, "generate_submitted")
    batch.next_run("another")
    batch.clock.sleep(30 * 3600)
    for path in (batch.folder / ".nanobanana").rglob("*.json"):
        os.utime(path, (time.time() - 30 * 3600,) * 2)
    run = batch.attempt(requests=left.task["requests"])
    assert run.error is None and batch.charges == 2 * FOUR
    batch.next_run("a third")
    assert batch.attempt(requests=left.task["requests"]).error is None and batch.charges == 2 * FOUR


# --- the three tasks --------------------------------------------------------------------------------------------------


def context_of(batch: GenerateTask, left: Recording, *, tries: int) -> Any:
    ti = TaskInstance(task_id="submit", try_number=tries, max_tries=9, store=batch.store, xcoms=batch.xcoms)
    context = {"ti": ti, "task_instance": ti, "dag_run": DagRun()}
    return context if batch.store is None else {**context, "task_state_store": batch.store}


class DagRun:
    start_date = run_after = RUN_STARTED


@pytest.mark.parametrize("name", ["submit_intent", "submit_intent_xcom", "submit_submitted", "submit_done"])
def test_a_submit_finds_what_it_bought(batch: GenerateTask, release: str, name: str) -> None:
    left = restore(batch, release, name)
    if batch.store is None:
        # Airflow before 3.3 removes them as the next try begins.
        batch.xcoms.clear()
    bought = NanoBananaSubmitOperator(task_id="submit", retries=9, **left.task["options"]).execute(
        context_of(batch, left, tries=2)
    )
    assert batch.posts == 1 and [row["id"] for row in left.service] == [bought]
    assert batch.xcoms["nanobanana_request"]["name"] == "kite"


@pytest.mark.parametrize("name", ["submit_queued", "submit_queued_xcom"])
def test_a_queued_submit_is_woken_and_submits_once(batch: GenerateTask, release: str, name: str) -> None:
    left = restore(batch, release, name)
    assert left.deferral is not None and batch.posts == 0
    trigger = left.trigger(shift=-left.now)
    event = asyncio.run(fire(trigger))
    event["deadline"] = left.deferral["kwargs"]["deadline"]
    batch.clock.now = left.deferral["kwargs"]["moment"]
    operator = NanoBananaSubmitOperator(task_id="submit", retries=9, **left.task["options"])
    bought = operator.execute_queued(context_of(batch, left, tries=1), event=event, **left.deferral["next_kwargs"])
    assert batch.posts == 1 and bought == batch.emulator.ledger()["image_tasks"][0]["id"]


def test_a_sensor_is_woken_and_its_download_lands_the_same_files(batch: GenerateTask, release: str) -> None:
    left = restore(batch, release, "pipeline")
    event = asyncio.run(fire(left.trigger(shift=time.time() - left.now)))
    assert event["outcome"] == "finished"
    counted = MemoryTaskStateStore()
    counted.rows.update(left.task["counted"])
    wait: Any = {"ti": TaskInstance(task_id="wait"), "task_state_store": counted}
    assert not_counted_before(wait, [*left.task["ids"], "tsk_new"]) == {"tsk_new"}, "nothing is counted twice"
    records = sensor(left.task["ids"]).resume_execution("execute_complete", {"event": event}, wait)
    assert [record["id"] for record in records] == left.task["ids"]
    files = batch.files
    for given in (left.task["records"], records):
        run = attempt(download(given, batch.folder), Downloading(task_id="download", left=left.task["requests"]))
        assert run.error is None and run.result[0]["name"] == "kite"
        assert batch.files == files and len(files) == 1, "one file, under the name that it had"
    assert batch.posts == 1


@needs(REVIEWS)
def test_what_a_person_decided_is_carried_out(batch: GenerateTask, release: str) -> None:
    batch.folder = REVIEWED
    shutil.rmtree(REVIEWED.parent, ignore_errors=True)
    left = restore(batch, release, "review")
    assert left.deferral is not None and left.deferral["method"] == "execute_decided"
    images = json.loads(json.dumps(left.task["images"]).replace("{DESTINATION}", str(batch.folder)))
    event = asyncio.run(fire(left.trigger(shift=-left.now - 60)))
    context: Any = {"ti": TaskInstance(task_id="review", xcoms=batch.xcoms)}
    operator = NanoBananaReviewOperator(task_id="review", images=images)
    result = operator.execute_decided(context, event=event, **left.deferral["next_kwargs"])
    assert (len(result["approved"]), len(result["rejected"]), result["by"]) == (FOUR - 1, 1, "anna")
    assert len(list((batch.folder / ".nanobanana" / "rejections").iterdir())) == 1
    assert batch.charges == FOUR
    shutil.rmtree(REVIEWED.parent)


# --- before the first release -----------------------------------------------------------------------------------------


def test_manifests_of_the_first_version_are_summed_up_and_shown(
    batch: GenerateTask, release: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left = Recording.read("manifests-1", "destination")
    left.restore_files(batch.folder)
    assert spent(batch, capsys)["totals"]["paid_usd"] == left.task["charged_usd"]
    (path,) = batch.folder.glob("manifest-dag-run-*.json")
    manifest = json.loads(path.read_text())
    assert manifest["version"] == 1
    shown = read_gallery(manifest, parse_folder(batch.folder.as_uri()))
    assert (shown.totals["images"], shown.totals["failed"]) == (2, 1)
