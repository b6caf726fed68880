"""What is left in the end: every image that was paid, a result that survives its writing, and words for 3 a.m."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk import Asset, AssetAlias

from airflow_provider_nanobanana import unexpected_errors
from airflow_provider_nanobanana.emulator import responses, routes_api
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.operators import generate
from airflow_provider_nanobanana.operators.manifest import GALLERY_KEY
from airflow_provider_nanobanana.toapis import errors, session
from airflow_provider_nanobanana.toapis.protocol import status_call
from tests.integration.batch.harness import GenerateTask
from tests.support.task_runner import KEPT, TaskInstance
from tests.support.text import flat
from tests.support.versions import HASHABLE_ASSETS, needs

PROMPTS = [f"picture {number}" for number in range(4)]

Spoil = Callable[[str], BaseException | None]


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unexpected_errors, "_logged", set())


def come_with(monkeypatch: pytest.MonkeyPatch, further: int, prompt: str = "") -> None:
    """Let each image task with the prompt show so many images beside its own."""

    async def data(gateway: Any, task: Any, shapes: Any) -> list[dict[str, Any]]:
        return [{"url": gateway.link(task, index)} for index in range(1 + further * (prompt in task.prompt))]

    monkeypatch.setattr(routes_api, "_data", data)


def spoil(monkeypatch: pytest.MonkeyPatch, trouble: Spoil, land: Any = ImageDownloader.land) -> None:
    """Raise when an image is landed what ``trouble`` has for its stem."""

    def landing(self: ImageDownloader, image: Any, *args: Any, **kwargs: Any) -> Any:
        if (error := trouble(kwargs["stem"])) is not None:
            raise error
        return land(self, image, *args, **kwargs)

    monkeypatch.setattr(ImageDownloader, "land", landing)


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(
        flat(record.getMessage()) for record in caplog.records if record.name.startswith("airflow_provider")
    )


def xcom(run: Any) -> dict[str, Any]:
    value: dict[str, Any] = run.ti.xcoms["return_value"]
    return value


# --- all images of an image task -----------------------------------------------------------------------------------


def test_all_images_are_landed_numbered_and_found_by_the_next_run(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    come_with(monkeypatch, 2, "picture 1")
    with caplog.at_level(logging.INFO):
        first = batch.attempt(requests=PROMPTS)
    assert first.error is None and "More images than asked for came with the others: 2" in told(caplog)
    (stem,) = {
        Path(image["uri"]).stem for image in first.result["images"] if image["request"] == 1 and not image["index"]
    }
    assert {f"{stem}.png", f"{stem}.1.png", f"{stem}.2.png"} <= set(batch.files) and len(batch.files) == 6
    batch.next_run("later")
    second = batch.attempt(requests=PROMPTS)
    for run, cost in ((first, 0.1), (second, 0.0)):
        assert (run.result["count"], run.result["extra_count"], run.result["failed_count"]) == (4, 2, 0)
        found = [(image["request"], image["index"]) for image in run.result["images"]]
        assert found == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)]
        assert run.result["cost_usd"] == pytest.approx(cost)
        assert {Path(image["uri"]).name for image in run.result["images"]} == set(batch.files)
    assert batch.posts == 4 and batch.manifest["extra_count"] == 2 and len(batch.manifest["images"]) == 6


def test_a_name_of_any_length_has_room_for_the_number(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_with(monkeypatch, 15)
    run = with_store.attempt(requests=[{"prompt": "p", "name": "n" * 80}], reuse_existing=False)
    assert run.error is None and run.result["extra_count"] == 15 == len(with_store.files) - 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.DownloadFailed("503"), NanoBananaException),
        (errors.StorageFailed("full"), NanoBananaException),
        (ValueError("odd"), NanoBananaException),
        (errors.UnsafeAddress("inside"), NanoBananaFailException),
    ],
)
def test_a_further_image_that_is_not_landed_is_told_of_and_takes_nothing_with_it(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type
) -> None:
    batch = with_store
    come_with(monkeypatch, 2, "picture 1")
    land = ImageDownloader.land
    spoil(monkeypatch, lambda stem: error if stem.endswith(".1") else None, land)
    run = batch.attempt(requests=PROMPTS, timeout=60)
    assert type(run.error) is kind and (xcom(run)["count"], xcom(run)["extra_count"]) == (4, 1)
    (failed,) = xcom(run)["failed"]
    assert failed["request"] == 1 and failed["charged"] == "yes" and failed["id"] in flat(run.error)
    assert xcom(run)["cost_usd"] == pytest.approx(0.1)
    monkeypatch.setattr(ImageDownloader, "land", land)
    if kind is NanoBananaFailException:
        batch.clear()
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and batch.posts == 4
    assert again.result["extra_count"] == (1 if kind is NanoBananaFailException else 2)


def test_images_beside_a_first_one_that_is_not_landed_are_named(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    come_with(monkeypatch, 2)

    def trouble(stem: str) -> BaseException | None:
        if "." not in stem:
            return errors.UnsafeAddress("inside")
        if stem.endswith(".1"):
            return None
        spoilt = errors.ImageInvalid("cut")
        spoilt.kept = KEPT
        return spoilt

    spoil(monkeypatch, trouble)
    run = with_store.attempt(requests=["p"], timeout=60)
    (landed,) = with_store.files
    assert run.error is not None and xcom(run)["count"] == 0
    assert landed in told(caplog) and KEPT["uri"] in told(caplog)


def test_with_allow_partial_it_is_only_told(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    come_with(monkeypatch, 1)
    spoil(monkeypatch, lambda stem: errors.UnsafeAddress("inside") if stem.endswith(".1") else None)
    run = with_store.attempt(requests=PROMPTS, allow_partial=True)
    assert run.error is None and (run.result["count"], run.result["failed_count"]) == (4, 4)


def test_a_further_image_that_is_gone_buys_nothing(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = with_store
    come_with(monkeypatch, 1, "picture 1")
    batch.attempt(requests=PROMPTS)
    next(batch.folder.glob("*.1.png")).unlink()
    batch.clock.sleep(30 * 86_400)
    batch.clear()
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and batch.posts == 4 and run.result["extra_count"] == 0


def test_further_images_are_landed_though_the_first_cannot_be(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_with(monkeypatch, 1)
    spoil(monkeypatch, lambda stem: None if stem.endswith(".1") else errors.UnsafeAddress("inside"))
    run = with_store.attempt(requests=["a"])
    assert run.error is not None and len(with_store.files) == 1 and xcom(run)["count"] == 0


# --- bytes in quarantine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_partial", [False, True])
def test_bytes_in_quarantine_fail_their_request(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, allow_partial: bool
) -> None:
    def bad(stem: str) -> BaseException | None:
        error = errors.ImageInvalid("truncated")
        error.kept = KEPT
        return error if stem.startswith("bad") else None

    spoil(monkeypatch, bad)
    run = batch.attempt(requests=[{"prompt": "x", "name": "bad"}, *PROMPTS], allow_partial=allow_partial)
    value = xcom(run)
    assert (run.error is None) == allow_partial and (value["count"], value["failed_count"]) == (4, 1)
    assert value["quarantined"] == batch.manifest["quarantined"] == [{**KEPT, "request": 0}]
    (failed,) = value["failed"]
    assert (failed["code"], failed["charged"]) == ("image_invalid", "yes")
    if run.error is not None:
        assert KEPT["uri"] in flat(run.error) and type(run.error) is NanoBananaException


def test_quarantine_is_told_of_also_after_a_pause(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(stem: str) -> BaseException | None:
        error = errors.ImageInvalid("truncated")
        error.kept = KEPT
        return error if stem.startswith("bad") else None

    spoil(monkeypatch, bad)
    with_store.emulator.fault(on="submit", kind="latency", seconds=100, match="slow")
    run = with_store.attempt(requests=[{"prompt": "x", "name": "bad"}, "slow"])
    assert len(with_store.pauses) > 1 and xcom(run)["quarantined"] == [{**KEPT, "request": 0}]


# --- one item never takes the batch with it ------------------------------------------------------------------------


def test_whatever_landing_raises_ends_that_image_alone(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    odd = iter([UnicodeError("idna"), RecursionError("deep"), MemoryError(), *[ZeroDivisionError("a bug")] * 99])
    land = ImageDownloader.land
    spoil(monkeypatch, lambda stem: next(odd) if stem.startswith("bad") else None, land)
    requests = [*({"prompt": f"x{n}", "name": f"bad-{n}"} for n in range(9)), *PROMPTS]
    run = batch.attempt(requests=requests, timeout=60)
    assert type(run.error) is NanoBananaException and (xcom(run)["count"], xcom(run)["failed_count"]) == (4, 9)
    assert {failed["charged"] for failed in xcom(run)["failed"]} == {"yes"} and "Traceback" not in flat(run.error)
    assert told(caplog).count("Unexpected ZeroDivisionError: a bug") == 1, "once, not for each"
    assert "in landing" in told(caplog), "with the lines it came from"
    monkeypatch.setattr(ImageDownloader, "land", land)
    again = batch.attempt(requests=requests)
    assert again.error is None and batch.posts == 13


def test_whatever_a_poll_raises_is_a_failed_poll(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def poisoned(image_task_id: str, *sent: Any, **options: Any) -> Any:
        if not options["by_client_id"]:
            asked.append(image_task_id)
            if image_task_id == asked[0]:
                raise UnicodeError("Invalid A-label")
        return status_call(image_task_id)

    monkeypatch.setattr(session, "status_call", poisoned)
    run = with_store.attempt(requests=PROMPTS, timeout=60)
    assert type(run.error) is NanoBananaException and xcom(run)["count"] == 3
    assert asked[0] in flat(run.error)
    monkeypatch.setattr(session, "status_call", status_call)
    assert with_store.attempt(requests=PROMPTS).error is None and with_store.posts == 4


def test_a_bill_that_cannot_be_counted_takes_no_other_image_with_it(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_nanobanana.batch.cost_tracker import CostTracker

    saw = CostTracker.observe

    def counting(self: CostTracker, item: Any, image_task_id: str, image_task: Any, *more: Any) -> None:
        if image_task is not None and image_task.images and item.request.prompt == PROMPTS[2]:
            raise OverflowError("cannot convert float infinity to integer")
        saw(self, item, image_task_id, image_task, *more)

    monkeypatch.setattr(CostTracker, "observe", counting)
    run = with_store.attempt(requests=PROMPTS, timeout=60)
    assert type(run.error) is NanoBananaException and xcom(run)["count"] == 3
    assert "OverflowError" in flat(run.error) and with_store.manifest["count"] == 3


def test_what_ends_a_task_passes(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda stem: AirflowTaskTimeout("time is up"))
    with pytest.raises(AirflowTaskTimeout):
        with_store.attempt(requests=PROMPTS)


# --- the result survives its writing --------------------------------------------------------------------------------


def refuse_manifests(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def refused(*_: Any, **how: Any) -> str:
        raise error

    monkeypatch.setattr(ImageStore, "write_manifest", refused)


@pytest.mark.parametrize("error", [errors.StorageFailed("403 AccessDenied"), OSError("gone"), ValueError("no JSON")])
@pytest.mark.parametrize("allow_partial", [False, True])
def test_a_manifest_that_cannot_be_written_loses_nothing(
    batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, error: Exception, allow_partial: bool
) -> None:
    write = ImageStore.write_manifest
    refuse_manifests(monkeypatch, error)
    run = batch.attempt(requests=PROMPTS, allow_partial=allow_partial)
    assert type(run.error) is NanoBananaException and run.error.charged == "yes"
    assert "Images in place: 4, all paid" in flat(run.error) and "buys nothing again" in flat(run.error)
    assert (xcom(run)["count"], xcom(run)["manifest"]) == (4, None)
    monkeypatch.setattr(ImageStore, "write_manifest", write)
    again = batch.attempt(requests=PROMPTS, allow_partial=allow_partial)
    assert again.error is None and batch.posts == 4 and batch.manifest["count"] == 4


def test_where_images_are_missing_too_it_is_a_sentence_and_the_ids_are_named(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_manifests(monkeypatch, errors.StorageFailed("403 AccessDenied"))
    spoil(monkeypatch, lambda stem: errors.StorageFailed("403 AccessDenied"))
    monkeypatch.setattr("airflow_provider_nanobanana.batch.failure_text._MOST_LISTED", 2)
    run = with_store.attempt(requests=PROMPTS, timeout=60)
    ids = [task["id"] for task in with_store.emulator.ledger()["image_tasks"]]
    assert run.error is not None and str(run.error).startswith("Wait for the retry; if none is left, clear this task.")
    said = flat(run.error)
    assert "The manifest could not be written: 403 AccessDenied" in said and "$0.10" in said
    assert "goes on with 4 that are paid, without buying them again" in said
    assert sum(id_ in flat(run.error) for id_ in ids) == 2 and all(id_ in told(caplog) for id_ in ids)
    assert {failed["id"] for failed in xcom(run)["failed"]} == set(ids) and xcom(run)["manifest"] is None


def test_the_result_is_in_xcom_before_the_manifest_is_written(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, before = ImageStore.write_manifest, []

    def written(self: ImageStore, name: str, content: Any, **how: Any) -> str:
        if content["finished"]:
            before.append(json.loads(json.dumps(with_store.xcoms["return_value"])))
        return write(self, name, content, **how)

    monkeypatch.setattr(ImageStore, "write_manifest", written)
    run = with_store.attempt(requests=PROMPTS)
    assert before == [run.result] and Path(run.result["manifest"].removeprefix("file://")).is_file()


def test_a_task_that_keeps_no_xcom_keeps_none(with_store: GenerateTask) -> None:
    run = with_store.attempt(requests=PROMPTS, do_xcom_push=False)
    assert run.error is None and run.result["count"] == 4 and "return_value" not in run.ti.xcoms
    assert run.ti.xcoms[GALLERY_KEY]["manifest"] == run.result["manifest"]


# --- while it works -------------------------------------------------------------------------------------------------


def test_before_it_waits_its_manifest_and_where_it_is_are_there(batch: GenerateTask) -> None:
    seen: list[tuple[Any, dict[str, Any]]] = []
    batch.on_pause = lambda: seen.append((dict(batch.xcoms[GALLERY_KEY]), batch.manifest))
    run = batch.attempt(requests=PROMPTS)
    told, first = seen[0]
    assert told == {"version": 1, "manifest": run.result["manifest"], "destination": batch.folder.as_uri()}
    assert not first["finished"] and first["count"] + len(first["under_way"]) + first["waiting"] == 4
    assert {entry["id"] for entry in first["under_way"]} <= {
        task["id"] for task in batch.emulator.ledger()["image_tasks"]
    }
    last = batch.manifest
    assert (last["finished"], last["under_way"], last["waiting"], last["count"]) == (True, [], 0, 4)


def test_a_dry_run_tells_of_no_gallery(batch: GenerateTask) -> None:
    run = batch.attempt(requests=PROMPTS, dry_run=True)
    assert run.error is None and GALLERY_KEY not in run.ti.xcoms and not any(batch.folder.glob("**/*.json"))


def test_what_airflow_does_not_take_of_it_fails_nothing(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = TaskInstance.xcom_push

    def refused(self: TaskInstance, key: str, value: Any) -> None:
        if key == GALLERY_KEY:
            raise RuntimeError("no XCom today")
        push(self, key, value)

    monkeypatch.setattr(TaskInstance, "xcom_push", refused)
    run = with_store.attempt(requests=PROMPTS)
    assert run.error is None and run.result["count"] == 4 and GALLERY_KEY not in run.ti.xcoms


def test_a_killed_attempt_leaves_a_manifest_that_was_true_and_the_next_one_goes_on_from_it(
    with_store: GenerateTask,
) -> None:
    with_store.attempt(requests=PROMPTS, crash_on=("before land", 2))
    left = with_store.manifest
    bought = {task["id"] for task in with_store.emulator.ledger()["image_tasks"]}
    assert not left["finished"] and {entry["id"] for entry in left["under_way"]} == bought
    assert with_store.attempt(requests=PROMPTS).error is None
    assert with_store.manifest["finished"] and with_store.posts == 4


# --- events and words -----------------------------------------------------------------------------------------------


class Events(dict[Any, Any]):
    """As picky as Airflow's."""

    def __missing__(self, key: Any) -> Any:
        if not isinstance(key, (Asset, AssetAlias)):
            raise TypeError(f"Key should be either an asset or an asset alias, not {type(key)}")
        event = type("Event", (), {"extra": {}, "add": lambda *told, **extra: None})()
        self[key] = event
        return event


