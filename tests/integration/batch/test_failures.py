"""Troubles that pass: one item's are its own, the account's are sat out without a worker, the rest is for a retry."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_nanobanana.batch import runner
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.toapis.errors import StorageFailed
from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger
from tests.integration.batch.harness import GenerateTask
from tests.support.images import picture
from tests.support.text import flat

PROMPTS = [f"picture {number}" for number in range(12)]


def test_one_items_trouble_stops_no_other(batch: GenerateTask) -> None:
    batch.emulator.fault(on="submit", kind="unavailable", match="picture 3")
    run = batch.attempt(requests=PROMPTS, timeout=60)
    assert len(batch.files) == 11
    assert type(run.error) is NanoBananaException and "11 of 12" in flat(run.error)
    (failed,) = run.ti.xcoms["return_value"]["failed"]
    assert (failed["request"], failed["charged"]) == (3, "no")
    batch.emulator.clear_faults()
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and batch.posts == 12


def test_a_limit_that_persists_is_sat_out_without_a_worker(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="rate_limit", retry_after=40)
    began = batch.clock.now

    def relent() -> None:
        if batch.clock.now > began + 200:
            batch.emulator.clear_faults()

    batch.on_pause = relent
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and run.result["count"] == 12, "no retry was burnt"
    assert any(isinstance(pause.trigger, NanoBananaTimerTrigger) for pause in batch.pauses)
    assert batch.posts == 12


def test_a_limit_that_never_ends_ends_with_the_timeout(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="rate_limit", retry_after=40)
    run = batch.attempt(requests=PROMPTS, timeout=100)
    assert type(run.error) is NanoBananaException and "0 of 12" in flat(run.error)
    assert {failed["charged"] for failed in run.ti.xcoms["return_value"]["failed"]} == {"no"}


def test_a_service_that_is_down_is_not_asked_twelve_times(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="server_error")
    run = batch.attempt(requests=PROMPTS, timeout=60)
    assert type(run.error) is NanoBananaException
    assert len(run.ti.xcoms["return_value"]["failed"]) == 12
    batch.emulator.clear_faults()
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and batch.posts == 12


def test_a_destination_that_fails_in_the_middle_loses_nothing(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, land, landed = with_store, ImageDownloader.land, [0]

    def breaking(self: ImageDownloader, *args: Any, **kwargs: Any) -> Any:
        landed[0] += 1
        if landed[0] > 5:
            raise StorageFailed("disk full")
        return land(self, *args, **kwargs)

    monkeypatch.setattr(ImageDownloader, "land", breaking)
    run = batch.attempt(requests=PROMPTS)
    assert type(run.error) is NanoBananaException and run.error.charged == "yes"
    assert "5 of 12" in flat(run.error) and "goes on with 7 that are paid" in flat(run.error)
    monkeypatch.setattr(ImageDownloader, "land", land)
    again = batch.attempt(requests=PROMPTS)
    assert again.error is None and batch.posts == 12


def test_a_link_that_fails_for_one_is_for_the_retry(real: GenerateTask) -> None:
    batch = real
    batch.emulator.fault(on="result", kind="html", status=500, match="picture 1")
    run = batch.attempt(requests=PROMPTS[:3])
    assert type(run.error) is NanoBananaException and len(batch.files) == 2
    (failed,) = run.ti.xcoms["return_value"]["failed"]
    assert (failed["request"], failed["charged"]) == (1, "yes")
    batch.emulator.clear_faults()
    again = batch.attempt(requests=PROMPTS[:3])
    assert again.error is None and batch.posts == 3 and again.result["cost_usd"] == pytest.approx(0.075)


def test_a_lost_answer_is_looked_up_while_the_others_go_on(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="drop", committed=True, match="picture 2", times=1)
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and batch.posts == 12


def test_a_connection_without_client_ids_asks_a_person(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = with_store
    conn = batch.emulator.connection_json(timeout=30, client_ids=False)
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", conn)
    batch.attempt(requests=PROMPTS, crash_on=("submit under way", 4))
    paid = batch.posts
    run = batch.attempt(requests=PROMPTS)
    assert isinstance(run.error, NanoBananaFailException)
    in_doubt = [failed for failed in run.ti.xcoms["return_value"]["failed"] if failed["charged"] == "unknown"]
    assert 1 <= len(in_doubt) <= 5, "no more than were under way at once"
    assert len(batch.files) + len(in_doubt) == 12 and batch.posts <= 12 and paid >= 4


def test_a_service_that_resolves_no_client_ids_is_found_out(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.configure(ignore_client_ids=True)
    batch.emulator.fault(on="submit", kind="drop", committed=True, match="picture 9", times=1)
    run = batch.attempt(requests=PROMPTS)
    batch.emulator.configure(ignore_client_ids=False)
    assert run.error is not None
    (failed,) = run.ti.xcoms["return_value"]["failed"]
    assert (failed["request"], failed["charged"]) == (9, "unknown")
    assert batch.posts == 12, "it was bought, and is not bought again"


@pytest.mark.parametrize(
    "options",
    [
        {"poke_interval": "5"},
        {"slice_seconds": "300"},
        {"slice_seconds": 29},
        {"timeout": -1},
        {"max_cost_usd": 0},
        {"max_cost_usd": "a dollar"},
        {"allow_partial": "yes"},
        {"on_expired": "ignore"},
        {"adopt": ["x"]},
        {"requests": "a text"},
        {"timeout": float("inf")},
        {"deferrable": "no"},
        {"adopt": {"nb-1": 2}},
        {"extra_body": {"n": 4}},
        {"extra_body": {"client_business_id": "mine"}},
        {"requests": [{"prompt": "x", "reference_images": ["foo://b/a.png"]}, {"prompt": "y", "size": "7:7"}]},
        {"requests": None},
        {"prompt": "both"},
        {"requests": ["good", {"prompt": "bad", "name": "../x"}, None]},
        {"destination": "relative"},
        {"requests": [{"prompt": "x", "resolution": "8K"}], "max_cost_usd": 1},
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(with_store: GenerateTask, options: dict[str, Any]) -> None:
    run = with_store.attempt(**{"requests": PROMPTS, **options})
    assert isinstance(run.error, NanoBananaFailException)
    assert with_store.posts == 0
    assert "othing was " in flat(run.error) or "destination" in options


def test_an_empty_list_is_skipped(with_store: GenerateTask) -> None:
    """As a task mapped over nothing is: a night without news is no failure."""
    run = with_store.attempt(requests=iter(()))
    assert type(run.error) is AirflowSkipException and "othing was charged" in flat(run.error)
    assert with_store.posts == 0 and not with_store.files


def test_a_limit_may_come_out_of_a_template(with_store: GenerateTask) -> None:
    run = with_store.attempt(requests=PROMPTS, max_cost_usd="0.05")
    assert "max_cost_usd" in flat(run.error) and with_store.charges == 2


def test_references_that_can_be_read_once_are_for_each_request(with_store: GenerateTask, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture("png", (20, 20)))
    run = with_store.attempt(requests=PROMPTS[:2], reference_images=(uri for uri in [photo.as_uri()]))
    assert run.error is None
    assert all(len(sold["references"]) == 1 for sold in with_store.emulator.ledger()["image_tasks"])


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_log_is_seldom_enough_to_be_read(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    batch = with_store
    monkeypatch.setattr(runner, "_BETWEEN_ROUNDS", 0.01)
    prompts = [f"picture {number}" for number in range(60)]
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=prompts, deferrable=deferrable)
    assert run.error is None
    ours = [record for record in caplog.records if "8x8 pixels" not in record.getMessage()]
    assert sum("Estimate: 60 images" in record.getMessage() for record in ours) == 1
    assert len(ours) < 25, [record.getMessage() for record in ours]
    assert batch.pauses if deferrable else not batch.pauses
