"""Open claims: the newest generation of each stem whose file is not in place, whatever else lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_nanobanana.batch.open_claims import OpenClaim, read_open_claims
from airflow_provider_nanobanana.durable.claims import BookEntry, Damaged
from airflow_provider_nanobanana.landing.image_store import open_storage
from tests.support.claims import BOOK, BUYER, claim, write, write_book, write_claim


def read(folder: Path) -> tuple[list[OpenClaim], list[str]]:
    skipped: list[str] = []
    found = list(read_open_claims(open_storage(folder), lambda uri, why: skipped.append(f"{Path(uri).name}: {why}")))
    return found, skipped


def test_what_has_its_file_is_not_open_and_of_the_others_the_newest_is_told(tmp_path: Path) -> None:
    for made in (claim("a-1"), claim("b-1"), claim("b-1", 1), claim("b-1", 10), claim("c.1"), claim("d-1")):
        write_claim(tmp_path, made)
    (tmp_path / "a-1.png").touch()
    (tmp_path / "d-1.webp").touch()
    (tmp_path / "b-1.g10.json").touch()
    write_book(tmp_path, {"b-1.g10": BookEntry("bought", "tsk_10"), "b-1.g1": BookEntry("released")})
    os.utime(tmp_path / ".nanobanana/claims/b-1.g10.json", (1_000, 1_000))
    found, skipped = read(tmp_path)
    assert [(one.stem, one.n) for one in found] == [("b-1", 10), ("c.1", 0)]
    assert (found[0].book, found[0].written_at) == (BookEntry("bought", "tsk_10"), 1_000)
    assert found[1].book is None and skipped == []


def test_of_many_claims_those_with_a_file_are_found_by_one_listing(tmp_path: Path) -> None:
    for number in range(40):
        write_claim(tmp_path, claim(f"s-{number}"))
        if number % 2:
            (tmp_path / f"s-{number}.jpg").touch()
    found, _ = read(tmp_path)
    assert {one.stem for one in found} == {f"s-{number}" for number in range(0, 40, 2)}


def test_it_tells_ids_age_and_who_in_plain_json(tmp_path: Path) -> None:
    made = claim("b-1", by=BUYER.model_copy(update={"namespace": "prod", "map_index": 3}))
    write_claim(tmp_path, made)
    write_book(tmp_path, {"b-1.g0": BookEntry("bought", "tsk_1")})
    ((one,), _) = read(tmp_path)
    assert one.written_at is not None
    plain = one.plain(one.written_at + 90.4)
    assert plain["client_business_id"] == made.client_business_id
    assert (plain["image_task_id"], plain["book"]) == ("tsk_1", "bought tsk_1")
    assert (plain["age_seconds"], plain["generation"], plain["because"]) == (90, 0, "first")
    who = ("namespace", "dag_id", "run_id", "task_id", "map_index", "try_number")
    assert [plain[name] for name in who] == ["prod", "kites", "monday", "generate", 3, 1]
    assert plain["retry"].startswith("asks the service") and plain["clear"].startswith("asks the service")
    assert plain["damaged"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 4_000, b" " * 5_000, claim("other").encode()])
def test_a_damaged_claim_is_open_too(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "claims", "b-1.g0.json", content)
    ((one,), skipped) = read(tmp_path)
    assert isinstance(one.claim, Damaged) and skipped == []
    plain = one.plain(0.0)
    assert plain["damaged"] and plain["client_business_id"] is None and plain["retry"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 4_000, b"x" * 1_100_000])
def test_a_damaged_book_says_nothing(tmp_path: Path, content: bytes) -> None:
    write_claim(tmp_path, claim("b-1"))
    write(tmp_path, "books", f"{BOOK}.json", content)
    ((one,), _) = read(tmp_path)
    assert one.book is None


def test_what_cannot_be_read_or_is_no_claim_is_named(tmp_path: Path) -> None:
    write_claim(tmp_path, claim("b-1"))
    (tmp_path / ".nanobanana/claims/c-1.g0.json").mkdir()
    write(tmp_path, "claims", "notes.json", b"{}")
    write(tmp_path, "claims", ".staged.part", b"")
    write(tmp_path, "claims", "-x.g0.json", b"{}")
    found, skipped = read(tmp_path)
    assert [one.stem for one in found] == ["b-1"]
    assert sorted(line.partition(":")[0] for line in skipped) == ["-x.g0.json", "c-1.g0.json", "notes.json"]


def test_where_there_are_none_there_are_none(tmp_path: Path) -> None:
    assert read(tmp_path) == ([], [])
    assert read(tmp_path / "nowhere") == ([], [])
