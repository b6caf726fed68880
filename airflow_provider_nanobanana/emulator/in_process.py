"""The emulator inside a test's process (:class:`Emulator`)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from airflow_provider_nanobanana.emulator.server import EmulatorServer
from airflow_provider_nanobanana.emulator.service import EmulatedService
from airflow_provider_nanobanana.emulator.settings import Settings, connection_json

T = TypeVar("T")


def _silent(line: str) -> None:
    """Ignore an event line."""


class Emulator:
    """A ToAPIs of one's own in a background thread: ``with Emulator(latency=0) as emulator: ...``.

    Every method may be called from any thread; it runs on the emulator's event loop and returns when done.

    :param clock: Epoch seconds; decides latencies, expiry and allowances, so that a test need not wait.
    :param echo: Receives one line per submit and completion; silent by default.
    :param settings: Any of :class:`Settings`, by name.
    :raises ValueError: A setting is wrong.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        files_port: int = 0,
        clock: Callable[[], float] = time.time,
        echo: Callable[[str], None] = _silent,
        **settings: Any,
    ) -> None:
        self._address = (host, port, files_port)
        self.service = EmulatedService(Settings().changed(**settings), clock, echo)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        # Bound and listening: clients may connect from here on.
        self._server = EmulatorServer(self.service, *self._address)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="toapis-emulator", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._server.end)
        self._thread.join()
        self.service.images.close()

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            ready.set()
            await self._server.run_until_end()

        try:
            asyncio.run(main())
        finally:
            self._loop = None

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function on the emulator's loop; once it has ended there is no one to disturb and it runs here."""
        loop = self._loop
        if loop is None:
            return function()

        async def there() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(there(), loop).result()

    @property
    def api_url(self) -> str:
        """Base URL of the API, without ``/v1``."""
        return self._server.api_url

    @property
    def files_url(self) -> str:
        """Base URL of result links and uploads."""
        return self._server.files_url

    @property
    def api_key(self) -> str:
        """The key that is accepted."""
        return self.service.settings.api_key

    def connection_json(self, **extra: Any) -> str:
        """Return the value for ``AIRFLOW_CONN_NANOBANANA_DEFAULT``; ``extra`` is added to the connection's extra."""
        return json.dumps(connection_json(self.api_url, self.service.settings, **extra))

    def ledger(self) -> dict[str, Any]:
        """Return ``image_tasks`` (a list), ``count``, ``by_status``, ``charged_usd``, ``refunded_usd``, ``net_usd`` and
        ``duplicates`` (client id -> how often charged, where more than once)."""
        return self._call(self.service.ledger_dict)

    def requests(self) -> list[dict[str, Any]]:
        """Return the newest requests, oldest first; fields as in :class:`.LoggedRequest`."""
        return self._call(self.service.request_log.as_list)

    def stats(self) -> dict[str, Any]:
        """Return ``requests``, ``by_kind``, ``by_point`` (each: name to HTTP status to count),
        ``peak_per_second`` (the busiest second of each point), ``image_tasks`` and
        ``pending`` (prompts of the submits that are being accepted)."""
        return self._call(self.service.stats)

    def fault(self, *, on: str, kind: str, **params: Any) -> None:
        """Add one fault behind those in force; see :data:`.KINDS` for kinds and parameters.

        :raises ValueError: Point, kind or parameter is unknown.
        """
        self._call(lambda: self.service.faults.add({"on": on, "kind": kind, **params}))

    def faults(self) -> list[dict[str, Any]]:
        """Return the rules in force, each with ``hits``, how often it applied."""
        return self._call(self.service.faults.as_list)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._call(self.service.faults.clear)

    def configure(self, **settings: Any) -> None:
        """Change settings; see :class:`Settings`.

        :raises ValueError: A name or value is wrong.
        """
        self._call(lambda: self.service.configure(**settings))

    def complete_all(self) -> int:
        """Let everything that runs be done now; return how many that were."""
        return self._call(self.service.complete_all)

    def reset(self) -> None:
        """Forget image tasks, faults, requests and files, and go back to the settings of the start."""
        self._call(self.service.reset)
