"""Whether a destination can create a file only where there is none.

Two runs that want one image must not both believe that they created its claim. Not every place can tell them apart: a
disk without hard links, a store that ignores the condition, a library that drops it. Found out by trying
(:func:`missing_exclusivity`), once a process and destination; what could not be found out now is never taken for a no.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from airflow_provider_nanobanana.landing.storage.client_errors import lacks_rights
from airflow_provider_nanobanana.toapis.errors import StorageFailed

#: Lies in the provider's own folder of each destination: explains it, and is what the probe tries to create.
README: Final = "README.txt"
TEXT: Final = b"""\
This folder belongs to the Airflow provider "nanobanana". It stands beside the images that the provider puts here, and
keeps two or more runs that want the same image from paying for it twice.

claims/      One small file for each image that was asked for: who wants it, since when. Whoever creates the file may
             buy the image; everybody else shares it. A claim is created once and never changed.
books/       What became of the claims: bought (with the id of the image task), refused, released.
clock/       Written to learn the time by the clock of this storage.
versions/    Which run further versions of an image belong to: one small file for each, created once.
rejections/  Images that a person rejected: one small file for each, by its name. No run uses them any more.
quarantine/  What was paid for and did not pass the checks of an image. Nobody reads it but you.
README.txt   This text. The provider tries to create it again, to see that this place refuses that.

Do not delete, move, restore or edit claims and books while runs are under way: a wanted image whose claim is gone is
bought again by the next run that wants it. Images that are in place are never bought again, with or without claims.
The provider itself removes what is older than a week, all claims of an image together. A rule of the storage that
removes old objects one by one should leave this folder out. What lies in quarantine may go whenever you do not need it.
"""

#: What was found, by the URI of the destination: "" or why not. What could not be found out is not in it.
_found: dict[str, str] = {}
_lock: Final = threading.Lock()


class NotExclusive(Exception):
    """This place cannot create a file only where there is none, now or later; the text says why."""


class Place(Protocol):
    """What the probe asks of a place; ``Storage`` says more of each."""

    def uri(self, name: str) -> str: ...
    def put_new(self, name: str, content: bytes) -> None: ...
    def read(self, name: str, most: int) -> bytes | None: ...


def missing_exclusivity(destination: str, reserved: Place) -> str:
    """Return why two creates of one name may both succeed at a destination, or "" where they cannot.

    Tried with ``README.txt``: where it is new, a second create must fail; where it is there, the first.

    :param destination: Its URI, under which the answer is kept for this process.
    :param reserved: The provider's own folder there.
    :raises StorageFailed: It could not be found out now; asked again, it may be.
    """
    with _lock:
        if destination not in _found:
            _found[destination] = _probe(reserved)
        return _found[destination]


def is_known_exclusive(destination: str) -> bool:
    """Whether this process found the creates at a destination to be exclusive; nothing is asked."""
    return _found.get(destination) == ""


def _probe(place: Place) -> str:
    try:
        for _ in range(2):
            place.put_new(README, TEXT)
    except FileExistsError:
        return _unreadable(place)
    except NotExclusive as refusal:
        return str(refusal)
    except StorageFailed as failure:
        return _denied(failure)
    return f"{place.uri(README)} could be created twice: the storage, or its library, ignores that it is there"


def _unreadable(place: Place) -> str:
    """Return why files of others cannot be read here: whoever loses a create must see to whom."""
    try:
        shown = place.read(README, len(TEXT))
    except StorageFailed as failure:
        return _denied(failure)
    if shown is None:
        raise StorageFailed(f"{place.uri(README)} is there and is not: the storage says both")
    return ""


def _denied(failure: StorageFailed) -> str:
    """Return in words a failure that will stay, of rights or of what stands in the way; raise any other."""
    if isinstance(failure.__cause__, (NotADirectoryError, FileExistsError)):
        return f"what stands there is no folder: {failure.message}"
    if lacks_rights(failure.__cause__):
        return f"the rights to write and read there are missing: {failure.message}"
    raise failure
