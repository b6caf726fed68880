"""Where a file of rows is: which texts and objects name one, and are no prompt. Nothing is opened here."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_nanobanana.batch.rows import NOTHING_SENT
from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.request_values import as_reference
from airflow_provider_nanobanana.toapis.storage_uris import shown

#: Endings of the files that are read.
ROW_SUFFIXES: Final = (".csv", ".jsonl", ".ndjson", ".parquet")
#: A text that is nothing but the URI of a file, an absolute path, or one word of ASCII: no prompt is just ``a.csv``.
_LOCATION: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|/)[^\r\n]+|[!-~]+")
#: What people give for a table all the same.
_OTHER_TABLES: Final = re.compile(r"\.(gz|bz2|xz|zip|zst|tsv|json|xlsx?|ods|orc|avro|arrow|feather)")


def names_path(value: Any) -> bool:
    """Whether a value is a path object (``pathlib.Path``, ``ObjectStoragePath``)."""
    return not isinstance(value, (str, bytes)) and isinstance(as_reference(value), str)


def names_row_file(text: str, *, bare: bool = False) -> bool:
    """Whether a text is the URI or the path of a file of rows, and no prompt.

    :param bare: Whether a relative path with blanks in it is one, too.
    :raises InvalidRequest: It names a table in a format that is not read.
    """
    if not (bare or _LOCATION.fullmatch(text.strip())) or len(text.splitlines()) != 1:
        return False
    suffix = suffix_of(text)
    if _OTHER_TABLES.fullmatch(suffix):
        raise InvalidRequest(
            f"{shown(text.strip())!r:.200} is no file of rows that can be read ({suffix}): give {allowed_files()}, "
            f"unpacked. {NOTHING_SENT}"
        )
    return suffix in ROW_SUFFIXES


def check_prompt(text: str) -> None:
    """Make sure that a prompt is none by mistake.

    :raises InvalidRequest: It is where a file of rows is, and a picture of that address would be bought.
    """
    if names_row_file(text):
        raise InvalidRequest(
            f"{shown(text.strip())!r:.200} is a file of rows and no prompt: give it alone, as the argument requests. "
            f"{NOTHING_SENT}"
        )


def suffix_of(uri: str) -> str:
    """Return the ending of a file's name in lower case, with its point."""
    return PurePosixPath(uri.strip().partition("?")[0]).suffix.lower()


def allowed_files() -> str:
    """Return in words which files are read."""
    return f"CSV, JSON lines or Parquet ({', '.join(ROW_SUFFIXES)})"
