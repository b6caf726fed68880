"""The processes of a demo or a test run: started together, watched together, ended together."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dev.stack import sessions

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
        self._headless: set[int] = set()
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
            self._tell("+", process.pid)

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
        sessions.sweep([process.pid], grace=0)
        process.wait()
        self._tell("-", process.pid)

    def behead(self, name: str) -> int:
        """Kill the leader alone with SIGKILL; the rest of its session lives on, as tasks outlive their scheduler.

        :return: The session, for :meth:`bury`; :meth:`stop` ends it too.
        """
        process = self._running.pop(name)
        process.kill()
        process.wait()
        self._headless.add(process.pid)
        return process.pid

    def bury(self, session: int) -> None:
        """Kill what is left of a session whose leader was killed by :meth:`behead`."""
        # While a member lives its session's number is taken; a process that has it now is a stranger.
        if not psutil.pid_exists(session):
            sessions.sweep([session], grace=0)
        self._headless.discard(session)
        self._tell("-", session)

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
        log = self._commands[name].log
        text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
        return "\n".join([f"--- {log} ---", *text])

    def stop(self, grace: float = 1.5) -> None:
        """End everything; safe to call twice, and not to be cut short by another Ctrl-C."""
        with _uninterrupted(forget=True):
            sessions.sweep([process.pid for process in self._running.values()], grace)
            for process in self._running.values():
                process.wait()
                self._tell("-", process.pid)
            self._running.clear()
            for session in list(self._headless):
                self.bury(session)
            if self._guardian is not None and self._guardian.stdin is not None:
                self._guardian.stdin.close()
                self._guardian.wait()
                self._guardian = None
        atexit.unregister(self.stop)

    def _tell(self, sign: str, session: int) -> None:
        if self._guardian is None:
            self._guardian = subprocess.Popen(
                [sys.executable, "-m", "dev.stack.sessions"],
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