@needs(HASHABLE_ASSETS)
def test_outlets_that_are_no_assets_never_fail_a_paid_task(with_store: GenerateTask) -> None:
    from airflow.providers.common.compat.lineage.entities import File

    asset, alias = Asset("pictures"), AssetAlias("some")
    with_store.outlets = Events()
    odd: list[Any] = [File("s3://b/x"), "s3://b/x", Asset.ref(name="nobody knows it"), 5]
    run = with_store.attempt(requests=PROMPTS, outlets=[*odd, asset, alias])
    assert run.error is None and set(with_store.outlets) == {asset, alias}
    assert with_store.outlets[asset].extra["count"] == 4


def test_an_alias_gets_one_event_of_the_destination(with_store: GenerateTask) -> None:
    """In Airflow's own accessors, which a task instance has one set of: mapped ones each their own."""
    from airflow.sdk.execution_time.context import OutletEventAccessors

    asset, alias = Asset("pictures"), AssetAlias("some")
    with_store.outlets = OutletEventAccessors()
    assert with_store.attempt(requests=PROMPTS, outlets=[asset, alias]).error is None
    (event,) = with_store.outlets[alias].asset_alias_events
    assert event.dest_asset_key.uri == with_store.folder.as_uri()
    assert event.extra == with_store.outlets[asset].extra and event.extra["count"] == 4


