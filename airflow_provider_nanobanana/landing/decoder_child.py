"""The process of :mod:`decoder`: it decodes the files it is given, one after another, each within its limits.

It is started without the environment and without ``site``: it imports the pure check, Pillow and nothing else, no
Airflow above all. Its standard input is the socket to the worker process; when that is closed, it ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

from airflow_provider_nanobanana.landing.decode_outcome import (
    IMAGE_LIMITS,
    LARGE_REFERENCE_LIMITS,
    NO_MEMORY_STATUS,
    DecodeLimits,
    NotAnImage,
    Outcome,
    TooCostly,
    limits_for,
    memory_outcome,
)
from airflow_provider_nanobanana.landing.decoder_messages import (
    CHECK_REFERENCE,
    FILE,
    FIT,
    THUMBNAIL_ALONE,
    formats_of,
    has_thumbnail,
    is_reference,
    receive,
    send_answer,
    to_json,
)
from airflow_provider_nanobanana.landing.fit_reference import FittedReference, fit_reference
from airflow_provider_nanobanana.landing.image_file import (
    ImageFacts,
    decode_small,
    inspect_bytes,
    inspect_reference,
)
from airflow_provider_nanobanana.landing.shrink_picture import SIDE, SmallPicture
from airflow_provider_nanobanana.toapis.errors import ImageInvalid, ImageTooCostly


def main() -> None:
    """Serve the worker process until it closes the socket or is gone."""
    _keep_apart()
    _load_decoders()
    with socket.socket(fileno=0) as channel, contextlib.suppress(ConnectionError, EOFError):
        send_answer(channel, b"")
        while True:
            size, wanted = FILE.unpack(receive(channel, FILE.size))
            small = SmallPicture() if has_thumbnail(wanted) else None
            outcome = _inspect(channel, size, wanted, small)
            send_answer(channel, to_json(outcome))
            if wanted & FIT:
                send_answer(channel, outcome.content if isinstance(outcome, FittedReference) else b"")
            if small is not None:
                send_answer(channel, small.content())


def _keep_apart() -> None:
    """Leave signals to the worker process, which closes the socket when it ends; write no cores, wait for no reader."""
    os.set_blocking(2, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _soft(
        resource.RLIMIT_CORE, 1
    )  # too little for a file, and, unlike 0, none for a program that takes them in (Linux)
    # Where memory is short, this process is the one to go, not the task (Linux).
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _load_decoders() -> None:
    """Load what would be loaded with the first image."""
    from PIL import Image

    Image.preinit()
    for name in ("WebP", "Avif"):
        with contextlib.suppress(ImportError):
            plugin = importlib.import_module(f"PIL.{name}ImagePlugin")
            # Each thread takes address space, which is limited; a large machine would have many.
            vars(plugin)["DEFAULT_MAX_THREADS"] = 1


def _inspect(channel: socket.socket, size: int, wanted: int, small: SmallPicture | None) -> Outcome:
    """Receive a file and decode it within its limits.

    :param small: Takes the decoded picture, within the same limits; a fault that is found then may be its own.
    """
    before = _address_space()
    # A WebP says its size when its decoder has the memory for all pixels, so the larger limits come first.
    limits = LARGE_REFERENCE_LIMITS if is_reference(wanted) else IMAGE_LIMITS
    _limit(limits, before)

    def narrow(pixels: int) -> None:
        nonlocal limits
        limits = limits_for(pixels)
        _limit(limits, before)

    try:
        held = [receive(channel, size)]
    except MemoryError:
        sys.exit(NO_MEMORY_STATUS)
    broken = ""
    if small is not None:
        small.read_metadata(held[0])
    try:
        return _decoded(held, wanted, narrow, small)
    except ImageTooCostly as costly:
        return TooCostly(costly.message)
    except ImageInvalid as invalid:
        if invalid.__cause__ is None:
            return NotAnImage(invalid.message)
        # A decoder said so. Those of JPEG, WebP and AVIF say it of any file, too, when they get no memory.
        broken = invalid.message
    except MemoryError:
        pass
    granted = _would_be_granted(limits, before)
    if broken and (granted or before is None):
        return NotAnImage(broken)
    return memory_outcome(limits, granted=granted)


def _decoded(
    held: list[bytes], wanted: int, narrow: Callable[[int], None], small: SmallPicture | None
) -> ImageFacts | FittedReference:
    """Decode the one file that is held; nobody here keeps its bytes, so that the check can let go of them."""
    if wanted & FIT:
        return fit_reference(held.pop(), narrow, formats=formats_of(wanted))
    if wanted & CHECK_REFERENCE:
        return inspect_reference(held.pop(), narrow)
    if small is None:
        return inspect_bytes(held.pop())
    if wanted & THUMBNAIL_ALONE:
        return decode_small(held.pop(), small.take, SIDE)
    return inspect_bytes(held.pop(), small.take)


def _limit(limits: DecodeLimits, before: int | None) -> None:
    """Move this process's own limits on, by what the next file may take."""
    _soft(resource.RLIMIT_CPU, math.ceil(time.process_time()) + limits.cpu_seconds)
    if before is not None:
        _soft(resource.RLIMIT_AS, before + limits.memory)


def _soft(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _address_space() -> int | None:
    """Return the bytes of this process's address space; None where it is not known, as on macOS, which limits none."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return None


def _would_be_granted(limits: DecodeLimits, before: int | None) -> bool:
    """Say whether the machine gives this process as much memory as it may take."""
    gc.collect()
    now = _address_space()
    if now is None or before is None:
        return False
    try:
        mmap.mmap(-1, max(mmap.PAGESIZE, before + limits.memory - now - mmap.PAGESIZE)).close()
    except (OSError, ValueError):
        return False
    return True
