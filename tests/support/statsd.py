"""A StatsD server on loopback that keeps what Airflow's processes send."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final

#: How long a test waits for a datagram; none is lost on loopback while the buffer has room.
_PATIENCE: Final = 20.0


@dataclass(frozen=True)
class Sent:
    """One metric as it came over the wire: ``airflow.nanobanana.failed,code=expired:2|c``."""

    name: str
    tags: Mapping[str, str]
    value: float
    kind: str


class StatsdServer:
    """Listens from entry to exit; ``environment`` makes an Airflow send to it, tags in InfluxDB's notation."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._arrived = threading.Condition()
        self._sent: list[Sent] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of an Airflow that sends here."""
        options = {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(self._port),
            "STATSD_INFLUXDB_ENABLED": "True",
        }
        return {f"AIRFLOW__METRICS__{name}": value for name, value in options.items()}

    @property
    def _port(self) -> int:
        return int(self._socket.getsockname()[1])

    def __enter__(self) -> StatsdServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self._port))
        self._thread.join()
        self._socket.close()

    def named(self, name: str, **tags: str) -> list[Sent]:
        """Return what came under ``airflow.<name>`` with at least these tags, the order of arrival kept."""
        with self._arrived:
            return [sent for sent in self._sent if sent.name == f"airflow.{name}" and tags.items() <= sent.tags.items()]

    def total(self, name: str, **tags: str) -> float:
        """Return the sum of what came under this name with at least these tags."""
        return sum(sent.value for sent in self.named(name, **tags))

    def wait_for(self, name: str, total: float, **tags: str) -> None:
        """Wait until the sum is reached; what is sent at the end of a task may arrive after the run's end."""
        deadline = time.monotonic() + _PATIENCE
        while self.total(name, **tags) < total:
            with self._arrived:
                assert self._arrived.wait(deadline - time.monotonic()), f"{name}: {self.named(name)}"

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            with self._arrived:
                self._sent += [_parsed(line) for line in datagram.decode().splitlines()]
                self._arrived.notify_all()


def _parsed(line: str) -> Sent:
    named, _, rest = line.partition(":")
    name, *tags = named.split(",")
    value, kind = rest.split("|")[:2]
    return Sent(name, dict(tag.split("=", 1) for tag in tags), float(value), kind)
