"""The block of the README that ends with a picture, pasted into a shell in an empty folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from dev.stack.processes import child_environment, free_ports, session_members
from tests.support.pages import snippets

(BLOCK,) = (each.text for each in snippets("sh") if "airflow dags test" in each.text)


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


def test_the_block_ends_with_a_picture(tmp_path: Path) -> None:
    assert len(BLOCK.splitlines()) <= 10
    environment = child_environment()
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    shell = subprocess.Popen(
        ["bash"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(BLOCK.replace("8787", str(_port())), timeout=240)
        while session_members([shell.pid]):  # the block ends the emulator; the test's own timeout is the bound
            time.sleep(0.05)
    finally:
        for left in session_members([shell.pid]):
            os.kill(left, signal.SIGKILL)
    assert shell.returncode == 0, output
    (picture,) = (tmp_path / "pictures").glob("*.png")
    assert output.splitlines()[-1] == str(picture.relative_to(tmp_path))
    with Image.open(picture) as image:
        image.load()
        assert image.size == (1024, 1024)
