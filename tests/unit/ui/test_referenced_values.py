"""Values that lie in the folder of a workers' backend: read there, for their own DAG, and nowhere else."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_nanobanana.toapis.errors import StorageFailed
from airflow_provider_nanobanana.ui.referenced_values import state_value, xcom_values

POINTER = {"version": 1, "manifest": "s3://media@bucket/a/manifest-a.json"}
OF_RUN = "shop/manual__2026-11-27T05:00:00.5+00:00/pictures"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of both backends, with the pointer of a task of the DAG ``shop`` in it."""
    (folder := tmp_path / "kept" / OF_RUN).mkdir(parents=True)
    (folder / "one").write_text(json.dumps(POINTER))
    for option in ("XCOM_OBJECTSTORAGE_PATH", "STATE_STORE_OBJECTSTORAGE_PATH"):
        monkeypatch.setenv(f"AIRFLOW__COMMON_IO__{option}", f"file://{tmp_path}/kept/")
    return folder


def xcom(value: Any, dag_id: str = "shop") -> Any:
    (found,) = xcom_values([(dag_id, value)])
    return found


def state(reference: str) -> dict[str, str]:
    return {"__airflow_state_ref__": reference}


def test_without_such_a_backend_a_value_is_what_it_is() -> None:
    for value in (POINTER, "file:///kept/shop/one", 5, None, '"file:///kept/shop/one"'):
        assert xcom(value) == value
        assert state_value(value, "shop") == value


@pytest.mark.parametrize("written", [str, json.dumps], ids=["text", "JSON"])
def test_what_an_xcom_refers_to_is_read(folder: Path, written: Callable[[str], str]) -> None:
    reference = written(f"file://{folder}/one")
    assert xcom(reference) == POINTER
    assert xcom_values([("shop", reference), ("shop", POINTER), ("shop", "text")]) == [POINTER, POINTER, "text"]


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("", bytes)]
)
def test_a_record_is_read_however_it_is_packed(folder: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    name = f"nanobanana_ledger_0.{suffix}" if suffix else "nanobanana_ledger_0"
    (folder / name).write_bytes(pack(b'"a record"'))
    assert state_value(state(f"file://{folder}/{name}"), "shop") == "a record"


def test_a_small_record_stands_in_the_database(folder: Path) -> None:
    assert state_value(state('"a record"'), "shop") == "a record"


def test_a_record_that_is_gone_is_none_and_one_cut_off_is_not(folder: Path) -> None:
    assert state_value(state(f"file://{folder}/gone"), "shop") is None
    assert xcom(f"file://{folder}/gone") is None
    (folder / "cut").write_text('"a rec')
    with pytest.raises(ValueError, match="Unterminated"):
        state_value(state(f"file://{folder}/cut"), "shop")
    (folder / "cut.gz").write_bytes(gzip.compress(b'"a record"')[:12])
    with pytest.raises(ValueError, match="line 1"):
        state_value(state(f"file://{folder}/cut.gz"), "shop")
    (folder / "no.gz").write_bytes(b'"a record"')
    with pytest.raises(ValueError, match="does not unpack"):
        state_value(state(f"file://{folder}/no.gz"), "shop")


@pytest.mark.parametrize(
    "reference",
    [
        "other/run/task/one",
        "shop/../other/run/task/one",
        "shop/%2e%2e/other/run/task/one",
        "shop//../../secret",
        "../secret",
        "one",
        "",
    ],
)
def test_a_reference_leads_to_no_other_dag_and_out_of_no_folder(folder: Path, tmp_path: Path, reference: str) -> None:
    (secret := tmp_path / "kept" / "other" / "run" / "task").mkdir(parents=True)
    for place in (secret / "one", tmp_path / "secret", tmp_path / "kept" / "one"):
        place.write_text('"secret"')
    with pytest.raises(StorageFailed):
        state_value(state(f"file://{tmp_path}/kept/{reference}"), "shop")
    assert xcom(f"file://{tmp_path}/kept/{reference}") is None


def test_no_link_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('"secret"')
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StorageFailed):
        state_value(state(f"file://{folder}/link"), "shop")


def test_a_reference_elsewhere_is_a_text_like_any(folder: Path, tmp_path: Path) -> None:
    for text in ("file:///etc/passwd", "s3://bucket/shop/one", f"file://{tmp_path}/kept-too/shop/one"):
        assert xcom(text) == text


def test_no_more_is_read_than_a_value_of_ours_can_take(folder: Path) -> None:
    (folder / "bomb.gz").write_bytes(gzip.compress(b" " * (1 << 21)))
    (folder / "large").write_bytes(b" " * (1 << 21))
    (folder / "deep").write_bytes(b"[" * 100_000)
    for name in ("bomb.gz", "large"):
        with pytest.raises(StorageFailed):
            state_value(state(f"file://{folder}/{name}"), "shop")
    with pytest.raises(ValueError):
        state_value(state(f"file://{folder}/deep"), "shop")


def test_a_small_object_cannot_ask_for_all_of_the_memory(folder: Path) -> None:
    """The header of LZMA says how much its reader is to set aside: here 4 GiB."""
    packed = bytearray(lzma.compress(b'"a record"', format=lzma.FORMAT_ALONE))
    packed[1:5] = b"\xff" * 4
    (folder / "greedy.lzma").write_bytes(packed)
    with pytest.raises(ValueError, match="does not unpack"):
        state_value(state(f"file://{folder}/greedy.lzma"), "shop")
    (folder / "best.xz").write_bytes(lzma.compress(b'"a record"', preset=9 | lzma.PRESET_EXTREME))
    assert state_value(state(f"file://{folder}/best.xz"), "shop") == "a record"
