"""The report of finished campaigns: one block a campaign, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import shorten
from typing import Any

from tests.chaos.runner import Outcome

_PROMISES = {
    "chaos_provider": "pays once",
    "chaos_overlap": "pays once",
    "chaos_strict": "pays at most once",
    "chaos_overlap_strict": "pays at most once",
    "chaos_naive": "",
    "chaos_overlap_naive": "",
}
#: USD by which two sums of prices may differ.
_ROUNDING = 0.001


def kills_by_kind(outcome: Outcome) -> dict[str, int]:
    """Count the kills by kind; of the connections to the emulator those that were really cut."""
    counted = Counter(kill.kind for kill in outcome.kills)
    counted["service-connection"] = sum(outcome.connections.values())
    return {kind: count for kind, count in sorted(counted.items()) if count}


def promise(outcome: Outcome) -> str:
    """Return the promise that a campaign is measured by; empty for the baseline operator, which makes none."""
    return _PROMISES[outcome.campaign.dag_id]


def broken(outcome: Outcome) -> list[str]:
    """List how a campaign broke its promise: money first, then images, then tasks that did not end."""
    if not promise(outcome):
        return []
    audit = outcome.audit
    found = {
        f"{audit.unexplained} charges too many": audit.unexplained,
        f"{len(audit.unwanted)} charges for prompts that no run asked for": audit.unwanted,
        f"{len(audit.lost)} images lost": audit.lost,
        f"{len(outcome.stuck)} tasks stuck": outcome.stuck,
    }
    if promise(outcome) == "pays once":
        paid_usd = audit.sums.get("paid_usd", audit.charged_usd)
        text = f"the runs say they paid {paid_usd:.3f} USD and were charged {audit.charged_usd:.3f}"
        found[text] = abs(paid_usd - audit.charged_usd) > _ROUNDING
        found[f"{len(audit.stopped)} submits stopped"] = audit.stopped
        found[f"{audit.landed} of {audit.wanted} images landed"] = audit.landed != audit.wanted
    return [text for text, wrong in found.items() if wrong]


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as JSON."""
    return json.dumps([_record(outcome) for outcome in outcomes], indent=2) + "\n"


def _record(outcome: Outcome) -> dict[str, Any]:
    record = asdict(outcome)
    summary = {
        "promise": promise(outcome),
        "broken": broken(outcome),
        "kills_by_kind": kills_by_kind(outcome),
        "extra_charges": outcome.audit.extra,
    }
    return {"name": outcome.campaign.name, **summary, **record}


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as text."""
    blocks = [_block(outcome) for outcome in outcomes]
    ours = [outcome for outcome in outcomes if promise(outcome)]
    if ours:
        kills = sum(sum(kills_by_kind(outcome).values()) for outcome in ours)
        images, extra = sum(one.audit.wanted for one in ours), sum(one.audit.extra for one in ours)
        blocks.append(f"Ours in all: {kills} kills, {images} images wanted, {extra} charged more than once.")
    return "\n\n".join(blocks) + "\n"


def _block(outcome: Outcome) -> str:
    audit = outcome.audit
    kinds = ", ".join(f"{kind} {count}" for kind, count in kills_by_kind(outcome).items())
    paid = sum(stop.charges > 0 for stop in audit.stopped)
    rows = {
        "seed, time": f"{outcome.seed}, {outcome.seconds / 60:.1f} min",
        "kills": f"{sum(kills_by_kind(outcome).values())} ({kinds})",
        "images wanted": str(audit.wanted),
        "landed": str(audit.landed),
        "charges": f"{audit.charges}, and {audit.refunds} refunded" if audit.refunds else str(audit.charges),
        "duplicates": f"{len(audit.duplicates)} images charged twice or more, {audit.extra} charges too many",
        "recovered": f"{audit.recovered} images found by a later attempt ({audit.reattached} attempts say so)",
        "stopped": f"{len(audit.stopped)} (paid: {paid})",
        **(
            {"the runs say": ", ".join(f"{name} {value:g}" for name, value in audit.sums.items())} if audit.sums else {}
        ),
        "lost": str(len(audit.lost)),
        "stuck": str(len(outcome.stuck)),
        "further attempts": ", ".join(f"{task} {count}" for task, count in outcome.attempts.items()) or "none",
        "ended unkilled": ", ".join(f"{name} {count}" for name, count in outcome.restarted.items()) or "none",
    }
    faults = broken(outcome)
    verdict = "promises nothing" if not promise(outcome) else f"BROKEN: {'; '.join(faults)}" if faults else "kept"
    width = max(map(len, rows))
    lines = [f"{outcome.campaign.name} ({outcome.campaign.dag_id}): {verdict}"]
    lines += [f"  {name.ljust(width)}  {value}" for name, value in rows.items()]
    return "\n".join([*lines, *_details(outcome)])


def _details(outcome: Outcome) -> list[str]:
    audit = outcome.audit
    lines = [f"  charged {count} times: {prompt}" for prompt, count in audit.duplicates.items()]
    lines += [
        f"  stopped: {stop.prompt} (charges: {stop.charges}): {shorten(stop.message, 240)}" for stop in audit.stopped
    ]
    lines += [f"  lost: {prompt}" for prompt in audit.lost]
    return lines + [f"  stuck: {text}" for text in outcome.stuck]
