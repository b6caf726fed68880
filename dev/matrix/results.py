"""What pytest's JUnit file says of a part, whether its skips are the known ones, and the table of all parts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from dev.stack.airflow_venv import REPO

#: By Airflow and part: how many tests are skipped for which reason that names an Airflow.
KNOWN_SKIPS: Final = REPO / "tests" / "support" / "version_skips.json"
_BY_VERSION: Final = re.compile(r"Airflow \d+\.\d+ and newer: .+")

Skips = Mapping[str, int]


@dataclass(frozen=True)
class Result:
    """One part of one row at its end.

    :param python: ``3.11``.
    :param verdict: What is said in its last column; empty where all is well.
    :param version_skips: How many tests were skipped for want of what a newer Airflow has, by reason.
    """

    airflow: str
    python: str
    part: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    exit_code: int = 0
    verdict: str = ""
    version_skips: Skips = field(default_factory=dict)


def read_junit(file: Path) -> tuple[int, int, int, Skips]:
    """Return how many tests passed, failed (errors are failures) and were skipped, and the skips of this version."""
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    messages = [skip.get("message", "") for case in cases if (skip := case.find("skipped")) is not None]
    # Of a module that is skipped whole, the text says why.
    texts = [skip.text or "" for case in cases if (skip := case.find("skipped")) is not None]
    found = (_BY_VERSION.search(f"{message} {text}") for message, text in zip(messages, texts, strict=True))
    reasons = Counter(match[0].split("'")[0].split(" /")[0].strip() for match in found if match)
    return len(cases) - failed - len(messages), failed, len(messages), dict(sorted(reasons.items()))


def unknown_skips(result: Result) -> str:
    """Say how the skips differ from what is written down for this Airflow and part; empty where they do not.

    Where nothing is written down for them, nothing is compared.
    """
    known = _known().get(result.airflow, {}).get(result.part)
    if known is None or known == result.version_skips:
        return ""
    return f"skips {json.dumps(result.version_skips)}, written down {json.dumps(known)} ({KNOWN_SKIPS.name})"


def write_skips(results: Sequence[Result]) -> None:
    """Write down the skips of these parts; those of other Airflows and parts stay."""
    known = _known()
    for result in results:
        if result.exit_code == 0:
            known.setdefault(result.airflow, {})[result.part] = dict(result.version_skips)
    KNOWN_SKIPS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def table(results: Sequence[Result]) -> str:
    """Write the parts as a table in Markdown."""
    lines = ["| Airflow | Python | part | passed | failed | skipped | minutes | |", "|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {one.airflow} | {one.python} | {one.part} | {one.passed} | {one.failed} | {one.skipped} "
        f"| {one.seconds / 60:.1f} | {one.verdict} |"
        for one in results
    ]
    return "\n".join(lines)


def _known() -> dict[str, dict[str, dict[str, int]]]:
    return json.loads(KNOWN_SKIPS.read_text()) if KNOWN_SKIPS.exists() else {}
