"""What is printed: sums that add up on paper too, and no text of a file that does anything to a terminal or a sheet."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_nanobanana.batch.spend import DIMENSIONS, SpendRecord, summarise
from airflow_provider_nanobanana.cli import spend_report
from airflow_provider_nanobanana.cli.spend_report import SpendReport

BOUGHT = SpendRecord(
    *("bought", "tsk_1", "s3://one", "kites", "monday", "generate", -1),
    *("2026-11-26", "nano_banana_2", "a red kite", 25_000, 0, 0),
)
SHARED = replace(BOUGHT, outcome="shared", image_task_id="", run_id="tuesday", paid=0)
BOATS = replace(BOUGHT, image_task_id="tsk_2", dag_id="boats", day="2026-10-31", paid=40_000, listed=40_000)
EARLIER = replace(BOATS, outcome="earlier", image_task_id="")
EVIL = "=HYPERLINK(\x1b[31m\n\u202e"
CLAIM: dict[str, Any] = {
    "destination": "s3://one",
    "stem": "hero-5f0c6e9a1b",
    "generation": 1,
    "client_business_id": "nb-1",
    "image_task_id": "tsk_9",
    "age_seconds": 7_500,
    "because": "unseen",
    "namespace": "prod",
    "dag_id": "kites",
    "run_id": "monday",
    "task_id": "generate",
    "map_index": 3,
    "try_number": 2,
    "book": "bought tsk_9",
    "damaged": None,
    "retry": "buys it",
    "clear": "fails",
}


def report(*records: SpendRecord, by: Any = ("dag",), most: int | None = None, claims: Any = ()) -> SpendReport:
    summary = summarise(records, by, most=most)
    return SpendReport(["s3://one"], summary, claims, [("s3://one/x", "why")], 3, 1, most_claims=most)


def text(given: SpendReport, *, claims_only: bool = False) -> str:
    out = io.StringIO()
    spend_report.write_text(given, out, claims_only=claims_only)
    return out.getvalue()


def rows(given: SpendReport, *, claims_only: bool = False) -> list[dict[str, str]]:
    out = io.StringIO()
    spend_report.write_csv(given, out, claims_only=claims_only)
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def plain(given: SpendReport, *, claims_only: bool = False) -> Any:
    out = io.StringIO()
    spend_report.write_json(given, out, claims_only=claims_only)
    return json.loads(out.getvalue())


def test_totals_and_a_table_without_empty_columns() -> None:
    lost = replace(BOUGHT, outcome="reused", image_task_id="", paid=25_000, lost_race=25_000)
    assert text(report(BOUGHT, SHARED, BOATS, lost)) == (
        "Spend at s3://one\n"
        "Read: manifests 3, books 1\n"
        "\n"
        "Paid: $0.09 (of it $0.04 estimated, at list price; $0.025 lost in races)\n"
        "In place: 2 bought, 1 shared with other runs, 1 reused\n"
        "Not in place: none\n"
        "\n"
        "By dag\n"
        "dag     paid  estimated  lost race  bought  shared  reused\n"
        "kites  $0.05      $0.00     $0.025       1       1       1\n"
        "boats  $0.04      $0.04      $0.00       1       0       0\n"
        "\n"
        "Open claims: none\n"
    )


def test_what_is_in_books_only_or_without_a_price_is_said_in_words() -> None:
    booked = replace(BOUGHT, outcome="booked", listed=25_000)
    shown = text(report(booked, replace(BOATS, paid=None, listed=0), EARLIER))
    assert "In no manifest: 1 bought, at list price: by tasks at work, or killed before they wrote one" in shown
    assert "In no sum: 1 whose price nobody knows" in shown
    assert "$0.04 for requests that the manifests list no more" in shown


def test_what_is_left_out_is_one_row_and_stands_where_it_belongs() -> None:
    late = replace(BOATS, image_task_id="tsk_3", dag_id="ships", day="2026-12-01", paid=1)
    shown = text(report(BOUGHT, BOATS, late, by=["day", "dag"], most=1)).splitlines()
    assert shown[shown.index("By day") + 2].startswith("(2 earlier)")
    assert shown[shown.index("By dag") + 3].startswith("(2 more)")
    (dag, others) = plain(report(BOUGHT, BOATS, by=["dag"], most=1))["by"]["dag"]
    assert (dag["dag"], others["dag"], others["groups"]) == ("boats", None, 1)
    assert [row["name"] for row in rows(report(BOUGHT, BOATS, by=["dag"], most=1))] == ["", "boats", "(1 more)"]


@pytest.mark.parametrize("by", list(DIMENSIONS))
def test_every_form_adds_up_to_the_totals(by: Any) -> None:
    given = report(BOUGHT, SHARED, BOATS, replace(BOATS, day="", model="", request=""), by=[by])
    total, *parts = rows(given)
    assert total["by"] == "total" and {part["by"] for part in parts} == {by}
    content = plain(given)
    for name in ("paid_usd", "of_which_listed_usd", "bought", "shared"):
        assert round(sum(float(part[name]) for part in parts), 6) == float(total[name]) == content["totals"][name]
        assert round(sum(row[name] for row in content["by"][by]), 6) == content["totals"][name]


def test_runs_of_equal_names_are_told_apart_by_their_dag() -> None:
    given = report(BOUGHT, BOATS, by=["run"])
    assert [(row["dag"], row["name"]) for row in rows(given)[1:]] == [("boats", "monday"), ("kites", "monday")]
    assert [(row["dag"], row["run"]) for row in plain(given)["by"]["run"]] == [("boats", "monday"), ("kites", "monday")]


def test_no_text_of_a_file_does_anything() -> None:
    evil = replace(BOUGHT, dag_id=EVIL, request=EVIL, model=f"sk-123456789 {EVIL}")
    claim = {**CLAIM, "run_id": EVIL, "stem": EVIL, "namespace": EVIL, "book": f"bought {EVIL}"}
    given = report(evil, by=["dag", "request", "model", "run"], claims=[claim])
    for shown in (text(given), json.dumps(plain(given), ensure_ascii=False), str(rows(given))):
        assert not {"\x1b", "\u202e", "\r"} & set(shown)
        assert "=HYPERLINK([31m" in shown and "123456789" not in shown
    for row in [*rows(given), *rows(given, claims_only=True)]:
        assert not [cell for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("name", ["=1", "+1", "-1", "@a", "\t=1", " =1", "\x00=1", "＝1", "\u200b@a"])
def test_a_cell_is_no_formula(name: str) -> None:
    assert rows(report(replace(BOUGHT, dag_id=name)))[1]["name"].startswith("'")


def test_a_long_name_keeps_the_table_readable() -> None:
    assert max(map(len, text(report(replace(BOUGHT, dag_id="d" * 5_000))).splitlines())) < 120


def test_an_open_claim_in_words() -> None:
    shown = text(report(claims=[CLAIM]), claims_only=True)
    assert shown == (
        "Open claims: 1 (claims whose image is not in place)\n"
        "\n"
        "hero-5f0c6e9a1b: generation 1, 2 h 5 min old\n"
        "  by         task generate [3] of DAG kites of prod, run monday, try 2\n"
        "  client id  nb-1\n"
        "  book       bought tsk_9\n"
        "  a retry    buys it\n"
        "  a clear    fails\n"
    )


def test_long_words_are_folded() -> None:
    lines = text(report(claims=[{**CLAIM, "retry": "waits " * 60}]), claims_only=True).splitlines()
    assert max(map(len, lines)) <= 110 and sum("waits" in line for line in lines) == 4


def test_a_damaged_claim_says_so_and_nothing_of_who() -> None:
    names = ("client_business_id", "namespace", "dag_id", "run_id", "task_id", "map_index", "try_number", "book")
    damaged = {**CLAIM, **dict.fromkeys(names), "age_seconds": None, "damaged": "it is no JSON"}
    shown = text(report(claims=[damaged]), claims_only=True)
    assert "of unknown age" in shown and "  damaged    it is no JSON\n" in shown
    assert "  by" not in shown and "client id" not in shown


def test_a_terminal_shows_a_few_claims_and_the_other_forms_all() -> None:
    given = report(claims=[{**CLAIM, "stem": f"s-{number}"} for number in range(5)], most=2)
    assert "s-1" in text(given) and "s-2" not in text(given) and "and 3 more" in text(given)
    assert len(plain(given)["open_claims"]) == len(rows(given, claims_only=True)) == 5
    assert set(plain(given, claims_only=True)) == {"destinations", "open_claims", "skipped"}


def test_without_claims_their_csv_is_a_head_line() -> None:
    out = io.StringIO()
    spend_report.write_csv(report(), out, claims_only=True)
    assert out.getvalue() == "destination,stem\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "59 min"), (3_600, "1 h"), (86_400, "1 d"), (90_061, "1 d 1 h")],
)
def test_an_age_is_told_in_its_two_largest_units(seconds: int, words: str) -> None:
    shown = text(report(claims=[{**CLAIM, "age_seconds": seconds}]), claims_only=True)
    assert f"generation 1, {words} old" in shown
