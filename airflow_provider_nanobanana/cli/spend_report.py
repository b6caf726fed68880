"""``SpendReport``: a summary of money and the open claims, as text for a terminal, as JSON or as CSV.

Every text of a file is cleaned before it is written (``batch.spend_csv``).
"""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from airflow_provider_nanobanana.batch.costs import MILLION, format_usd
from airflow_provider_nanobanana.batch.spend import (
    COUNTS,
    DIMENSIONS,
    IN_TIME,
    Dimension,
    SpendSummary,
    SpendTable,
)
from airflow_provider_nanobanana.batch.spend_csv import COLUMNS, LONGEST, cleaned, csv_cell, summary_rows
from airflow_provider_nanobanana.toapis.redaction import one_line

#: Characters of a cell on a terminal.
_WIDEST: Final = 60
#: Columns to which sentences are folded.
_WIDTH: Final = 110
_UNKNOWN: Final = "unknown"
_MONEY: Final = {"paid": "paid", "listed": "estimated", "lost_race": "lost race", "earlier": "earlier requests"}
#: What the numbers count, in the words of a head line.
_NUMBERS: Final = {"booked": "in books only"}
_SECONDS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class SpendReport:
    """All that is printed.

    :param claims: From ``OpenClaim.plain``.
    :param skipped: URIs of files that were left out, each with why.
    :param manifests: How many were counted, as ``books``.
    :param most_claims: How many claims a terminal shows; None for all.
    """

    destinations: Sequence[str]
    summary: SpendSummary
    claims: Sequence[Mapping[str, Any]]
    skipped: Sequence[tuple[str, str]]
    manifests: int
    books: int
    most_claims: int | None = None


def write_json(report: SpendReport, out: TextIO, *, claims_only: bool) -> None:
    """Write one JSON document."""
    content: dict[str, Any] = {"destinations": list(report.destinations)}
    if not claims_only:
        content |= {"manifests": report.manifests, "books": report.books, "totals": report.summary.totals.plain()}
        content["by"] = {dimension: _plain(dimension, table) for dimension, table in report.summary.tables.items()}
    content["open_claims"] = list(report.claims)
    content["skipped"] = [{"uri": uri, "why": why} for uri, why in report.skipped]
    json.dump(_clean("", content), out, indent=2)
    out.write("\n")


def _plain(dimension: Dimension, table: SpendTable) -> list[dict[str, Any]]:
    """Return the rows of a table; what was left out is one row without a name."""
    names = DIMENSIONS[dimension]
    rows = [
        {name: part or None for name, part in zip(names, group.key, strict=True)} | group.totals.plain()
        for group in table.groups
    ]
    if table.left_out:
        rows.append(dict.fromkeys(names) | {"groups": table.left_out} | table.others.plain())
    return rows


def write_csv(report: SpendReport, out: TextIO, *, claims_only: bool) -> None:
    """Write a row for the totals and each group, or for each open claim, below a head line."""
    writer = csv.writer(out, lineterminator="\n")
    if claims_only:
        names = list(report.claims[0]) if report.claims else ["destination", "stem"]
        writer.writerow(names)
        writer.writerows([csv_cell(name, claim[name]) for name in names] for claim in report.claims)
        return
    writer.writerow(COLUMNS)
    writer.writerows(summary_rows(report.summary))


def write_text(report: SpendReport, out: TextIO, *, claims_only: bool) -> None:
    """Write tables for a terminal."""
    lines = [] if claims_only else [*_totals(report)]
    for dimension, table in report.summary.tables.items():
        if table.groups:
            lines += ["", f"By {dimension}", *_table(dimension, table)]
    lines += ["", *_open_claims(report)]
    out.write("\n".join(lines).strip("\n") + "\n")


def _totals(report: SpendReport) -> Iterator[str]:
    totals = report.summary.totals
    for destination in report.destinations:
        yield f"Spend at {cleaned('destination', destination)}"
    yield f"Read: manifests {report.manifests:,}, books {report.books:,}"
    yield ""
    parts = {
        "estimated, at list price": totals.listed,
        "lost in races": totals.lost_race,
        "for requests that the manifests list no more": totals.earlier,
    }
    parted = [f"{format_usd(usd / MILLION)} {words}" for words, usd in parts.items() if usd]
    of_it = f" (of it {'; '.join(parted)})" if parted else ""
    yield f"Paid: {format_usd(totals.paid / MILLION)}{of_it}"
    yield _counts(
        "In place",
        {
            "bought": totals.bought,
            "shared with other runs": totals.shared,
            "reused": totals.reused,
            "beside what was asked for": totals.further,
        },
    )
    yield _counts(
        "Not in place",
        {
            "paid, or perhaps paid": totals.missing,
            "refunded": totals.refunded,
            "not bought": totals.failed,
        },
    )
    if totals.booked:
        who = "by tasks at work, or killed before they wrote one"
        yield f"In no manifest: {totals.booked:,} bought, at list price: {who}"
    if totals.unpriced:
        yield f"In no sum: {totals.unpriced:,} whose price nobody knows"


