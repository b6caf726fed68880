"""Texts of files as they may be shown, and sums as rows of CSV; for the command ``spend`` and the page alike.

Control characters are gone, keys and queries of links are blanked, lengths are bounded, and no cell is a formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from airflow_provider_nanobanana.batch.spend import SpendSummary, SpendTotals
from airflow_provider_nanobanana.toapis.redaction import one_line

#: Characters of any text.
LONGEST: Final = 500
#: What holds URIs of destinations as they were given: the connection's id is part of them, and no secret.
_URIS: Final = frozenset({"destination", "destinations", "uri"})
#: What a spreadsheet takes for the beginning of a formula, in each of its widths.
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
#: The names of the columns of :func:`summary_rows`.
COLUMNS: Final = ("by", "name", "dag", *SpendTotals().plain())


def cleaned(name: str, text: str, limit: int = LONGEST) -> str:
    """Return a text of a file as one printable line.

    :param name: What it is; URIs of destinations keep the id of their connection.
    """
    if name not in _URIS:
        return one_line(text, limit=limit)
    printable = "".join(character for character in text if character.isprintable())
    return printable if len(printable) <= limit else f"{printable[: limit - 1]}…"


def csv_cell(name: str, value: Any) -> Any:
    """Return a value as a cell: a text that a spreadsheet would calculate is quoted.

    :param name: What it is, as for :func:`cleaned`.
    """
    if not isinstance(value, str):
        return value
    text = cleaned(name, value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def summary_rows(summary: SpendSummary) -> Iterator[list[Any]]:
    """Yield a row of :data:`COLUMNS` for the totals, and for each group of each table."""
    for by, name, dag, totals in _named(summary):
        yield [by, csv_cell(by, name), csv_cell("dag", dag), *totals.plain().values()]


def _named(summary: SpendSummary) -> Iterator[tuple[str, str, str, SpendTotals]]:
    yield "total", "", "", summary.totals
    for dimension, table in summary.tables.items():
        for group in table.groups:
            yield dimension, group.key[-1], group.key[0] if dimension in ("run", "dag") else "", group.totals
        if table.left_out:
            yield dimension, f"({table.left_out} more)", "", table.others
