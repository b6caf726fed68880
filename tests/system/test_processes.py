"""Nothing outlives the demo: not a task in a group of its own, not after kill -9 of the program itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev.stack.processes import REPO, Command, ProcessDied, Processes, session_members

#: A leader with a child that moves to its own process group, as Airflow's tasks do, and ignores SIGTERM.
FAMILY = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
print("up", flush=True)
time.sleep(600)
"""
PROGRAM = f"""
import signal, sys, time
from pathlib import Path
# A program that a shell put into the background ignores Ctrl-C, and so would this one after it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from dev.stack.processes import Command, Processes
processes = Processes()
processes.start(Command("family", ("-c", {FAMILY!r}), {{}}, Path(sys.argv[1])))
print(processes.pid("family"), flush=True)
time.sleep(600)
"""


def _await(condition: object, what: str) -> None:
    deadline = time.monotonic() + 20
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def _family(log: Path) -> tuple[Processes, int]:
    processes = Processes()
    processes.start(Command("family", ("-c", FAMILY), {}, log))
    session = processes.pid("family")
    _await(lambda: log.read_text().count("up") == 2, "the family")
    assert len(session_members([session])) == 2
    return processes, session


def test_stop_ends_members_that_left_the_group_and_ignore_sigterm(tmp_path: Path) -> None:
    processes, session = _family(tmp_path / "log")
    processes.stop(grace=0.2)
    assert session_members([session]) == set()


def test_kill_and_restart(tmp_path: Path) -> None:
    processes, session = _family(tmp_path / "log")
    try:
        processes.kill("family")
        assert session_members([session]) == set()
        processes.restart("family")
        assert processes.pid("family") != session
        processes.check()
    finally:
        processes.stop(grace=0)


def test_a_family_outlives_its_leader_until_the_orphans_are_ended(tmp_path: Path) -> None:
    processes, session = _family(tmp_path / "log")
    try:
        assert processes.kill_leader("family") == session
        assert len(session_members([session])) == 1
        assert processes.names() == processes.ended() == []
        processes.restart("family")
        processes.end_orphans(session)
        assert session_members([session]) == set()
        assert processes.names() == ["family"]
    finally:
        processes.stop(grace=0)


def test_stop_also_ends_families_without_a_leader(tmp_path: Path) -> None:
    processes, session = _family(tmp_path / "log")
    processes.kill_leader("family")
    processes.stop(grace=0)
    assert session_members([session]) == set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_the_program_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "log")]
    with subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        session = int(program.stdout.readline())
        _await(lambda: (tmp_path / "log").read_text().count("up") == 2, "the family")
        program.send_signal(number)
        program.wait(20)
    _await(lambda: not session_members([session]), "the guardian")


def test_an_early_death_is_reported_with_the_log(tmp_path: Path) -> None:
    processes = Processes()
    try:
        processes.start(Command("brief", ("-c", "raise SystemExit('no such table')"), {}, tmp_path / "log"))
        _await(lambda: session_members([processes.pid("brief")]) == set(), "its end")
        assert processes.ended() == ["brief"]
        with pytest.raises(ProcessDied, match=r"brief ended with exit code 1(.|\n)*no such table"):
            processes.check()
    finally:
        processes.stop(grace=0)
