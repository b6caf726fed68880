"""Decode images in one child process per worker process, within bounds of time and memory.

A legal file of some kilobytes can hold a decoder for hours, and one of some megabytes take gigabytes. The child
(:mod:`decoder_child`) is started with the first image and given one file after another; what takes more than its limits
ends with the child, and the next file gets a new one. It sees neither the environment nor the files, sockets and
signals of the task, and ends when this process is gone. ``subprocess`` and not ``multiprocessing``, which refuses to
start one from a daemonic worker of Celery.

Where no child can be started, images are decoded in this process and the log says so once: then the bounds are those of
:mod:`image_file` alone: bytes, pixels, and the number of parts of a file.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, cast

import airflow_provider_nanobanana
from airflow_provider_nanobanana.landing import fit_reference as fitting
from airflow_provider_nanobanana.landing.decode_outcome import (
    IMAGE_LIMITS,
    LARGE_REFERENCE_LIMITS,
    Ending,
    MachineLacks,
    NotAnImage,
    Outcome,
    TooCostly,
    judge_ending,
)
from airflow_provider_nanobanana.landing.decoder_messages import (
    CHECK,
    CHECK_REFERENCE,
    FILE,
    FIT,
    LENGTH,
    THUMBNAIL,
    THUMBNAIL_ALONE,
    fit_for,
    formats_of,
    from_json,
    has_thumbnail,
    is_reference,
    receive,
)
from airflow_provider_nanobanana.landing.fit_reference import MOST_BYTES, FittedReference
from airflow_provider_nanobanana.landing.image_file import (
    MAX_BYTES,
    ImageFacts,
    detect_format,
    inspect_bytes,
    inspect_reference,
)
from airflow_provider_nanobanana.landing.shrink_picture import MOST_BYTES as MOST_THUMBNAIL
from airflow_provider_nanobanana.landing.shrink_picture import SmallPicture
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly, StorageFailed
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.redaction import one_line

log = LineLogger(__name__)

#: Seconds within which a child is ready; about 0.2 where the interpreter's files are at hand.
_START_SECONDS: Final = 30.0
#: Seconds that a process gets to be gone when it has closed its socket, or was killed.
_END_SECONDS: Final = 5.0
#: Seconds that the end of this process waits for a file that is being decoded.
_CLOSE_SECONDS: Final = 1.0
#: Seconds that are waited for a thumbnail when the image is known to be good; some milliseconds are usual.
_THUMBNAIL_SECONDS: Final = 10.0
_PIECE: Final = 256 * 1024
_LONGEST_ANSWER: Final = 64 * 1024
#: Bytes of a content that tell its format.
_HEAD: Final = 16
#: What a start fails with that may succeed a moment later.
_TEMPORARY: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
#: Of the environment, which holds connections and keys, the child gets where libraries are; and one arena of memory for
#: all threads, as each takes 64 MiB of the address space that is limited.
_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
#: Neither `site` nor PYTHONPATH: what they load may be Airflow itself, or a `PIL` of a folder of DAG files. The package
#: is found where this one is, then Pillow where this process would find it; the standard library comes before both.
_BOOT: Final = """
import sys
sys.path.append(sys.argv[1])
import airflow_provider_nanobanana.landing.decoder_child as child
sys.path[-1] = sys.argv[2]
child.main()
"""


def decode_file(path: str | os.PathLike[str], *, thumbnail: bool = False) -> ImageFacts:
    """Check that a file is one complete image and return its facts.

    :param path: A local file; it is only read.
    :param thumbnail: Whether to make one, too, of the same decoding; what goes wrong with it only leaves it empty.
    :raises ImageInvalid: As :func:`inspect_bytes`, and a file of more than 64 MiB.
    :raises ImageTooCostly: It takes more than 10 s of processor time or 512 MiB to decode, or crashes the decoder.
    :raises StorageFailed: This machine could not decode it now.
    :raises OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise ImageInvalid(f"The file has {size:,} bytes; at most {MAX_BYTES:,} are taken")
        return _decoder.inspect(file, size, thumbnail=thumbnail)


def decode_reference(data: bytes) -> ImageFacts:
    """Check that the content is one complete image of up to 80 megapixels and return its facts.

    :raises ImageInvalid: As :func:`inspect_reference`.
    :raises ImageTooCostly: As :func:`decode_file`; above 20 megapixels it may take 40 s and 2 GiB.
    :raises StorageFailed: This machine could not decode it now.
    """
    return _decoder.inspect(io.BytesIO(data), len(data), reference=True)


