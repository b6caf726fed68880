"""A wait that is interrupted loses nothing: what was seen is in XCom, and the message says what the next try does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.exceptions import NanoBananaException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing import downloader
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaDownloadOperator
from airflow_provider_nanobanana.polling.poll_tracker import poll_once
from airflow_provider_nanobanana.triggers.nanobanana import NanoBananaTrigger
from tests.support.task_runner import Run, TaskInstance, attempt, entries_of, land, resume, sensor, wait
from tests.support.text import flat

Buy = Callable[..., str]
MODES = [{"deferrable": True}, {"deferrable": False}]
CRASH = {"error": "Trigger failure", "traceback": ["AirflowNotFoundException: the connection is not defined"]}


def statuses(run: Run) -> list[str]:
    return [entry["status"] for entry in run.ti.xcoms["return_value"]]


@pytest.fixture
def done_and_late(emulator: Emulator, buy: Buy) -> list[str]:
    done = buy("done")
    emulator.configure(latency=60)
    return [done, buy("late")]


class TestTriggerCrash:
    def test_what_goes_on_is_named_and_a_retry_waits_on(self, done_and_late: list[str], folder: Path) -> None:
        run = resume(sensor(done_and_late), "__fail__", **CRASH)
        assert isinstance(run.error, NanoBananaException)
        assert run.error.retryable
        assert run.error.charged == "yes"
        for part in ("trigger failed", "nanobanana_default", *done_and_late, "A retry waits on for free"):
            assert part in flat(run.error)
        assert statuses(run) == ["completed", "timeout"]
        assert [record["id"] for record in land(run.ti.xcoms["return_value"], folder).result] == done_and_late[:1]

    def test_what_has_settled_is_concluded(self, emulator: Emulator, buy: Buy) -> None:
        assert resume(sensor(buy()), "__fail__", **CRASH).result[0]["status"] == "completed"
        assert isinstance(resume(sensor(buy("[[fail]]")), "__fail__", **CRASH).error, AirflowFailException)

    @pytest.mark.parametrize(("option", "skipped"), [("soft_fail", False), ("never_fail", True)])
    def test_it_is_no_outcome_to_be_softened(self, done_and_late: list[str], option: str, skipped: bool) -> None:
        run = resume(sensor(done_and_late, **{option: True}), "__fail__", **CRASH)
        assert isinstance(run.error, AirflowSkipException) is skipped
        assert statuses(run) == ["completed", "timeout"]


@pytest.mark.parametrize("mode", MODES, ids=["deferrable", "poke"])
class TestRefusals:
    def test_of_one_while_others_are_shown_is_its_own(self, emulator: Emulator, buy: Buy, mode: dict[str, Any]) -> None:
        emulator.configure(latency=0.3)
        ids = [buy(name) for name in ("kite", "boat", "lamp")]
        emulator.fault(on="status", kind="forbidden", match="boat")
        run = wait(ids, allow_partial=True, **mode)
        assert [entry["status"] for entry in run.result] == ["completed", "failed", "completed"]
        assert run.result[1]["error"]["code"] == "look_refused"

    def test_of_one_fails_the_wait_when_all_are_wanted(
        self, emulator: Emulator, buy: Buy, mode: dict[str, Any]
    ) -> None:
        ids = [buy("kite"), buy("boat")]
        emulator.fault(on="status", kind="unauthorized", match="boat")
        run = wait(ids, **mode)
        assert isinstance(run.error, AirflowFailException)
        assert "Not shown to this key" in flat(run.error)
        assert statuses(run) == ["completed", "failed"]

    def test_of_the_key_leaves_what_was_seen_before(
        self, emulator: Emulator, done_and_late: list[str], mode: dict[str, Any]
    ) -> None:
        emulator.fault(on="status", kind="unauthorized", skip=2)
        run = wait(done_and_late, **mode)
        assert isinstance(run.error, AirflowFailException)
        assert "Fix the connection" in flat(run.error)
        assert len(statuses(run)) == 2
        assert mode["deferrable"] or statuses(run)[0] == "completed"


def test_a_triggerer_that_is_refused_alone_leaves_what_was_seen(done_and_late: list[str]) -> None:
    run = resume(sensor(done_and_late), event={"outcome": "refused"})
    assert "do both see the same connection" in flat(run.error)
    assert statuses(run) == ["completed", "timeout"]


@pytest.mark.parametrize(("kind", "params"), [("html", {}), ("rate_limit", {"retry_after": 2}), ("drop", {})])
def test_one_failed_poll_at_the_deadline_loses_nothing(
    emulator: Emulator, buy: Buy, slept: list[float], kind: str, params: dict[str, Any]
) -> None:
    ids = [buy("kite"), buy("boat")]
    emulator.fault(on="status", kind=kind, match="boat", times=2, **params)
    now = time.time()
    run = resume(sensor(ids), event={"outcome": "timeout", "started_at": now - 900, "deadline": now - 0.01})
    assert [entry["status"] for entry in run.result] == ["completed", "completed"]
    assert sum(slept) >= 3


def test_a_poll_at_the_deadline_is_bounded(emulator: Emulator, buy: Buy, slept: list[float]) -> None:
    image_task_id = buy()
    emulator.fault(on="status", kind="server_error")
    before = len(emulator.requests())
    run = wait(image_task_id, timeout=0)
    assert "Not seen in time" in flat(run.error)
    assert len(emulator.requests()) - before == 4
    assert sum(slept) < 10


def test_a_silent_service_is_not_asked_about_everything(emulator: Emulator) -> None:
    emulator.fault(on="status", kind="drop")
    with NanoBananaHook() as hook:
        results = poll_once(hook.session, [f"tsk_{number}" for number in range(200)])
    assert len(results) == 200
    assert all(result.error is not None for result in results)
    assert len(emulator.requests()) < 50


def test_inline_images_are_not_kept_in_memory(emulator: Emulator, buy: Buy) -> None:
    with NanoBananaHook() as hook:
        [result] = poll_once(hook.session, [buy(response_format="b64_json")])
    assert result.image_task is not None
    assert [(image.url, image.b64_json) for image in result.image_task.images] == [(None, None)]


class TestDownload:
    def test_a_bug_that_one_image_meets_does_not_lose_the_others(
        self,
        emulator: Emulator,
        buy: Buy,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ids = [buy(name) for name in ("kite", "boat", "lamp")]
        entries = entries_of(*ids)
        real, link = downloader.ImageDownloader.land, "https://files.example/secret-link"

        def land_or_break(self: Any, image: Any, *rest: Any, **options: Any) -> Any:
            if image["id"] == ids[1]:
                raise KeyError(link)
            return real(self, image, *rest, **options)

        monkeypatch.setattr(downloader.ImageDownloader, "land", land_or_break)
        ti = TaskInstance(task_id="download")
        context: Any = {"ti": ti}
        operator = NanoBananaDownloadOperator(task_id="download", images=entries, destination=f"file://{folder}")
        with pytest.raises(NanoBananaException, match="KeyError") as caught:
            operator.execute(context)
        assert [record["id"] for record in ti.xcoms["return_value"]] == [ids[0], ids[2]]
        [manifest] = folder.glob("manifest-*.json")
        assert "unexpected KeyError" in manifest.read_text()
        for text in (manifest.read_text(), str(caught.value), caplog.text):
            assert "secret-link" not in text

    def test_what_was_late_is_asked_about_once_more(self, emulator: Emulator, buy: Buy, folder: Path) -> None:
        emulator.configure(latency=3600)
        late = buy("late")
        entries = wait([late], timeout=0).ti.xcoms["return_value"]
        assert entries[0]["status"] == "timeout"
        emulator.complete_all()
        assert entries_of(late)[0]["status"] == "completed"
        run = land(entries, folder)
        assert [record["id"] for record in run.result] == [late]
        [manifest] = folder.glob("manifest-*.json")
        assert '"status": "completed"' in manifest.read_text()

    def test_what_is_still_late_may_be_retried(self, done_and_late: list[str], folder: Path) -> None:
        entries = wait(done_and_late[1], timeout=0).ti.xcoms["return_value"]
        run = land(entries, folder)
        assert isinstance(run.error, NanoBananaException)
        assert run.error.retryable
        assert "a retry asks again for free" in flat(run.error)

    def test_what_expired_at_the_service_is_lost(self, emulator: Emulator, buy: Buy, folder: Path) -> None:
        image_task_id = buy("[[fail]]")
        emulator.fault(on="status", kind="failure_word", word="expired")
        run = land([{"id": image_task_id, "status": "completed", "images": [{"url": None}]}], folder)
        assert isinstance(run.error, AirflowFailException)
        assert "buy it again" in flat(run.error)


class TestNothingToDo:
    """An empty plan skips submit; what waits and lands after it has nothing to do, and is not red."""

    def operators(self, folder: Path) -> list[BaseOperator]:
        made: list[BaseOperator] = [
            sensor([]),
            sensor(None, deferrable=False),
            sensor([], deferrable=False, mode="reschedule", soft_fail=True),
            NanoBananaDownloadOperator(task_id="download", images=None, destination=f"file://{folder}"),
        ]
        for operator in made:
            operator.upstream_task_ids = {"submit", "start"}
        return made

    @pytest.mark.parametrize(
        ("states", "skipped"),
        [
            ({"submit": "skipped", "start": "success"}, True),
            ({"submit": "failed", "start": "skipped"}, False),
            ({"submit": "upstream_failed", "start": "success"}, False),
            ({"submit": "success", "start": "success"}, False),
            ({}, False),
        ],
    )
    def test_only_a_skip_is_passed_on(
        self, emulator: Emulator, folder: Path, states: dict[str, str], skipped: bool
    ) -> None:
        for operator in self.operators(folder):
            run = attempt(operator, TaskInstance(task_id=operator.task_id, upstream=states))
            assert (type(run.error) is AirflowSkipException) is skipped, operator
            assert isinstance(run.error, AirflowFailException) is not skipped, operator

    def test_an_airflow_that_cannot_be_asked_keeps_it_red(
        self, emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(TaskInstance, "get_task_states")
        for operator in self.operators(folder):
            run = attempt(operator, TaskInstance(task_id=operator.task_id, upstream={"submit": "skipped"}))
            assert isinstance(run.error, AirflowFailException)


async def test_a_wait_ended_by_hand_names_what_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NanoBananaTrigger, "log", logging.getLogger("test.trigger"))
    await NanoBananaTrigger(image_task_ids=["tsk_1", "tsk_2"]).on_kill()
    [line] = [record.getMessage() for record in caplog.records]
    assert "no cancel" in line
    assert "tsk_1, tsk_2" in line
