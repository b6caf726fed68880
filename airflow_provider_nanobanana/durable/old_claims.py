"""Which claims and books are so old that they go, and in which order; pure: no I/O, no clock.

Claims of one file are a chain of generations, and whoever finds none at all creates the first anew. So a chain goes as
a whole or stays, and from its highest generation down: wherever the removing is broken off, what is left is a chain
from its first generation on, all of it dead, and one name for the next. With the first generation gone before a later
one, two buyers could create one each. While a chain is being removed nobody may add to it (:func:`is_sweep_under_way`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Seconds after which a claim or a book goes; nothing that it stands for can be had since six days ago.
OLD_SECONDS: Final = 7 * 86400.0
#: A claim of which it is not certain that it is this much younger may be one that a sweep removes.
_MARGIN: Final = 86400.0
#: Seconds between two sweeps of one destination.
_BETWEEN_SWEEPS: Final = 86400.0
#: By how much what was just written may seem to lie ahead; more, and the store's clock was set back.
_AHEAD: Final = 3600.0
#: Seconds in which a sweep is over, whatever its store does: twice what it may take.
SWEEP_OVER: Final = 120.0

_CLAIM: Final = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})\.g(0|[1-9][0-9]{0,5})\.json", re.ASCII)
_BOOK: Final = re.compile(r"[0-9a-f]{32}\.json", re.ASCII)
_MARKER: Final = re.compile(r"swept-(0|[1-9][0-9]{0,8})", re.ASCII)

#: The name of a file, and when it was written, in epoch seconds by the store's clock; None where that is not known.
Entry = tuple[str, float | None]


def old_claims(entries: Iterable[Entry], now: float) -> list[list[str]]:
    """Return the chains of claims that go: of each the names, in the order in which they have to.

    :param entries: All claims of a destination; what is no claim is left out.
    :param now: By the store's clock.
    """
    chains: dict[str, list[tuple[int, str, bool]]] = {}
    for name, written_at in entries:
        if match := _CLAIM.fullmatch(name):
            # A store that does not tell names apart by case has one chain for all spellings.
            chain = chains.setdefault(match[1].lower(), [])
            chain.append((int(match[2]), name, _is_old(written_at, now)))
    return [
        [name for _, name, _ in sorted(chain, reverse=True)]
        for chain in chains.values()
        if all(old for _, _, old in chain)
    ]


def old_books(entries: Iterable[Entry], now: float) -> list[str]:
    """Return the names of the books that go: a book is written after the claims it tells of, so none of them lives."""
    return [name for name, written_at in entries if _BOOK.fullmatch(name) and _is_old(written_at, now)]


def may_be_swept(age: float, written_at: float | None) -> bool:
    """Whether a sweep may be removing a claim: it is old, or gone already, or nobody knows when it was written."""
    return written_at is None or age > OLD_SECONDS - _MARGIN


def next_marker(entries: Iterable[Entry], now: float) -> str | None:
    """Return the name that the next sweep has to create first, exclusively; None where the last one was lately.

    :param entries: Of the folder that the markers are in.
    """
    markers = _markers(entries)
    if any(_is_within(_BETWEEN_SWEEPS, written_at, now) for written_at in markers.values()):
        return None
    return f"swept-{max(markers, default=-1) + 1}"


def older_markers(entries: Iterable[Entry]) -> list[str]:
    """Return the markers of earlier sweeps: all but the last one's, after which the next is numbered."""
    markers = _markers(entries)
    return [f"swept-{number}" for number in markers if number < max(markers)]


def is_sweep_under_way(entries: Iterable[Entry], now: float) -> bool:
    """Whether a sweep may still be removing something; it began when its marker was created."""
    return any(_is_within(SWEEP_OVER, written_at, now) for written_at in _markers(entries).values())


def _markers(entries: Iterable[Entry]) -> dict[int, float | None]:
    return {int(match[1]): written_at for name, written_at in entries if (match := _MARKER.fullmatch(name))}


def _is_old(written_at: float | None, now: float) -> bool:
    return written_at is not None and now - written_at > OLD_SECONDS


def _is_within(seconds: float, written_at: float | None, now: float) -> bool:
    return written_at is None or -_AHEAD < now - written_at < seconds
