"""What the mapped tasks of the demonstrations ask for; DAGs and counts read the same lists."""

from __future__ import annotations

#: 30 mapped tasks that ask for ten different pictures.
MAPPED = [f"mapped {number % 10}" for number in range(30)]
#: Twelve mapped tasks, each killed around its POST.
KILLED = [f"killed {number}" for number in range(12)]
#: The same, for two installations that land at one place.
KILLED_TOGETHER = [f"killed together {number}" for number in range(12)]
#: The same for the submit operator, which has no destination.
KILLED_SUBMITS = [f"killed submit {number}" for number in range(12)]


def batch(part: str) -> list[str]:
    """Return the two prompts of a batch; no date is in them, so that all runs of a part want the same."""
    return [f"{part} {number}" for number in range(2)]
