"""Where a task instance stands between tries and clears."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """Where a task instance stands: Airflow counts tries on, and raises ``max_tries`` at every clear.

    :param started_at: Epoch seconds; nothing that this attempt does not know of can have left later.
    :param retry: Whether an earlier try since the last clear may have submitted.
    :param tries_before_clear: Tries spent before the last clear, 0 without one; names the wish behind it.
    """

    started_at: float
    max_tries: int
    retry: bool
    tries_before_clear: int

    @classmethod
    def of(cls, *, try_number: int, max_tries: int, retries: int, started_at: float) -> Attempt:
        """Return the standing: at first ``max_tries`` is ``retries``; a clear sets it to the tries so far plus that."""
        before = max(0, max_tries - retries)
        return cls(started_at, max_tries, retry=try_number > before + 1, tries_before_clear=before)

    @property
    def cleared(self) -> bool:
        """Whether the user cleared the task since its first run."""
        return self.tries_before_clear > 0
