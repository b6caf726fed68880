"""The log of requests: who asked for what, whether a key came along, and what was answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from airflow_provider_nanobanana.emulator.service import EmulatedService

MAX_ENTRIES = 50_000
NOTE = "emulator.note"  # scope key of the function that notes a status which ASGI does not see; the first one counts


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
        self.peaks: dict[str, int] = {}
        self._second: dict[str, tuple[int, int]] = {}

    def note(self, entry: LoggedRequest) -> None:
        """Add one request."""
        self.entries.append(entry)
        self.by_point[entry.point, entry.status] += 1
        self.by_kind[entry.kind, entry.status] += 1
        second, count = self._second.get(entry.point, (0, 0))
        count = count + 1 if second == int(entry.at) else 1
        self._second[entry.point] = (int(entry.at), count)
        self.peaks[entry.point] = max(count, self.peaks.get(entry.point, 0))

    def as_list(self) -> list[dict[str, Any]]:
        """Return the newest requests, oldest first, as plain JSON."""
        return [asdict(entry) for entry in self.entries]

    def stats(self) -> dict[str, Any]:
        """Return counts by kind and by point with their statuses, and the busiest second of each point."""
        return {
            "requests": sum(self.by_kind.values()),
            "by_kind": _nested(self.by_kind),
            "by_point": _nested(self.by_point),
            "peak_per_second": dict(self.peaks),
        }


def _nested(counts: Counter[tuple[str, int]]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (name, status), count in sorted(counts.items()):
        nested.setdefault(name, {})[str(status)] = count
    return nested


def point_of(kind: str, method: str, path: str) -> str:
    """Return the name of what a request is for."""
    if kind == "files":
        return "download_upload" if path.startswith("/uploads/") else "result"
    if path.startswith("/v1/images/generations"):
        return "submit" if method == "POST" else "status"
    exact = {"/v1/models": "models", "/v1/balance": "balance", "/v1/user/balance": "balance"}
    return "upload" if path == "/v1/uploads/images" else exact.get(path, "other")


class RequestLogMiddleware:
    """ASGI wrapper that notes every request but those to the control API.

    :param service: Where the current journal and key are found; both change with a reset.
    """

    def __init__(self, app: ASGIApp, kind: str, service: EmulatedService) -> None:
        self.app = app
        self.kind = kind
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and note it when its answer begins, or when it ends without one."""
        if scope["type"] != "http" or scope["path"].startswith("/emulator/"):
            await self.app(scope, receive, send)
            return
        at, noted = time.time(), False

        def note(status: int) -> None:
            nonlocal noted
            if not noted:
                noted = True
                self._note(scope, at, status)

        async def noting(message: Message) -> None:
            # Before the bytes leave, so that a client that has its answer also finds the entry.
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        scope[NOTE] = note
        try:
            await self.app(scope, receive, noting)
        except asyncio.CancelledError:
            pass  # the emulator ends; nobody is left to whom uvicorn's traceback would say anything
        finally:
            note(0)

    def _note(self, scope: Scope, at: float, status: int) -> None:
        headers = dict(scope["headers"])
        key = self.service.settings.api_key.encode()
        path = scope["path"]
        query = scope["query_string"]
        self.service.request_log.note(
            LoggedRequest(
                at=at,
                kind=self.kind,
                point=point_of(self.kind, scope["method"], path),
                method=scope["method"],
                path=path + ("?" + query.decode("latin-1") if query else ""),
                host=headers.get(b"host", b"").decode("latin-1"),
                authorization=b"authorization" in headers,
                key_seen=key in scope["raw_path"] + query or any(key in value for value in headers.values()),
                status=status,
            )
        )
