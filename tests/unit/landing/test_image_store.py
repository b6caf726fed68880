"""ImageStore: verified images under deterministic names, and the manifest file."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_nanobanana.landing import image_store as image_store_module
from airflow_provider_nanobanana.landing.decoder import decode_file
from airflow_provider_nanobanana.landing.file_names import safe_name, stem_for
from airflow_provider_nanobanana.landing.image_file import decode_b64
from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage
from airflow_provider_nanobanana.landing.reuse import find_existing
from airflow_provider_nanobanana.landing.storage.destination import MAX_DESTINATION
from airflow_provider_nanobanana.landing.storage.staging import ABANDONED_SECONDS, QUIET_SECONDS, stage, sweep
from airflow_provider_nanobanana.toapis.errors import (
    DownloadFailed,
    ImageInvalid,
    ImageTooCostly,
    InvalidRequest,
    StorageFailed,
)
from dev.benchmarks.bombs import make
from tests.support.images import FORMATS, JUMBF, SUFFIX, chunk, jpeg_with_provenance, picture, png_with_provenance

ID = "task_img_abc"
STEM = stem_for(ID, 0)
PNG = picture("png")


def writes(data: bytes) -> Callable[[BinaryIO], object]:
    return lambda sink: sink.write(data)


def untouched(sink: BinaryIO) -> object:
    raise AssertionError("the image is there: nothing may be downloaded")


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def files_in(folder: Path) -> list[str]:
    """What people see there: not what the provider keeps in its own folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not yet" / "there"


@pytest.mark.parametrize("data", [png_with_provenance(), jpeg_with_provenance(), *map(picture, FORMATS)])
def test_bytes_land_verbatim(folder: Path, data: bytes) -> None:
    stored = ImageStore(f"file://{folder}").land(STEM, ID, 0, writes(data))
    (name,) = everything_in(folder)
    assert (folder / name).read_bytes() == data
    assert stored.uri == f"file://{folder}/{name}"
    assert name == STEM + SUFFIX[stored.format]


def test_record_is_small_plain_json(folder: Path) -> None:
    stored = ImageStore(str(folder)).land(STEM, ID, 3, writes(PNG))
    record = json.loads(json.dumps(stored.record()))
    assert record == {
        "uri": f"file://{folder}/{STEM}.png",
        "id": ID,
        "index": 3,
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "bytes": len(PNG),
        "format": "png",
        "width": 64,
        "height": 48,
        "suspect": [],
    }
    assert StoredImage(**record) == stored


def test_the_longest_record_stays_under_600_bytes() -> None:
    destination = "memory://" + "é" * 30 + "x" * (MAX_DESTINATION - 9 - 6 * 30)
    long_id = "A" * 60
    name = f"{stem_for(long_id, 9999)}.webp"
    stored = StoredImage(
        uri=f"{destination}/{name}", id=long_id, index=9999, sha256="f" * 64, bytes=64 * 2**20, format="webp",
        width=12288, height=12288,
    )  # fmt: skip
    assert ImageStore(destination)
    assert len(json.dumps(stored.record())) <= 600
    with pytest.raises(InvalidRequest, match="longer than 256"):
        ImageStore(destination + "x")


def test_second_landing_downloads_nothing_and_overwrites_nothing(folder: Path) -> None:
    landing = ImageStore(str(folder))
    first = landing.land(STEM, ID, 0, writes(picture("jpeg")))
    stamp = (folder / f"{STEM}.jpg").stat().st_mtime_ns
    assert landing.land(STEM, ID, 0, untouched) == first
    assert ImageStore(f"file://{folder}/").land(STEM, ID, 0, untouched) == first
    assert landing.find(STEM) == first.model_copy(update={"id": ""})
    assert (folder / f"{STEM}.jpg").stat().st_mtime_ns == stamp


def test_find_in_a_folder_that_is_not_there(folder: Path) -> None:
    assert ImageStore(str(folder)).find(STEM) is None
    assert not folder.exists()


