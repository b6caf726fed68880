"""The reckoning: what was wanted, what the bank charged, what lies on disk, and why a submit stopped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.landing.image_store import stem_for

#: What a log says of an attempt that found a paid image task instead of buying one.
_FOUND = re.compile(rb"adopting image task|adopted|re-attach|nothing is bought", re.IGNORECASE)


@dataclass(frozen=True)
class Stop:
    """A submit that ended failed, and what its log says."""

    prompt: str
    charges: int
    message: str


@dataclass(frozen=True)
class Books:
    """What a campaign came to, in images unless said otherwise.

    :param charges: Image tasks that the bank accepted and charged.
    :param duplicates: Prompts charged more than once, with how often.
    :param landed: Wanted images of which a sound file lies at the destination.
    :param recovered: Images paid by an attempt that did not live to say so, and found by a later one.
    :param reattached: Attempts at submitting whose log speaks of an image task found.
    :param stopped: Submits that ended failed.
    :param lost: Prompts neither landed nor stopped.
    :param unlanded: Charged image tasks without a file.
    :param strangers: Charged prompts that nobody asked for.
    """

    wanted: int
    charges: int
    duplicates: Mapping[str, int]
    landed: int
    recovered: int
    reattached: int
    stopped: Sequence[Stop]
    lost: Sequence[str]
    unlanded: Sequence[str]
    strangers: Sequence[str]

    @property
    def extra(self) -> int:
        """Charges beyond the first of each image."""
        return sum(self.duplicates.values()) - len(self.duplicates)


def reckon(
    prompts: Iterable[str],
    image_tasks: Iterable[Mapping[str, Any]],
    sound: Iterable[str],
    submits: Mapping[str, Mapping[str, Any]],
    messages: Mapping[str, str],
    reattached: int,
) -> Books:
    """Close the books.

    :param image_tasks: The bank's ledger.
    :param sound: Stems of the files that hold a whole picture.
    :param submits: Airflow's last attempt of each submit, by prompt.
    :param messages: Of each submit that failed, what its log says.
    """
    wanted, stems = list(prompts), set(sound)
    charged: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for task in image_tasks:
        if not task["refunded"]:
            charged[task["prompt"]].append(task)
    landed = {prompt for prompt in wanted if any(_on_disk(task, stems) for task in charged[prompt])}
    stops = [Stop(prompt, len(charged[prompt]), messages[prompt]) for prompt in wanted if prompt in messages]
    return Books(
        wanted=len(wanted),
        charges=sum(map(len, charged.values())),
        duplicates={prompt: len(tasks) for prompt, tasks in charged.items() if len(tasks) > 1},
        landed=len(landed),
        recovered=sum(_recovered(charged[prompt], submits.get(prompt)) for prompt in landed),
        reattached=reattached,
        stopped=stops,
        lost=[prompt for prompt in wanted if prompt not in landed and prompt not in messages],
        unlanded=[str(task["id"]) for tasks in charged.values() for task in tasks if not _on_disk(task, stems)],
        strangers=sorted({prompt for prompt, tasks in charged.items() if tasks} - set(wanted)),
    )


def _on_disk(task: Mapping[str, Any], stems: set[str]) -> bool:
    return stem_for(str(task["id"]), 0) in stems


def _recovered(tasks: Sequence[Mapping[str, Any]], submit: Mapping[str, Any] | None) -> bool:
    """Say whether the last attempt began after the one charge: it found what an earlier one had paid."""
    if len(tasks) != 1 or submit is None or not submit["start_date"]:
        return False
    return bool(tasks[0]["created"] < datetime.fromisoformat(submit["start_date"]).timestamp())


def sound_files(folder: Path) -> list[str]:
    """Give the stems of the pictures below a folder that decode to their last pixel."""
    from PIL import Image

    stems = []
    for path in sorted(folder.rglob("*.png")):
        try:
            with Image.open(path) as image:
                image.load()
        except OSError:
            continue
        stems.append(path.stem)
    return stems


def reattached_attempts(logs: Path) -> int:
    """Count the attempts at submitting whose log speaks of an image task found."""
    return sum(bool(_FOUND.search(path.read_bytes())) for path in logs.glob("**/task_id=submit/**/*.log"))