def fit_reference(data: bytes, formats: Collection[str] = fitting.FORMATS) -> FittedReference:
    """Check that the content is one complete image of up to 80 megapixels, and make it fit for the service.

    :param formats: Those that its model takes.
    :raises ImageInvalid: As :func:`inspect_reference`.
    :raises ImageTooCostly: It takes more than 40 s of processor time or 2 GiB, or crashes the decoder.
    :raises StorageFailed: This machine could not decode it now.
    """
    return _decoder.fit(data, formats)


def decode_thumbnail(data: bytes) -> bytes:
    """Return the picture as a small WebP; whether it is complete is not found out, but where it shows.

    Never in this process: where no child can be started, there is no thumbnail.

    :raises ImageInvalid: As :func:`inspect_bytes`, or nothing small can be made of it.
    :raises ImageTooCostly: As :func:`decode_file`.
    :raises StorageFailed: This machine could not decode it now.
    """
    return _decoder.thumbnail(data)


class Decoder:
    """The child process of this one, started when it is needed; safe to use from several threads, one file at a time.

    :param command: What is started; the child that this package brings when absent.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._worked = False
        self._unavailable = False

    def inspect(self, file: BinaryIO, size: int, *, reference: bool = False, thumbnail: bool = False) -> ImageFacts:
        """Return the facts of an image that is read from the file's beginning; errors as of :func:`decode_file`."""
        check = CHECK | THUMBNAIL if thumbnail else CHECK
        outcome = self._outcome(file, size, CHECK_REFERENCE if reference else check)
        return outcome.facts if isinstance(outcome, FittedReference) else outcome

    def thumbnail(self, data: bytes) -> bytes:
        """Return the picture as a small WebP; errors as of :func:`decode_thumbnail`."""
        outcome = self._outcome(io.BytesIO(data), len(data), THUMBNAIL_ALONE)
        if not isinstance(outcome, ImageFacts) or not outcome.thumbnail:
            raise ImageInvalid("The image could not be made small")
        return outcome.thumbnail

    def fit(self, data: bytes, formats: Collection[str] = fitting.FORMATS) -> FittedReference:
        """Return a reference image as it is to be sent; errors as of :func:`fit_reference`."""
        outcome = self._outcome(io.BytesIO(data), len(data), fit_for(formats))
        return outcome if isinstance(outcome, FittedReference) else FittedReference(outcome)

    def _outcome(self, file: BinaryIO, size: int, wanted: int) -> ImageFacts | FittedReference:
        outcome: Outcome
        again = False
        with self._lock:
            # What is said against an image is said without its thumbnail, which may have been what went wrong.
            for tried in (wanted, wanted & ~THUMBNAIL):
                child = self._running()
                if child is None:
                    return _inspect_here(file, tried)
                outcome = self._ask(child, file, size, tried, again=again)
                again = isinstance(outcome, MachineLacks)
                if isinstance(outcome, ImageFacts) or not (again or tried & THUMBNAIL):
                    break
        return _facts(outcome)

    def close(self) -> None:
        """End the child, if there is one, also while a thread waits for it; the next file gets a new one.

        A task's process does so at its end: not every container has a PID 1 that reaps what outlives its parent.
        """
        if self._child is None:
            return
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._end_child()
            finally:
                self._lock.release()
        elif (child := self._child) is not None:
            child.cut_short()

    def forget(self) -> None:
        """Let go of a child that belongs to the process from which this one was forked."""
        child, self._child = self._child, None
        if child is not None:
            child.disown()

    def _ask(self, child: _Child, file: BinaryIO, size: int, wanted: int, *, again: bool) -> Outcome:
        try:
            outcome = child.decode(file, size, wanted=wanted, again=again)
        except BaseException:
            # The task's time is over, or the file cannot be read: the child is in the middle of it.
            self._child = None
            child.kill()
            raise
        if child.ended:
            self._child = None
            log.warning("The process that decodes images ended and is started again: %s; %s", outcome, child.last_words)
        return outcome

    def _running(self) -> _Child | None:
        """Return the child, started where there is none; None where none can be, and none ever was.

        :raises StorageFailed: None could be started now, but one was before, or may be later.
        """
        if self._child is not None and not self._child.is_alive():
            self._end_child()
        if self._child is None and not self._unavailable:
            self._start()
        return self._child

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _start(self) -> None:
        why = ""
        lasting = True
        for _ in range(2):
            try:
                child = _Child(self._command or _child_command())
            except OSError as error:
                why, lasting = f"{type(error).__name__}: {error}", error.errno not in _TEMPORARY
                continue
            try:
                why, lasting = child.wait_until_ready()
            except BaseException:
                child.kill()
                raise
            if not why:
                if not self._worked:
                    atexit.register(self.close)
                self._child, self._worked = child, True
                return
        if self._worked or not lasting:
            raise StorageFailed(f"Could not start the process that decodes images: {why}")
        self._unavailable = True
        log.warning(
            "Images are decoded in the worker's own process, without limits of time and memory, as no process of "
            "their own can be started: %s",
            why,
        )


