"""What the processes of one machine share: who may use it, what becomes of it when one of them dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.submission.shared_state import FileState, ProcessState, SharedState, private_folder

fork = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def value(held: SharedState) -> Any:
    seen: list[Any] = []
    held.update(seen.append)
    return seen[0]


def count(folder: Path, times: int) -> None:
    for _ in range(times):
        FileState(folder, "account").update(lambda before: [(before or [0])[0] + 1])


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_a_value_is_kept_until_it_is_replaced(folder: Path, kind: str) -> None:
    held: SharedState = ProcessState() if kind == "own" else FileState(folder, "account")
    assert value(held) is None
    held.update(lambda _: [1.5, None])
    held.update(lambda _: None)
    assert value(held) == [1.5, None]


def test_nothing_is_lost_between_processes(folder: Path) -> None:
    processes = [fork.Process(target=count, args=(folder, 200)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert value(FileState(folder, "account")) == [800]


def test_accounts_do_not_meet(folder: Path) -> None:
    FileState(folder, "one").update(lambda _: [1])
    assert value(FileState(folder, "other")) is None


def test_nobody_else_may_read_or_write(folder: Path) -> None:
    FileState(folder, "account").update(lambda _: [1])
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "account")] == [0o700, 0o600]


def test_a_shorter_value_leaves_nothing_of_the_longer_one(folder: Path) -> None:
    (held := FileState(folder, "account")).update(lambda _: [1234567890.123456] * 8)
    held.update(lambda _: [1])
    assert json.loads((folder / "account").read_text()) == [1]


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2", b"\x00" * 256, b"\xff\xfe", b"[" * 100_000, b"1" * 100_000, b"{}x", b" " * 256]
)
def test_what_cannot_be_read_counts_as_nothing(folder: Path, content: bytes) -> None:
    held = FileState(folder, "account")
    held.update(lambda _: [1])
    (folder / "account").write_bytes(content)
    assert not isinstance(value(held), list)
    held.update(lambda _: [2])
    assert value(held) == [2]
    assert (folder / "account").stat().st_size < 1000


def link_to_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def link_to_file(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder.parent / "precious").write_text("[7]")
    (folder / "account").symlink_to(folder.parent / "precious")


def open_to_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize("plant", [link_to_folder, link_to_file, open_to_others, Path.touch])
def test_a_planted_place_is_refused_and_left_alone(folder: Path, plant: Callable[[Path], None]) -> None:
    plant(folder)
    before = sorted((path, path.is_file() and path.read_bytes()) for path in folder.parent.rglob("*"))
    with pytest.raises(OSError):
        FileState(folder, "account").update(lambda _: [1])
    assert sorted((path, path.is_file() and path.read_bytes()) for path in folder.parent.rglob("*")) == before


def test_somebody_elses_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileState(folder, "account").update(lambda _: [1])
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(PermissionError, match="somebody else's"):
        FileState(folder, "account").update(lambda _: [2])


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        FileState(tmp_path / "missing" / "shared", "account").update(lambda _: [1])


def hold(folder: Path, held: Connection) -> None:
    def forever(_: Any) -> Any:
        held.send("locked")
        signal.pause()

    FileState(folder, "account").update(forever)


@pytest.fixture
def holder(folder: Path) -> Any:
    """A process that has the lock and does not go on."""
    here, there = fork.Pipe()
    process = fork.Process(target=hold, args=(folder, there))
    process.start()
    assert here.recv() == "locked"
    yield process
    process.kill()
    process.join()


def test_kill_9_frees_the_lock(folder: Path, holder: Any) -> None:
    holder.kill()
    holder.join()
    held = FileState(folder, "account")
    held.update(lambda _: [1])
    assert value(held) == [1]


def test_a_holder_that_stands_still_does_not_stop_others(
    folder: Path, holder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(TimeoutError, match="does not go on"):
        FileState(folder, "account").update(lambda _: [1])
    assert sum(pauses) == pytest.approx(1.0)


def test_a_change_that_fails_frees_the_lock(folder: Path) -> None:
    held = FileState(folder, "account")
    with pytest.raises(ZeroDivisionError):
        held.update(lambda _: 1 / 0)
    held.update(lambda _: [1])
    assert value(held) == [1]


def test_every_user_has_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/somewhere")
    monkeypatch.setattr(os, "geteuid", lambda: 50_000)
    assert private_folder() == Path("/somewhere/nanobanana-50000")


def test_the_current_folder_is_no_place_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's last resort: no two processes have it in common, and it may be a checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(OSError, match="no folder"):
        private_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert private_folder().parent == tmp_path, "somebody wants it so"


def test_where_users_have_no_numbers_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(OSError, match="share no folder"):
        patch.setattr(os, "name", "nt")
        private_folder()
