"""Every model of the table, bought once: what was asked for is what the service read, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_nanobanana.emulator.catalogue import MODELS as MODELS_OF_EMULATOR
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.toapis.catalogue import MODELS, list_price
from airflow_provider_nanobanana.toapis.model_row import ModelRow
from tests.integration.batch.harness import GenerateTask
from tests.support.text import flat

PRO = "doubao-seedream-5-0-pro"


def request_for(model: str, row: ModelRow) -> dict[str, Any]:
    """Return a request that uses what the row says: its last size, its smallest resolution, two references."""
    asked: dict[str, Any] = {"prompt": f"a kite by {model}", "name": model.replace(".", "_"), "model": model}
    if row.sizes is not None:
        asked["size"] = row.sizes[-1] if row.sizes[-1] in row.pixels else row.sizes[0]
    if row.resolutions:
        asked["resolution"] = row.resolutions[0]
    asked["reference_images"] = [f"https://example.com/{n}.png" for n in range(min(2, row.max_references))]
    return asked


def test_each_model_is_bought_as_it_was_asked_for(real: GenerateTask) -> None:
    batch = real
    requests = [request_for(model, row) for model, row in MODELS.items()]
    run = batch.attempt(requests=requests)
    assert run.error is None and run.result["count"] == len(requests) == batch.charges
    assert not [image["name"] for image in run.result["images"] if "other_size" in image["suspect"]]
    seen = {task["model"]: task for task in batch.emulator.ledger()["image_tasks"]}
    for asked in requests:
        task = seen[asked["model"]]
        assert task["size"] == asked.get("size", "1:1")
        assert task["resolution"] == asked.get("resolution", "1K")
        assert task["references"] == asked["reference_images"]
    for image in batch.manifest["images"]:
        asked = requests[image["request"]]
        assert image["cost_usd"] == seen[asked["model"]]["charged_usd"]
        known = list_price(asked["model"], asked.get("resolution", "1K"), references=2)
        if known is not None and asked["model"].startswith(("nano", "qwen", "gpt-image-2.5")):
            assert image["cost_usd"] == known


def connect(batch: GenerateTask, monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", batch.emulator.connection_json(**extra))


@pytest.mark.parametrize("limit", [{}, {"max_cost_usd": 1.0}])
def test_an_unknown_model_is_refused_before_money_with_the_row_to_write(
    with_store: GenerateTask, limit: dict[str, Any]
) -> None:
    error = with_store.attempt(requests=["a kite", {"prompt": "a boat", "model": "nano_banana_3"}], **limit).error
    assert isinstance(error, NanoBananaFailException) and with_store.posts == 0
    assert '{"models":{"nano_banana_3":{"dialect":"reference"}}}' in flat(error)


def test_a_model_of_the_connection_is_bought(with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"dialect": "guide", "resolutions": ["2K"], "prices": 0.03}
    connect(with_store, monkeypatch, models={"nano-banana-2": row})
    batch = with_store
    run = batch.attempt(prompt="a kite", size="4:3", resolution="2K", model="nano-banana-2", max_cost_usd=0.05)
    assert run.error is None and batch.emulator.ledger()["image_tasks"][0]["resolution"] == "2K"
    batch.next_run("second")
    assert batch.attempt(prompt="a boat", resolution="4K", model="nano-banana-2").error is not None
    assert batch.posts == 1
    # 1K is what a task has that says nothing.
    assert batch.attempt(prompt="a boat", model="nano-banana-2").error is None
    assert [task["resolution"] for task in batch.emulator.ledger()["image_tasks"]] == ["2K", "2K"]


def test_a_task_that_says_no_resolution_is_no_fault_with_a_model_without_1k(with_store: GenerateTask) -> None:
    batch = with_store
    run = batch.attempt(requests=["a kite", {"prompt": "a boat", "resolution": "1K"}], model="doubao-seedream-4-5")
    assert run.error is None and batch.charges == 2
    assert {task["resolution"] for task in batch.emulator.ledger()["image_tasks"]} == {"2K"}
    batch.next_run("second")
    assert batch.attempt(prompt="a kite", model="doubao-seedream-4-5").result["reused"] == 1
    assert batch.charges == 2


def test_reference_images_in_extra_body_are_in_the_bill(with_store: GenerateTask) -> None:
    links = [f"https://example.com/{number}.png" for number in range(3)]
    asked = {"prompt": "a kite", "model": "qwen-image-3.0", "extra_body": {"image_urls": links}}
    assert with_store.attempt(requests=[asked], dry_run=True).result["estimate_usd"] == pytest.approx(0.039)
    over = {**asked, "extra_body": {"image_urls": [*links, links[0]]}}
    assert "at most 3 are taken by qwen-image-3.0" in flat(with_store.attempt(requests=[over]).error)
    assert with_store.posts == 0


def test_a_reference_that_a_model_does_not_take_is_a_fault_of_its_row_before_money(
    with_store: GenerateTask, tmp_path: Path
) -> None:
    batch = with_store
    Image.new("RGB", (8, 8)).save(tmp_path / "hat.webp")
    requests = [
        {"prompt": "a kite"},
        {"prompt": "a boat", "reference_images": [f"file://{tmp_path}/hat.webp"]},
        {"prompt": "a hat", "reference_images": [f"file://{tmp_path}/hat.webp"], "model": "doubao-seedream-4-0"},
    ]
    error = batch.attempt(requests=requests, prepare_references=False).error
    assert "1 of 3 requests" in flat(error) and "#2: Reference image" in flat(error)
    assert "is WEBP, and doubao-seedream-4-0 takes JPEG or PNG" in flat(error) and batch.posts == 0
    batch.next_run("second")
    run = batch.attempt(requests=requests, prepare_references=False, on_bad_row="skip")
    assert run.error is None and run.result["skipped_count"] == 1 and batch.charges == 2


def test_references_are_told_as_prepared_by_the_run_that_sent_them(with_store: GenerateTask, tmp_path: Path) -> None:
    batch = with_store
    Image.new("CMYK", (8, 8)).save(tmp_path / "hat.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "hat.webp")
    uris = [f"file://{tmp_path}/hat.{suffix}" for suffix in ("jpg", "webp")]
    requests = [
        {"prompt": "a kite", "reference_images": uris},
        {"prompt": "a boat", "reference_images": uris[1:], "model": "doubao-seedream-4-0"},
    ]
    assert batch.attempt(requests=requests).error is None
    told = {one["uri"]: one["prepared"] for one in batch.manifest["prepared_references"]}
    assert list(told) == uris and "CMYK to RGB" in told[uris[0]] and "8x8 JPEG" in told[uris[1]]
    batch.next_run("second")
    assert batch.attempt(requests=requests).result["reused"] == 2
    assert batch.manifest["prepared_references"] == [] and batch.charges == 2


def test_a_row_that_is_gone_at_a_retry_costs_no_paid_image(real: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bought is landed; what is not bought yet is not sent in a guessed dialect."""
    batch = real
    monkeypatch.setitem(MODELS_OF_EMULATOR, "mine", MODELS_OF_EMULATOR["nano_banana_2"])
    connect(batch, monkeypatch, models={"mine": {"dialect": "guide"}})
    batch.emulator.fault(on="submit", kind="quota", match="boat")
    asked: dict[str, Any] = {"requests": ["a kite", "a boat"], "model": "mine"}
    batch.emulator.fault(on="result", kind="server_error", match="kite")
    first = batch.attempt(**asked)
    assert first.error is not None and batch.charges == 1
    batch.emulator.clear_faults()
    connect(batch, monkeypatch)
    second = batch.attempt(**asked, allow_partial=True)
    assert second.error is None and second.result["count"] == batch.charges == 1
    assert "mine" in json.dumps(second.result["failed"])
    connect(batch, monkeypatch, models={"mine": {"dialect": "guide"}})
    batch.clear()
    assert batch.attempt(**asked).result["count"] == batch.charges == 2


