"""Whatever a module logs comes in lines that a log pane shows whole."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

import airflow_provider_nanobanana
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.text_lines import LINE_WIDTH

PACKAGE = Path(airflow_provider_nanobanana.__file__).parent
log = LineLogger("airflow_provider_nanobanana.some_module")


def test_a_long_message_is_folded_and_named_after_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log.warning("Request %s: %s", "SKU-001", "so many words " * 20)
    log.debug("%s", "not at this level")
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= LINE_WIDTH and lines[0].startswith("Request SKU-001: so many")
    assert (record.levelno, record.name, record.funcName) == (
        logging.WARNING,
        "airflow_provider_nanobanana.some_module",
        "test_a_long_message_is_folded_and_named_after_its_caller",
    )


def test_a_percent_sign_without_values_is_text(caplog: pytest.LogCaptureFixture) -> None:
    log.log(logging.ERROR, "100 % of it")
    assert caplog.messages == ["100 % of it"]


def test_every_module_logs_in_lines() -> None:
    """The emulator and the commands talk to a terminal."""
    own = re.compile(r"logging\.getLogger|self\._?log\.(info|warning|error|exception)\(")
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if own.search(path.read_text())]
    others = {str(module) for module in modules if module.parts[0] not in ("emulator", "cli")}
    # A library is kept quiet; the poller tells each wait what becomes of it; a killed submit folds its one line itself.
    known = {"landing/link_fetcher.py", "polling/subscription.py", "operators/submit.py"}
    assert others == {"toapis/line_logger.py", *known}
