"""What a run made: gathered from Airflow, checked on disk, shown as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image
from tabulate import SEPARATING_LINE, tabulate

from dev.demo.contact_sheet import Picture, draw_sheet
from dev.stack.airflow_api import AirflowApi, ApiError, Record


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


def lines_of_generate(api: AirflowApi, dag_id: str, run_id: str, prompts: Sequence[str]) -> list[Line]:
    """Return one line per prompt, in their order, of a run of one generate task, whatever it came to."""
    result = _xcom(api, dag_id, run_id, "pictures") or {"images": [], "failed": [], "manifest": None}
    stored = {image["request"]: image for image in reversed(result["images"])}  # the first of several images
    failed = {failure["request"]: failure for failure in result["failed"]}
    manifest = json.loads(_path(result["manifest"]).read_text()) if result["manifest"] else {"images": []}
    submitted = {image["request"]: _seconds(image["times"]["submitted_at"]) for image in manifest["images"]}
    lines = []
    for index, prompt in enumerate(prompts):
        if image := stored.get(index):
            lines.append(_checked(prompt, image, submitted.get(index), image["cost_usd"]))
        elif failure := failed.get(index):
            lines.append(Line(prompt, failure["id"], problem=f"{failure['code']}: {failure['message']}"))
        else:
            lines.append(Line(prompt, None, problem="the task ended without a result"))
    return lines


def lines_of_three_tasks(api: AirflowApi, dag_id: str, run_id: str, prompts: Sequence[str]) -> list[Line]:
    """Return one line per prompt, in their order, of a run of submit, sensor and download, whatever it came to."""
    submits = {instance["map_index"]: instance for instance in api.instances(dag_id, run_id, "submit")}
    waits = {entry["id"]: entry for entry in _xcom(api, dag_id, run_id, "wait") or []}
    stored = {record["id"]: record for record in _xcom(api, dag_id, run_id, "download") or []}
    lines = []
    for index, prompt in enumerate(prompts):
        image_task_id = _xcom(api, dag_id, run_id, "submit", index)
        submit = submits.get(index)
        wait = waits.get(image_task_id)
        cost = wait["cost_usd"] if wait else None
        if image_task_id is None:
            lines.append(Line(prompt, None, problem=f"not submitted ({submit['state'] if submit else 'no such task'})"))
        elif image := stored.get(image_task_id):
            started = submit["start_date"] if submit else None
            lines.append(
                _checked(prompt, image, datetime.fromisoformat(started).timestamp() if started else None, cost)
            )
        else:
            lines.append(Line(prompt, image_task_id, cost_usd=cost, problem=_why_not_stored(wait)))
    return lines


def _seconds(moment: str | None) -> float | None:
    return datetime.fromisoformat(moment).timestamp() if moment else None


def _xcom(api: AirflowApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
    try:
        return api.xcom(dag_id, run_id, task_id, map_index)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _checked(prompt: str, image: Record, submitted_at: float | None, cost: float | None) -> Line:
    """Return the line of an image that a task says is stored, decoded from the file that is there.

    :param submitted_at: Epoch seconds; None for one that an earlier run bought.
    """
    path = _path(image["uri"])
    try:
        with Image.open(path) as opened:
            opened.load()
            pixels = opened.size
    except OSError as error:
        return Line(prompt, image["id"], cost_usd=cost, problem=f"unreadable: {error}")
    status = path.stat()
    seconds = None if submitted_at is None else status.st_mtime - submitted_at
    return Line(prompt, image["id"], path, pixels, status.st_size, seconds, cost)


def _why_not_stored(wait: Record | None) -> str:
    if wait is None:
        return "submitted, but the wait left no record"
    error = wait.get("error") or {}
    return f"{error['code']}: {error['message']}" if error else f"{wait['status']}, but not stored"


def table(lines: Sequence[Line], folder: Path) -> str:
    """Return the lines as a table, what is missing explained below; files are named relative to ``folder``."""
    stored = sum(line.path is not None for line in lines)
    total = sum(line.cost_usd or 0 for line in lines)
    rows = [
        *(_cells(line, folder) for line in lines),
        SEPARATING_LINE,
        [f"{stored} of {len(lines)} images", "", "", "", f"{total:.3f}"],
    ]
    align = ("left", "right", "right", "right", "right")
    text = tabulate(rows, ["file", "pixels", "kB", "seconds", "USD"], disable_numparse=True, colalign=align)
    missing = [f"Missing: {line.prompt!r}: {line.problem}" for line in lines if line.path is None]
    return "\n".join([text, *missing])


def _cells(line: Line, folder: Path) -> list[str]:
    cost = "?" if line.cost_usd is None else f"{line.cost_usd:.3f}"
    if line.path is None:
        return ["MISSING", "", "", "", cost if line.image_task_id else ""]
    name = str(line.path.relative_to(folder)) if line.path.is_relative_to(folder) else str(line.path)
    seconds = "reused" if line.seconds is None else f"{line.seconds:.1f}"
    return [name, f"{line.pixels[0]} x {line.pixels[1]}", f"{line.size / 1000:.0f}", seconds, cost]


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
