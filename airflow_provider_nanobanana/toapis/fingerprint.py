"""When two requests are the same one: two spellings of one value, and links that only their signature tells apart.

A signature says who may fetch a link and until when, never what it shows; everything else of a query may choose the
picture (``?v=2``, ``?id=...``, ``x-oss-process``), so it counts.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final
from urllib.parse import unquote_plus, urlsplit, urlunsplit

#: Amazon, Google, Alibaba (oss), Volcengine (tos), Huawei (obs), Tencent (cos) and their like, in their newer form.
_VENDOR: Final = re.compile(
    r"x-([a-z0-9]+-)?(algorithm|credential|date|expires|signed-?headers|additional-headers|signature|signature-version"
    r"|security-token|content-sha256)"
)
#: Their older forms, CloudFront, Tencent's ``q-sign``, and the time-limited links of Alibaba's and Akamai's CDN.
_SIGNATURE: Final = frozenset(
    {
        *("signature", "expires", "policy", "key-pair-id", "hash-algorithm"),
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "accesskeyid", "security-token"),
        *("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature"),
        *("auth_key", "hdnts", "hdnea", "__token__", "__gda__"),
    }
)
#: Names too short to mean anything alone: they go only where all of the first are there. Azure, Qiniu, Bunny, Discord.
_TOGETHER: Final = (
    (
        {"sig"},
        {
            *("sv", "ss", "srt", "sp", "se", "st", "spr", "sig", "sr", "si", "sip", "sdd", "ses"),
            *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid"),
        },
    ),
    ({"e", "token"}, {"e", "token"}),
    ({"expires", "token"}, {"token", "token_path"}),
    ({"ex", "is", "hm"}, {"ex", "is", "hm"}),
)
#: A signed web token: a credential whatever the parameter is called.
_WEB_TOKEN: Final = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")


def canonical(value: Any) -> Any:
    """Return JSON data in one spelling: composed texts (NFC), and whole floats as integers."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [canonical(one) for one in value]
    if isinstance(value, dict):
        return {canonical(key): canonical(one) for key, one in value.items()}
    return value


def unsigned(reference: str) -> str:
    """Return what identifies a reference image: a link without signature, the rest of its query sorted.

    The fragment never reaches a server. In a store's URI ``?`` and ``#`` belong to the key.
    """
    parts = urlsplit(reference)
    if parts.scheme.lower() not in ("http", "https"):
        return reference
    pairs = [pair for pair in parts.query.split("&") if pair]
    names = {_name(pair) for pair in pairs}
    gone = {name for marks, family in _TOGETHER if marks <= names for name in family}
    kept = sorted(pair for pair in pairs if not _signs(pair, gone))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(kept), ""))


def _signs(pair: str, gone: set[str]) -> bool:
    name, value = _name(pair), unquote_plus(pair.partition("=")[2])
    return name in gone or name in _SIGNATURE or bool(_VENDOR.fullmatch(name) or _WEB_TOKEN.fullmatch(value))


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0]).lower()