def test_each_image_with_billed_references_counts_against_the_limit(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three images with two billed references are 0.036 each, two without are 0.03: 0.168 in all."""
    batch = with_store
    links = ["https://example.com/1.png", "https://example.com/2.png"]
    asked = [{"prompt": f"kite {n}", "reference_images": links} for n in range(3)] + ["a boat", "a hat"]
    with caplog.at_level("INFO"):
        run = batch.attempt(requests=asked, model="qwen-image-3.0", max_cost_usd=0.17)
    assert run.error is None and run.result["cost_usd"] == pytest.approx(0.168)
    assert "$0.168" in caplog.text and "The service bills" not in caplog.text
    batch.next_run("second")
    cups = [{"prompt": f"cup {n}", "reference_images": links} for n in range(3)]
    tight = batch.attempt(requests=cups, model="qwen-image-3.0", max_cost_usd=0.1, allow_partial=True)
    assert tight.result["count"] == 2, "the third would pass 0.1 with its references, and not without"


@pytest.mark.parametrize("in_extra_body", [False, True])
def test_references_at_an_unknown_price_are_asked_for(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, in_extra_body: bool
) -> None:
    batch = with_store
    links = ["https://example.com/1.png", "https://example.com/2.png"]
    given = {"extra_body": {"image_urls": links}} if in_extra_body else {"reference_images": links}
    asked: dict[str, Any] = {
        "requests": [{"prompt": "a kite", **given}],
        "model": PRO,
        "max_cost_usd": 1,
    }
    connect(batch, monkeypatch, prices={PRO: {"1K": 0.025}})
    message = str(batch.attempt(**asked).error)
    assert f'{{"{PRO}": {{"reference_price": 0.002}}}}' in message and batch.posts == 0
    connect(batch, monkeypatch, prices={PRO: {"1K": 0.025}}, models={PRO: {"reference_price": 0.005}})
    batch.next_run("second")
    run = batch.attempt(**asked)
    assert run.error is None and run.result["cost_usd"] == 0.03


@pytest.mark.parametrize("files", [1, 16])
def test_layers_are_stored_beside_the_picture_and_paid_once(
    with_store: GenerateTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, files: int
) -> None:
    batch = with_store
    connect(batch, monkeypatch, models={PRO: {"files": files}})
    asked = {"prompt": "take it apart", "reference_images": ["https://example.com/desk.png"]}
    layered = {"layer_decomposition": True, "size": "2K"}
    run = batch.attempt(requests=[asked], model=PRO, resolution="2K", extra_body=layered)
    assert run.error is None and batch.charges == 1 and len(batch.files) == 4
    assert batch.emulator.ledger()["charged_usd"] == 0.03
    assert (f"#0 brought 4 files, and {PRO} is known to bring at most 1" in caplog.text) == (files == 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "flux-kontext-pro", "reference_images": ["https://example.com/a.png"] * 2},
        {"model": "qwen-image-3.0", "reference_images": ["https://example.com/a.png"] * 4},
        {"model": "doubao-seedream-5-0", "resolution": "4K"},
        {"model": "gpt-image-2", "size": "1:8"},
        {"model": "flux-kontext-pro", "resolution": "2K"},
        {"model": PRO, "extra_body": {"metadata": {"sequential_image_generation": "auto"}}},
        {"model": PRO, "extra_body": {"n": 2}},
    ],
)
def test_what_a_model_does_not_take_is_refused_before_money(with_store: GenerateTask, fields: dict[str, Any]) -> None:
    run = with_store.attempt(requests=[{"prompt": "a kite", **fields}])
    assert isinstance(run.error, NanoBananaFailException) and with_store.posts == 0
