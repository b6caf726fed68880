"""What the figures were measured on and with; no names of machines and no paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("apache-airflow", "httpx")


def describe() -> str:
    """Return processor, memory and versions in one line."""
    cores = os.cpu_count() or 1
    parts = [
        f"{cores} {'core' if cores == 1 else 'cores'} of {_processor(_read('/proc/cpuinfo'))}",
        *_memory(_read("/proc/meminfo")),
        f"{platform.system()}, Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in _PACKAGES),
    ]
    return ", ".join(parts)


def _processor(cpuinfo: str) -> str:
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory(meminfo: str) -> list[str]:
    totals = [int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("MemTotal:")]
    return [f"{totals[0] / 2**20:.0f} GiB of memory"] if totals else []


def _read(name: str) -> str:
    path = Path(name)
    return path.read_text() if path.exists() else ""
