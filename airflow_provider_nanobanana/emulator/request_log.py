"""Who asked for what, whether a key came along, and what was answered (:class:`RequestLog`)."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

MAX_ENTRIES = 50_000
#: Characters of a path, or of a host, that are kept.
LONGEST_TEXT = 2_000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request.

    :param at: Epoch seconds of arrival (real time, also where the emulator's clock is a test's).
    :param kind: ``api`` or ``files``.
    :param point: submit, status, models, balance, upload, result, download_upload or other.
    :param authorization: Whether an ``Authorization`` header came along.
    :param key_seen: Whether the API key stood anywhere in the headers or the URL.
    :param status: HTTP status that was sent; 0 where the connection was dropped instead, by either side.
    """

    at: float
    kind: str
    point: str
    method: str
    path: str
    host: str
    authorization: bool
    key_seen: bool
    status: int


class RequestLog:
    """The newest requests in full, and counts of all of them."""

    def __init__(self) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=MAX_ENTRIES)
        self.by_point: Counter[tuple[str, int]] = Counter()
        self.by_kind: Counter[tuple[str, int]] = Counter()
        self._peaks: dict[str, int] = {}
        self._this_second: dict[str, tuple[int, int]] = {}

    def add(self, entry: LoggedRequest) -> None:
        """Add one request."""
        self.entries.append(entry)
        self.by_point[entry.point, entry.status] += 1
        self.by_kind[entry.kind, entry.status] += 1
        second, requests = self._this_second.get(entry.point, (0, 0))
        requests = requests + 1 if second == int(entry.at) else 1
        self._this_second[entry.point] = (int(entry.at), requests)
        self._peaks[entry.point] = max(requests, self._peaks.get(entry.point, 0))

    def as_list(self) -> list[dict[str, Any]]:
        """Return the newest requests, oldest first, as plain JSON."""
        return [asdict(entry) for entry in self.entries]

    def stats(self) -> dict[str, Any]:
        """Return how many requests there were, and counts by kind and by point with their statuses, and the busiest
        second of each point."""
        return {
            "requests": self.by_kind.total(),
            "by_kind": _nested(self.by_kind),
            "by_point": _nested(self.by_point),
            "peak_per_second": dict(self._peaks),
        }


def _nested(counts: Counter[tuple[str, int]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (name, status), count in sorted(counts.items()):
        nested.setdefault(name, {})[str(status)] = count
    return nested