class _Gone(Exception):
    """The child closed its socket."""


class _Overdue(Exception):
    """The child did not answer in time."""


class _Child:
    """One child process and the socket to it.

    :raises OSError: It cannot be started.
    """

    def __init__(self, command: list[str]) -> None:
        self.ended = False
        self.last_words = ""
        self._channel, theirs = socket.socketpair()
        with theirs:
            try:
                # Of this process it gets no descriptor: in a task of Airflow's, 0, 1 and 2 are sockets to the
                # supervisor, which waits until everybody has closed them.
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    cwd="/",
                    env=_environment(),
                    start_new_session=True,  # a signal to the task's process group is not meant for it
                )
            except BaseException:
                self._channel.close()
                raise

    def wait_until_ready(self) -> tuple[str, bool]:
        """Return "" when it is ready for files; otherwise why it is not, in words, and whether that will last."""
        lasting = False
        try:
            if self._answer(_START_SECONDS) == b"":
                return "", lasting
            why, lasting = "it is another program", True
        except _Overdue:
            why = f"it was not ready within {_START_SECONDS:.0f} s"
            self._process.kill()
        except _Gone:
            why = "it ended"
        status = self.end()
        # One that was killed met a machine that is short of memory, or of time.
        lasting = lasting or status != -signal.SIGKILL
        return f"{why} (status {status}: {self.last_words or 'without a word'})", lasting

    def decode(self, file: BinaryIO, size: int, *, wanted: int, again: bool) -> Outcome:
        """Have a file decoded; the child has ended where that says so afterwards.

        :param again: Whether a child before ended with this file.
        :raises OSError: The file cannot be read.
        """
        limits = LARGE_REFERENCE_LIMITS if is_reference(wanted) else IMAGE_LIMITS
        file.seek(0)
        try:
            # What a slow disk takes to read the file is not the decoder's time.
            self._send(FILE.pack(size, wanted), limits.wall_seconds)
            for piece in _pieces(file, size):
                self._send(piece, limits.wall_seconds)
            text = self._answer(limits.wall_seconds)
            content = self._answer(limits.wall_seconds, MOST_BYTES) if wanted & FIT else b""
        except _Overdue:
            ending = Ending(None, overdue=True, cpu_seconds=_cpu_seconds(self._process.pid), again=again)
            self.kill()
            return judge_ending(ending, limits)
        except _Gone:
            return judge_ending(Ending(self.end(), again=again), limits)
        outcome = from_json(text)
        if outcome is None or not _fits(outcome, content):
            self.kill()
            return TooCostly("The image's decoder gave an answer that is none")
        if has_thumbnail(wanted):
            small = self._thumbnail()
            return replace(outcome, thumbnail=small) if isinstance(outcome, ImageFacts) else outcome
        return replace(outcome, content=content) if isinstance(outcome, FittedReference) else outcome

    def _thumbnail(self) -> bytes:
        """Return what it sends behind an outcome, which stands by then; nothing where no thumbnail comes."""
        try:
            small = self._answer(_THUMBNAIL_SECONDS, MOST_THUMBNAIL + 1)
        except _Overdue:
            self.kill()
        except _Gone:
            self.end()
        else:
            if detect_format(small[:_HEAD]) == "webp" and len(small) <= MOST_THUMBNAIL:
                return small
            if small:
                self.kill()
        return b""

    def is_alive(self) -> bool:
        """Say whether it runs, as far as is known."""
        return self._process.poll() is None

    def end(self) -> int | None:
        """Close the socket, wait for the end, kill where it does not come; return the status, None if not known."""
        self._channel.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # not even that ends what waits for a dead disk
                self._process.wait(_END_SECONDS)
        self._read_last_words()
        self.ended = True
        status: int | None = self._process.returncode
        return status

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self.end()

    def cut_short(self) -> None:
        """Kill it and wait for its end; whoever waits for its answer does the rest."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)

    def disown(self) -> None:
        """Close what was inherited of it."""
        self._channel.close()
        self._complaints.close()
        self._process.poll()  # finds that it is no child of this process, so that nobody waits for it

    @property
    def _complaints(self) -> BinaryIO:
        assert self._process.stderr is not None
        return cast("BinaryIO", self._process.stderr)

    def _read_last_words(self) -> None:
        """Take down the end of what it wrote to its standard error, a traceback as a rule."""
        if self._complaints.closed:
            return
        with self._complaints as pipe:
            os.set_blocking(pipe.fileno(), False)
            lines = (pipe.read(_LONGEST_ANSWER) or b"").decode("utf-8", "replace").strip().splitlines()
        self.last_words = " / ".join(one_line(line.strip(), limit=160) for line in lines[-3:])

    def _send(self, piece: bytes, seconds: float) -> None:
        self._channel.settimeout(seconds)
        try:
            self._channel.sendall(piece)
        except TimeoutError:
            raise _Overdue from None
        except OSError:
            raise _Gone from None

    def _answer(self, seconds: float, most: int = _LONGEST_ANSWER) -> bytes:
        """Return what it sends next, of which more than an answer can hold is none."""
        deadline = time.monotonic() + seconds
        try:
            (size,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
            return self._receive(min(size, most), deadline)
        except TimeoutError:
            raise _Overdue from None
        except (OSError, EOFError):
            raise _Gone from None

    def _receive(self, size: int, deadline: float) -> bytes:
        def limit() -> None:
            # At least some: zero would mean not to wait, and to fail otherwise.
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))

        return receive(self._channel, size, limit)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of a file.

    :raises OSError: It cannot be read, or has fewer.
    """
    while size:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise OSError("the file became shorter while it was read")
        size -= len(piece)
        yield piece


