"""Names that people give to requests: checked before anything is bought, since files are called by them."""

from __future__ import annotations

import re
from typing import Any, Final

MAX_NAME: Final = 80
"""With ten digits of the hash and a tag of at most 8 characters a stem has the 100 characters that landing takes."""

_ALLOWED: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
#: What :meth:`Order.stem` makes where there is no name.
_GENERATED: Final = re.compile(r"[0-9a-f]{16}-\d+(-.*)?", re.IGNORECASE)
_SUFFIX: Final = re.compile(r"\.(png|jpe?g|webp|gif|avif|json)", re.IGNORECASE)


def name_fault(name: Any) -> str | None:
    """Return what is wrong with a name and what is allowed, or None for a good one."""
    if not isinstance(name, str):
        return f"name is {type(name).__name__}, not a text; {_rule()}"
    if not _ALLOWED.fullmatch(name):
        return f"name {name!r:.100} cannot name a file; {_rule()}"
    if _SUFFIX.fullmatch(name[name.rfind(".") :] if "." in name else ""):
        return f"name {name!r} ends like a file; leave the suffix out, it comes from the image"
    if _GENERATED.fullmatch(name):
        return f"name {name!r} looks like the names made for requests without one; choose another"
    return None


def _rule() -> str:
    return f"allowed: 1 to {MAX_NAME} of A-Z a-z 0-9 _ . - beginning with a letter, a digit or _"


def label(index: int, name: str | None) -> str:
    """Return how a request is spoken of: ``#12 'name'`` or ``#12``; counted from 0."""
    return f"#{index}" if name is None else f"#{index} {name!r}"
