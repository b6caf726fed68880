"""``ledger``: each image task of a DAG run: how it stands, what was paid, what a retry and a clear would do."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

PURPOSE: Final = (
    "Tell of each image task of a DAG run how it stands, what was paid, and what a retry and a clear would do."
)
_DETAILS: Final = (
    "Reads Airflow's database, so it runs where Airflow's own commands do, and the destination; no API key, no call to "
    "the service, and nothing is written. Exit status: 0; 1 where something could not be read (it is named) or there "
    "is no such task; 2 where the database cannot be read."
)
#: Rows of a task instance that are printed unless more are asked for.
_MOST_PRINTED: Final = 20
_WIDTH: Final = 110


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = command.add_argument
    command.epilog = _DETAILS
    add("dag_id", metavar="DAG_ID", help="of the DAG, as the UI shows it")
    add("run_id", metavar="RUN_ID", help="of its run, such as manual__2026-11-26")
    add("--task", metavar="ID", help="only this task (all that use an operator of this provider)")
    add("--map-index", type=int, metavar="N", help="only this one of a mapped task")
    add("--top", type=int, default=_MOST_PRINTED, metavar="N", help=f"rows of each task ({_MOST_PRINTED}; json: all)")
    add("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Read the ledger and print it; return the exit status."""
    from airflow_provider_nanobanana.toapis.redaction import one_line

    try:
        # Airflow and its providers log to stdout, where only the answer belongs.
        with contextlib.redirect_stdout(sys.stderr):
            ledgers = _read(options)
    except _unreadable() as error:
        print(f"ledger: {one_line(f'{type(error).__name__}: {error}', limit=1000)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ledger: interrupted", file=sys.stderr)
        return 130
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names are in any language, and terminals are not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _write(options, ledgers)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; Python would complain while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if not ledgers or any(ledger["skipped"] for ledger in ledgers) else 0


def _unreadable() -> tuple[type[Exception], ...]:
    from airflow.providers.common.compat.sdk import AirflowException
    from sqlalchemy.exc import SQLAlchemyError

    return AirflowException, SQLAlchemyError


def _read(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the ledger of each task instance that is asked for."""
    from airflow.utils.session import create_session

    from airflow_provider_nanobanana.ui.ledger import task_instances_of, whole_ledger

    with create_session(scoped=False) as session:
        found = [
            (task_id, map_index)
            for task_id, map_index in task_instances_of(session, options.dag_id, options.run_id, options.task)
            if options.map_index in (None, map_index)
        ]
        return [
            {"task_id": task_id, "map_index": map_index}
            | whole_ledger(session, options.dag_id, options.run_id, task_id, map_index, now=time.time())
            for task_id, map_index in found
        ]


def _write(options: argparse.Namespace, ledgers: Sequence[Mapping[str, Any]]) -> None:
    if options.json:
        content = {"dag_id": options.dag_id, "run_id": options.run_id, "task_instances": list(ledgers)}
        json.dump(content, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    lines = [line for ledger in ledgers for line in ledger_lines(ledger, most=options.top)]
    nothing = ["There is no task instance of this provider's operators there: look at DAG_ID, RUN_ID and --task."]
    sys.stdout.write("\n".join(lines or nothing).strip("\n") + "\n")


def ledger_lines(ledger: Mapping[str, Any], *, most: int) -> Iterator[str]:
    """Yield the lines that tell a ledger on a terminal, the rows that need a look first.

    :param ledger: As ``ledger_words`` returns it, with ``task_id`` and ``map_index``.
    :param most: Rows that are told.
    """
    from airflow_provider_nanobanana.ui.ledger import is_in_order

    mapped = f" [{ledger['map_index']}]" if ledger["map_index"] >= 0 else ""
    yield from ("", f"Task {ledger['task_id']}{mapped}, from {ledger['source']}")
    for sentence in (*ledger["summary"], *(f"Not read: {line}" for line in ledger["skipped"][:most])):
        yield textwrap.fill(sentence, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    rows = ledger["rows"]
    shown = rows if len(rows) <= most else sorted(rows, key=is_in_order)[:most]
    for row in shown:
        task = f" ({row['image_task_id']})" if row["image_task_id"] else ""
        yield from ("", textwrap.fill(f"{row['label']}{task}: {row['state']}", _WIDTH, subsequent_indent="  "))
        told = {"why": row["why"], "money": row["money"], "a retry": row["retry"], "a clear": row["clear"]}
        for name, text in told.items():
            if text:
                begin = f"  {name:<9}"
                yield textwrap.fill(text, _WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin))
    if len(shown) < len(rows):
        yield from ("", f"and {len(rows) - len(shown):,} more: --json lists all of them")
