"""What a clear does about money: it announces what it buys, and leaves nothing behind that is paid."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_nanobanana.durable.ledger import Ledger
from airflow_provider_nanobanana.durable.record import RecordState
from airflow_provider_nanobanana.durable.state_store import TaskStateStore
from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from tests.integration.batch.harness import GenerateTask
from tests.support.images import picture
from tests.support.text import flat

PROMPTS = [f"picture {number}" for number in range(6)]
MONTH = 30 * 86_400.0


def said(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the provider told a person."""
    ours = (record for record in caplog.records if record.name.startswith("airflow_provider"))
    return "\n".join(flat(record.getMessage()) for record in ours)


def remove_all(batch: GenerateTask) -> None:
    for path in batch.folder.glob("*.png"):
        path.unlink()


def ids_of(batch: GenerateTask) -> set[str]:
    return {sold["id"] for sold in batch.emulator.ledger()["image_tasks"] if not sold["refunded"]}


# --- files that are gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["landed", "timed out", "killed while waiting", "answers lost"])
def test_a_clear_announces_what_it_buys_again(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A month later no link lives, whatever became of the image tasks then."""
    batch = with_store
    if how == "timed out":
        batch.emulator.fault(on="submit", kind="latency", seconds=100_000)
    crash = {"killed while waiting": ("before land", 1), "answers lost": ("after submit", 3)}.get(how)
    batch.attempt(requests=PROMPTS, timeout=60, crash_on=crash)
    before = batch.posts
    remove_all(batch)
    batch.emulator.clear_faults()
    batch.clock.sleep(MONTH)
    batch.clear()
    batch.emulator.configure(credits=0.0)
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=PROMPTS, preflight_balance=True)
    assert isinstance(run.error, NanoBananaFailException) and batch.posts == before, "the preflight keeps it"
    assert "Estimate: 6 images to buy, $0.15" in said(caplog)
    batch.emulator.configure(credits=None)
    batch.clear()
    assert batch.attempt(requests=PROMPTS, preflight_balance=True).result["count"] == 6
    assert batch.posts == before + 6


def test_files_that_are_gone_while_their_links_live_cost_nothing(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS)
    remove_all(batch)
    batch.clear()
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=PROMPTS, preflight_balance=True)
    assert run.result["count"] == len(batch.files) == batch.posts == 6
    assert "Estimate: 0 images to buy, $0.00" in said(caplog) and "Up to 0 of them, $0.00" in said(caplog)


def test_links_that_may_have_died_are_announced_as_such(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS)
    remove_all(batch)
    batch.clock.sleep(86_500.0)
    batch.clear()
    with caplog.at_level(logging.INFO):
        batch.attempt(requests=PROMPTS)
    assert "Up to 6 of them, $0.15" in said(caplog) and batch.posts == 12


def test_a_retry_buys_nothing_that_expired_and_announces_nothing(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS, crash_on=("after manifest", 1))
    remove_all(batch)
    batch.clock.sleep(MONTH)
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=PROMPTS)
    assert "expired" in flat(run.error) and batch.posts == 6
    assert "Estimate: 0 images to buy, $0.00" in said(caplog) and "Up to 0 of them" in said(caplog)


def test_without_a_ledger_a_clear_looks_up_before_it_compares_and_buys(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    """Before Airflow 3.3 nothing is known of what the run bought a month ago."""
    batch = with_store
    batch.store = None
    batch.attempt(requests=PROMPTS)
    remove_all(batch)
    batch.clock.sleep(MONTH)
    batch.clear()
    batch.emulator.configure(credits=20.0)
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=PROMPTS, preflight_balance=True)
    batch.emulator.configure(credits=None)
    assert "Up to 6 of them, $0.15" in said(caplog)
    assert isinstance(run.error, NanoBananaFailException) and "$0.15" in said(caplog) and batch.posts == 6


def test_the_balance_is_compared_with_what_is_bought_and_not_with_what_was_in_doubt(with_store: GenerateTask) -> None:
    """Killed in the middle: what was paid by then is found first, and needs no money."""
    batch = with_store
    batch.attempt(requests=PROMPTS, preflight_balance=True, crash_on=("submit under way", 4))
    assert batch.charges == 4
    batch.emulator.configure(credits=4 * 5.0 + 2 * 5.0)  # credits are counted from the beginning
    run = batch.attempt(requests=PROMPTS, preflight_balance=True)
    batch.emulator.configure(credits=None)
    assert run.error is None and batch.charges == 6


# --- files that are broken -----------------------------------------------------------------------------------------

BROKEN = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "as long": lambda content: b"\0" * len(content),
    "a page": lambda content: b"<html>" + content,
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("late", [False, True])
def test_a_clear_relies_on_no_broken_file(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture, how: str, late: bool
) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS)
    victim = batch.folder / batch.files[2]
    whole = victim.read_bytes()
    victim.write_bytes(BROKEN[how](whole))
    batch.clock.sleep(MONTH if late else 60.0)
    batch.clear()
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=PROMPTS)
    assert run.error is None and run.result["count"] == 6 and victim.read_bytes() == whole
    assert batch.posts == (7 if late else 6)
    assert f"Estimate: {int(late)} image" in said(caplog)
    assert "Images that were in place and are no whole images any more: 1." in said(caplog)


def test_a_picture_that_a_person_put_there_stays_and_is_told(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS)
    retouched = picture("png", (9, 9))
    (batch.folder / batch.files[0]).write_bytes(retouched)
    batch.clock.sleep(MONTH)
    batch.clear()
    run = batch.attempt(requests=PROMPTS)
    assert run.error is None and batch.posts == 6
    assert (batch.folder / batch.files[0]).read_bytes() == retouched
    assert sorted(image["width"] for image in run.result["images"]) == [8, 8, 8, 8, 8, 9]


# --- another list --------------------------------------------------------------------------------------------------

OLD, NEW = [f"old {number}" for number in range(5)], [f"new {number}" for number in range(3)]


@pytest.mark.parametrize("crash", [("before land", 1), ("after submit", 3), ("submit under way", 2)])
def test_what_the_old_list_paid_is_landed_and_named(with_store: GenerateTask, crash: tuple[str, int]) -> None:
    """Also what was bought and never answered for."""
    batch = with_store
    batch.attempt(requests=OLD, crash_on=crash)
    paid = ids_of(batch)
    batch.clock.sleep(200.0)
    batch.clear()
    run = batch.attempt(requests=NEW)
    assert run.error is None and run.result["count"] == 3 and run.result["abandoned"] == []
    assert {record["id"] for record in batch.manifest["former"]} == paid
    assert batch.posts == len(paid) + 3 == len(batch.files), "nothing of the old list is bought"
    assert all(record["uri"].endswith(".png") for record in batch.manifest["former"])


def test_what_is_not_ready_is_named_with_its_cost_and_landed_by_another_clear(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="latency", seconds=2000, match="old")
    batch.attempt(requests=OLD, timeout=60)
    paid = ids_of(batch)
    batch.clear()
    began = batch.clock.now
    with caplog.at_level(logging.INFO):
        run = batch.attempt(requests=NEW)
    assert run.error is None and run.result["count"] == 3
    assert batch.clock.now - began < 300, "they are not waited for"
    left = run.result["abandoned"]
    assert {record["id"] for record in left} == paid == {record["id"] for record in batch.manifest["abandoned"]}
    assert {record["cost_usd"] for record in left} == {0.025}
    assert all(record["expires_at"] > began + 80_000 for record in left)
    assert all(image_task_id in said(caplog) for image_task_id in paid)
    batch.clock.sleep(3000.0)
    batch.clear()
    again = batch.attempt(requests=NEW)
    assert again.error is None and again.result["abandoned"] == [] and len(batch.files) == 8
    assert {record["id"] for record in batch.manifest["former"]} == paid and batch.posts == 8


def test_a_retry_of_the_clear_still_knows_the_old_list(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=OLD, crash_on=("before land", 1))
    batch.clear()
    batch.attempt(requests=NEW, crash_on=("submit under way", 2))
    run = batch.attempt(requests=NEW)
    assert run.error is None and len(batch.files) == batch.posts == 8


def test_what_was_refunded_or_has_landed_is_not_left_over(with_store: GenerateTask) -> None:
    batch = with_store
    batch.emulator.fault(on="submit", kind="failed", times=1, match="old 2")
    batch.attempt(requests=OLD)
    batch.clear()
    run = batch.attempt(requests=NEW)
    assert run.result["abandoned"] == batch.manifest["former"] == batch.manifest["abandoned"] == []
    assert len(batch.files) == 7 and batch.posts == 8


def test_what_may_have_been_bought_a_moment_ago_is_named_by_its_client_id(with_store: GenerateTask) -> None:
    """An accepted submit may stay out of sight for a minute and a half; how many are written ahead threads decide."""
    batch = with_store
    batch.attempt(requests=OLD, crash_on=("submit under way", 2))
    records = [entry.record for _, entry in Ledger.load(TaskStateStore(batch.store), first=False).items()]
    ahead = {record.client_business_id for record in records if record and record.state is RecordState.INTENT}
    batch.clear()
    left = batch.attempt(requests=NEW).result["abandoned"]
    assert len(batch.manifest["former"]) == 2 and len(left) == len(ahead) - 1, "one of them was sent, and is found"
    assert {record["id"] for record in left} < ahead and all(record["cost_usd"] is None for record in left)


def test_what_expired_unlanded_is_named_once(real: GenerateTask) -> None:
    batch = real
    batch.attempt(requests=OLD, crash_on=("before land", 1))
    paid = ids_of(batch)
    batch.clock.sleep(MONTH)
    batch.clear()
    run = batch.attempt(requests=NEW)
    assert run.error is None and {record["id"] for record in run.result["abandoned"]} == paid
    batch.clear()
    assert batch.attempt(requests=NEW).result["abandoned"] == [] and batch.posts == 8


def test_a_request_that_is_wanted_still_is_no_leftover(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=OLD, crash_on=("before land", 1))
    batch.clear()
    run = batch.attempt(requests=[*OLD[2:], "another"])
    assert run.error is None and run.result["count"] == 4
    assert len(batch.manifest["former"]) == 2 and len(batch.files) == batch.posts == 6


def test_trouble_with_the_old_list_fails_no_new_one(with_store: GenerateTask) -> None:
    batch = with_store
    batch.attempt(requests=OLD, crash_on=("before land", 1))
    batch.emulator.fault(on="result", kind="html", status=500, match="old")
    batch.emulator.fault(on="status", kind="server_error", match="old")
    batch.clear()
    run = batch.attempt(requests=NEW)
    assert run.error is None and run.result["count"] == 3


# --- clears that do not look like one, and lists that change without one -------------------------------------------


@pytest.mark.parametrize("retries", [1, 0, 4])
def test_a_clear_after_retries_were_edited_takes_the_new_list(with_store: GenerateTask, retries: int) -> None:
    """Airflow sets ``max_tries`` to the tries so far plus ``retries``: the same number as before, maybe."""
    batch = with_store
    batch.retries = batch.max_tries = 2
    batch.attempt(requests=["a red mug"])
    batch.retries = retries
    batch.clear()
    assert batch.attempt(requests=["a blue mug"]).error is None
    assert [image["fields"]["prompt"] for image in batch.manifest["images"]] == ["a blue mug"]


@pytest.mark.parametrize(
    ("change", "told"), [({}, False), ({"requests": OLD}, True), ({"size": "16:9"}, True), ({"timeout": 300}, False)]
)
def test_an_attempt_says_that_it_goes_on_with_the_list_it_has(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture, change: dict[str, Any], told: bool
) -> None:
    batch = with_store
    batch.attempt(requests=PROMPTS, crash_on=("submit under way", 3))
    with caplog.at_level(logging.INFO):
        run = batch.attempt(**{"requests": PROMPTS, **change})
    assert run.error is None and batch.posts == 6
    assert bool(re.search(r"differs from what try 1 was asked for.*Clear the task once more", said(caplog))) == told


def costly() -> Iterator[str]:
    """Return an upstream that must not be asked."""
    if PROMPTS:
        raise AssertionError("the upstream was asked")
    yield ""


def test_a_list_that_is_not_at_hand_is_not_asked_for(
    with_store: GenerateTask, caplog: pytest.LogCaptureFixture
) -> None:
    batch = with_store
    batch.attempt(requests=iter(PROMPTS), crash_on=("submit under way", 3))
    with caplog.at_level(logging.INFO):
        assert batch.attempt(requests=costly()).error is None
    assert "differs from what" not in said(caplog) and json.dumps(batch.manifest).count("picture") >= 6
