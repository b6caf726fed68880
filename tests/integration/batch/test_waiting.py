"""What does not end by itself: outages, refused models, a destination that takes nothing, searches, slow landings."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_nanobanana.batch import runner, submitter
from airflow_provider_nanobanana.batch.progress import PAUSE_SECONDS
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaGenerateOperator
from airflow_provider_nanobanana.polling.subscription import TOO_LONG
from airflow_provider_nanobanana.submission import claims
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from tests.integration.batch import harness
from tests.integration.batch.harness import GenerateTask
from tests.integration.batch.test_unknown_outcomes import many
from tests.support.images import picture
from tests.support.text import flat


def seconds_held(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that takes down how long each process works from now on."""
    held: list[float] = []
    work = GenerateTask.run_slice

    def timed(self: GenerateTask, *args: Any) -> Any:
        began = self.clock.now
        try:
            return work(self, *args)
        finally:
            held.append(self.clock.now - began)

    monkeypatch.setattr(GenerateTask, "run_slice", timed)
    return held


def refuse_to_land_bad(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Let the destination take no image whose name begins with "bad"."""
    land = ImageDownloader.land

    def picky(self: ImageDownloader, image: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["stem"].startswith("bad"):
            raise StorageFailed(why)
        return land(self, image, *args, **kwargs)

    monkeypatch.setattr(ImageDownloader, "land", picky)


def test_an_outage_of_submits_ends_with_the_timeout(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is bought, then every submit answers 500 for hours."""
    batch = with_store
    monkeypatch.setattr(harness, "MOST_PAUSES", 40)
    batch.emulator.fault(on="submit", kind="server_error", skip=1)
    run = batch.attempt(requests=many(4), timeout=60)
    assert type(run.error) is NanoBananaException and "1 of 4" in flat(run.error)
    assert {failed["charged"] for failed in run.ti.xcoms["return_value"]["failed"]} == {"unknown"}
    batch.emulator.clear_faults()
    assert batch.attempt(requests=many(4)).result["count"] == batch.charges == 4


# --- a model that is refused ---------------------------------------------------------------------------------------


def test_a_model_that_is_refused_is_not_tried_ten_thousand_times(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    monkeypatch.setattr(submitter, "_MOST_THREADS", 4)
    batch.emulator.fault(on="submit", kind="model_not_found")
    run = batch.attempt(requests=many(100))
    assert isinstance(run.error, NanoBananaFailException) and "0 of 100" in flat(run.error)
    assert batch.emulator.faults()[0]["hits"] <= 4
    failed = run.ti.xcoms["return_value"]["failed"]
    assert len(failed) == 100 and {failure["charged"] for failure in failed} == {"no"}
    assert "Not sent, as another request" in failed[99]["message"]
    batch.emulator.clear_faults()
    batch.clear()
    assert batch.attempt(requests=many(100)).result["count"] == batch.charges == 100


@pytest.mark.parametrize("kind", ["model_not_found", "forbidden"])
def test_a_refused_model_is_not_that_of_others(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    batch = with_store
    monkeypatch.setattr(submitter, "_MOST_THREADS", 4)
    batch.emulator.fault(on="submit", kind=kind, match="dear")
    dear = [{"prompt": f"dear {number}", "model": "gemini-3.1-flash-image-official"} for number in range(40)]
    run = batch.attempt(requests=[*dear, *many(60)], allow_partial=True)
    assert run.error is None and run.result["count"] == len(batch.files) == 60
    assert batch.emulator.faults()[0]["hits"] <= 4 * (1 + len(batch.pauses))


def test_faulty_requests_stop_no_other(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="bad_request", match="faulty")
    run = batch.attempt(requests=[*(f"faulty {number}" for number in range(40)), *many(60)], allow_partial=True)
    assert run.error is None and len(batch.files) == 60


# --- a destination that takes nothing ------------------------------------------------------------------------------


def test_nothing_more_is_bought_while_nothing_can_be_landed(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    connection = batch.emulator.connection_json(timeout=30, submit_rate=0.5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    monkeypatch.setattr(runner, "_BETWEEN_ROUNDS", 0.01)
    land = ImageDownloader.land

    def denied(self: ImageDownloader, *args: Any, **kwargs: Any) -> Any:
        raise StorageFailed("403 AccessDenied: s3:PutObject")

    monkeypatch.setattr(ImageDownloader, "land", denied)
    run = batch.attempt(requests=many(200))
    bought = batch.posts
    assert bought < 100 and "AccessDenied" in flat(run.error) and type(run.error) is NanoBananaException
    batch.attempt(requests=many(200))
    assert batch.posts == bought, "a retry tries the destination first"
    monkeypatch.setattr(ImageDownloader, "land", land)
    run = batch.attempt(requests=many(200))
    assert run.error is None and batch.charges == len(batch.files) == 200


def test_one_image_that_cannot_be_landed_stops_no_other(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is tried."""
    batch = with_store
    refuse_to_land_bad(monkeypatch, "IsADirectoryError: bad.png")
    batch.emulator.fault(on="submit", kind="rate_limit", retry_after=20, skip=3)
    options: dict[str, Any] = {"requests": [{"prompt": "bad", "name": "bad"}, *many(20)], "timeout": 300}
    run = batch.attempt(**options, deferrable=False)
    messages = {failed["message"] for failed in run.ti.xcoms["return_value"]["failed"] if not failed["id"]}
    assert messages and not any(message.startswith("IsADirectoryError") for message in messages)
    batch.emulator.clear_faults()
    batch.attempt(**options, deferrable=False)
    assert len(batch.files) == 20


def test_nothing_is_bought_for_a_refund_while_nothing_can_be_landed(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store

    def denied(self: ImageDownloader, *args: Any, **kwargs: Any) -> Any:
        raise StorageFailed("403 AccessDenied: s3:PutObject")

    monkeypatch.setattr(ImageDownloader, "land", denied)
    batch.emulator.fault(on="submit", kind="failed", match="unlucky")
    requests = [*many(12), *(f"unlucky {number}" for number in range(30))]
    batch.attempt(requests=requests)
    batch.emulator.clear_faults()
    assert batch.charges == 12
    run = batch.attempt(requests=requests)
    assert batch.charges == 12 and "AccessDenied" in flat(run.error)


def test_a_blip_of_the_destination_does_not_wait_for_the_slowest(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, land = with_store, ImageDownloader.land
    connection = batch.emulator.connection_json(timeout=30, submit_rate=5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    monkeypatch.setattr(runner, "_BETWEEN_ROUNDS", 0.01)
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    began = batch.clock.now

    def blip(self: ImageDownloader, *args: Any, **kwargs: Any) -> Any:
        if batch.clock.now < began + 30:
            raise StorageFailed("503 SlowDown")
        return land(self, *args, **kwargs)

    monkeypatch.setattr(ImageDownloader, "land", blip)
    batch.attempt(requests=["[[stuck]] one", *many(150)], allow_partial=True)
    assert len(batch.files) == 150
    assert max(sold["created"] for sold in batch.emulator.ledger()["image_tasks"]) < began + 400


# --- a pause only where there is nothing to do ---------------------------------------------------------------------


def posts_at_pauses(batch: GenerateTask) -> list[int]:
    """Return a list that takes down how many image tasks were accepted, at each pause."""
    posts: list[int] = []
    batch.on_pause = lambda: posts.append(batch.posts)
    return posts


@pytest.mark.parametrize(("rate", "count"), [(5, 150), (0.2, 12)])
def test_no_pause_comes_before_the_last_submit(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, rate: float, count: int
) -> None:
    batch = with_store
    connection = batch.emulator.connection_json(timeout=30, submit_rate=rate)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    posts = posts_at_pauses(batch)
    assert batch.attempt(requests=many(count)).error is None
    assert posts[0] == count


def test_a_slice_with_more_to_submit_is_followed_by_another_in_the_same_process(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    connection = batch.emulator.connection_json(timeout=30, submit_rate=0.5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    posts = posts_at_pauses(batch)
    batch.emulator.fault(on="submit", kind="latency", seconds=600)
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    began = batch.clock.now
    run = batch.attempt(requests=many(60), slice_seconds=30, timeout=900)
    assert run.error is None and posts[0] == 60
    created = [sold["created"] for sold in batch.emulator.ledger()["image_tasks"]]
    assert max(created) - began <= 1.05 * 60 / 0.5


def test_a_process_that_airflow_would_end_gives_its_worker_back_and_comes_again_soon(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    connection = batch.emulator.connection_json(timeout=30, submit_rate=0.5)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", connection)
    posts = posts_at_pauses(batch)
    batch.emulator.fault(on="submit", kind="latency", seconds=600)
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    began = batch.clock.now
    limit = timedelta(seconds=60)
    run = batch.attempt(requests=many(60), slice_seconds=30, timeout=900, execution_timeout=limit)
    assert run.error is None and len(batch.files) == 60
    assert posts[0] < 60 and sorted(posts) == posts
    created = [sold["created"] for sold in batch.emulator.ledger()["image_tasks"]]
    assert max(created) - began <= 60 / 0.5 + PAUSE_SECONDS * (1 + posts.index(60))


def test_a_slice_ends_well_before_airflow_ends_its_process(with_store: GenerateTask) -> None:
    operator = with_store.operator(requests=many(2), execution_timeout=timedelta(seconds=100), slice_seconds=300)
    assert operator._slice_seconds() == 50.0
    assert with_store.operator(requests=many(2))._slice_seconds() == 300.0


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 300), (300, 300), (540, 135), (660, 30), (2000, 30)])
def test_what_preparation_took_is_no_time_of_a_slice(with_store: GenerateTask, elapsed: float, seconds: float) -> None:
    operator = with_store.operator(requests=many(2), execution_timeout=timedelta(seconds=900))
    assert operator._slice_seconds(elapsed) == seconds
    assert operator._has_time_for_another(elapsed) is (elapsed <= 645)


def test_airflow_ends_no_process_for_what_its_preparation_took(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, limit = with_store, timedelta(seconds=120)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", batch.emulator.connection_json(timeout=30, submit_rate=0.5))
    prepare = NanoBananaGenerateOperator._prepare

    def slow(self: NanoBananaGenerateOperator, *args: Any, **kwargs: Any) -> Any:
        batch.clock.sleep(70)
        return prepare(self, *args, **kwargs)

    held = seconds_held(monkeypatch)
    monkeypatch.setattr(NanoBananaGenerateOperator, "_prepare", slow)
    run = batch.attempt(requests=many(60), timeout=900, execution_timeout=limit)
    assert run.error is None and len(batch.files) == 60
    assert 90 < max(held) < 120


def test_a_long_retry_after_is_one_pause(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = with_store
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    batch.emulator.fault(on="submit", kind="rate_limit", retry_after=200, times=1)
    run = batch.attempt(requests=many(1))
    assert run.error is None and batch.charges == 1
    first, *_ = batch.pauses
    assert 150 < first.trigger.moment - batch.emulator.ledger()["image_tasks"][0]["created"] + 200 < 250
    assert len(batch.pauses) == 2, "one until the service takes a submit, one until the image is there"


def test_no_worker_is_held_for_what_is_in_doubt(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without claims an intent is looked up for a minute and a half."""
    batch = with_store
    batch.attempt(requests=many(1), claims="off", crash_on=("before submit", 1))
    held = seconds_held(monkeypatch)
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    run = batch.attempt(requests=many(1), claims="off")
    assert run.error is None and batch.charges == 1
    assert len(held) > 2 and max(held) < 20


@pytest.mark.parametrize(("moves", "least", "most"), [(False, 90, 160), (True, 250, 360)])
def test_what_is_in_doubt_is_looked_for_from_the_first_reading_on_where_the_machine_is_the_same(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, moves: bool, least: float, most: float
) -> None:
    """Without claims. What another machine read is by another clock, and five minutes are more than clocks differ."""
    batch = with_store
    batch.attempt(requests=many(1), claims="off", crash_on=("before submit", 1))
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    if moves:
        monkeypatch.setattr(claims, "_boot_id", lambda: uuid.uuid4().hex)
    began = batch.clock.now
    run = batch.attempt(requests=many(1), claims="off")
    assert run.error is None and batch.charges == 1
    assert least <= batch.emulator.ledger()["image_tasks"][0]["created"] - began <= most


def test_retries_go_on_looking_for_what_is_in_doubt(with_store: GenerateTask) -> None:
    """However little each waits."""
    batch = with_store
    options: dict[str, Any] = {"requests": many(1), "claims": "off", "timeout": 60}
    batch.attempt(**options, crash_on=("before submit", 1))
    assert "not known yet" in str(batch.attempt(**options).error) and batch.posts == 0
    began = batch.clock.now
    for _ in range(3):
        run = batch.attempt(**options)
        if run.error is None:
            break
    assert run.error is None and batch.charges == 1
    assert batch.clock.now - began < 200


def test_the_first_image_is_in_place_long_before_the_last(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, there = with_store, list[int]()
    batch.emulator.fault(on="submit", kind="latency", seconds=300, match="slow")
    batch.on_pause = lambda: there.append(len(batch.files))
    monkeypatch.setattr(harness, "PAUSE", 100.0)  # by then the first is ready
    assert batch.attempt(requests=[*many(1), *(f"slow {number}" for number in range(9))]).error is None
    assert [pause.trigger.enough for pause in batch.pauses][:2] == [1, 9]
    assert there[:2] == [0, 1]


def test_what_cannot_be_landed_is_no_reason_to_wake_at_once(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended: a trigger that waits for it fires as soon as it runs, and a worker starts for nothing."""
    batch = with_store
    refuse_to_land_bad(monkeypatch, "503 SlowDown")
    batch.emulator.fault(on="submit", kind="latency", seconds=60, match="slow")
    batch.attempt(requests=[{"prompt": "bad", "name": "bad"}, {"prompt": "slow", "name": "slow"}, *many(2)])
    bad = next(sold["id"] for sold in batch.emulator.ledger()["image_tasks"] if sold["prompt"] == "bad")
    assert bad in batch.pauses[0].trigger.image_task_ids
    assert not any(bad in getattr(pause.trigger, "image_task_ids", ()) for pause in batch.pauses[2:])


# --- long work -----------------------------------------------------------------------------------------------------


def test_one_that_is_stuck_does_not_let_the_links_of_the_others_die(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    monkeypatch.setattr(harness, "PAUSE", 1e9)  # wakes at the latest moment only
    batch.attempt(requests=[*many(5), "[[stuck]] one"], timeout=2 * 86_400)
    assert len(batch.files) == 5


def test_a_slice_that_only_stores_ends_in_time(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, tiny = with_store, picture("png", (8, 8))

    def slow(self: ImageDownloader, image: Any, sink: Any, **_: Any) -> None:
        batch.clock.sleep(1.0)
        sink.write(tiny)

    monkeypatch.setattr(ImageDownloader, "_write", slow)
    held = seconds_held(monkeypatch)
    monkeypatch.setattr(harness, "PAUSE", 250.0)  # by then all are ready at once
    batch.emulator.fault(on="submit", kind="latency", seconds=200)
    run = batch.attempt(requests=many(250), slice_seconds=100)
    assert run.error is None and run.result["count"] == 250
    assert max(held) >= 90, "it is the time that ends a slice"
    assert max(held) <= 100 + 40 + 10


def test_links_are_fetched_with_a_few_clients(real: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[int] = []
    leave = ImageDownloader.__exit__

    def counted(self: ImageDownloader, *info: object) -> None:
        clients.append(len(self._fetchers.made))
        leave(self, *info)

    monkeypatch.setattr(ImageDownloader, "__exit__", counted)
    real.emulator.fault(on="submit", kind="latency", seconds=100)
    assert real.attempt(requests=many(60)).error is None
    assert 1 <= max(clients) <= 4


def test_totals_and_manifest_are_there_also_when_the_key_is_refused(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="latency", seconds=100, match="picture 3")

    def revoke() -> None:
        if len(batch.files) == 3:
            batch.emulator.fault(on="status", kind="unauthorized")

    batch.on_pause = revoke
    run = batch.attempt(requests=many(4))
    assert run.error is not None and "nothing is bought twice" in flat(run.error)
    assert run.ti.xcoms["return_value"]["count"] == 3 and batch.manifest["cost_usd"] == pytest.approx(0.1)
    (failed,) = run.ti.xcoms["return_value"]["failed"]
    assert failed["charged"] == "yes"


# --- answers that are too long for a triggerer ----------------------------------------------------------------------


def test_a_running_image_with_long_answers_wakes_a_worker_once_a_minute(with_store: GenerateTask) -> None:
    """The worker reads what the triggerer cannot, and the image is not in it yet."""
    batch = with_store
    batch.emulator.configure(latency=600)
    context = batch.context(batch.instance())

    def pause_after(event: dict[str, Any] | None) -> float:
        resumed = None if event is None else {"event": {"version": 1, "outcome": "finished", **event}}
        with pytest.raises(TaskDeferred) as deferral:
            batch.run_slice(context, {"prompt": "one"}, resumed)
        return float(round(deferral.value.trigger.not_before - batch.clock()))

    assert pause_after(None) == 5
    assert pause_after({"counts": {TOO_LONG: 1}}) == 60
    assert pause_after({"counts": {"unseen": 1}}) == 5
    assert batch.charges == 1
