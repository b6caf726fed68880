"""The ledger of a task instance out of Airflow's database: wherever the records are, and no more than one may see."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.input_content import pack
from airflow_provider_nanobanana.batch.items import build_items
from airflow_provider_nanobanana.durable import checkpoint
from airflow_provider_nanobanana.durable.checkpoint import AttemptCheckpoint, CheckpointStore, InputSnapshot
from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.ledger_entry import ItemError, LedgerEntry, StoredFile
from airflow_provider_nanobanana.durable.record import RecordState, SubmissionRecord
from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from tests.support.airflow_database import add_run, add_task
from tests.support.claims import claim, write_claim
from tests.support.gallery_site import gallery_roots
from tests.support.versions import STATE_STORE, needs

NOW = 1_795_700_000.0
REQUESTS = ["a kite", {"prompt": "a hat", "name": "hat"}, "a mug", "a cup"]


def record(item: Any, state: RecordState, image_task_id: str | None) -> SubmissionRecord:
    return SubmissionRecord(
        state, item.fingerprint, 0, 0, f"nb-{item.index:040}", image_task_id, NOW - 6000, max_tries=0, try_number=1
    )


def records(folder: Path) -> tuple[dict[str, str], list[Any]]:
    """Return what a task keeps that has one image in place, one under way, one refused and one that may be bought."""
    items = build_items(REQUESTS, defaults={}, default_model="nano_banana_2", models=None, digest_of=lambda _: "")
    store = InMemoryStateStore()
    ledger = Ledger.load(store, first=True)
    kite, hat, mug, cup = items
    (folder / f"{kite.stem()}.png").write_bytes(b"x")
    stored = StoredFile(f"{kite.stem()}.png", "a" * 64, 1, "png", 8, 8)
    ledger.put(kite.key, LedgerEntry(record(kite, RecordState.DONE, "tsk_1"), "landed", stored, 0.025))
    ledger.put(hat.key, LedgerEntry(record(hat, RecordState.SUBMITTED, "tsk_2"), cost=0.025, is_list_price=True))
    why = ItemError("content_policy_violation", "no: see file:///secret/place/a.png", "no", retryable=False)
    ledger.put(mug.key, LedgerEntry(record(mug, RecordState.SUBMITTED, "tsk_3"), "failed", error=why, cost=0.0))
    ledger.put(cup.key, LedgerEntry(record(cup, RecordState.INTENT, None)))
    ledger.save()
    content = pack(items, {}, [], [])
    checkpoint.save_input(store, InputSnapshot(0, True, content, retries=0, try_number=1))
    CheckpointStore(store, AttemptCheckpoint(1, NOW - 700)).update(claims=True, stop_reason="No credits are left.")
    return store.texts, items


def keep(run_id: str, task_id: str, texts: dict[str, str]) -> None:
    """Write records as the execution API does on this Airflow."""
    from airflow.state import TaskScope, get_state_backend
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        for key, text in texts.items():
            get_state_backend().set(TaskScope("shop", run_id, task_id, -1), key, json.dumps(text), session=session)


def read(run_id: str, task_id: str = "pictures", *, whole: bool = False) -> dict[str, Any]:
    from airflow.utils.session import create_session

    from airflow_provider_nanobanana.ui.ledger import ledger_json, whole_ledger

    with create_session(scoped=False) as session:
        return (whole_ledger if whole else ledger_json)(session, "shop", run_id, task_id, -1, now=NOW)


@pytest.fixture(params=[pytest.param("state store", marks=needs(STATE_STORE)), "xcoms"])
def task(
    request: pytest.FixtureRequest, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[Any]]:
    """A task instance, with its records where this Airflow keeps them, and where Airflow before 3.3 does."""
    texts, items = records(tmp_path)
    has_store = request.param == "state store"
    add_run("shop", run_id)
    pointer = {"version": 1, "manifest": f"file://{tmp_path}/manifest-a.json", "destination": f"file://{tmp_path}"}
    xcoms = {"nanobanana_gallery": pointer, **({} if has_store else texts)}
    add_task("shop", run_id, "pictures", state="up_for_retry", xcoms=xcoms)
    if has_store:
        keep(run_id, "pictures", texts)
    else:
        monkeypatch.setitem(sys.modules, "airflow.state", None)
    return run_id, items


def test_each_image_task_with_state_id_and_money(task: tuple[str, list[Any]], tmp_path: Path) -> None:
    run_id, _ = task
    with gallery_roots([tmp_path]):
        ledger = read(run_id)
    rows = [
        (row["label"], row["state"].partition(":")[0], row["image_task_id"], row["money"]) for row in ledger["rows"]
    ]
    assert rows == [
        ("#0", "in place", "tsk_1", "$0.025 paid"),
        ("hat", "under way", "tsk_2", "$0.025 paid, at list price"),
        ("#2", "failed", "tsk_3", "nothing: refunded"),
        ("#3", "may be bought", None, "perhaps paid: that is looked up"),
    ]
    assert (ledger["more"], ledger["skipped"]) == (0, [])
    assert any("up_for_retry" in line for line in ledger["summary"])
    assert any("No credits are left." in line for line in ledger["summary"])


def test_a_browser_gets_no_uri_and_no_name_of_another_dag(task: tuple[str, list[Any]], tmp_path: Path) -> None:
    run_id, items = task
    by = claim().by.model_copy(update={"dag_id": "secret-dag"})
    write_claim(tmp_path, claim(items[3].stem(), digest=items[3].fingerprint, by=by))
    with gallery_roots([tmp_path]):
        text = json.dumps(read(run_id))
        whole = json.dumps(read(run_id, whole=True))
    assert "secret" not in text and "://" not in text and "another task" in text
    assert "secret-dag" in whole and "file:///secret/place" in whole


def test_a_browser_gets_no_word_of_the_storage_s_own(task: tuple[str, list[Any]], tmp_path: Path) -> None:
    run_id, _ = task
    claims = tmp_path / ".nanobanana" / "claims"
    (claims / "b-launch-0011223344.g0.json").mkdir(parents=True)
    (claims / "secret-of-b-1234567890.json").write_text("x")
    with gallery_roots([tmp_path]):
        assert read(run_id)["skipped"] == ["Claims and books at the destination that could not be read: 2."]
        assert "secret-of-b" in json.dumps(read(run_id, whole=True))
        shutil.rmtree(claims)
        claims.write_text("no folder")
        told = read(run_id)["skipped"]
        assert len(told) == 1 and str(tmp_path) not in told[0] and told[0].startswith("The destination could not be")


@pytest.mark.parametrize("linked", [".nanobanana", ".nanobanana/claims", ".nanobanana/books"])
def test_links_below_a_destination_lead_nowhere(task: tuple[str, list[Any]], tmp_path: Path, linked: str) -> None:
    """Claims of another folder would be shown, with the image tasks in them."""
    run_id, items = task
    vault = tmp_path.with_name(f"{tmp_path.name}-vault")
    vault.mkdir()
    by = claim().by.model_copy(update={"dag_id": "shop", "run_id": run_id, "task_id": "pictures", "map_index": -1})
    write_claim(vault, claim("of-another-0011223344", by=by))
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(vault / linked)
    with gallery_roots([tmp_path]):
        told = read(run_id)
    assert len(told["rows"]) == len(items) and "of-another" not in json.dumps(told)


def test_what_may_not_be_read_is_not_and_is_said(task: tuple[str, list[Any]]) -> None:
    run_id, _ = task
    with gallery_roots([]):
        ledger = read(run_id)
    assert len(ledger["rows"]) == 4
    assert any("gallery_roots" in line for line in ledger["skipped"])
    assert any("leaves out the files and claims" in line for line in ledger["skipped"])


@needs(STATE_STORE)
def test_a_submit_is_a_ledger_of_one(run_id: str) -> None:
    store = InMemoryStateStore()
    made = SubmissionRecord(RecordState.DONE, "f" * 64, 0, 0, "nb-1", "tsk_9", NOW - 60, max_tries=0, try_number=1)
    SingleRecordStore(store).write(made)
    add_run("shop", run_id)
    add_task("shop", run_id, "submit", operator="NanoBananaSubmitOperator")
    keep(run_id, "submit", store.texts)
    (row,) = read(run_id, "submit")["rows"]
    assert row["image_task_id"] == "tsk_9" and row["state"].startswith("bought")
    assert row["clear"].startswith("asks the service: if it is there, uses it and buys nothing")


def test_a_sensor_waits_and_pays_nothing(run_id: str) -> None:
    add_run("shop", run_id)
    add_task("shop", run_id, "wait", operator="NanoBananaSensor", rendered={"image_task_ids": ["tsk_1", "tsk_2"]})
    ledger = read(run_id, "wait")
    assert [row["image_task_id"] for row in ledger["rows"]] == ["tsk_1", "tsk_2"]
    assert all(row["retry"].endswith("and buys nothing") for row in ledger["rows"])
    assert {row["retry_buys"] for row in ledger["rows"]} == {"no"}


def test_nothing_on_record_is_said_so(run_id: str) -> None:
    add_run("shop", run_id)
    add_task("shop", run_id, "pictures", state=None, try_number=0)
    ledger = read(run_id)
    assert ledger["rows"] == [] and ledger["skipped"] == []
    assert "It has not run yet." in ledger["summary"][0]
    assert read(run_id, "no such task")["summary"] == ["There is no such task instance."]


@needs(STATE_STORE)
@pytest.mark.parametrize("stored", [{"a": 1}, "no base64", ""])
def test_records_that_cannot_be_understood_are_no_blank_ledger(run_id: str, stored: Any) -> None:
    add_run("shop", run_id)
    add_task("shop", run_id, "pictures")
    keep(run_id, "pictures", {"nanobanana_ledger": stored})
    ledger = read(run_id)
    assert any("cannot be understood" in line for line in ledger["skipped"])
    assert not any("no image task was bought" in line for line in ledger["summary"])


@pytest.mark.parametrize("content", [None, b'"cut o'])
def test_records_whose_object_is_gone_or_broken_are_no_blank_ledger(
    monkeypatch: pytest.MonkeyPatch, run_id: str, tmp_path: Path, content: bytes | None
) -> None:
    """A backend of the workers keeps XComs in a store; before Airflow 3.3 the records are among them."""
    monkeypatch.setitem(sys.modules, "airflow.state", None)
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", tmp_path.as_uri())
    (place := tmp_path / "shop" / "one").parent.mkdir()
    if content is not None:
        place.write_bytes(content)
    add_run("shop", run_id)
    add_task("shop", run_id, "pictures", xcoms={"nanobanana_ledger": place.as_uri()})
    ledger = read(run_id)
    assert any("cannot be understood" in line for line in ledger["skipped"])
    assert not any("no image task was bought" in line for line in ledger["summary"])


def test_of_thousands_those_that_need_a_look_are_told(monkeypatch: pytest.MonkeyPatch, run_id: str) -> None:
    from airflow_provider_nanobanana.ui import ledger

    row = {**ledger._ROW, "state": "in place", "label": "#0"}
    rows = [row | {"label": f"#{number}"} for number in range(2_500)] + [row | {"label": "bad", "state": "failed: x"}]
    words = {"summary": [], "source": "", "rows": rows, "skipped": []}
    monkeypatch.setattr(ledger._Reader, "read", lambda *_: words)
    shown = read(run_id)
    assert (len(shown["rows"]), shown["more"], shown["rows"][0]["label"]) == (2_000, 501, "bad")
