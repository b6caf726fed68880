"""How a service's text becomes fit for a log line, XCom, a manifest and a database: the one rule for all of them.

Whatever the gateway says (messages, codes, status words, model names) passes through :func:`one_line` where it is read.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from airflow_provider_nanobanana.toapis.storage_uris import CREDENTIALS

#: Control and format characters: NUL, which PostgreSQL refuses in JSON, C0 and C1, soft hyphen, zero-width, the ones
#: that turn the direction of a line, language tags, lone surrogates. White space is left for the split into words.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_KEY: Final = re.compile(r"(?i)\b(sk-|bearer\s+)[\w.\-]{3,}")
#: A link's user and password, and its query, are secrets; so is a signature that stands without its link.
_USERINFO: Final = re.compile(r"(?i)([a-z][a-z0-9+.\-]{0,20}:(?:\\?/){2})[^/\\?#\s\"'<>]{1,300}@")
_QUERY: Final = re.compile(r"(?i)(?<=[^\s?])(\?|%3f)[^\s\"'<>?]{0,200}?(=|%3d)[^\s\"'<>]*")
#: Matches every link, with a query or without: to fail at each of many would take a time that is quadratic.
_LINK: Final = re.compile(r"(?i)([a-z][a-z0-9+.\-]{0,20}:(?:\\?/){2}[^\s?#\"'<>]*)([?#][^\s\"'<>]+)?")
_HTTP: Final = re.compile(r"\s*(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)
_SIGNATURE: Final = re.compile(
    r"(?i)\b(x-(?:amz|goog|oss)-[\w\-]{1,40}|(?:aws)?access_?key(?:_?id)?|signature|sig|token|api_?key|secret|password)"
    r"(=|%3d)[^\s&\"'<>,;]+"
)
_DATA: Final = re.compile(r"(?i)(data:[\w/+.\-]{0,60}(?:;[\w=\-]{1,40}){0,4},)[^\s\"'<>]{20,}")
#: Characters read; whatever is longer is cut here first, far behind all that is ever shown.
_LONGEST_READ: Final = 8_000
LONGEST_MESSAGE: Final = 300
_SHORTEST_SECRET: Final = 8
_SHORTEST_HALF: Final = 4


def one_line(text: Any, secret: str = "", limit: int = LONGEST_MESSAGE) -> str:
    """Return a text as one printable line of at most ``limit`` characters, without keys and without links' queries.

    :param text: Anything; what is no text is empty.
    :param secret: The API key of the call; blanked in every spelling an echo may have, also where half of it is cut.
    """
    if not isinstance(text, str):
        return ""
    flat = _UNPRINTABLE.sub("", text[:_LONGEST_READ])
    flat = redact(" ".join(flat.split()), secret)
    flat = _KEY.sub("***", flat)
    flat = _DATA.sub(r"\1…", flat)
    flat = _USERINFO.sub(r"\1", flat)
    flat = _QUERY.sub("?…", flat)
    flat = _LINK.sub(lambda link: f"{link[1]}?…" if link[2] else link[1], flat)
    flat = _SIGNATURE.sub(r"\1\2***", flat)
    # A key is blanked before the text is cut: half a key would not be known for one.
    return flat if len(flat) <= limit else f"{flat[: max(0, limit - 1)]}…"


def bare_link(reference: str) -> str:
    """Return an http(s) link without what may be secret in it: user, query and fragment; any other text as it is."""
    link = _HTTP.fullmatch(reference)
    if link is None:
        return reference
    bare = f"{link[1]}{link[2]}"
    # A password with a slash in it.
    return CREDENTIALS.sub("://", bare) if "@" in bare else bare


def bare_links(value: Any) -> Any:
    """Return plain data with each http(s) link in it as :func:`bare_link` returns it; a tuple becomes a list."""
    if isinstance(value, Mapping):
        return {key: bare_links(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [bare_links(inner) for inner in value]
    return bare_link(value) if isinstance(value, str) else value


def truncate_json(message: str, budget: int = 160) -> str:
    """Return a message cut to ``budget`` bytes of JSON, in which a Chinese character takes six."""
    size, fits = 0, 0
    for position, character in enumerate(message):
        size += len(json.dumps(character)) - 2
        if size <= budget - 3:
            fits = position + 1
        if size > budget:
            return f"{message[:fits]}..."
    return message


def redact(text: str, secret: str) -> str:
    """Return a text without the key, whole or in parts, in any case or as base64; a key too short to be one is left."""
    if len(secret) < _SHORTEST_SECRET or len(text) < _SHORTEST_HALF:
        return text
    pieces, shown = [], 0
    for start, end in [*_rows_found(text, secret), *_cut_key(text, secret)]:
        if start > shown:
            pieces.append(text[shown:start])
        if start > shown or not pieces:
            pieces.append("***")
        shown = max(shown, end)
    return "".join([*pieces, text[shown:]])


def holds_key(text: str, secret: str) -> bool:
    """Whether a text repeats the key."""
    return redact(text, secret) != text


def _cut_key(text: str, secret: str) -> list[tuple[int, int]]:
    """Return where a text ends with the key's beginning: a mark may stand behind it where it was cut."""
    body = text.rstrip(".… ")
    ending = body[-len(secret) :].lower()
    beginning = secret.lower()
    for length in range(len(secret) - 1, _SHORTEST_HALF - 1, -1):
        if ending.endswith(beginning[:length]):
            return [(len(body) - length, len(text))]
    return []


def _rows_found(text: str, secret: str) -> list[tuple[int, int]]:
    """Return where a text holds so many characters of the key in a row that they give it away."""
    width, rows = _key_rows(secret)
    starts = range(len(text) - width + 1)
    # Not the whole text in lower case: some letters become two, and every place behind them would move.
    return [(start, start + width) for start in starts if text[start : start + width].lower() in rows]


@lru_cache(maxsize=16)
def _key_rows(secret: str) -> tuple[int, frozenset[str]]:
    """Return the width of a row, and every row of the key and of its base64 in lower case."""
    width = max(_SHORTEST_SECRET, min(16, len(secret) // 2))
    raw = secret.encode("utf-8", "replace")
    spellings = [secret]
    for shift in range(3):
        # Base64 depends on what stands before; the characters at either end depend on the neighbours as well.
        text = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")[0 if shift == 0 else 4 : -1]
        spellings += [text, text.replace("+", "-").replace("/", "_")]
    rows = (spelling[at : at + width].lower() for spelling in spellings for at in range(len(spelling) - width + 1))
    return width, frozenset(rows)
