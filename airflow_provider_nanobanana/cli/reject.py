"""``reject``: says of pictures that they are never used again; nothing is bought, moved or deleted."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_nanobanana.landing.image_store import ImageStore

PURPOSE: Final = (
    "Reject pictures: no run uses them again, and the next one that wants such an image makes a new version."
)
_DETAILS: Final = (
    "Writes a small file for each below .nanobanana/rejections at its destination, and touches nothing else; removing "
    "that file takes it back. Exit status: 0; 2 where one of the pictures is not there, or nothing can be written."
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    command.epilog = _DETAILS
    command.add_argument("uris", nargs="+", metavar="URI", help="of a picture, as results, manifests and logs have it")
    command.add_argument("--comment", default="", help="why; kept in the file")
    command.add_argument("--by", default=os.environ.get("USER", ""), help="who rejects it; kept in the file (you)")


def run(options: argparse.Namespace) -> int:
    """Reject the pictures, none of them where one is not there; return the exit status."""
    from airflow_provider_nanobanana.landing.versions import reject
    from airflow_provider_nanobanana.toapis.errors import ToApisError

    try:
        # Airflow and its providers log to stdout, where only the answer belongs.
        with contextlib.redirect_stdout(sys.stderr):
            pictures = [_picture(uri) for uri in options.uris]
            for store, stem in pictures:
                reject(store, stem, by=options.by, comment=options.comment, now=time.time())
    except ToApisError as error:
        print(f"reject: {error.message}", file=sys.stderr)
        return 2
    for uri in options.uris:
        print(f"rejected {uri}")
    return 0


def _picture(uri: str) -> tuple[ImageStore, str]:
    """Return destination and stem of a picture that is there, in its place or in quarantine.

    :raises ToApisError: It is not there, or cannot be looked for.
    """
    from airflow_provider_nanobanana.landing.image_file import SUFFIXES
    from airflow_provider_nanobanana.landing.image_store import ImageStore
    from airflow_provider_nanobanana.landing.storage.destination import RESERVED
    from airflow_provider_nanobanana.toapis.errors import InvalidRequest

    folder, _, name = uri.rpartition("/")
    store = ImageStore(folder.removesuffix(f"/{RESERVED}/quarantine"))
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix not in SUFFIXES.values() or not (store.present([stem]) or store.in_quarantine([stem])):
        raise InvalidRequest(f"There is no picture {uri}; give the URI as a result has it. Nothing was rejected.")
    return store, stem
