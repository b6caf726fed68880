"""The schema of manifests, and what it finds wrong with one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import airflow_provider_nanobanana

SCHEMA_PATH = Path(airflow_provider_nanobanana.__file__).parent / "manifest.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema as the package brings it along."""
    content: dict[str, Any] = json.loads(SCHEMA_PATH.read_text())
    return content


def manifest_faults(content: Any) -> list[str]:
    """Return what the schema finds wrong with a manifest, each with its place."""
    return [f"{error.json_path}: {error.message:.300}" for error in _validator().iter_errors(content)]


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())
