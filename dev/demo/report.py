"""What a run made: gathered from Airflow, checked on disk, shown as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from dev.demo.contact_sheet import Picture, draw_sheet
from dev.stack.airflow_api import AirflowApi, ApiError, Record

SUBMIT, WAIT, DOWNLOAD = "submit", "wait", "download"


@dataclass(frozen=True)
class Line:
    """One image asked for; ``path`` is ``None`` while nothing sound is on disk, and ``problem`` says why."""

    prompt: str
    image_task_id: str | None
    path: Path | None = None
    pixels: tuple[int, int] = (0, 0)
    size: int = 0
    seconds: float | None = None
    cost_usd: float | None = None
    problem: str = ""


def gather(api: AirflowApi, dag_id: str, run_id: str, prompts: Sequence[str]) -> list[Line]:
    """Give one line per prompt, in their order, whatever the run came to."""
    submits = {instance["map_index"]: instance for instance in api.instances(dag_id, run_id, SUBMIT)}
    waits = {entry["id"]: entry for entry in _xcom(api, dag_id, run_id, WAIT) or []}
    landed = {record["id"]: record for record in _xcom(api, dag_id, run_id, DOWNLOAD) or []}
    lines = []
    for index, prompt in enumerate(prompts):
        image_task_id = _xcom(api, dag_id, run_id, SUBMIT, index)
        lines.append(
            _line(prompt, image_task_id, submits.get(index), waits.get(image_task_id), landed.get(image_task_id))
        )
    return lines


def _xcom(api: AirflowApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
    try:
        return api.xcom(dag_id, run_id, task_id, map_index)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _line(
    prompt: str, image_task_id: str | None, submit: Record | None, wait: Record | None, landed: Record | None
) -> Line:
    if image_task_id is None:
        return Line(prompt, None, problem=f"not submitted ({submit['state'] if submit else 'no such task'})")
    cost = wait.get("cost_usd") if wait else None
    if landed is None:
        return Line(prompt, image_task_id, cost_usd=cost, problem=_why_not_landed(wait))
    path = Path(unquote(urlsplit(landed["uri"]).path))
    try:
        with Image.open(path) as image:
            image.load()
            pixels = image.size
    except OSError as error:
        return Line(prompt, image_task_id, cost_usd=cost, problem=f"unreadable: {error}")
    status = path.stat()
    return Line(prompt, image_task_id, path, pixels, status.st_size, _seconds(submit, status.st_mtime), cost)


def _why_not_landed(wait: Record | None) -> str:
    if wait is None:
        return "submitted, but the wait left no record"
    error = wait.get("error") or {}
    return f"{error['code']}: {error['message']}" if error else f"{wait['status']}, but not landed"


def _seconds(submit: Record | None, landed_at: float) -> float | None:
    if submit is None or not submit["start_date"]:
        return None
    return landed_at - datetime.fromisoformat(submit["start_date"]).timestamp()


def table(lines: Sequence[Line], folder: Path) -> str:
    """Set the lines as a table, what is missing explained below; files are named relative to ``folder``."""
    head = ("file", "pixels", "kB", "seconds", "USD")
    rows = [_cells(line, folder) for line in lines]
    total = sum(line.cost_usd or 0 for line in lines)
    rows.append((f"{sum(line.path is not None for line in lines)} of {len(lines)} images", "", "", "", f"{total:.3f}"))
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = "  ".join("-" * width for width in widths)
    set_rows = [_set(row, widths) for row in rows]
    missing = [f"Missing: {line.prompt!r}: {line.problem}" for line in lines if line.path is None]
    return "\n".join([_set(head, widths), rule, *set_rows[:-1], rule, set_rows[-1], *missing])


def _cells(line: Line, folder: Path) -> tuple[str, ...]:
    cost = "?" if line.cost_usd is None else f"{line.cost_usd:.3f}"
    if line.path is None:
        return ("MISSING", "", "", "", cost if line.image_task_id else "")
    name = str(line.path.relative_to(folder)) if line.path.is_relative_to(folder) else str(line.path)
    seconds = "?" if line.seconds is None else f"{line.seconds:.1f}"
    return (name, f"{line.pixels[0]} x {line.pixels[1]}", f"{line.size / 1000:.0f}", seconds, cost)


def _set(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def problems(entries: Sequence[Any]) -> list[str]:
    """Pick the warnings and errors out of a task's log, exceptions without their frames."""
    found = []
    for entry in entries:
        if isinstance(entry, dict) and entry.get("level") in ("warning", "error", "critical"):
            causes = [f"{detail['exc_type']}: {detail['exc_value']}" for detail in entry.get("error_detail") or []]
            found.append(" ".join([str(entry.get("event")), *causes]))
    return found


def sheet(lines: Sequence[Line], target: Path, *, title: str, subtitle: str) -> Path:
    """Draw the contact sheet of these lines."""
    return draw_sheet([_picture(line) for line in lines], target, title=title, subtitle=subtitle)


def _picture(line: Line) -> Picture:
    if line.path is None:
        return Picture(None, line.prompt, (line.problem,))
    facts = [f"{line.pixels[0]} x {line.pixels[1]}", f"{line.size / 1000:.0f} kB"]
    facts += [f"{line.seconds:.0f} s"] if line.seconds is not None else []
    facts += [f"${line.cost_usd:.3f}"] if line.cost_usd is not None else []
    return Picture(line.path, line.prompt, ("   ".join(facts), line.path.name))
