"""What may be a destination: checked as it is written, before anything is connected to, created or bought."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from typing import Any, Final

from airflow_provider_nanobanana.toapis.errors import InvalidRequest
from airflow_provider_nanobanana.toapis.storage_uris import CREDENTIALS, QUERY, shown

#: Longest destination, in bytes of JSON: each image's URI travels through XCom in a record of at most 600 bytes.
MAX_DESTINATION: Final = 256
#: The one folder below a destination that is this provider's own: no image is landed, found or listed in it.
RESERVED: Final = ".nanobanana"
_HOW: Final = "give the URI of a folder (s3://bucket/folder, file:///folder) or an absolute path"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_NOT_STORES: Final = frozenset({"http", "https", "data"})
_WITH_BUCKETS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "wasb"})
#: What Amazon's own client takes at most; an access point is named by its ARN. Azure's are not checked beyond that.
_BUCKET: Final = re.compile(r"[A-Za-z0-9$](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?|arn:.+")


def parse_destination(destination: Any) -> str:
    """Return the destination as a text that is the URI of a folder, or a path.

    :param destination: A text or a path object.
    :raises InvalidRequest: Anything else, or a text that cannot be one; the message repeats no password.
    """
    text = _text_of(destination).strip()
    if not text:
        raise InvalidRequest(f"destination is empty: {_HOW}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InvalidRequest(f"destination {shown(text)!a} holds control characters or half a character: {_HOW}")
    if len(json.dumps(text)) - 2 > MAX_DESTINATION:
        raise InvalidRequest(f"destination is longer than {MAX_DESTINATION} bytes: {shown(text)[:80]}…")
    if "{{" in text:
        raise InvalidRequest(f"destination {shown(text)!r} holds a template that was not rendered: {_HOW}")
    if RESERVED in text.split("/"):
        raise InvalidRequest(f"destination {shown(text)!r} leads into {RESERVED}, which is this provider's own folder")
    scheme, separator, rest = text.partition("://")
    if separator:
        _check_uri(text, scheme, rest)
    return text


def refuse_credentials(uri: str) -> None:
    """Refuse a URI that brings its credentials along: it is logged, stored in XCom and shown.

    :raises InvalidRequest: It holds ``user:password@``, which is not repeated.
    """
    if CREDENTIALS.search(uri):
        raise InvalidRequest(
            f"{shown(uri)!r} holds a user and a password: put them into an Airflow connection and name that "
            "(scheme://conn_id@bucket/folder)"
        )


def _text_of(destination: Any) -> str:
    if isinstance(destination, str):
        return destination
    if not isinstance(destination, os.PathLike):
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        if not isinstance(destination, ObjectStoragePath):
            raise InvalidRequest(f"destination is of type {type(destination).__name__}, not a text or a path: {_HOW}")
    return str(destination)


def _check_uri(text: str, scheme: str, rest: str) -> None:
    """Check a text with ``://`` in it; quotes, brackets and blanks around a URI are what templates and copies leave."""
    if not _SCHEME.fullmatch(scheme):
        raise InvalidRequest(f"destination {shown(text)!r} is no URI: {scheme[:20]!r} is no scheme; {_HOW}")
    if scheme.lower() in _NOT_STORES:
        raise InvalidRequest(f"destination {shown(text)!r} is no place that images can be put to: {_HOW}")
    if scheme.lower() in ("file", "local"):
        return
    refuse_credentials(text)
    if QUERY.search(text):
        raise InvalidRequest(
            f"destination {shown(text)!r} has a query: what it says belongs into the extra of an Airflow connection "
            "(scheme://conn_id@bucket/folder)"
        )
    bucket = rest.partition("/")[0].rpartition("@")[2]
    if scheme.lower() in _WITH_BUCKETS and (not _BUCKET.fullmatch(bucket) or ".." in bucket):
        what = f"{bucket[:80]!r} is no name of one" if bucket else "it names none"
        raise InvalidRequest(f"destination {shown(text)!r} needs a bucket or container: {what}; {_HOW}")
