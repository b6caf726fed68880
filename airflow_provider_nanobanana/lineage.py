"""Hook-level lineage: which images and references a task wrote and read, told to whatever plugin of Airflow listens.

URIs are told without connection ids, signatures and credentials. Airflow's collector takes a hundred assets a task, of
all hooks together: of more than :data:`MOST` files their folders are told. Where no plugin reads lineage nothing is
done, and whatever goes wrong costs no more than the lineage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_nanobanana.compat import reads_hook_lineage
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.toapis.redaction import bare_link
from airflow_provider_nanobanana.toapis.storage_uris import CREDENTIALS, QUERY

log = LineLogger(__name__)

#: Inputs, and outputs, that are told one by one.
MOST: Final = 50
#: What Airflow would take for a part of a URI that it is not. MySQL takes ASCII alone.
_KEPT: Final = "".join(map(chr, range(0x21, 0x7F))).replace("#", "").replace("?", "")
_SPELLINGS: Final = {"s3a": "s3", "gcs": "gs", "local": "file"}


def plain_uri(uri: str) -> str | None:
    """Return the URI of a file or folder without connection id, signature and credentials; None where it has none.

    :param uri: As a destination or a reference image is given: a path, the URI of a storage, or an http(s) link.
    """
    scheme, separator, rest = CREDENTIALS.sub("://", uri.strip()).partition("://")
    if not separator:
        return None if uri.lower().startswith("data:") else f"file://{os.path.abspath(uri)}"
    scheme = _SPELLINGS.get(scheme.lower(), scheme.lower())
    if scheme in ("http", "https"):
        return bare_link(f"{scheme}://{rest}")
    authority, slash, path = QUERY.sub("", rest).partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def asset_uri(uri: str) -> str | None:
    """Return a URI as that of an asset of Airflow; None where it has none, or too long a one."""
    plain = plain_uri(uri)
    quoted = quote(plain, safe=_KEPT) if plain else ""
    return quoted if 0 < len(quoted) <= 1_500 else None


def dataset_name(uri: str) -> tuple[str, str]:
    """Return namespace and name by OpenLineage's naming of datasets; ``uri`` as :func:`plain_uri` returns it."""
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return "file", rest.rstrip("/") or "/"
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", path.rstrip("/") or "/"


def files_or_folders(uris: Iterable[str]) -> list[str]:
    """Return URIs, each once; of more than :data:`MOST` their folders, as many of them."""
    files = list(dict.fromkeys(uris))
    if len(files) <= MOST:
        return files
    return list(dict.fromkeys(uri.rpartition("/")[0] for uri in files))[:MOST]


def report(
    context: Any,
    *,
    inputs: Callable[[], Iterable[str]] = tuple,
    outputs: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Tell Airflow's collector which files a hook read and wrote; never raises.

    :param context: The hook.
    :param inputs: Returns their URIs; asked only where somebody reads lineage. Likewise ``outputs``.
    """
    try:
        if not reads_hook_lineage():
            return
        for method, uris in (("add_input_asset", inputs), ("add_output_asset", outputs)):
            _add(context, method, uris())
    except Exception as error:  # noqa: BLE001 - a collector is foreign code, and behind this call are paid images
        _note_once(type(error).__name__)


def _add(context: Any, method: str, uris: Iterable[str]) -> None:
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    add = getattr(get_hook_lineage_collector(), method)
    for uri in files_or_folders(asset for each in uris if (asset := asset_uri(each))):
        add(context=context, uri=uri)


@cache
def _note_once(kind: str) -> None:
    """Log the error that is being handled, once for each kind and process."""
    log.debug("Lineage was not told (%s); this is said once.", kind, exc_info=True)