def _cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used; None where that is not known (Linux tells)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {"MALLOC_ARENA_MAX": "1"}


def _child_command() -> list[str]:
    """Return what is started.

    :raises OSError: This process does not know how.
    """
    pillow = importlib.util.find_spec("PIL")
    if os.name != "posix" or not sys.executable or pillow is None or not pillow.submodule_search_locations:
        raise OSError("this platform, or this interpreter, starts no other one")
    paths = (airflow_provider_nanobanana.__path__[0], next(iter(pillow.submodule_search_locations)))
    return [sys.executable, "-I", "-S", "-c", _BOOT, *map(os.path.dirname, paths)]


def _fits(outcome: Outcome, content: bytes) -> bool:
    """Whether the content behind an outcome is what the outcome says: hostile bytes may have taken the process over."""
    if not isinstance(outcome, FittedReference) or not outcome.changes:
        return not content
    return detect_format(content[:_HEAD]) == outcome.facts.format


def _facts(outcome: Outcome) -> ImageFacts | FittedReference:
    match outcome:
        case ImageFacts() | FittedReference():
            return outcome
        case NotAnImage(reason):
            raise ImageInvalid(reason)
        case TooCostly(reason):
            raise ImageTooCostly(reason)
        case MachineLacks(reason):
            raise StorageFailed(f"Could not decode the image on this worker, which says nothing of it: {reason}")


def _inspect_here(file: BinaryIO, wanted: int) -> ImageFacts | FittedReference:
    """Decode in this process."""
    file.seek(0)
    if wanted & FIT:
        return fitting.fit_reference(file.read(), formats=formats_of(wanted))
    if wanted & CHECK_REFERENCE:
        return inspect_reference(file.read())
    if wanted & THUMBNAIL_ALONE:
        raise StorageFailed("No process that makes thumbnails can be started on this machine")
    data = file.read(MAX_BYTES)
    if not wanted & THUMBNAIL:
        return inspect_bytes(data)
    small = SmallPicture()
    with contextlib.suppress(ImageInvalid):
        small.read_metadata(data)
        facts = inspect_bytes(data, small.take)
        return replace(facts, thumbnail=small.content())
    return inspect_bytes(data)


_decoder = Decoder()


def _after_fork() -> None:
    """Leave the child to the process that started it; a lock that another thread of it held stays held there."""
    global _decoder
    inherited, _decoder = _decoder, Decoder()
    inherited.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
