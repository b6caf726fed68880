"""How long images take: what was known beforehand, corrected by what the answers tell."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from airflow_provider_nanobanana.toapis import catalogue

#: The share of images that are ready at the first poll. By simulation of a lognormal latency (median 25 s, sigma 0.4)
#: polled every 5 s, 3.3 polls an image and 2.8 s until it is noticed; earlier costs polls, later costs time. The
#: service's whole seconds make it half a second earlier in fact.
_READY_AT_FIRST_POLL: Final = 0.21
#: The prior counts as much as this many images; the latest images push it out.
_IMAGINED: Final = 10
_REMEMBERED: Final = 200
#: What lies outside is a mistake of a clock, not a latency; seconds.
_PLAUSIBLE: Final = (0.0, 3600.0)


class LatencyEstimator:
    """The latencies of the kinds of images that one poller meets, in seconds."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[float]] = {}
        self._first: dict[str, float] = {}

    def first_poll_age(self, kind: str) -> float:
        """Return the age from which polling pays.

        :param kind: Model and resolution as :func:`kind_of` gives them.
        """
        if kind not in self._first:
            self._first[kind] = _quantile(sorted(self._of(kind)), _READY_AT_FIRST_POLL)
        return self._first[kind]

    def observe(self, kind: str, seconds: float) -> None:
        """Take note of how long an image took."""
        shortest, longest = _PLAUSIBLE
        if shortest < seconds < longest:
            self._of(kind).append(seconds)
            self._first.pop(kind, None)

    def _of(self, kind: str) -> deque[float]:
        if kind not in self._samples:
            prior = catalogue.model_for(kind.partition("/")[0] or catalogue.DEFAULT_MODEL).latency
            imagined = (prior.quantile((number + 0.5) / _IMAGINED) for number in range(_IMAGINED))
            self._samples[kind] = deque(imagined, maxlen=_REMEMBERED)
        return self._samples[kind]


def _quantile(ranked: Sequence[float], share: float) -> float:
    """Return the value below which a share of ranked ones lies, between two of them as it falls."""
    position = max(0.0, share * len(ranked) - 0.5)
    lower = int(position)
    upper = min(lower + 1, len(ranked) - 1)
    return ranked[lower] + (position - lower) * (ranked[upper] - ranked[lower])


def latency_key(model: str | None, resolution: str | None = None) -> str:
    """Return the name of a kind of image: what decides how long it takes."""
    return "/".join(part for part in (model or catalogue.DEFAULT_MODEL, resolution) if part)
