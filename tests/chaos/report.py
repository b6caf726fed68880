"""The report: one block per campaign, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import shorten
from typing import Any

from tests.chaos.runner import Outcome

_KEPT = {"chaos_provider": "pays once", "chaos_strict": "pays at most once", "chaos_naive": ""}


def kills_by_kind(outcome: Outcome) -> dict[str, int]:
    """Count the kills; of the connections to the bank those that were really cut."""
    counted = Counter(kill.kind for kill in outcome.kills)
    counted["bank-connection"] = sum(outcome.connections.values())
    return {kind: count for kind, count in sorted(counted.items()) if count}


def promise(outcome: Outcome) -> str:
    """Name the promise this campaign is measured by; empty for the naive operator, which makes none."""
    return _KEPT[outcome.campaign.dag_id]


def broken(outcome: Outcome) -> list[str]:
    """List what the campaign shows against our promise: money, then images, then an end."""
    if not promise(outcome):
        return []
    books = outcome.books
    found = {
        f"{books.extra} charges too many": books.extra,
        f"{len(books.strangers)} charges for nothing anyone wanted": books.strangers,
        f"{len(books.lost)} images lost": books.lost,
        f"{len(outcome.stuck)} tasks stuck": outcome.stuck,
    }
    if outcome.campaign.dag_id == "chaos_provider":
        found[f"{len(books.stopped)} submits stopped"] = books.stopped
        found[f"{books.landed} of {books.wanted} images landed"] = books.landed != books.wanted
    return [text for text, wrong in found.items() if wrong]


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Give everything as JSON."""
    return json.dumps([_record(outcome) for outcome in outcomes], indent=2) + "\n"


def _record(outcome: Outcome) -> dict[str, Any]:
    record = asdict(outcome)
    summary = {
        "promise": promise(outcome),
        "broken": broken(outcome),
        "kills_by_kind": kills_by_kind(outcome),
        "extra_charges": outcome.books.extra,
    }
    return {"name": outcome.campaign.name, **summary, **record}


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Give the report for people."""
    blocks = [_block(outcome) for outcome in outcomes]
    ours = [outcome for outcome in outcomes if promise(outcome)]
    if ours:
        kills = sum(sum(kills_by_kind(outcome).values()) for outcome in ours)
        images, extra = sum(one.books.wanted for one in ours), sum(one.books.extra for one in ours)
        blocks.append(f"Ours in all: {kills} kills, {images} images wanted, {extra} charged more than once.")
    return "\n\n".join(blocks) + "\n"


def _block(outcome: Outcome) -> str:
    books = outcome.books
    kinds = ", ".join(f"{kind} {count}" for kind, count in kills_by_kind(outcome).items())
    paid = sum(stop.charges > 0 for stop in books.stopped)
    rows = {
        "seed, time": f"{outcome.seed}, {outcome.seconds / 60:.1f} min",
        "kills": f"{sum(kills_by_kind(outcome).values())} ({kinds})",
        "images wanted": str(books.wanted),
        "landed": str(books.landed),
        "charges": str(books.charges),
        "duplicates": f"{len(books.duplicates)} images charged twice or more, {books.extra} charges too many",
        "recovered": f"{books.recovered} images found by a later attempt ({books.reattached} attempts say so)",
        "stopped": f"{len(books.stopped)} (paid: {paid})",
        "lost": str(len(books.lost)),
        "stuck": str(len(outcome.stuck)),
        "attempts again": ", ".join(f"{task} {count}" for task, count in outcome.attempts.items()) or "none",
        "died unkilled": ", ".join(f"{name} {count}" for name, count in outcome.revived.items()) or "none",
    }
    faults = broken(outcome)
    verdict = "promises nothing" if not promise(outcome) else f"BROKEN: {'; '.join(faults)}" if faults else "kept"
    width = max(map(len, rows))
    lines = [f"{outcome.campaign.name} ({outcome.campaign.dag_id}): {verdict}"]
    lines += [f"  {name.ljust(width)}  {value}" for name, value in rows.items()]
    return "\n".join([*lines, *_details(outcome)])


def _details(outcome: Outcome) -> list[str]:
    books = outcome.books
    lines = [f"  charged {count} times: {prompt}" for prompt, count in books.duplicates.items()]
    lines += [
        f"  stopped: {stop.prompt} (charges: {stop.charges}): {shorten(stop.message, 240)}" for stop in books.stopped
    ]
    lines += [f"  lost: {prompt}" for prompt in books.lost]
    return lines + [f"  stuck: {text}" for text in outcome.stuck]
