"""Names of rows: which may name a file, and the one that is made of a table's cell, such as ``Espresso cup``.

A name in a list is a decision, and one that cannot name a file is refused. The column ``name`` of a table is what a
shop calls its products: one that cannot name a file becomes one that can, and the cell stays what it is elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

MAX_NAME: Final = 80
"""With ten digits of the hash and a suffix of at most 8 characters a stem has the 100 characters that landing takes."""

_ALLOWED: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
#: What :meth:`BatchItem.stem` makes where there is no name.
_GENERATED: Final = re.compile(r"[0-9a-f]{16}-\d+(-.*)?", re.IGNORECASE)
_SUFFIX: Final = re.compile(r"\.(png|jpe?g|webp|gif|avif|json)", re.IGNORECASE)
#: Letters that Unicode does not decompose into one of A to Z and an accent.
_LETTERS: Final = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"}
)


def name_error(name: Any) -> str | None:
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


def name_of_cell(cell: str) -> str:
    """Return the name that a table's cell stands for: itself where it can name a file, else what is made of it.

    Accents go, any run of other characters becomes ``-``, and the end is cut; empty where nothing is left.
    """
    if _ALLOWED.fullmatch(cell):
        return cell
    letters = unicodedata.normalize("NFKD", cell.translate(_LETTERS))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return _OTHERS.sub("-", plain).strip("-.")[:MAX_NAME].rstrip("-.")


def _rule() -> str:
    return f"allowed: 1 to {MAX_NAME} of A-Z a-z 0-9 _ . - beginning with a letter, a digit or _"
