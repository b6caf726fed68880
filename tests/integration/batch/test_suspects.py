"""A suspect picture is paid once: none of what may follow it buys another, or downloads it a second time."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_nanobanana.exceptions import NanoBananaFailException
from airflow_provider_nanobanana.landing.downloader import ImageDownloader
from tests.integration.batch.harness import GenerateTask
from tests.support.images import picture
from tests.support.text import flat

#: Links are dead by then.
DAYS = 3 * 86_400.0


def plain(size: tuple[int, int] = (1024, 1024)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "white").save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def shown(batch: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What comes next from a link: the last one comes again and again. As many were downloaded as are gone."""
    pictures = [plain()] * 20

    def write(self: ImageDownloader, image: Any, sink: Any, **_: Any) -> bool:
        sink.write(pictures.pop(0) if len(pictures) > 1 else pictures[0])
        return True

    monkeypatch.setattr(ImageDownloader, "_write", write)
    return pictures


def again(batch: GenerateTask) -> None:
    """The same try again."""


def later(batch: GenerateTask) -> None:
    batch.clock.sleep(DAYS)


def cleared(batch: GenerateTask) -> None:
    batch.clear()


def cleared_later(batch: GenerateTask) -> None:
    batch.clock.sleep(DAYS)
    batch.clear()


def another_run(batch: GenerateTask) -> None:
    batch.next_run("another")


def another_run_later(batch: GenerateTask) -> None:
    batch.clock.sleep(DAYS)
    batch.next_run("another")


AFTERWARDS = [again, later, cleared, cleared_later, another_run, another_run_later]


def kept(batch: GenerateTask) -> list[str]:
    return sorted(path.name for path in (batch.folder / ".nanobanana/quarantine").glob("*"))


@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("claims", ["auto", "off"])
def test_what_is_in_quarantine_is_neither_bought_nor_downloaded_again(
    batch: GenerateTask, shown: list[bytes], then: Callable[[GenerateTask], None], claims: str
) -> None:
    asked: dict[str, Any] = {"prompt": "a mug", "on_suspect": "quarantine", "claims": claims}
    run = batch.attempt(**asked)
    assert isinstance(run.error, NanoBananaFailException) and "all of one colour" in flat(run.error)
    assert batch.charges == 1 and batch.files == [] and len(shown) == 19
    (name,) = kept(batch)
    for _ in range(2):
        then(batch)
        run = batch.attempt(**asked)
        assert isinstance(run.error, NanoBananaFailException)
        assert batch.charges == 1 and len(shown) == 19 and kept(batch) == [name] and batch.files == []
        (failure,) = batch.manifest["failed"]
        assert failure["code"] == "suspect_image" and name in batch.manifest["quarantined"][0]["uri"]


@pytest.mark.parametrize("then", AFTERWARDS)
@pytest.mark.parametrize("accepting", ["warn", "fail"])
def test_what_is_accepted_later_is_put_in_place_for_free(
    batch: GenerateTask, shown: list[bytes], then: Callable[[GenerateTask], None], accepting: str
) -> None:
    batch.attempt(prompt="a mug", on_suspect="quarantine")
    if then in (again, later):
        batch.clear()  # a task that failed for good has no further try
    then(batch)
    run = batch.attempt(prompt="a mug", on_suspect=accepting)
    assert (run.error is None) == (accepting == "warn")
    assert batch.charges == 1 and len(shown) == 19 and kept(batch) == []
    (image,) = batch.manifest["images"]
    assert image["suspect"] == ["one_colour"] and (batch.folder / batch.files[0]).read_bytes() == plain()


@pytest.mark.parametrize("then", AFTERWARDS)
def test_a_batch_that_fails_for_a_suspect_keeps_it_and_buys_none(
    batch: GenerateTask, shown: list[bytes], then: Callable[[GenerateTask], None]
) -> None:
    for _ in range(2):
        run = batch.attempt(prompt="a mug", on_suspect="fail")
        assert isinstance(run.error, NanoBananaFailException) and "on_suspect='warn'" in flat(run.error)
        assert batch.charges == 1 and len(batch.files) == 1 and len(shown) == 19
        assert batch.xcoms["return_value"]["images"][0]["suspect"] == ["one_colour"]
        then(batch)
    run = batch.attempt(prompt="a mug")
    assert run.error is None and batch.charges == 1


