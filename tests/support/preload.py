"""What a task instance imports while it runs, imported once, by the process that forks the others."""

from __future__ import annotations

import gc
import pkgutil
from importlib import import_module

from PIL import Image

import airflow_provider_nanobanana
from airflow_provider_nanobanana import compat

_PACKAGES = ("batch", "durable", "hooks", "landing", "polling", "submission", "toapis", "triggers")


def preload() -> None:
    """Import it: every module of what works in a task, and what Airflow imports to find connections and plugins."""
    for package in _PACKAGES:
        folder = import_module(f"{airflow_provider_nanobanana.__name__}.{package}")
        for module in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}."):
            import_module(module.name)
    import_module("airflow.sdk.execution_time.supervisor")
    compat.reads_hook_lineage()
    Image.preinit()
    # No collection of a fork looks through it, nor copies its pages.
    gc.freeze()
