"""The parts of the demonstration: who asks for what, where, and what may be charged for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.overlap.prompts import KILLED, KILLED_SUBMITS, KILLED_TOGETHER, MAPPED, batch

FIRST_KEY, SECOND_KEY = "nanobanana_default", "nanobanana_second"
#: The first key again, with a ``namespace`` of each installation's own.
NAMED = "nanobanana_named"


@dataclass(frozen=True)
class Part:
    """One demonstration.

    :param folders: Where each installation lands, below the folder of all images; one installation a folder.
    :param days: First and last date of a backfill in each of them; None is one run each, of the same run id.
    :param connections: Which each installation pays with.
    :param killed: Whether the worker of every task is killed once, around a POST.
    :param apart: Whether no installation may hand on an image task of the other's.
    :param may_refuse: Whether a task may fail that says why.
    """

    name: str
    what: str
    prompts: Sequence[str]
    folders: Sequence[str]
    days: tuple[str, str] | None = None
    connections: Sequence[str] = (FIRST_KEY, FIRST_KEY)
    killed: bool = False
    apart: bool = False
    may_refuse: bool = False

    @property
    def dag_id(self) -> str:
        """The DAG of the part, in every installation; one backfill at a time is all that Airflow allows a DAG."""
        return f"overlap_{self.name.replace('-', '_')}"

    @property
    def lands(self) -> bool:
        """Whether there are files in the end; the submit operator hands on ids instead."""
        return any(self.folders)

    @property
    def wanted(self) -> int:
        """How many different pictures are wanted, each destination counted for itself."""
        places = set(self.folders) if self.lands else set(range(len(self.folders)))
        return len(places) * len(set(self.prompts))


PARTS = {
    part.name: part
    for part in (
        Part(
            "backfill", "a backfill of 5 days at once, 2 prompts, one destination",
            batch("backfill"), ("backfill",), ("2026-01-01", "2026-01-05"),
        ),
        Part(
            "scheduled", "the same, with the scheduled run beside it",
            batch("scheduled"), ("scheduled",), ("2026-01-01", "2026-01-05"),
        ),
        Part(
            "mapped", "30 mapped tasks, 10 prompts, one destination",
            MAPPED, ("mapped",),
        ),
        Part(
            "apart", "two installations, 3 days each, a destination each",
            batch("apart"), ("apart/a", "apart/b"), ("2026-01-06", "2026-01-08"), apart=True,
        ),
        Part(
            "together", "two installations with a namespace each, 3 days each, one destination",
            batch("together"), ("together", "together"), ("2026-01-09", "2026-01-11"),
            # Without, each counts what the other paid as its own: same DAG, run and task.
            connections=(NAMED, NAMED),
        ),
        Part(
            "keys", "two installations, an API key each, one destination",
            batch("keys"), ("keys", "keys"), ("2026-01-12", "2026-01-14"),
            connections=(FIRST_KEY, SECOND_KEY), may_refuse=True,
        ),
        Part(
            "killed", "two installations, a destination each, 12 mapped tasks killed around their POST in both",
            KILLED, ("killed/a", "killed/b"), killed=True, apart=True,
        ),
        Part(
            "killed-together", "the same at one destination, with a namespace each",
            KILLED_TOGETHER, ("killed-together", "killed-together"), killed=True, connections=(NAMED, NAMED),
        ),
        Part(
            "killed-submits", "12 mapped tasks of the submit operator, killed around their POST in two installations",
            KILLED_SUBMITS, ("", ""), killed=True, apart=True,
        ),
    )
}  # fmt: skip
