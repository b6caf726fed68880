"""What became of a file that was given to the decoder's process: the one place that says whose fault it is.

Either the process answered, or it ended. What the *image* did (too much time or memory, a decoder that crashes on it)
is final for these bytes: they are kept in quarantine, and not bought again. What the *machine* did (killed where memory
was short, no time to run) says nothing of the image: another process may try, and then a retry of the task.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from airflow_provider_nanobanana.landing.fit_reference import FittedReference
from airflow_provider_nanobanana.landing.image_file import MAX_PIXELS, MAX_REFERENCE_PIXELS, ImageFacts

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class DecodeLimits:
    """What one file may take.

    :param cpu_seconds: Processor time.
    :param memory: Bytes of address space beside those of the idle process.
    :param wall_seconds: Time; it is the machine that is short of something where this ends before the processor time.
    """

    cpu_seconds: int
    memory: int
    wall_seconds: float


#: Measured at 20 megapixels: 3.2 s (CMYK, progressive), 490 MiB (lossless WebP of noise, 57 MiB).
IMAGE_LIMITS: Final = DecodeLimits(cpu_seconds=10, memory=512 * MIB, wall_seconds=60.0)
_MORE: Final = MAX_REFERENCE_PIXELS // MAX_PIXELS
#: Of a reference image of more than 20 megapixels. Measured at 80: 1.25 GiB (WebP).
LARGE_REFERENCE_LIMITS: Final = DecodeLimits(
    cpu_seconds=_MORE * IMAGE_LIMITS.cpu_seconds,
    memory=_MORE * IMAGE_LIMITS.memory,
    wall_seconds=_MORE * IMAGE_LIMITS.wall_seconds,
)


def limits_for(pixels: int) -> DecodeLimits:
    """Return what a file of so many pixels may take."""
    return IMAGE_LIMITS if pixels <= MAX_PIXELS else LARGE_REFERENCE_LIMITS


@dataclass(frozen=True)
class NotAnImage:
    """The bytes are not one complete image within the limits; ``reason`` as ``ImageInvalid`` says it."""

    reason: str


@dataclass(frozen=True)
class TooCostly:
    """The image takes more than its limits, or crashes its decoder."""

    reason: str


@dataclass(frozen=True)
class MachineLacks:
    """The machine could not decode it now; the image may be good."""

    reason: str


Outcome = ImageFacts | FittedReference | NotAnImage | TooCostly | MachineLacks


@dataclass(frozen=True)
class Ending:
    """How a process ended while it had a file.

    :param status: As ``Popen.returncode``: minus the signal's number, or the exit status; None where it did not end.
        0 where somebody else reaped it, as a process that has a file never ends so.
    :param overdue: Whether its wall time was over, so that it was killed.
    :param cpu_seconds: Processor time used by then, where it was killed and that is known.
    :param again: Whether a process before ended with this file as well.
    """

    status: int | None
    overdue: bool = False
    cpu_seconds: float | None = None
    again: bool = False


#: What a decoder does that meets bytes it was not written for.
_CRASHES: Final = frozenset({-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE})
#: Exit status of a process that has no memory to take the file in.
NO_MEMORY_STATUS: Final = 71


def judge_ending(ending: Ending, limits: DecodeLimits) -> Outcome:
    """Say whose fault it is that the process ended.

    A crash, or an error that nobody foresaw, counts as the image's when it happens again in a new process.
    """
    if ending.overdue:
        # The image's limit is processor time; a machine that gives too little of it decodes no image in time.
        if ending.cpu_seconds is not None and ending.cpu_seconds >= limits.cpu_seconds / 2:
            used = f"{ending.cpu_seconds:.0f} s of processor time and {limits.wall_seconds:.0f} s in all"
            return TooCostly(f"Decoding the image was given up after {used}")
        return MachineLacks(f"it had too little processor time in {limits.wall_seconds:.0f} s")
    if ending.status == -signal.SIGXCPU:
        return TooCostly(
            "Decoding the image takes more processor time than one file may: "
            f"{IMAGE_LIMITS.cpu_seconds} s up to {MAX_PIXELS // 10**6} megapixels"
        )
    if ending.status == NO_MEMORY_STATUS:
        return MachineLacks("there is too little memory")
    crashed = ending.status is not None and (ending.status >= 0 or ending.status in _CRASHES)
    if ending.again and crashed:
        return TooCostly(f"The image's decoder crashed twice ({_in_words(ending.status)})")
    return MachineLacks(f"its process ended: {_in_words(ending.status)}")


def _in_words(status: int | None) -> str:
    if status is None:
        return "it did not answer"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def memory_outcome(limits: DecodeLimits, *, granted: bool) -> Outcome:
    """Say whose fault it is that an allocation failed.

    :param granted: Whether the machine gives as much memory as the limit allows.
    """
    if not granted:
        return MachineLacks("there is too little memory")
    return TooCostly(f"Decoding the image takes more than {limits.memory // MIB} MiB of memory, the limit for one file")
