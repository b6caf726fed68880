"""Processes of a demo or a test run (:class:`Processes`): started together, watched together, ended together.

Airflow gives each task a process group of its own, so that killing the group of the scheduler leaves its tasks alive.
All of them stay in the session in which the scheduler was started; that is what is ended here. Run as a module, this
file is the guardian that ends them where the program itself is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPO = Path(__file__).resolve().parents[2]
_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessDied(RuntimeError):
    """A process ended that should have gone on; the message holds the end of its log."""


@dataclass(frozen=True)
class Command:
    """How a process is started: arguments after ``python``, its environment and its log file."""

    name: str
    arguments: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # it may hold a key
    log: Path


class Processes:
    """Start, signal and end processes by name; nothing outlives this object or its program.

    Each process leads a session of its own, so that a Ctrl-C reaches only the program in front, which then ends them
    in order. A guardian ends them where the program itself is killed.
    """

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._leaderless: set[int] = set()
        self._guardian: subprocess.Popen[str] | None = None
        atexit.register(self.stop)

    def start(self, command: Command) -> None:
        """Start a process; its output is appended to its log file."""
        if command.name in self._running:
            raise ValueError(f"{command.name} is still running")
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with _uninterrupted(), command.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command.arguments],
                env=dict(command.env),
                cwd=command.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._commands[command.name] = command
            self._running[command.name] = process
            self._tell_guardian("+", process.pid)

    def run(self, command: Command, timeout: float) -> None:
        """Run a process to its end.

        :raises ProcessDied: Its exit code is not 0.
        :raises TimeoutError: It did not end in time; it is killed.
        """
        self.start(command)
        process = self._running[command.name]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{command.name} took over {timeout:.0f} s\n{self.tail(command.name)}") from error
        finally:
            self.kill(command.name)
        if code:
            raise ProcessDied(f"{command.name} ended with exit code {code}\n{self.tail(command.name)}")

    def restart(self, name: str) -> None:
        """Start a process again that was ended with :meth:`kill`."""
        self.start(self._commands[name])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL, *, grace: float = 20.0) -> None:
        """End a process with a signal and wait until its whole session is gone.

        :param number: SIGKILL ends the whole session at once. Any other signal goes to the leader alone, as from a
            service manager; what is still there after ``grace`` seconds is killed.
        """
        process = self._running.pop(name)
        if number is not signal.SIGKILL:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        end_sessions([process.pid], grace=0)
        process.wait()
        self._tell_guardian("-", process.pid)

    def kill_leader(self, name: str) -> int:
        """Kill the leader alone with SIGKILL; the rest of its session lives on, as tasks outlive their scheduler.

        :return: The session, for :meth:`end_orphans`; :meth:`stop` ends it too.
        """
        process = self._running.pop(name)
        process.kill()
        process.wait()
        self._leaderless.add(process.pid)
        return process.pid

    def end_orphans(self, session: int) -> None:
        """Kill what is left of a session whose leader was killed by :meth:`kill_leader`."""
        # While a member lives its session's number is taken; a process that has it now is a stranger.
        if not psutil.pid_exists(session):
            end_sessions([session], grace=0)
        self._leaderless.discard(session)
        self._tell_guardian("-", session)

    def pid(self, name: str) -> int:
        """Give the process id, which is also the id of its session."""
        return self._running[name].pid

    def names(self) -> list[str]:
        """List the processes that were started and not ended."""
        return list(self._running)

    def ended(self) -> list[str]:
        """List the processes that have ended on their own."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def check(self) -> None:
        """Raise :class:`ProcessDied` where a process has ended on its own."""
        for name, process in self._running.items():
            if (code := process.poll()) is not None:
                raise ProcessDied(f"{name} ended with exit code {code}\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 25) -> str:
        """Give the end of a process's log, headed by its path."""
        text = self.log(name).splitlines()[-lines:]
        return "\n".join([f"--- {self._commands[name].log} ---", *text])

    def log(self, name: str) -> str:
        """Give all that a process has printed."""
        log = self._commands[name].log
        return log.read_text(errors="replace") if log.exists() else ""

    def stop(self, grace: float = 1.5) -> None:
        """End everything; safe to call twice, and not to be cut short by another Ctrl-C."""
        with _uninterrupted(forget=True):
            end_sessions([process.pid for process in self._running.values()], grace)
            for process in self._running.values():
                process.wait()
                self._tell_guardian("-", process.pid)
            self._running.clear()
            for session in list(self._leaderless):
                self.end_orphans(session)
            if self._guardian is not None and self._guardian.stdin is not None:
                self._guardian.stdin.close()
                self._guardian.wait()
                self._guardian = None
        atexit.unregister(self.stop)

    def _tell_guardian(self, sign: str, session: int) -> None:
        if self._guardian is None:
            self._guardian = subprocess.Popen(
                [sys.executable, "-m", "dev.stack.processes"],
                cwd=REPO,
                env={**os.environ, "PYTHONPATH": str(REPO)},
                stdin=subprocess.PIPE,
                start_new_session=True,
                text=True,
            )
        with contextlib.suppress(BrokenPipeError):
            assert self._guardian.stdin is not None
            self._guardian.stdin.write(f"{sign}{session}\n")
            self._guardian.stdin.flush()


@contextlib.contextmanager
def _uninterrupted(*, forget: bool = False) -> Iterator[None]:
    """Hold back Ctrl-C and its like: what is started gets written down, what is being ended gets ended.

    The signals are not masked, because children would inherit the mask. They are raised afterwards, unless ``forget``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in _HELD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught and not forget:
            signal.raise_signal(signal.Signals(caught[0]))


def free_ports(count: int) -> list[int]:
    """Choose ports that nothing listens on; all are held until the last is found, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def child_environment() -> dict[str, str]:
    """Give the environment a child may see: neither the user's own Airflow settings nor a key meant for us."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "TOAPIS_"))}
    local = "127.0.0.1,localhost"
    for name in ("NO_PROXY", "no_proxy"):  # the processes talk to each other over HTTP
        env[name] = f"{env[name]},{local}" if env.get(name) else local
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), env.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    return env


def session_members(sessions: Iterable[int]) -> set[int]:
    """List the living processes of these sessions, zombies left out."""
    wanted = set(sessions)
    found = set()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) in wanted and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def _signal_sessions(sessions: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to every living process of these sessions."""
    for pid in session_members(sessions):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_sessions(sessions: Iterable[int], grace: float) -> set[int]:
    """End these sessions: ask first, then kill.

    :param grace: Seconds between SIGTERM and SIGKILL; 0 kills at once.
    :return: The processes that are still there, normally none.
    """
    chosen = list(sessions)
    if grace > 0:
        _signal_sessions(chosen, signal.SIGTERM)
        _wait_until_gone(chosen, grace)
    for _ in range(3):  # a member may have forked between the listing and the kill
        _signal_sessions(chosen, signal.SIGKILL)
        if not _wait_until_gone(chosen, 2.0):
            return set()
    return session_members(chosen)


def _wait_until_gone(sessions: list[int], seconds: float) -> set[int]:
    deadline = time.monotonic() + seconds
    while (left := session_members(sessions)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def guard() -> None:
    """Read session ids from standard input until it closes, then end those that were announced and not withdrawn.

    The guardian's program: its input closes, too, when the program that started it was killed with SIGKILL.
    """
    for number in _HELD:
        signal.signal(number, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        sign = line[0]
        session = int(line[1:])
        if sign == "+":
            watched.add(session)
        else:
            watched.discard(session)
    if watched:
        end_sessions(watched, grace=0)


if __name__ == "__main__":
    guard()
