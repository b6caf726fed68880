"""Another process in this one: it asks Airflow under a lock of its own."""

from __future__ import annotations

import sys
from typing import Any

import pytest


def ask_under(lock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all of our modules take this lock, and no other, when they ask Airflow for something."""
    for name, module in list(sys.modules.items()):
        if name.startswith("airflow_provider_nanobanana.") and hasattr(module, "SUPERVISOR_LOCK"):
            monkeypatch.setattr(module, "SUPERVISOR_LOCK", lock)