@pytest.mark.parametrize("broken", [b"", b"<html>", PNG[:-20], PNG[: len(PNG) // 2]])
def test_a_broken_file_does_not_count_and_is_replaced(folder: Path, broken: bytes) -> None:
    landing = ImageStore(str(folder))
    folder.mkdir(parents=True)
    for suffix in (".png", ".jpg"):
        (folder / f"{STEM}{suffix}").write_bytes(broken)
    assert landing.find(STEM) is None
    assert everything_in(folder) == [f"{STEM}.jpg", f"{STEM}.png"]
    landing.land(STEM, ID, 0, writes(PNG))
    assert everything_in(folder) == [f"{STEM}.png"]


def test_a_broken_file_stays_until_there_is_a_better_one(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{STEM}.jpg").write_bytes(b"half an image")
    with pytest.raises(ImageInvalid):
        ImageStore(str(folder)).land(STEM, ID, 0, writes(b"<html>"))
    assert files_in(folder) == [f"{STEM}.jpg"]


def too_costly(path: Path, *, thumbnail: bool) -> object:
    """Decode as a machine does whose decoder of JPEGs crashes."""
    if path.suffix == ".jpg":
        raise ImageTooCostly("The image's decoder crashed twice (SIGILL)")
    return decode_file(path, thumbnail=thumbnail)


def test_an_image_that_this_machine_cannot_check_is_never_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(str(folder))
    store.land(STEM, ID, 0, writes(picture("jpeg")))
    monkeypatch.setattr(image_store_module, "decode_file", too_costly)
    with pytest.raises(StorageFailed, match=rf"{STEM}.jpg is there and could not be checked: .*SIGILL.* move it away"):
        store.find(STEM)
    with pytest.raises(StorageFailed, match="could not be checked"):
        store.land(STEM, ID, 0, untouched)
    assert files_in(folder) == [f"{STEM}.jpg"]


def test_an_image_of_too_many_parts_in_place_is_never_not_there(folder: Path) -> None:
    """It is whole for whoever has no limit, as an earlier version had none."""
    store = ImageStore(str(folder))
    folder.mkdir(parents=True)
    (folder / f"{STEM}.png").write_bytes(make("png-private", 2))
    with pytest.raises(StorageFailed, match=r"could not be checked: .* more than 100,000 chunks"):
        store.find(STEM)


def test_a_whole_image_beside_one_that_cannot_be_checked_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(str(folder))
    first = store.land(STEM, ID, 0, writes(PNG))
    (folder / f"{STEM}.jpg").write_bytes(picture("jpeg"))
    monkeypatch.setattr(image_store_module, "decode_file", too_costly)
    assert store.land(STEM, ID, 0, untouched) == first
    assert files_in(folder) == [f"{STEM}.jpg", f"{STEM}.png"]


def test_an_image_that_appears_and_cannot_be_checked_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither it nor a broken one beside it is removed for ours, which can be downloaded again."""
    folder.mkdir(parents=True)
    (folder / f"{STEM}.png").write_bytes(b"half")
    monkeypatch.setattr(image_store_module, "decode_file", too_costly)

    def fetch(sink: BinaryIO) -> None:
        (folder / f"{STEM}.jpg").write_bytes(picture("jpeg"))
        sink.write(PNG)

    with pytest.raises(StorageFailed, match="could not be checked"):
        ImageStore(str(folder)).land(STEM, ID, 0, fetch)
    assert files_in(folder) == [f"{STEM}.jpg", f"{STEM}.png"]


def test_another_size_than_asked_for_is_landed_and_marked(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    landing = ImageStore(str(folder))
    with caplog.at_level(logging.WARNING):
        landing.land(stem_for(ID, 0), ID, 0, writes(PNG), expected_pixels=(64, 48))
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        image = landing.land(stem_for(ID, 1), ID, 1, writes(PNG), expected_pixels=(1024, 1024))
    assert image.width == 64 and "other_size" in image.suspect
    assert caplog.text == "", "thousands of them would be thousands of lines: results say it once"


@pytest.mark.parametrize(
    ("problem", "seen"),
    [
        (DownloadFailed("refused", http_status=403), DownloadFailed),
        (OSError(errno.ENOSPC, "No space left on device"), StorageFailed),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_nothing_is_left_behind_by_a_failure(folder: Path, problem: BaseException, seen: type[BaseException]) -> None:
    def fetch(sink: BinaryIO) -> object:
        sink.write(PNG[:100])
        assert len(everything_in(folder)) == 1, "written beside its final place, hidden"
        assert everything_in(folder)[0].startswith(".")
        raise problem

    with pytest.raises(seen):
        ImageStore(str(folder)).land(STEM, ID, 0, fetch)
    assert everything_in(folder) == []


def test_what_is_no_image_is_not_landed(folder: Path) -> None:
    with pytest.raises(ImageInvalid, match="504 Gateway"):
        ImageStore(str(folder)).land(STEM, ID, 0, writes(b"<html><h1>504 Gateway</h1></html>"))
    assert files_in(folder) == []


def test_inline_images_land_like_links(folder: Path) -> None:
    text = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert ImageStore(str(folder)).land(STEM, ID, 0, lambda sink: decode_b64(text, sink)).bytes == len(PNG)
    with pytest.raises(ImageInvalid, match="not base64"):
        ImageStore(str(folder)).land(stem_for(ID, 1), ID, 1, lambda sink: decode_b64("###", sink))
    assert everything_in(folder) == [f"{STEM}.png"]


@pytest.mark.parametrize("stem", ["", "..", "a/b", "../a", ".hidden", "a\x00", "-a", "a" * 104, "a b", "é"])
def test_a_stem_must_be_one_plain_name(folder: Path, stem: str) -> None:
    with pytest.raises(InvalidRequest):
        ImageStore(str(folder)).land(stem, ID, 0, untouched)


# --- manifest --------------------------------------------------------------------------------------------------------


def test_manifest_is_sorted_and_named_safely(folder: Path) -> None:
    landing = ImageStore(str(folder))
    for number in (1, 2):
        uri = landing.write_manifest(
            "manual__2026-01-01T00:00:00+00:00/../x", {"z": "é", "a": {"d": number, "c": None}}
        )
    (name,) = everything_in(folder)
    assert uri == f"file://{folder}/{name}"
    assert (folder / name).read_text() == '{\n  "a": {\n    "c": null,\n    "d": 2\n  },\n  "z": "é"\n}\n'
    assert name.endswith(".json")
    assert "/" not in name


@pytest.mark.parametrize("data", [{"a": object()}, {"a": float("nan")}])
def test_a_manifest_that_is_no_json_writes_nothing(folder: Path, data: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        ImageStore(str(folder)).write_manifest("run", data)
    assert everything_in(folder) == []


def test_could_not_look_is_not_not_there(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{STEM}.png").symlink_to(folder / f"{STEM}.png")  # a loop: stat fails
    with pytest.raises(StorageFailed):
        ImageStore(str(folder)).land(STEM, ID, 0, untouched)


def test_a_directory_in_the_way_is_a_storage_failure(folder: Path) -> None:
    (folder / f"{STEM}.png").mkdir(parents=True)
    with pytest.raises(StorageFailed):
        ImageStore(str(folder)).land(STEM, ID, 0, writes(PNG))
    assert everything_in(folder) == [f"{STEM}.png"]


def test_others_may_read_what_landed(folder: Path) -> None:
    mask = os.umask(0o027)
    try:
        ImageStore(str(folder)).land(STEM, ID, 0, writes(PNG))
    finally:
        os.umask(mask)
    assert (folder / f"{STEM}.png").stat().st_mode & 0o777 == 0o640


# --- whole or not there: kills, leftovers and two writers at once ----------------------------------------------------


CHILD = """
import sys
from airflow_provider_nanobanana.landing.image_store import ImageStore
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
        sweep(tmp_path)
        assert names(tmp_path) == [leftover], "its writer lives and holds the lock"
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
    sweep(tmp_path, now=written + QUIET_SECONDS - 1)
    assert leftover.exists()
    sweep(tmp_path, now=written + QUIET_SECONDS + 1)
    assert names(tmp_path) == sorted(kept)


def test_without_locks_leftovers_go_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(fd: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with stage(tmp_path, STEM) as staged:
        written = staged.path.stat().st_mtime
        sweep(tmp_path, now=written + ABANDONED_SECONDS - 1)
        assert staged.path.exists()
        sweep(tmp_path, now=written + ABANDONED_SECONDS + 1)
        assert not staged.path.exists()


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
    sweep(tmp_path, now=time.time() + 10 * ABANDONED_SECONDS)
    ImageStore(str(tmp_path)).land(STEM, ID, 0, lambda sink: sink.write(PNG))
    assert names(tmp_path) == [path.name, f"{STEM}.png"]


# --- another picture appears during the download ---------------------------------------------------------------------


OTHER = picture("png", (32, 32))


def appears(folder: Path, content: bytes, suffix: str = ".png") -> Callable[[BinaryIO], object]:
    """Write our picture, while another process puts a file under the stem."""

    def fetch(sink: BinaryIO) -> object:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{STEM}{suffix}").write_bytes(content)
        return sink.write(PNG)

    return fetch


@pytest.mark.parametrize(("content", "suffix"), [(OTHER, ".png"), (picture("webp"), ".webp")])
@pytest.mark.parametrize("before", [b"", b"<html>"])
def test_what_landed_first_stays(folder: Path, content: bytes, suffix: str, before: bytes) -> None:
    if before:  # a broken file that another process replaces meanwhile
        folder.mkdir(parents=True)
        (folder / f"{STEM}{suffix}").write_bytes(before)
    found: list[StoredImage] = []
    store = ImageStore(str(folder))
    stored = store.land(STEM, ID, 0, appears(folder, content, suffix), on_in_place=found.append)
    assert found == [stored]
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert files_in(folder) == [f"{STEM}{suffix}"]
    assert (folder / f"{STEM}{suffix}").read_bytes() == content


@pytest.mark.parametrize("content", [OTHER, b"<html>"])
def test_at_the_very_moment_of_appearing(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_bytes(content)
        link(source, target)

    monkeypatch.setattr("os.link", late)
    found: list[StoredImage] = []
    stored = ImageStore(str(folder)).land(STEM, ID, 0, writes(PNG), on_in_place=found.append)
    expected = OTHER if content == OTHER else PNG
    assert (folder / f"{STEM}.png").read_bytes() == expected
    assert stored.sha256 == hashlib.sha256(expected).hexdigest()
    assert len(found) == (content == OTHER)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_broken_file_that_appears_is_replaced(folder: Path, suffix: str) -> None:
    found: list[StoredImage] = []
    ImageStore(str(folder)).land(STEM, ID, 0, appears(folder, PNG[:-20], suffix), on_in_place=found.append)
    assert found == []
    assert files_in(folder) == [f"{STEM}.png"]
    assert (folder / f"{STEM}.png").read_bytes() == PNG


def test_our_own_picture_that_appears_is_no_other(folder: Path) -> None:
    found: list[StoredImage] = []
    stored = ImageStore(str(folder)).land(STEM, ID, 0, appears(folder, PNG), on_in_place=found.append)
    assert found == []
    assert stored.id == ID and (folder / f"{STEM}.png").read_bytes() == PNG


def test_what_was_in_place_before_is_told(folder: Path) -> None:
    found: list[StoredImage] = []
    store = ImageStore(str(folder))
    first = store.land(STEM, ID, 0, writes(PNG), on_in_place=found.append)
    assert found == []
    assert store.land(STEM, "another", 0, untouched, on_in_place=found.append) == found[0]
    assert found == [first.model_copy(update={"id": "another"})]


def test_a_disk_without_hard_links_takes_images_as_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    ImageStore(str(folder)).land(STEM, ID, 0, writes(PNG))
    assert everything_in(folder) == [f"{STEM}.png"]


def test_what_the_provider_keeps_for_itself_is_no_image(folder: Path) -> None:
    store = ImageStore(str(folder))
    for place in ("claims", "books"):
        store.reserved(place).create(f"{STEM}.png", PNG)
        store.reserved(place).write(f"{STEM}.g0.json", b"{}")
    assert store.reserved("claims").missing_exclusivity() == ""
    assert store.find(STEM) is None
    assert store.present({STEM, *map(str, range(40))}) == set()
    assert find_existing(store, [("k", STEM)]) == {}
    store.land(STEM, ID, 0, writes(PNG))
    assert files_in(folder) == [f"{STEM}.png"]


# --- file names ------------------------------------------------------------------------------------------------------


ids = st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9_.-]{1,60}", fullmatch=True)


@given(ids, st.integers(0, 9999))
def test_a_stem_is_safe_everywhere(image_task_id: str, index: int) -> None:
    stem = stem_for(image_task_id, index)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", stem)
    assert ".." not in stem
    assert len(stem) <= 72
    assert stem == stem_for(image_task_id, index)


@given(st.lists(st.tuples(ids, st.integers(0, 12)), min_size=2, max_size=20, unique=True))
def test_different_images_differ_even_where_case_is_ignored(images: list[tuple[str, int]]) -> None:
    names = [unicodedata.normalize("NFC", stem_for(*image)).casefold() for image in images]
    assert len(set(names)) == len(names)


@given(st.from_regex(r"[a-zA-Z0-9]{1,30}", fullmatch=True))
def test_case_alone_is_enough_to_differ(text: str) -> None:
    variants = {text, text.lower(), text.upper(), text.swapcase()}
    assert len({stem_for(one, 0).lower() for one in variants}) == len(variants)


def test_short_ids_stay_readable() -> None:
    assert stem_for("task_img_abc-1", 2) == "task_img_abc-1-2"
    assert re.fullmatch(r"tsk_img_01KXYZ\.[0-9a-f]{12}-0", stem_for("tsk_img_01KXYZ", 0))
    assert safe_name("scheduled__2026-01-01T00:00:00+00:00").startswith("scheduled__2026-01-01T00-00-00-00-00.")


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../../etc/passwd", "/", "a/b", "a\\b", "-rf", "\x00", "é", "\ud800", "a" * 500]
)
def test_hostile_ids(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.[0-9a-f]{12}-0", stem_for(text, 0))


def test_an_unchanged_id_never_meets_a_changed_one() -> None:
    changed = safe_name("A")
    assert safe_name(changed) != changed


# --- marks of provenance are kept byte for byte ----------------------------------------------------------------------


XMP = b"<x:xmpmeta><Iptc4xmpExt:DigitalSourceType>trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType></x:xmpmeta>"


def png_with_xmp() -> bytes:
    png = png_with_provenance()
    at = png.index(b"IEND") - 4
    return png[:at] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + png[at:]


def webp_with_provenance() -> bytes:
    """A WebP with a chunk of its own after the pixels; RIFF chunks have even lengths."""
    webp = picture("webp", xmp=XMP)
    body = webp[8:] + b"C2PA" + struct.pack("<I", len(JUMBF)) + JUMBF + bytes(len(JUMBF) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        yield name, data[at + 8 : at + 8 + length]
        at += 12 + length


def jpeg_segments(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every segment before the pixels."""
    at = 2
    while data[at : at + 2] != b"\xff\xda":
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        yield data[at : at + 2], data[at + 4 : at + 2 + length]
        at += 2 + length


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at < len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def marks(data: bytes) -> set[bytes]:
    """Return which marks a file bears, read as its format stores them."""
    readers = {b"\x89PN": png_chunks, b"\xff\xd8\xff": jpeg_segments, b"RIF": riff_chunks}
    kept = dict(readers[data[:3]](data))
    found = {name for name in (b"caBX", b"\xff\xeb", b"C2PA") if kept.get(name, b"").endswith(JUMBF)}
    return found | {b"XMP" for text in kept.values() if text.endswith(XMP)}


PICTURES = {
    "png": (png_with_xmp(), {b"caBX", b"XMP"}),
    "jpeg": (jpeg_with_provenance(), {b"\xff\xeb"}),
    "webp": (webp_with_provenance(), {b"C2PA", b"XMP"}),
}


@pytest.mark.parametrize("image_format", PICTURES)
def test_what_a_re_encoding_would_lose(image_format: str) -> None:
    """The control: these marks are real, and saving the picture again drops them."""
    data, borne = PICTURES[image_format]
    again = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.copy().save(again, image_format)
    assert marks(data) == borne
    assert not marks(again.getvalue()) & {b"caBX", b"\xff\xeb", b"C2PA"}


@pytest.mark.parametrize("image_format", PICTURES)
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_marks_survive_landing_and_reuse(scheme: str, image_format: str, tmp_path: Path) -> None:
    from airflow.sdk import ObjectStoragePath

    data, borne = PICTURES[image_format]
    landing = ImageStore(f"{scheme}://{tmp_path}/images")
    stored = landing.land("hero", "tsk_img_1", 0, lambda sink: sink.write(data))
    (found,) = find_existing(landing, [("k", "hero")]).values()
    # Past Airflow, which below 3.2 serves no path of a scheme that only fsspec knows.
    kept = fsspec.filesystem(scheme).cat_file(str(ObjectStoragePath(found.uri).path))
    assert marks(kept) == borne
    assert kept == data
    assert (stored.format, stored.sha256) == (image_format, found.sha256)
