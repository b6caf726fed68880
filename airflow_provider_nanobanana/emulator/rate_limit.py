"""The account's allowance: a token bucket, as ``docs/toapis.md`` has it under "Rate limits"."""

from __future__ import annotations

import math

BURST_SECONDS = 10


class TokenBucket:
    """Refills steadily at ``rate`` a second up to ten seconds' worth; time is passed in.

    :param rate: Tokens per second; 0 means no limit.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.burst = rate * BURST_SECONDS
        self.tokens = self.burst
        self.updated = now

    def take(self, now: float) -> bool:
        """Take one token; a refusal takes nothing."""
        if not self.rate:
            return True
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.updated) * self.rate)
        self.updated = now
        if self.tokens < 1 - 1e-9:  # the sums of many small refills fall a hair short
            return False
        self.tokens -= 1
        return True

    def headers(self, category: str) -> dict[str, str]:
        """Return the headers of a limited answer: limit per minute, seconds until a token is there."""
        wait = math.ceil(max(0.0, 1 - self.tokens) / self.rate) if self.rate else 0
        return {
            "Retry-After": str(max(1, wait)),
            "X-RateLimit-Limit": str(round(self.rate * 60)),
            "X-RateLimit-Remaining": str(int(self.tokens)),
            "X-RateLimit-Reset": str(max(1, wait)),
            "X-RateLimit-Category": category,
        }
