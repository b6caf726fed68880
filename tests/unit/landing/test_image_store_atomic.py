"""Whole or not there: kills, leftovers and two landings at once."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from airflow_provider_nanobanana.landing import ImageStore, stem_for
from airflow_provider_nanobanana.landing.storage.staging import ABANDONED_SECONDS, QUIET_SECONDS, stage, sweep
from tests.support.images import picture

ID = "task_img_abc"
STEM = stem_for(ID, 0)
PNG = picture("png")

CHILD = """
import sys
from airflow_provider_nanobanana.landing import ImageStore
def fetch(sink):
    sink.write(bytes.fromhex(sys.argv[2]))
    sink.flush()
    print("half", flush=True)
    sys.stdin.read()  # waits to be killed
ImageStore(sys.argv[1]).land(sys.argv[3], "task_img_abc", 0, fetch)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_kill_in_the_middle_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), PNG.hex()[:2000], STEM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()) as child:
        assert child.stdout is not None
        assert any(b"half" in line for line in child.stdout)
        (leftover,) = names(tmp_path)
        old = time.time() - QUIET_SECONDS - 1
        os.utime(tmp_path / leftover, (old, old))
        assert sweep(tmp_path) == [], "its writer lives and holds the lock"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert names(tmp_path) == [leftover]
    assert leftover.startswith(f".{STEM}.")
    landing = ImageStore(str(tmp_path))
    assert landing.find(STEM) is None
    stored = landing.land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert names(tmp_path) == [f"{STEM}.png"], "the next attempt lands and clears up"
    assert stored.bytes == len(PNG)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_leftovers_go_when_quiet_and_unlocked(tmp_path: Path) -> None:
    kept = [f"{STEM}.png", ".hidden", ".x.part", f".{STEM}.0123456789abcdef.part.bak", f"{STEM}.0123456789abcdef.part"]
    for name in kept:
        (tmp_path / name).write_bytes(b"mine")
    leftover = tmp_path / f".{STEM}.0123456789abcdef.part"
    leftover.write_bytes(b"half")
    written = leftover.stat().st_mtime
    assert sweep(tmp_path, now=written + QUIET_SECONDS - 1) == []
    assert sweep(tmp_path, now=written + QUIET_SECONDS + 1) == [leftover.name]
    assert names(tmp_path) == sorted(kept)


def test_without_locks_leftovers_go_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(fd: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with stage(tmp_path, STEM) as staged:
        written = staged.path.stat().st_mtime
        assert sweep(tmp_path, now=written + ABANDONED_SECONDS - 1) == []
        assert sweep(tmp_path, now=written + ABANDONED_SECONDS + 1) == [staged.path.name]


def test_two_landings_of_one_image_at_once_both_end_whole(tmp_path: Path) -> None:
    both_started, results = threading.Barrier(2, timeout=30), []

    def fetch(sink: BinaryIO) -> object:
        sink.write(PNG[:500])
        both_started.wait()
        return sink.write(PNG[500:])

    def land() -> None:
        results.append(ImageStore(str(tmp_path)).land(STEM, ID, 0, fetch))

    threads = [threading.Thread(target=land) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert results[0] == results[1]
    assert names(tmp_path) == [f"{STEM}.png"]
    assert (tmp_path / f"{STEM}.png").read_bytes() == PNG


def test_one_landing_does_not_sweep_away_another(tmp_path: Path) -> None:
    def outer(sink: BinaryIO) -> object:
        (busy,) = (path for path in tmp_path.iterdir())
        old = time.time() - 10 * ABANDONED_SECONDS
        os.utime(busy, (old, old))
        ImageStore(str(tmp_path)).land(stem_for(ID, 1), ID, 1, lambda other: other.write(PNG))
        assert busy.exists()
        return sink.write(PNG)

    ImageStore(str(tmp_path)).land(STEM, ID, 0, outer)
    assert names(tmp_path) == [f"{stem_for(ID, 0)}.png", f"{stem_for(ID, 1)}.png"]


@pytest.mark.parametrize("kind", ["fifo", "link to a device", "link to nowhere", "folder", "socket"])
def test_what_is_no_file_is_no_leftover_and_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    """Whoever may write into a shared folder may put anything there under such a name."""
    path = tmp_path / f".{STEM}.0123456789abcdef.part"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path)) if len(str(path)) < 100 else path.symlink_to("/dev/null")
    else:
        path.symlink_to("/dev/zero" if "device" in kind else tmp_path / "nowhere")
    assert sweep(tmp_path, now=time.time() + 10 * ABANDONED_SECONDS) == []
    ImageStore(str(tmp_path)).land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert names(tmp_path) == [path.name, f"{STEM}.png"]