def _counts(what: str, numbers: Mapping[str, int]) -> str:
    parts = [f"{number:,} {words}" for words, number in numbers.items() if number]
    return f"{what}: {', '.join(parts) or 'none'}"


def _table(dimension: Dimension, table: SpendTable) -> Iterator[str]:
    """Return a table, without columns in which there is nothing."""
    named = [(tuple(part or _UNKNOWN for part in group.key), group.totals) for group in table.groups]
    names = DIMENSIONS[dimension]
    if table.left_out:
        which = "earlier" if dimension in IN_TIME else "more"
        others = ((f"({table.left_out:,} {which})", *("" for _ in names[1:])), table.others)
        named = [others, *named] if dimension in IN_TIME else [*named, others]
    money = [name for name in _MONEY if name == "paid" or any(getattr(totals, name) for _, totals in named)]
    counts = [name for name in COUNTS if any(getattr(totals, name) for _, totals in named)]
    head = [*names, *(_MONEY[name] for name in money), *(_NUMBERS.get(name, name) for name in counts)]
    rows = [
        [
            *(cleaned(name, part, _WIDEST) for name, part in zip(names, key, strict=True)),
            *(format_usd(getattr(totals, name) / MILLION) for name in money),
            *(f"{getattr(totals, name):,}" for name in counts),
        ]
        for key, totals in named
    ]
    yield from _aligned([head, *rows], texts=len(names))


def _aligned(rows: Sequence[Sequence[str]], *, texts: int) -> Iterator[str]:
    """Return the lines of a table whose first columns are texts, and all others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            cell.ljust(width) if position < texts else cell.rjust(width) for position, (cell, width) in enumerate(cells)
        ).rstrip()


def _open_claims(report: SpendReport) -> Iterator[str]:
    """Return what is open, in words."""
    if not report.claims:
        yield "Open claims: none"
        return
    yield f"Open claims: {len(report.claims):,} (claims whose image is not in place)"
    shown = report.claims[: report.most_claims]
    for claim in shown:
        yield ""
        yield from _claim(claim, several=len(report.destinations) > 1)
    if len(shown) < len(report.claims):
        yield ""
        yield f"and {len(report.claims) - len(shown):,} more: --claims --json lists all of them"


def _claim(claim: Mapping[str, Any], *, several: bool) -> Iterator[str]:
    age = claim["age_seconds"]
    old = "of unknown age" if age is None else f"{_duration(age)} old"
    where = f" at {cleaned('destination', claim['destination'])}" if several else ""
    yield f"{one_line(claim['stem'], limit=LONGEST)}{where}: generation {claim['generation']}, {old}"
    lines = {
        "by": _who(claim),
        "damaged": claim["damaged"],
        "client id": claim["client_business_id"],
        "book": claim["book"] or "says nothing",
        "a retry": claim["retry"],
        "a clear": claim["clear"],
    }
    for name, text in lines.items():
        if text:
            begin = f"  {name:<11}"
            line = one_line(text, limit=LONGEST)
            yield textwrap.fill(line, _WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))


def _who(claim: Mapping[str, Any]) -> str:
    if claim["dag_id"] is None:
        return ""
    mapped = f" [{claim['map_index']}]" if claim["map_index"] >= 0 else ""
    namespace = f" of {claim['namespace']}" if claim["namespace"] else ""
    task = f"task {claim['task_id']}{mapped} of DAG {claim['dag_id']}{namespace}"
    return f"{task}, run {claim['run_id']}, try {claim['try_number']}"


def _duration(seconds: int) -> str:
    """Return a duration as people read it, in its two largest units."""
    size, unit = next((each for each in _SECONDS if seconds >= each[0]), _SECONDS[-1])
    rest = seconds % size
    smaller = next((each for each in _SECONDS if size > each[0] <= rest), None)
    more = f" {rest // smaller[0]} {smaller[1]}" if smaller and unit != "min" else ""
    return f"{seconds // size} {unit}{more}"


def _clean(name: str, value: Any) -> Any:
    """Return plain JSON with every text cleaned."""
    if isinstance(value, str):
        return cleaned(name, value)
    if isinstance(value, Mapping):
        return {key: _clean(key, inner) for key, inner in value.items()}
    return [_clean(name, inner) for inner in value] if isinstance(value, list) else value