def test_whatever_airflow_says_to_an_event_is_a_warning(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(dict[Any, Any]):
        def __missing__(self, key: Any) -> Any:
            raise RuntimeError("ASSET_NOT_FOUND")

    with_store.outlets = Broken()
    run = with_store.attempt(requests=PROMPTS, outlets=[Asset("a")])
    assert run.error is None and "The images are in place all the same" in told(caplog)


def test_an_upstream_that_was_skipped_skips(with_store: GenerateTask) -> None:
    from airflow.providers.common.compat.sdk import AirflowSkipException

    operator = with_store.operator(requests=None)
    ti = with_store.instance()
    ti.upstream = {"plan": "skipped"}
    operator.upstream_task_ids.add("plan")
    with pytest.raises(AirflowSkipException, match="skipped"):
        operator.execute(with_store.context(ti))
    ti.upstream = {"plan": "success"}
    with pytest.raises(NanoBananaFailException, match="both are None"):
        operator.execute(with_store.context(ti))
    assert with_store.posts == 0


def test_the_last_lines_say_what_was_paid_what_is_there_and_that_a_clear_is_safe(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_store.emulator.fault(on="submit", kind="content_policy", match="picture 1")
    with caplog.at_level(logging.INFO):
        run = with_store.attempt(requests=PROMPTS, allow_partial=True)
    last = told(caplog)[told(caplog).index("Images in place: 3, missing: 1; the batch has cost $0.075") :]
    assert run.error is None and "Clearing this task does not buy existing images again." in last
    assert "content_policy_violation" in last and run.result["manifest"] in last


def test_an_attempt_that_breaks_off_says_where_things_stand(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    with_store.emulator.fault(on="status", kind="unauthorized", skip=1)
    run = with_store.attempt(requests=PROMPTS)
    ids = [task["id"] for task in with_store.emulator.ledger()["image_tasks"]]
    assert run.error is not None and all(id_ in told(caplog) for id_ in ids)
    assert "0 of 4 images are in place, 4 under way" in told(caplog) and "nothing of it is bought again" in told(caplog)
    assert "Paid, and not in place" in told(caplog)


def test_many_ids_are_told_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    from tests.support.batch import failed

    generate._log_paid([failed(number, "timeout", "timeout") for number in range(120)])
    assert [record.getMessage().count("tsk_") for record in caplog.records] == [50, 50, 20]


def test_a_link_asked_for_again_is_never_a_reference_that_the_answer_repeats(
    real: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = f"{real.emulator.api_url}/reference.png"
    monkeypatch.setattr(responses, "_placed", lambda data, shapes: {"images": [reference], "output": data})
    real.emulator.fault(on="result", kind="html", status=500, times=1)
    run = real.attempt(requests=[{"prompt": "a chair", "reference_images": [reference]}])
    assert run.error is None and run.result["count"] == 1
