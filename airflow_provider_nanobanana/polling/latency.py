"""LatencyEstimator: how long images take, by what is known beforehand and what the answers tell.

A poller asks it when the first poll of an image task pays.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from airflow_provider_nanobanana.toapis.catalogue import DEFAULT_MODEL

#: The share of images that are ready at the first poll. By simulation of a lognormal latency (median 25 s, sigma 0.4)
#: polled every 5 s, this takes 3.3 polls an image and 2.8 s until it is noticed; earlier costs polls, later costs time.
#: The service gives whole seconds, which makes the first poll half a second earlier.
_READY_AT_FIRST_POLL: Final = 0.21
#: The prior counts as much as this many images; the latest images push it out.
_PRIOR_IMAGES: Final = 10
_MOST_IMAGES: Final = 200
#: Kinds of images that are told apart; the service may call its models whatever it likes.
_MOST_KEYS: Final = 64
#: Seconds; what is outside of them is a mistake of a clock, not a latency.
_PLAUSIBLE: Final = (0.0, 3600.0)


@dataclass(frozen=True)
class LatencyPrior:
    """A lognormal latency, in seconds: field notes of 2026 (13 to 37 s and 23 to 56 s at 1K), not a promise."""

    median: float = 25.0
    sigma: float = 0.4

    def quantile(self, share: float) -> float:
        """Return the seconds within which a share of the images is ready."""
        return self.median * math.exp(NormalDist(0, self.sigma).inv_cdf(share))


class LatencyEstimator:
    """The latencies of images in seconds, by :func:`latency_key`: what decides how long an image takes.

    Of the kinds that were asked for, the latest 64 are kept.

    :ivar learnt: Whether any image was observed.
    """

    def __init__(self) -> None:
        self.learnt = False
        self._samples: dict[str, deque[float]] = {}
        self._first: dict[str, float] = {}

    def first_poll_age(self, key: str) -> float:
        """Return the seconds after its submit at which an image is first polled.

        :param key: From :func:`latency_key`.
        """
        if key not in self._first:
            self._first[key] = _quantile(sorted(self._samples_of(key)), _READY_AT_FIRST_POLL)
        return self._first[key]

    def observe(self, key: str, seconds: float) -> None:
        """Learn how many seconds an image took."""
        shortest, longest = _PLAUSIBLE
        if shortest < seconds < longest:
            self.learnt = True
            self._samples_of(key).append(seconds)
            self._first.pop(key, None)

    def _samples_of(self, key: str) -> deque[float]:
        if key not in self._samples:
            prior = LatencyPrior()
            prior_samples = (prior.quantile((number + 0.5) / _PRIOR_IMAGES) for number in range(_PRIOR_IMAGES))
            self._samples[key] = deque(prior_samples, maxlen=_MOST_IMAGES)
            if len(self._samples) > _MOST_KEYS:
                oldest = next(iter(self._samples))
                del self._samples[oldest]
                self._first.pop(oldest, None)
        else:
            self._samples[key] = self._samples.pop(key)  # behind all others
        return self._samples[key]


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of sorted values is, interpolated between two of them."""
    position = max(0.0, share * len(ordered) - 0.5)
    lower = int(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def latency_key(model: str | None, resolution: str | None = None) -> str:
    """Return the key of the images that take as long as each other: model and, where known, resolution."""
    return "/".join(part for part in (model or DEFAULT_MODEL, resolution) if part)
