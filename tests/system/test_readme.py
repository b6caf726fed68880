"""What README and the quick start have for a shell, pasted into one in an empty folder: both end with pictures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dev.stack.processes import child_environment, free_ports, session_members
from tests.support.pages import snippets

(README,) = (each.text for each in snippets("sh") if each.page == "README.md" and "airflow dags test" in each.text)
#: All but the installation, which needs the network.
QUICK_START = "".join(each.text for each in snippets("sh") if each.page == "quickstart.md" and "pip" not in each.text)


def _port() -> int:
    """Return a free port whose neighbour is free too: the emulator serves its files there."""
    while True:
        (port,) = free_ports(1)
        with socket.socket() as neighbour:
            try:
                neighbour.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
        return port


@pytest.fixture
def shells() -> Iterator[list[subprocess.Popen[str]]]:
    """The shells of a test; nothing of them is left behind it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for left in session_members([shell.pid for shell in started]):
        os.kill(left, signal.SIGKILL)
    for shell in started:
        shell.wait()


def test_what_is_pasted_ends_with_pictures(tmp_path: Path, shells: list[subprocess.Popen[str]]) -> None:
    assert len(README.splitlines()) <= 10
    environment = child_environment()
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    for name, text in {"readme": README, "quickstart": QUICK_START}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pasted").write_text(text.replace("8787", str(_port())))
        shells.append(
            subprocess.Popen(
                ["bash", "-c", "exec > ../$1.log 2>&1 < pasted; rm pasted; exec bash", "-", name],
                cwd=tmp_path / name,
                env=environment,
                start_new_session=True,
                text=True,
            )
        )
    for shell, name, pictures in zip(shells, ("readme", "quickstart"), (1, 2), strict=True):
        ended = shell.wait(timeout=270)
        output = (tmp_path / f"{name}.log").read_text()
        assert ended == 0, output
        found = sorted((tmp_path / name / "pictures").glob("*.png"))
        assert len(found) == pictures
        assert output.splitlines()[-pictures:] == [str(path.relative_to(tmp_path / name)) for path in found]
        for path in found:
            with Image.open(path) as image:
                image.load()
