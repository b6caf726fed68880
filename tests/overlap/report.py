"""What a part came to: the bank's charges against the files and what the tasks say they paid. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from tests.overlap.parts import Part

_CENT = 0.005


@dataclass(frozen=True)
class Outcome:
    """What one part came to.

    :param charges: Image tasks that the bank accepted; ``refunds`` of them were given back.
    :param files: Complete images at the destinations; for the submit operator, image tasks handed on.
    :param lost: Wanted and not there.
    :param both: Image tasks that both installations say are theirs.
    :param failed: Tasks that ended failed, with the error; ``stuck`` had not ended.
    :param paid_usd: Sum of what the task instances say they paid; ``bank_usd`` what the bank took, less refunds.
    :param lost_races: Image tasks that were paid although the picture in place is another's, as the tasks say.
    :param kills: Workers that were killed.
    """

    part: Part
    charges: int
    refunds: int
    files: int
    lost: int
    both: int
    failed: Sequence[str]
    stuck: Sequence[str]
    paid_usd: float
    bank_usd: float
    lost_races: int
    kills: int
    seconds: float

    @property
    def too_many(self) -> int:
        """Charges for which there is no file."""
        return self.charges - self.refunds - self.files

    def broken(self) -> list[str]:
        """List how the promise was broken: money first."""
        found = {
            f"{self.too_many - self.lost_races} charges too many": self.too_many > self.lost_races,
            f"{self.both} image tasks in both installations": self.part.apart and self.both > 0,
            f"the tasks say {self.paid_usd:.3f} USD were paid": self.part.lands
            and abs(self.paid_usd - self.bank_usd) > _CENT,
            f"{self.lost} images lost": self.lost > 0 and not (self.part.may_refuse and self.failed),
            f"{len(self.failed)} tasks failed": len(self.failed) > 0 and not self.part.may_refuse,
            f"{len(self.stuck)} tasks stuck": len(self.stuck) > 0,
        }
        return [text for text, wrong in found.items() if wrong]


def outcome_of(
    part: Part,
    image_tasks: Iterable[Mapping[str, Any]],
    files: int,
    results: Sequence[Sequence[Any]],
    *,
    failed: Sequence[str],
    stuck: Sequence[str],
    kills: int,
    seconds: float,
) -> Outcome:
    """Compare what the bank charged with what there is.

    :param image_tasks: The bank's ledger.
    :param results: What the tasks returned, by installation.
    """
    charged = [task for task in image_tasks if task["prompt"] in part.prompts]
    ids = [{identity for result in site for identity in _ids(result)} for site in results]
    if not part.lands:
        files = len(set().union(*ids))
    summaries: list[dict[str, Any]] = [result for site in results for result in site if isinstance(result, dict)]
    return Outcome(
        part=part,
        charges=len(charged),
        refunds=sum(bool(task["refunded"]) for task in charged),
        files=files,
        lost=max(0, part.wanted - files),
        both=len(set.intersection(*ids)) if len(ids) > 1 else 0,
        failed=failed,
        stuck=stuck,
        paid_usd=sum(result["paid_usd" if "paid_usd" in result else "cost_usd"] for result in summaries),
        bank_usd=sum(task["charged_usd"] for task in charged if not task["refunded"]),
        lost_races=round(sum(result.get("lost_race", 0) for result in summaries) / 0.025),
        kills=kills,
        seconds=seconds,
    )


def _ids(result: Any) -> list[str]:
    return [result] if isinstance(result, str) else [image["id"] for image in result["images"] if image["id"]]


def as_text(airflow: str, outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table."""
    rows = [
        {
            "part": one.part.name,
            "wanted": one.part.wanted,
            "charges": one.charges,
            "refunds": one.refunds,
            "files": one.files,
            "in both": one.both,
            "lost races": one.lost_races,
            "lost": one.lost,
            "failed": len(one.failed),
            "stuck": len(one.stuck),
            "paid_usd": f"{one.paid_usd:.3f}",
            "bank USD": f"{one.bank_usd:.3f}",
            "kills": one.kills,
            "seconds": round(one.seconds),
            "": "; ".join(one.broken()) or "kept",
        }
        for one in outcomes
    ]
    lines = [f"Airflow {airflow}", tabulate(rows, headers="keys", tablefmt="github"), ""]
    lines += [f"{one.part.name}: {one.part.what}" for one in outcomes]
    lines += [f"{one.part.name}, failed: {text}" for one in outcomes for text in one.failed]
    lines += [f"{one.part.name}, stuck: {text}" for one in outcomes for text in one.stuck]
    return "\n".join(lines)
