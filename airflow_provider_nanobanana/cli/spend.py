"""``spend``: what was paid for the images at destinations, and which claims are open there, out of files alone."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_nanobanana.batch.spend import Dimension
    from airflow_provider_nanobanana.cli.spend_report import SpendReport
    from airflow_provider_nanobanana.landing.storage.base import Storage

PURPOSE: Final = "Sum up what was paid for the images at destinations, and list claims whose image is not in place."
_DETAILS: Final = (
    "Reads the manifests, claims and books at the destinations: no database, no API key, no call to the service. Exit "
    "status: 0; 1 where a file could not be read (each is named) or there was nothing; 2 where a destination cannot be "
    "used."
)
_DEFAULT_DIMENSIONS: Final[tuple[Dimension, ...]] = ("dag", "day", "model")
#: Rows of a table, and claims, that are printed unless more are asked for.
_MOST_PRINTED: Final = 20
#: Seconds between two lines of progress: on a terminal, and where they are kept.
_OFTEN, _SELDOM = 0.5, 10.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    from airflow_provider_nanobanana.batch.spend import DIMENSIONS

    add = command.add_argument
    command.epilog = _DETAILS
    add("destinations", nargs="+", metavar="DESTINATION", help="as tasks have it: s3://conn@bucket/folder, /a/folder")
    add(
        "--by",
        action="append",
        choices=list(DIMENSIONS),
        help=f"a table by this; may be given several times (by {', '.join(_DEFAULT_DIMENSIONS)})",
    )
    add("--claims", action="store_true", help="only the open claims")
    add(
        "--top",
        type=_count,
        metavar="N",
        help=f"rows of a table ({_MOST_PRINTED}; json, csv: all)",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", const="json", dest="form", help="one JSON document")
    form.add_argument("--csv", action="store_const", const="csv", dest="form", help="rows for a spreadsheet")


def run(options: argparse.Namespace) -> int:
    """Read the destinations and print what they come to; return the exit status."""
    from airflow_provider_nanobanana.batch.spend_csv import cleaned
    from airflow_provider_nanobanana.cli import spend_report
    from airflow_provider_nanobanana.toapis.errors import ToApisError
    from airflow_provider_nanobanana.toapis.redaction import one_line

    try:
        # Airflow and its providers log to stdout, where only the answer belongs.
        with contextlib.redirect_stdout(sys.stderr):
            report = _read(options)
    except ToApisError as error:
        print(f"spend: {one_line(error.message, limit=1000)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spend: interrupted", file=sys.stderr)
        return 130
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Prompts are in any language, and terminals are not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        write = {"json": spend_report.write_json, "csv": spend_report.write_csv, None: spend_report.write_text}
        write[options.form](report, sys.stdout, claims_only=options.claims)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; without this the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for uri, why in report.skipped:
        print(f"spend: {cleaned('uri', uri)}: {one_line(why)}", file=sys.stderr)
    return 1 if report.skipped else 0


def _read(options: argparse.Namespace) -> SpendReport:
    """Return all that is to be printed.

    :raises ToApisError: A destination cannot be used.
    """
    from airflow_provider_nanobanana.batch.open_claims import read_open_claims
    from airflow_provider_nanobanana.batch.spend import summarise
    from airflow_provider_nanobanana.batch.spend_reader import SpendReader, list_place
    from airflow_provider_nanobanana.cli.spend_report import SpendReport

    storages = _storages(options.destinations)
    skipped: list[tuple[str, str]] = []

    def skip(uri: str, why: str) -> None:
        skipped.append((uri, why))

    progress = _Progress()
    reader = SpendReader([] if options.claims else map(list_place, storages), skip, progress)
    most = options.top if options.top or options.form else _MOST_PRINTED
    by: Sequence[Dimension] = options.by or _DEFAULT_DIMENSIONS
    try:
        claims = [claim for storage in storages for claim in read_open_claims(storage, skip)]
        summary = summarise(reader.records(), by, most=most)
    finally:
        progress.end()
    if not options.claims and not reader.manifests and not reader.books and not skipped:
        skip(", ".join(options.destinations), "there is no manifest here: is it the destination of a task?")
    return SpendReport(
        [storage.uri("").rstrip("/") for storage in storages],
        summary,
        [claim.plain(time.time()) for claim in claims],
        skipped,
        manifests=reader.manifests,
        books=reader.books,
        most_claims=most,
    )


def _storages(destinations: Sequence[str]) -> list[Storage]:
    """Return the places of destinations, each once."""
    from airflow_provider_nanobanana.landing.image_store import open_storage

    return list({storage.uri("").rstrip("/"): storage for storage in map(open_storage, destinations)}.values())


def _count(text: str) -> int:
    """Return a number of rows; argparse says what is wrong with another text."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


class _Progress:
    """Says on stderr how many files were read: one line that changes, or one line every ten seconds."""

    def __init__(self) -> None:
        self._one_line = sys.stderr.isatty()
        self._next = time.monotonic() + (_OFTEN if self._one_line else _SELDOM)
        self._shown = False

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_OFTEN if self._one_line else _SELDOM)
        self._shown = True
        line = f"spend: {done:,} of {of:,} manifests and books"
        print(f"\r{line}" if self._one_line else line, end="" if self._one_line else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown and self._one_line:
            print(file=sys.stderr)
