"""What a batch was asked for, kept with its ledger: a retry goes on with it, whatever a template says by now."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_nanobanana.toapis.errors import TransientFailure

if TYPE_CHECKING:
    from airflow_provider_nanobanana.durable.shelf import Shelf

NAME: Final = "nanobanana_orders"
_VERSION: Final = 1
#: Characters of a value; Airflow's state store holds 65,535 bytes of JSON.
_CHUNK: Final = 48_000


def keep(shelf: Shelf, content: Any) -> int:
    """Keep plain JSON, whatever its size; return the number of values written.

    :raises TransientFailure: It is not known to be kept.
    """
    text = base64.b85encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode())).decode()
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    for number, chunk in enumerate(chunks):
        shelf.write(f"{NAME}_{number}", chunk)
    # Last: whoever finds it finds all of them.
    shelf.write(NAME, json.dumps({"version": _VERSION, "chunks": len(chunks), "check": zlib.crc32(text.encode())}))
    return len(chunks) + 1


def recall(shelf: Shelf) -> Any:
    """Return what was kept, or None where there certainly is nothing whole.

    :raises TransientFailure: It could not be read, or was written by another version.
    """
    text = shelf.read(NAME)
    if text is None:
        return None
    try:
        index = json.loads(text)
        if index["version"] != _VERSION:
            raise ValueError("another version")
        joined = "".join(shelf.read(f"{NAME}_{number}") or "" for number in range(index["chunks"]))
        if zlib.crc32(joined.encode()) != index["check"]:
            return None  # a kill while it was being kept anew
        return json.loads(zlib.decompress(base64.b85decode(joined)))
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise TransientFailure(
            f"What this batch was asked for ({NAME!r} in the task's state store) cannot be read ({error}); nothing was "
            "sent now. It was written by another version of this provider, or by hand.",
            charged="unknown",
        ) from error
