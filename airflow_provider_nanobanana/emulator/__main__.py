"""``python -m airflow_provider_nanobanana.emulator``: run the emulator until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from airflow_provider_nanobanana.emulator.faults.rules import WORD_RULES
from airflow_provider_nanobanana.emulator.rate_limit import LimiterKind
from airflow_provider_nanobanana.emulator.settings import Settings, connection_json, url_host

if TYPE_CHECKING:
    from airflow_provider_nanobanana.emulator.server import EmulatorServer


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    words = ", ".join(f"[[{word}]]" for word in WORD_RULES)
    command = argparse.ArgumentParser(
        prog="python -m airflow_provider_nanobanana.emulator",
        description="A local ToAPIs: submits, status queries, uploads and real pictures, without a key and for free.",
        epilog=f"Words in a prompt make an image task misbehave: {words}. Ledger and controls are below /emulator/ on "
        "the API port: ledger, requests, stats, faults, settings, complete, reset. See docs/emulator.md.",
    )
    defaults = Settings()
    add = command.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 only inside a container (%(default)s)")
    add("--port", type=int, default=8787, help="API port, 0 for a free one (%(default)s)")
    add("--files-port", type=int, help="port of the result files, 0 for a free one (the API port + 1)")
    add("--public-files-url", default="", metavar="URL", help="base of result links, for a neighbouring container")
    add("--api-key", default=defaults.api_key, help="the key that is accepted (%(default)s)")
    add("--second-api-key", default="", help="the key of a second account, apart from the first one's image tasks")
    add("--latency", type=float, default=defaults.latency, metavar="S", help="median seconds per image (%(default)s)")
    add("--sigma", type=float, default=defaults.sigma, help="lognormal spread of it, 0 is exact (%(default)s)")
    add("--time-scale", type=float, default=1.0, metavar="X", help="multiplies every latency (%(default)s)")
    add("--submit-rate", type=float, default=defaults.submit_rate, help="submits a second, 0 lifts (%(default)s)")
    add("--query-rate", type=float, default=defaults.query_rate, help="queries a second, 0 lifts (%(default)s)")
    add("--limiter", choices=get_args(LimiterKind), default=defaults.limiter, help="what enforces both (%(default)s)")
    add(
        "--burst-seconds",
        type=float,
        default=defaults.burst_seconds,
        metavar="S",
        help="seconds' worth of a rate that token_bucket and gcra let through at once (%(default)s)",
    )
    add(
        "--limit-headers",
        action=argparse.BooleanOptionalAction,
        default=defaults.limit_headers,
        help="whether refusals carry Retry-After and X-RateLimit-* (they do)",
    )
    add("--credits", type=float, help="credits of the account, 200 are one USD (unlimited)")
    add("--seed", type=int, help="makes latencies and ids repeatable")
    return command


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings a command line asks for.

    :raises ValueError: A value is out of range.
    """
    given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    return Settings().changed(**given)


def greeting(server: EmulatorServer, settings: Settings) -> str:
    """Return the line that says where the emulator is and how a DAG gets there."""
    # What others call this machine, where --public-files-url says so.
    host = url_host(urlsplit(server.files_url).hostname or "127.0.0.1")
    connection = json.dumps(connection_json(f"http://{host}:{server.port}", settings))
    return f"API {server.api_url}  files {server.files_url}  AIRFLOW_CONN_NANOBANANA_DEFAULT='{connection}'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the emulator; return the exit status."""
    command = parser()
    options = command.parse_args(arguments)
    try:
        settings = settings_of(options)
    except ValueError as error:
        command.error(str(error))
    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        print(
            f"The emulator needs {', '.join(missing)}. Airflow brings them today; the extra [emulator] of "
            "airflow-provider-nanobanana installs them where it does not.",
            file=sys.stderr,
        )
        return 1
    return _run(options, settings)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from airflow_provider_nanobanana.emulator.server import EmulatorServer
    from airflow_provider_nanobanana.emulator.service import EmulatedService

    service = EmulatedService(settings, time.time, _print)
    try:
        # Next to a port that happened to be free there need not be another.
        files_port = 0 if options.files_port is None and options.port == 0 else options.files_port
        server = EmulatorServer(service, options.host, options.port, files_port, options.public_files_url)
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port} (or the files port): {error}", file=sys.stderr)
        return 1
    print(greeting(server, settings), flush=True)
    sys.setswitchinterval(0.0005)  # the event loop takes the lock back from an image being drawn within 0.5 ms
    asyncio.run(_serve(server))
    service.images.close()
    return 0


def _print(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


async def _serve(server: EmulatorServer) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.end)
    await server.run_until_end()


if __name__ == "__main__":
    sys.exit(main())
