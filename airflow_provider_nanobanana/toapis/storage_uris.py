"""What is secret in the URI of a storage: the password and the query."""

from __future__ import annotations

import re
from typing import Final

#: ``user:password@``, also where the password holds a slash; a port is none.
CREDENTIALS: Final = re.compile(r"://(?!arn:)(?![^/@]*:[0-9]*(?:/|$))[^/@]*:[^@]*@")
QUERY: Final = re.compile(r"\?[^/?]*=.*")


def shown(text: str) -> str:
    """Return a URI for a message or a log: without password and query."""
    return QUERY.sub("?…", CREDENTIALS.sub("://…@", text))