@pytest.mark.parametrize("crash_on", ["before land", "before manifest", "after manifest"])
def test_a_kill_around_the_quarantine_buys_none(batch: GenerateTask, shown: list[bytes], crash_on: str) -> None:
    batch.attempt(prompt="a mug", on_suspect="quarantine", crash_on=(crash_on, 1))
    batch.clock.sleep(60)
    for _ in range(2):
        run = batch.attempt(prompt="a mug", on_suspect="quarantine")
        assert isinstance(run.error, NanoBananaFailException)
    assert batch.charges == 1 and len(kept(batch)) == 1 and batch.files == []


def test_a_redo_of_it_makes_another_and_pays_for_that(batch: GenerateTask, shown: list[bytes]) -> None:
    rows = [{"prompt": "a mug", "name": "SKU-1"}]
    batch.attempt(requests=rows, on_suspect="quarantine")
    shown[:] = [picture("png", (1024, 1024))]
    batch.next_run("redo")
    for _ in range(2):
        run = batch.attempt(requests=rows, on_suspect="quarantine", redo=["SKU-1"])
        assert run.error is None, run.error
        batch.clear()
    assert batch.charges == 2 and len(batch.files) == 1
    batch.next_run("next")
    assert batch.attempt(requests=rows, on_suspect="quarantine").error is None and batch.charges == 2


def test_what_was_in_place_before_stays_there(batch: GenerateTask, shown: list[bytes]) -> None:
    batch.attempt(prompt="a mug")
    batch.next_run("strict")
    run = batch.attempt(prompt="a mug", on_suspect="quarantine")
    assert run.error is None and batch.charges == 1 and kept(batch) == []
    assert run.result["images"][0]["suspect"] == ["one_colour"]


def test_the_same_bytes_for_other_prompts_are_marked_and_kept_apart(batch: GenerateTask, shown: list[bytes]) -> None:
    shown[:] = [picture("png", (1024, 1024))]
    prompts = ["a mug", "a cup", {"prompt": "a cup", "variant": "2"}]
    run = batch.attempt(requests=prompts)
    assert [image["suspect"] for image in run.result["images"]] == [["same_bytes"]] * 3
    batch.next_run("strict")
    strict = [{"prompt": prompt, "variant": "3"} for prompt in ("a mug", "a cup")]
    for _ in range(2):
        run = batch.attempt(requests=strict, on_suspect="quarantine", allow_partial=True)
        assert run.error is None, run.error
        assert run.result["count"] == run.result["failed_count"] == 1 and len(kept(batch)) == 1
        assert run.result["images"][0]["suspect"] == ["same_bytes"]
        batch.clear()
    assert batch.charges == 5


def test_variants_may_be_the_same(batch: GenerateTask, shown: list[bytes]) -> None:
    shown[:] = [picture("png", (1024, 1024))]
    run = batch.attempt(requests=[{"prompt": "a mug", "variant": str(number)} for number in range(3)])
    assert [image["suspect"] for image in run.result["images"]] == [[], [], []]


def test_another_size_is_marked_also_where_it_was_in_place(
    batch: GenerateTask, shown: list[bytes], tmp_path: Path
) -> None:
    shown[:] = [picture("png", (512, 512))]
    for run_id in ("first", "second"):
        batch.next_run(run_id)
        run = batch.attempt(prompt="a mug")
        assert run.result["images"][0]["suspect"] == ["other_size"]
    assert batch.charges == 1


@pytest.mark.parametrize("claims", ["auto", "off"])
def test_a_dry_run_moves_nothing_out_of_quarantine(batch: GenerateTask, shown: list[bytes], claims: str) -> None:
    batch.attempt(prompt="a mug", on_suspect="quarantine", claims=claims)
    held = kept(batch)
    assert held
    for run_id in ("run", "another"):
        if run_id != "run":
            batch.next_run(run_id)
        before = {path: path.stat().st_mtime_ns for path in batch.folder.rglob("*")}
        run = batch.attempt(prompt="a mug", claims=claims, dry_run=True)
        assert run.error is None and (run.result["in_place"], run.result["to_buy"]) == (1, 0)
        assert {path: path.stat().st_mtime_ns for path in batch.folder.rglob("*")} == before
    run = batch.attempt(prompt="a mug", claims=claims)
    assert run.error is None and batch.charges == 1 and batch.files == [Path(run.result["images"][0]["uri"]).name]
