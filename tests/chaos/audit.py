"""Audit: what a campaign wanted, what the emulator charged, which images are stored, and why a submit stopped.

Pure: it compares the ledger of the emulator, the files and Airflow's task instances after the campaign has ended.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_nanobanana.landing.file_names import stem_for
from tests.chaos.workload import names_in_place

#: The words in the log of an attempt that found a paid image task instead of buying one.
_FOUND = re.compile(rb"adopting image task|adopted|re-attach|nothing is bought", re.IGNORECASE)


@dataclass(frozen=True)
class StoppedSubmit:
    """A submit task that ended failed, how often its prompt was charged, and the error in its log."""

    prompt: str
    charges: int
    message: str


@dataclass(frozen=True)
class Audit:
    """The result of a campaign, counted in images where nothing else is said.

    :param charges: Image tasks that the emulator charged and did not refund.
    :param duplicates: Prompts charged more than once, with how often.
    :param landed: Wanted images with a complete file at the destination.
    :param recovered: Images paid by an attempt that was killed before it recorded them, and found by a later one.
    :param reattached: Attempts at submitting whose log reports an image task that was found.
    :param stopped: Submits that ended failed.
    :param lost: Prompts neither landed nor stopped.
    :param not_landed: Charged image tasks without a file.
    :param unwanted: Charged prompts that no run asked for.
    :param refunds: Image tasks that were charged and given back.
    :param sums: What the manifests of runs at one destination say: ``paid_usd``, ``shared``, ``lost_races`` and more.
    :param charged_usd: What the emulator took, less refunds.
    """

    wanted: int
    charges: int
    duplicates: Mapping[str, int]
    landed: int
    recovered: int
    reattached: int
    stopped: Sequence[StoppedSubmit]
    lost: Sequence[str]
    not_landed: Sequence[str]
    unwanted: Sequence[str]
    refunds: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    charged_usd: float = 0.0

    @property
    def extra(self) -> int:
        """Charges beyond the first of each image."""
        return sum(self.duplicates.values()) - len(self.duplicates)

    @property
    def unexplained(self) -> int:
        """Charges beyond the first of each image that no run reports as a lost race."""
        return self.extra - round(self.sums.get("lost_races", 0))


def audit_of(
    prompts: Iterable[str],
    image_tasks: Iterable[Mapping[str, Any]],
    complete: Iterable[str],
    submits: Mapping[str, Mapping[str, Any]],
    messages: Mapping[str, str],
    reattached: int,
) -> Audit:
    """Compare what was wanted with what was charged and stored.

    :param image_tasks: The emulator's ledger.
    :param complete: Stems of the files that hold a complete image.
    :param submits: Airflow's last attempt of each submit, by prompt.
    :param messages: The error in the log of each submit that failed, by prompt.
    """
    wanted, stems = list(prompts), set(complete)
    charged: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for task in image_tasks:
        if not task["refunded"]:
            charged[task["prompt"]].append(task)
    landed = {prompt for prompt in wanted if any(_is_stored(task, stems) for task in charged[prompt])}
    stops = [StoppedSubmit(prompt, len(charged[prompt]), messages[prompt]) for prompt in wanted if prompt in messages]
    return Audit(
        wanted=len(wanted),
        charges=sum(map(len, charged.values())),
        duplicates={prompt: len(tasks) for prompt, tasks in charged.items() if len(tasks) > 1},
        landed=len(landed),
        recovered=sum(_recovered(charged[prompt], submits.get(prompt)) for prompt in landed),
        reattached=reattached,
        stopped=stops,
        lost=[prompt for prompt in wanted if prompt not in landed and prompt not in messages],
        not_landed=[str(task["id"]) for tasks in charged.values() for task in tasks if not _is_stored(task, stems)],
        unwanted=sorted({prompt for prompt, tasks in charged.items() if tasks} - set(wanted)),
    )


def audit_of_shared(
    prompts: Sequence[str],
    image_tasks: Sequence[Mapping[str, Any]],
    complete: Sequence[str],
    messages: Mapping[str, str],
    sums: Mapping[str, float],
) -> Audit:
    """Compare what overlapping runs wanted at one destination with what was charged and is in place.

    :param complete: Stems of the files that hold a complete image; a second file of a picture counts as not landed.
    :param messages: The error of a failed task for each prompt it asked for.
    :param sums: From :func:`manifest_sums`.
    """
    kept = [task for task in image_tasks if not task["refunded"]]
    charged = Counter(str(task["prompt"]) for task in kept)
    files = names_in_place(complete)
    landed = [prompt for prompt in prompts if files.get(prompt) == 1]
    missing = [prompt for prompt in prompts if prompt not in files]
    return Audit(
        wanted=len(prompts),
        charges=len(kept),
        duplicates={prompt: count for prompt, count in charged.items() if count > 1},
        landed=len(landed),
        recovered=0,
        reattached=0,
        stopped=[StoppedSubmit(prompt, charged[prompt], messages[prompt]) for prompt in missing if prompt in messages],
        lost=[prompt for prompt in missing if prompt not in messages],
        not_landed=[],
        unwanted=sorted(set(charged) - set(prompts)),
        refunds=len(image_tasks) - len(kept),
        sums=sums,
        charged_usd=sum(task["charged_usd"] for task in kept),
    )


def manifest_sums(folder: Path) -> dict[str, float]:
    """Add up what the manifests in a folder say of money; nothing where there are none.

    An older form of them has no ``paid_usd``: there each run pays for all it counts.
    """
    sums: Counter[str] = Counter()
    for path in folder.glob("manifest-*.json"):
        content = json.loads(path.read_text())
        sums["paid_usd"] += content.get("paid_usd", content["cost_usd"])
        sums["lost_races"] += content.get("lost_race", 0) / 0.025
        for name in ("shared", "reused"):
            sums[name] += content.get(name, 0)
    return dict(sums)


def _is_stored(task: Mapping[str, Any], stems: set[str]) -> bool:
    return stem_for(str(task["id"]), 0) in stems


def _recovered(tasks: Sequence[Mapping[str, Any]], submit: Mapping[str, Any] | None) -> bool:
    """Whether the last attempt began after the only charge, so that it found what an earlier attempt had paid."""
    if len(tasks) != 1 or submit is None or not submit["start_date"]:
        return False
    return bool(tasks[0]["created"] < datetime.fromisoformat(submit["start_date"]).timestamp())


def complete_files(folder: Path) -> list[str]:
    """Return the stems of the PNG files below a folder that decode to their last pixel."""
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
    """Count the attempts at submitting whose log reports an image task that was found."""
    return sum(bool(_FOUND.search(path.read_bytes())) for path in logs.glob("**/task_id=submit/**/*.log"))
