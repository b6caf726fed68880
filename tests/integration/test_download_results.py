"""What the download leaves, whatever one image, one entry or the manifest meets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_nanobanana import unexpected_errors
from airflow_provider_nanobanana.__main__ import main
from airflow_provider_nanobanana.batch.spend import summarise
from airflow_provider_nanobanana.batch.spend_records import manifest_records
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.operators.manifest import GALLERY_KEY
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator
from airflow_provider_nanobanana.polling.poll_tracker import poll_once
from airflow_provider_nanobanana.toapis import errors, session
from airflow_provider_nanobanana.toapis.protocol import status_call
from tests.support.task_runner import KEPT, Run, attempt, entries_of, land, wait
from tests.support.text import flat

Buy = Callable[..., str]


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unexpected_errors, "_logged", set())


def spoil(monkeypatch: pytest.MonkeyPatch, bad: list[str], error: BaseException) -> None:
    """Raise when an image of one of the image tasks is landed."""
    land_one = ImageDownloader.land

    def landing(self: ImageDownloader, image: Any, *args: Any, **kwargs: Any) -> Any:
        if image["id"] in bad:
            raise error
        return land_one(self, image, *args, **kwargs)

    monkeypatch.setattr(ImageDownloader, "land", landing)


def manifest_of(folder: Path) -> dict[str, Any]:
    [path] = folder.glob("manifest-*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def landed_ids(run: Run) -> list[str]:
    return [record["id"] for record in run.ti.xcoms["return_value"]]


@pytest.mark.parametrize(("thumbnails", "words"), [(True, ""), (False, ""), ("small", "thumbnails is True or False")])
def test_each_image_that_is_landed_has_a_thumbnail_where_it_is_wanted(
    emulator: Emulator, buy: Buy, folder: Path, thumbnails: Any, words: str
) -> None:
    destination = f"file://{folder}"
    images = entries_of(buy("a kite"))
    run = attempt(
        NanoBananaDownloadOperator(task_id="download", images=images, destination=destination, thumbnails=thumbnails)
    )
    assert words in flat(run.error) if words else run.error is None
    written = [path.name for path in (folder / ".nanobanana" / "thumbs").glob("*")]
    wanted = [f"{record['sha256'][:24]}.webp" for record in run.ti.xcoms["return_value"]] if run.error is None else []
    assert written == (wanted if thumbnails is True else [])


@pytest.mark.parametrize("error", [UnicodeError("idna"), OverflowError("inf"), MemoryError(), KeyError("x")])
def test_whatever_landing_raises_ends_that_image_alone(
    emulator: Emulator,
    buy: Buy,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    ids = [buy(f"picture {number}") for number in range(4)]
    spoil(monkeypatch, ids[1:3], error)
    run = land(entries_of(*ids), folder)
    assert type(run.error) is NanoBananaException and run.error.charged == "yes"
    assert landed_ids(run) == [ids[0], ids[3]] and all(id_ in flat(run.error) for id_ in ids[1:3])
    assert [lost["id"] for lost in manifest_of(folder)["not_landed"]] == ids[1:3]
    told = [record for record in caplog.records if record.getMessage().startswith("Unexpected ")]
    assert len(told) == 1 and "in landing" in told[0].getMessage()


def test_what_ends_a_task_passes(emulator: Emulator, buy: Buy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = entries_of(image_task_id := buy())
    spoil(monkeypatch, [image_task_id], AirflowTaskTimeout("time is up"))
    with pytest.raises(AirflowTaskTimeout):
        land(entries, folder)


def test_bytes_in_quarantine_are_named(
    emulator: Emulator, buy: Buy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, error = [buy("one"), buy("two")], errors.ImageInvalid("truncated")
    error.kept = KEPT
    spoil(monkeypatch, ids[:1], error)
    run = land(entries_of(*ids), folder)
    assert type(run.error) is NanoBananaException and KEPT["uri"] in flat(run.error)
    assert manifest_of(folder)["quarantined"] == [{**KEPT, "request": None}] and landed_ids(run) == ids[1:]


@pytest.mark.parametrize("error", [errors.StorageFailed("403 AccessDenied"), OSError("gone"), ValueError("no JSON")])
@pytest.mark.parametrize("bad", [0, 1])
def test_a_manifest_that_cannot_be_written_loses_nothing(
    emulator: Emulator, buy: Buy, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, bad: int
) -> None:
    ids = [buy("one"), buy("two")]
    spoil(monkeypatch, ids[:bad], errors.DownloadFailed("503"))

    def refused(*_: Any, **how: Any) -> str:
        raise error

    monkeypatch.setattr(ImageStore, "write_manifest", refused)
    run = land(entries_of(*ids), folder)
    assert type(run.error) is NanoBananaException and run.error.charged == "yes"
    assert "The manifest could not be written" in flat(run.error) and landed_ids(run) == ids[bad:]
    assert ("Images in place: 2, all paid" in flat(run.error)) == (not bad)
    assert ("1 images landed, 1 not" in flat(run.error)) == bool(bad)


def test_the_records_are_in_xcom_before_the_manifest(
    emulator: Emulator, buy: Buy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    entries = entries_of(image_task_id := buy())
    monkeypatch.setattr(ImageStore, "write_manifest", killed)
    pushed: list[Any] = []
    monkeypatch.setattr("tests.support.task_runner.TaskInstance.xcom_push", lambda _, key, value: pushed.append(value))
    with pytest.raises(KeyboardInterrupt):
        land(entries, folder)
    assert [record["id"] for record in pushed[-1]] == [image_task_id]


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "completed", "images": [{}]},
        {"id": None, "status": "completed", "images": None},
        {"id": ["a"], "status": "completed"},
        {"id": 7, "status": "completed", "images": 7},
        {"id": "x", "status": "completed", "images": [7]},
        {"id": "x", "status": "completed", "images": {"url": "https://h/a.png"}},
        {"id": "x", "status": "completed", "images": [{"url": ["https://h/a.png"]}]},
        {"id": "x", "status": "completed", "images": 10**5000},
    ],
    ids=range(8),
)
def test_an_entry_that_is_none_takes_no_other_with_it(
    emulator: Emulator, buy: Buy, folder: Path, odd: dict[str, Any]
) -> None:
    [entry] = entries_of(buy())
    run = land([None, odd, {**entry, "cost_usd": "a lot"}], folder)
    assert isinstance(run.error, NanoBananaException) and landed_ids(run) == [entry["id"]]


@pytest.mark.parametrize("images", ['[{"id": "x"}]', 7, ["a"], [[{}], 3], b"x", 10**5000, [float("nan")]], ids=range(7))
def test_what_is_no_list_of_entries_is_refused_in_words(emulator: Emulator, folder: Path, images: Any) -> None:
    run = land(images, folder)
    assert type(run.error) is NanoBananaFailException and "give what NanoBananaSensor returned" in flat(run.error)
    assert ("render_template_as_native_obj" in flat(run.error)) == (isinstance(images, str) or images == ["a"])


@pytest.mark.parametrize("index", [10**5000, -1, 10_000, "0", None, 1.5], ids=range(6))
def test_an_index_that_is_none_is_refused(emulator: Emulator, folder: Path, index: Any) -> None:
    with NanoBananaHook() as hook, pytest.raises(NanoBananaFailException, match="index"):
        hook.download({"id": "tsk_1", "index": index, "url": None}, str(folder))


@pytest.mark.parametrize("deferrable", [True, False])
def test_whatever_a_poll_raises_is_a_failed_poll_of_a_sensor(
    emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    ids = [buy(f"picture {number}") for number in range(4)]

    def poisoned(image_task_id: str, *sent: Any, **options: Any) -> Any:
        if image_task_id == ids[2]:
            raise UnicodeError("Invalid A-label")
        return status_call(image_task_id)

    monkeypatch.setattr(session, "status_call", poisoned)
    run = wait(ids, timeout=1, deferrable=deferrable, allow_partial=True)
    assert run.error is None
    assert [record["status"] for record in run.result] == ["completed", "completed", "timeout", "completed"]


def test_a_few_odd_answers_do_not_pass_for_silence(
    emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [buy(f"picture {number}") for number in range(12)]

    def poisoned(image_task_id: str, *sent: Any, **options: Any) -> Any:
        if image_task_id in ids[:10]:
            raise ValueError("odd")
        return status_call(image_task_id)

    monkeypatch.setattr(session, "status_call", poisoned)
    with NanoBananaHook() as hook:
        seen = poll_once(hook.session, ids)
    assert [result.image_task is not None for result in seen] == [False] * 10 + [True] * 2


def test_the_log_of_something_unexpected_holds_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    words = "Bearer sk-0123456789abcdef\nforged line"
    with (
        pytest.raises(unexpected_errors.Unexpected) as caught,
        unexpected_errors.wrap_unexpected_errors("The look was not answered", image_task_id="tsk_1"),
    ):
        raise ValueError(words)
    [record] = caplog.records
    assert "sk-0123456789abcdef" not in record.getMessage() and "\nforged" not in record.getMessage()
    assert "forged" not in caught.value.message and caught.value.image_task_id == "tsk_1" and caught.value.retryable


def test_an_image_that_two_tasks_download_is_paid_once(
    emulator: Emulator, buy: Buy, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [buy("a kite"), buy("a boat", resolution="4K"), buy("a storm [[fail]]")]
    entries = wait(ids, allow_partial=True).result
    for place in ("one", "two"):
        assert land(entries, folder / place).error is None
    capsys.readouterr()
    assert main(["spend", str(folder / "one"), str(folder / "two"), "--json", "--by", "destination"]) == 0
    content = json.loads(capsys.readouterr().out)
    bank = sum(task["charged_usd"] for task in emulator.ledger()["image_tasks"] if not task["refunded"])
    assert content["totals"]["paid_usd"] == round(bank, 6) == 0.065
    assert {name: number for name, number in content["totals"].items() if number and isinstance(number, int)} == {
        **{"bought": 2, "shared": 2, "refunded": 2},
    }
    assert [row["paid_usd"] for row in content["by"]["destination"]] == [0.065, 0.0]


def test_while_it_lands_its_manifest_grows(
    emulator: Emulator, buy: Buy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_nanobanana.operators.manifest._FIRST_AFTER", 0.0)
    monkeypatch.setattr("airflow_provider_nanobanana.operators.manifest._LEAST_PAUSE", 0.0)
    monkeypatch.setattr("airflow_provider_nanobanana.operators.manifest._PAUSE_FACTOR", 0.0)
    written: list[dict[str, Any]] = []
    write = ImageStore.write_manifest

    def kept(self: ImageStore, name: str, content: Any, **how: Any) -> str:
        written.append(content)
        return write(self, name, content, **how)

    monkeypatch.setattr(ImageStore, "write_manifest", kept)
    ids = [buy(f"picture {number}") for number in range(4)]
    spoil(monkeypatch, ids[1:2], MemoryError())
    run = land(entries_of(*ids), folder)
    *interim, last = written
    assert [len(content["under_way"]) for content in interim] == [3, 2, 1, 0]
    for content in written:
        landed = [image["id"] for image in content["images"]]
        left = [entry["id"] for entry in content["under_way"]]
        lost = [entry["id"] for entry in content["failed"]]
        assert sorted([*landed, *lost, *left]) == sorted(ids)
        # Each image task once, whichever list names it.
        records = manifest_records(content, folder.as_uri()).records
        assert sorted(record.image_task_id for record in records) == sorted(ids)
        assert summarise(records).totals.paid == 100_000
    assert not any(content["finished"] for content in interim) and last["finished"]
    assert run.ti.xcoms[GALLERY_KEY]["manifest"] == folder.as_uri() + "/" + next(folder.glob("manifest-*")).name
