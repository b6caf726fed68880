"""Answers that are too long, packed too well or nested too deep: for how long does one hold up the triggerer?

- `answer-stall`: one process and one trigger after another, each of which is sent one answer as below by a server in
  another process. The stall is the longest time for which the event loop, on which all triggers of an installation run,
  did nothing else; memory is what the process's highest resident size grew by. "Final" means that the wait ends and the
  worker reads the answer. The heap is that of a process that has imported Airflow: 160,000 objects, one full garbage
  collection of which takes 90 ms (the longest one of each wait is measured beside it).
"""

from __future__ import annotations

import gzip
import json
import socket
import string
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice, product

from dev.benchmarks.child import child
from dev.benchmarks.scenario import SIDES, Bench, Figures, Goal, Measured, Scenario, Side, seconds

_MB = 1_000_000
_RUNNING = {"id": "image-task", "status": "in_progress", "model": "nano_banana_2"}
#: Seconds that a trigger waits at most: what it takes for an error of the moment is polled again until then.
_WAIT = 5.0


def answers(size: int) -> dict[str, bytes]:
    """Return whole HTTP answers by what is in them.

    :param size: Bytes of JSON in the long ones, unpacked.
    """
    head = json.dumps(_RUNNING)[:-1].encode()
    completed = head.replace(b"in_progress", b"completed")
    lists = head + b',"a":[' + b"[]," * (size // 3) + b"[]]}"
    picture = completed + b',"result":{"data":[{"b64_json":"' + b"iVBORw0K" * (size // 8) + b'"}]}}'
    links = completed + b',"q":[' + b'"http://a/b.png",' * (size // 17) + b'"x"]}'
    short = {
        "255 kB of empty lists": head + b',"a":[' + b"[]," * 85_000 + b"[]]}",
        "255 kB of links": completed + b',"q":[' + b'"http://a/b.png",' * 15_000 + b'"x"]}',
        "255 kB in 4,900 texts": completed + b',"q":[' + b'"%s",' % (b"a " * 25) * 4_800 + b'"x"]}',
        "255 kB of opening tags": b"<script>" * 32_000,
        "nested 100,000 deep": head + b',"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    }
    long = {
        f"{size // _MB} MB of empty lists, gzip": lists,
        f"{size // _MB} MB of links, gzip": links,
        f"{size // _MB} MB message of an error, gzip": b'{"error":{"message":"' + b"a " * (size // 2) + b'"}}',
        f"{size // _MB} MB of a web page, gzip": b"<" * size,
    }
    names = map("".join, product(string.ascii_lowercase, repeat=3))
    headers = [f"{name}:" for name in islice(names, 16_900)]
    plain = {f"an image of {size // _MB} MB in base64": picture, **short}
    packed = {name: _answer(gzip.compress(body, 6), "Content-Encoding: gzip") for name, body in long.items()}
    return {
        **{name: _answer(body) for name, body in plain.items()},
        **packed,
        "16,900 headers": _answer(json.dumps(_RUNNING).encode(), *headers),
    }


def _answer(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


class Server:
    """Sends one answer to everybody until it is given another.

    :param content: The answer, as it goes over the wire.
    """

    def __init__(self) -> None:
        self.content = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve within the block."""
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(self.content)
            except OSError:
                return  # it was hung up on


def measure(bench: Bench) -> Measured:
    """Measure both sides, each in a process of its own."""
    size = 3 * _MB if bench.quick else 30 * _MB
    sides = {side: _measure_side(bench, side, answers(size)) for side in SIDES}
    return Measured({"size": size, "wait": _WAIT}, sides["ours"], sides["baseline"])


def _measure_side(bench: Bench, side: Side, cases: Mapping[str, bytes]) -> Figures:
    folder = bench.fresh(f"answer-stall-{side}")
    server = Server()
    connection = json.dumps({"conn_type": "nanobanana", "host": server.url, "password": "sk-benchmark"})
    found: Figures = {}
    with server.serving(), child(folder, connection, "answer_process", side) as process:
        server.content = _answer(json.dumps({**_RUNNING, "status": "failed"}).encode())
        process.ask(id=_RUNNING["id"], seconds=_WAIT)  # what is imported once
        for name, content in cases.items():
            server.content = content
            found[name] = {"wire": len(content), **process.ask(id=_RUNNING["id"], seconds=_WAIT)}
            bench.say(f"answer-stall-{side}: {name}: {found[name]}")
    return {"answers": found}


def page(results: Mapping[str, Measured]) -> str:
    """Return every answer with what it did to both sides, as a section of the page; empty without a run."""
    if (one := results.get("answer-stall")) is None:
        return ""
    lines = [
        "\n## What one answer does to the triggerer\n",
        "| answer | on the wire | ours: stall, memory, wait | baseline: stall, memory, wait |",
        "|---|---|---|---|",
    ]
    for name, ours in one.ours["answers"].items():
        baseline = (one.baseline or {"answers": {}})["answers"].get(name)
        cells = [_cell(of) if of else "" for of in (ours, baseline)]
        lines.append(f"| {name} | {ours['wire'] / 1000:,.0f} kB | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(of: Figures) -> str:
    return f"{seconds(of['stall'])}, {of['memory'] / 1e6:.0f} MB, {of['outcome']}"


def _worst(of: Figures, figure: str) -> tuple[str, float]:
    name = max(of["answers"], key=lambda one: of["answers"][one][figure])
    return name, float(of["answers"][name][figure])


def _shown(of: Figures) -> str:
    slowest, stall = _worst(of, "stall")
    return f"{seconds(stall)} ({slowest}), {_worst(of, 'memory')[1] / 1e6:.0f} MB more"


SCENARIOS = [
    Scenario(
        "answer-stall",
        measure,
        [
            Goal(
                "one answer of up to 30 MB: longest stall of the triggerer's event loop, memory added",
                "< 50 ms, < 10 MB",
                _shown,
                lambda ours, _: _worst(ours, "stall")[1] < 0.05 and _worst(ours, "memory")[1] < 10 * _MB,
                today="20.9 s, 1,700 MB (134 KiB on the wire)",
            )
        ],
    )
]
