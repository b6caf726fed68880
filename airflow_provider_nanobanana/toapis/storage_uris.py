"""The URI of a storage: what is secret in it (the password and the query), and which texts are nothing else."""

from __future__ import annotations

import re
from typing import Final

#: ``user:password@``, also where the password holds a slash; a port is none.
CREDENTIALS: Final = re.compile(r"://(?!arn:)(?![^/@]*:[0-9]*(?:/|$))[^/@]*:[^@]*@")
QUERY: Final = re.compile(r"\?[^/?]*=.*")
_ADDRESS: Final = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


def shown(text: str) -> str:
    """Return a URI for a message or a log: without password and query."""
    return QUERY.sub("?…", CREDENTIALS.sub("://…@", text))


def is_object_address(text: str) -> bool:
    """Whether a text is nothing but the URI of a file or an object; links of the web are none."""
    return _ADDRESS.fullmatch(text.strip()) is not None
