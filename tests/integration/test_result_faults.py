"""What the download does with links and bytes that are not one whole image from a safe place."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator
from tests.integration.conftest import ServiceClock
from tests.support.images import pixels
from tests.support.task_runner import attempt, entries_of, land
from tests.support.text import flat

Buy = Callable[..., str]


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("manifest"))


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("drop", {}),
        ("drop_mid_body", {}),
        ("server_error", {"status": 500}),
        ("rate_limit", {"retry_after": 1}),
        ("not_found", {}),
        ("expired", {"status": 403}),
        ("truncated_image", {"honest_length": False}),
        ("empty_body", {}),
        ("redirect_to", {"url": "http://169.254.169.254/latest/meta-data"}),
    ],
)
def test_a_bad_delivery_is_asked_for_again(
    emulator: Emulator, buy: Buy, folder: Path, kind: str, params: dict[str, Any]
) -> None:
    entries = entries_of(buy())
    emulator.fault(on="result", kind=kind, times=2, **params)
    run = land(entries, folder)
    assert run.error is None
    [record] = run.result
    [file] = pictures(folder)
    assert pixels(file) == (1024, 1024) == (record["width"], record["height"])
    assert emulator.faults()[0]["hits"] == 2


WRONG_BYTES = [("truncated_image", {}), ("html", {"status": 200}), ("garbage", {}), ("bomb", {})]


@pytest.mark.parametrize(("kind", "params"), WRONG_BYTES)
def test_wrong_bytes_are_kept_and_asked_for_again(
    emulator: Emulator, buy: Buy, folder: Path, kind: str, params: dict[str, Any]
) -> None:
    entries = entries_of(buy())
    emulator.fault(on="result", kind=kind, times=1, **params)
    run = land(entries, folder)
    assert run.error is None
    assert len(pictures(folder)) == len(run.result) == 1
    [kept] = (folder / ".nanobanana" / "quarantine").iterdir()
    assert kept.stat().st_size > 0


@pytest.mark.parametrize(("kind", "params"), [one for one in WRONG_BYTES if one[0] != "garbage"])  # other each time
def test_the_same_wrong_bytes_twice_are_final_and_kept(
    emulator: Emulator, buy: Buy, folder: Path, kind: str, params: dict[str, Any]
) -> None:
    image_task_id = buy()
    entries = entries_of(image_task_id)
    emulator.fault(on="result", kind=kind, **params)
    run = land(entries, folder)
    [kept] = (folder / ".nanobanana" / "quarantine").iterdir()
    assert str(kept) in flat(run.error)
    assert image_task_id in flat(run.error)
    assert emulator.faults()[0]["hits"] == 2
    assert pictures(folder) == []


@pytest.mark.parametrize(
    ("kind", "params", "retryable", "said"),
    [
        ("truncated_image", {}, True, "truncated"),
        ("html", {"status": 200}, True, "HTML"),
        ("server_error", {"status": 503}, True, "503"),
        ("oversized", {}, True, "67,108,864"),
        ("oversized", {"content_length": False}, True, "67,108,864"),
        ("bomb", {}, True, "pixels"),
        ("redirect_to", {"url": "http://169.254.169.254/latest/meta-data"}, False, "169.254.169.254"),
        ("redirect_to", {"url": "http://10.0.0.7/x.png"}, False, "10.0.0.7"),
        ("redirect", {"loop": True}, False, "redirect"),
    ],
)
def test_what_stays_bad_is_said_and_lands_nothing(
    emulator: Emulator, buy: Buy, folder: Path, kind: str, params: dict[str, Any], retryable: bool, said: str
) -> None:
    image_task_id = buy()
    entries = entries_of(image_task_id)
    emulator.fault(on="result", kind=kind, **params)
    run = land(entries, folder)
    assert isinstance(run.error, NanoBananaException)
    assert run.error.retryable is retryable
    assert isinstance(run.error, AirflowFailException) is not retryable
    assert run.error.charged == "yes"
    assert image_task_id in flat(run.error)
    assert said in flat(run.error)
    assert pictures(folder) == []
    [manifest] = folder.glob("manifest-*.json")
    assert json.loads(manifest.read_text())["not_landed"][0]["id"] == image_task_id


@pytest.mark.parametrize(
    ("kind", "params", "suffix"),
    [
        ("redirect", {"hops": 5}, ".png"),
        ("wrong_content_type", {}, ".png"),
        ("wrong_suffix", {"suffix": ".jpg"}, ".png"),
        ("wrong_format", {"format": "WEBP"}, ".webp"),
        ("wrong_format", {"format": "JPEG"}, ".jpg"),
        ("wrong_pixel_size", {}, ".png"),
        ("slow_body", {"seconds": 0.2}, ".png"),
    ],
)
def test_oddities_are_landed_and_the_bytes_decide(
    emulator: Emulator, buy: Buy, folder: Path, kind: str, params: dict[str, Any], suffix: str
) -> None:
    image_task_id = buy()
    emulator.fault(on="result", kind=kind, **params)
    run = land(entries_of(image_task_id), folder)
    assert run.error is None
    [file] = pictures(folder)
    assert file.suffix == suffix


def test_one_lost_image_does_not_keep_the_others_from_landing(emulator: Emulator, buy: Buy, folder: Path) -> None:
    ids = [buy("one"), buy("two [[bad-image]]"), buy("three")]
    run = land(entries_of(*ids), folder)
    assert isinstance(run.error, NanoBananaException)
    assert "2 images landed, 1 not" in flat(run.error)
    assert ids[1] in flat(run.error)
    assert [record["id"] for record in run.ti.xcoms["return_value"]] == [ids[0], ids[2]]
    assert len(pictures(folder)) == 2


def test_a_missing_link_is_asked_for(emulator: Emulator, buy: Buy, folder: Path) -> None:
    [entry] = entries_of(buy())
    run = land([{**entry, "images": [{"url": None}]}], folder)
    assert len(run.result) == 1


def test_a_link_that_went_stale_in_xcom_is_asked_for(emulator: Emulator, buy: Buy, folder: Path) -> None:
    [entry] = entries_of(buy())
    run = land([{**entry, "images": [{"url": f"{emulator.files_url}/generated/gone.png"}]}], folder)
    assert len(run.result) == 1


def test_an_expired_image_is_lost_and_the_message_says_how_to_replace_it(
    emulator: Emulator, service_clock: ServiceClock, buy: Buy, folder: Path
) -> None:
    service_clock.offset = -2 * 86_400
    image_task_id = buy()
    entries = entries_of(image_task_id)
    emulator.fault(on="result", kind="expired")
    run = land(entries, folder)
    assert isinstance(run.error, AirflowFailException)
    for part in (image_task_id, "expired", "Clear the task that submitted it to buy it again"):
        assert part in flat(run.error)


def test_the_service_failing_while_asked_again_is_retryable(emulator: Emulator, buy: Buy, folder: Path) -> None:
    entries = entries_of(buy())
    emulator.fault(on="result", kind="not_found")
    emulator.fault(on="status", kind="server_error")
    run = land(entries, folder)
    assert isinstance(run.error, NanoBananaException)
    assert run.error.retryable


def test_a_destination_that_cannot_be_written_fails_before_a_download(
    emulator: Emulator, buy: Buy, tmp_path: Path
) -> None:
    entries = entries_of(buy())
    (tmp_path / "file").write_text("in the way")
    run = land(entries, tmp_path / "file")
    assert isinstance(run.error, NanoBananaFailException)
    assert run.error.charged == "yes" and "wait at the service" in flat(run.error)
    assert not any(request["kind"] == "files" for request in emulator.requests())


@pytest.mark.parametrize(
    ("destination", "said"), [("", "destination is empty"), ("images", "absolute"), ("ftpx://a/b", "ftpx")]
)
def test_a_destination_of_a_wrong_form_is_refused(emulator: Emulator, buy: Buy, destination: str, said: str) -> None:
    entries = entries_of(buy())
    run = attempt(NanoBananaDownloadOperator(task_id="d", images=entries, destination=destination))
    assert isinstance(run.error, AirflowFailException)
    assert said in flat(run.error)


@pytest.mark.parametrize("images", ["text", 7, [{"status": "completed", "images": [{}]}]])
def test_images_of_a_wrong_form_are_refused(emulator: Emulator, folder: Path, images: Any) -> None:
    assert isinstance(land(images, folder).error, AirflowFailException)


def test_the_hook_lands_one_image(emulator: Emulator, buy: Buy, folder: Path) -> None:
    with NanoBananaHook() as hook:
        image_task = hook.get_task(buy())
        stored = hook.download(image_task.images[0], str(folder))
    assert pixels(folder / Path(stored.uri).name) == (stored.width, stored.height)


def test_memory_does_not_grow_with_the_body(emulator: Emulator, buy: Buy, folder: Path) -> None:
    entries = entries_of(buy())
    emulator.fault(on="result", kind="oversized", bytes=200_000_000, content_length=False)
    tracemalloc.start()
    try:
        land(entries, folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The emulator sends from this very process, in small pieces; a body kept whole would show as 64 MiB and more.
    assert peak < 32 * 1024 * 1024


@pytest.mark.parametrize(
    "asked", [None, {"prompt": "x", "size": "1:1"}, {"prompt": "x", "size": "1:1", "resolution": "4K"}]
)
def test_another_size_than_asked_for_is_landed_with_a_warning(
    emulator: Emulator, buy: Buy, folder: Path, asked: dict[str, str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    with NanoBananaHook() as hook:
        stored = hook.download({"id": buy(), "index": 0, "url": None}, str(folder), asked)
    assert (stored.width, stored.height) == (1024, 1024)
    assert ("asked for 4096x4096" in caplog.text) == (asked is not None and "resolution" in asked)


def test_broken_base64_falls_back_to_the_link(emulator: Emulator, buy: Buy, folder: Path) -> None:
    with NanoBananaHook() as hook:
        image = hook.get_task(buy()).images[0].model_copy(update={"b64_json": "!" * 40})
        assert hook.download(image, str(folder)).width == 1024


def test_what_is_landed_is_found_without_asking_the_service(emulator: Emulator, buy: Buy, folder: Path) -> None:
    image_task_id = buy()
    with NanoBananaHook() as hook:
        stored = hook.download({"id": image_task_id, "url": None}, str(folder))
        before = len(emulator.requests())
        assert hook.download({"id": image_task_id, "url": None}, str(folder)) == stored
    assert len(emulator.requests()) == before
