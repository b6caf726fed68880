"""What the worker process and the decoder's process say to each other, over one socket.

To the decoder: :data:`FILE`, then so many bytes. Back: :data:`LENGTH`, then an outcome as :func:`to_json` writes it;
first of all an empty one, when it is ready. Behind the outcome of :data:`FIT` comes the new content, likewise, and
behind that of :data:`THUMBNAIL` and :data:`THUMBNAIL_ALONE` the thumbnail, empty where there is none.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Collection
from typing import Any, Final, TypeGuard

from airflow_provider_nanobanana.landing.decode_outcome import MachineLacks, NotAnImage, Outcome, TooCostly
from airflow_provider_nanobanana.landing.fit_reference import CHANGES, FORMATS, FittedReference
from airflow_provider_nanobanana.landing.image_file import SUFFIXES, ImageFacts
from airflow_provider_nanobanana.landing.suspects import LOOKS
from airflow_provider_nanobanana.toapis.redaction import one_line

#: Size of the file in bytes, and what to do with it: one of those that follow.
FILE: Final = struct.Struct("!QB")
#: Check an image; check a reference image; make a reference image fit, too, for what :func:`fit_for` adds.
CHECK, CHECK_REFERENCE, FIT = range(3)
#: Beside :data:`CHECK`: make a thumbnail, too. And instead of it: make a thumbnail of a picture that is not checked.
THUMBNAIL, THUMBNAIL_ALONE = 32, 64
_BITS: Final = {one: FIT << number for number, one in enumerate(FORMATS, start=1)}
#: Size of what follows.
LENGTH: Final = struct.Struct("!I")
_MOST_SIDE: Final = 2**31


def fit_for(formats: Collection[str]) -> int:
    """Return what :data:`FILE` holds where a reference image is made fit for a model that takes these formats."""
    return FIT + sum(bit for one, bit in _BITS.items() if one in formats)


def is_reference(wanted: int) -> bool:
    """Say whether it is a reference image, which may be larger."""
    return bool(wanted & (CHECK_REFERENCE | FIT))


def has_thumbnail(wanted: int) -> bool:
    """Say whether a thumbnail comes behind the outcome."""
    return bool(wanted & (THUMBNAIL | THUMBNAIL_ALONE))


def formats_of(wanted: int) -> tuple[str, ...]:
    """Return the formats that :func:`fit_for` was given."""
    return tuple(one for one, bit in _BITS.items() if wanted & bit)


def receive(channel: socket.socket, size: int, before_wait: Callable[[], None] = lambda: None) -> bytes:
    """Return exactly so many bytes.

    :param before_wait: Called before each wait for more, of which there may be as many as bytes.
    :raises EOFError: There are no more: the other side is gone.
    :raises TimeoutError: As the socket says.
    """
    before_wait()
    # Whole at once where the kernel can: 64 MiB are not held twice.
    data = channel.recv(size, socket.MSG_WAITALL) if size else b""
    pieces = [data]
    missing = size - len(data)
    while missing:
        if not pieces[-1]:
            raise EOFError
        before_wait()
        pieces.append(channel.recv(missing))
        missing -= len(pieces[-1])
    return data if len(pieces) == 1 else b"".join(pieces)


def send_answer(channel: socket.socket, answer: bytes) -> None:
    """Send an outcome, or nothing: that the process is ready."""
    channel.sendall(LENGTH.pack(len(answer)) + answer)


def to_json(outcome: Outcome) -> bytes:
    """Return an outcome as the process sends it; :func:`from_json` reads it."""
    match outcome:
        case ImageFacts():
            value: dict[str, Any] = {"format": outcome.format, "width": outcome.width, "height": outcome.height}
            if outcome.look is not None:
                value["look"] = outcome.look
        case FittedReference():
            value = {**json.loads(to_json(outcome.facts)), "changes": outcome.changes}
        case NotAnImage():
            value = {"not_an_image": outcome.reason}
        case TooCostly():
            value = {"too_costly": outcome.reason}
        case MachineLacks():
            value = {"machine_lacks": outcome.reason}
    return json.dumps(value).encode()


def _with_changes(facts: ImageFacts, changes: object) -> Outcome | None:
    given = changes if isinstance(changes, list) else [None]
    known = tuple(one for one in CHANGES if one in given)
    return FittedReference(facts, known) if len(known) == len(given) else None


def _is_side(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < _MOST_SIDE


def from_json(text: bytes) -> Outcome | None:
    """Return the outcome that a process sent; None where it is none: hostile bytes may have taken the process over."""
    try:
        match json.loads(text):
            case {"format": str(name), "width": wide, "height": high, **more} if _is_side(wide) and _is_side(high):
                known = next((one for one in SUFFIXES if one == name), None)
                look = next((one for one in LOOKS if one == more.get("look")), None)
                facts = known and ImageFacts(known, wide, high, look)
                return _with_changes(facts, more["changes"]) if facts and "changes" in more else facts
            case {"not_an_image": str(reason)}:
                return NotAnImage(one_line(reason))
            case {"too_costly": str(reason)}:
                return TooCostly(one_line(reason))
            case {"machine_lacks": str(reason)}:
                return MachineLacks(one_line(reason))
    except (ValueError, RecursionError):
        pass
    return None
