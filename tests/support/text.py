"""What a person reads of an error, without the line breaks that a log pane needs."""

from __future__ import annotations


def flat(error: object) -> str:
    """Return the text of an error as one line."""
    return " ".join(str(error).split())
