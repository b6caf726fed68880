"""How a service's text becomes fit for a log line, XCom, a manifest and a database: the one rule for all of them.

Whatever the gateway says (messages, codes, status words, model names) passes through :func:`clean` where it is read.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from typing import Any, Final

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
_BARE_QUERY: Final = re.compile(r"(?i)([a-z][a-z0-9+.\-]{0,20}:(?:\\?/){2}[^\s?#\"'<>]*)[?#][^\s\"'<>]+")
_SIGNATURE: Final = re.compile(
    r"(?i)\b(x-(?:amz|goog|oss)-[\w\-]{1,40}|(?:aws)?access_?key(?:_?id)?|signature|sig|token|api_?key|secret|password)"
    r"(=|%3d)[^\s&\"'<>,;]+"
)
_DATA: Final = re.compile(r"(?i)(data:[\w/+.\-]{0,60}(?:;[\w=\-]{1,40}){0,4},)[^\s\"'<>]{20,}")
#: Characters looked at; whatever is longer is cut here first, far behind all that is ever shown.
_LONGEST_LOOKED_AT: Final = 8_000
LONGEST_MESSAGE: Final = 300
_SHORTEST_SECRET: Final = 8
_SHORTEST_HALF: Final = 4


def clean(text: Any, secret: str = "", limit: int = LONGEST_MESSAGE) -> str:
    """Return a text as one printable line of at most ``limit`` characters, without keys and without links' queries.

    :param text: Anything; what is no text is empty.
    :param secret: The API key of the call; blanked in every spelling an echo may have, also where half of it is cut.
    """
    if not isinstance(text, str):
        return ""
    flat = " ".join(_UNPRINTABLE.sub("", text[:_LONGEST_LOOKED_AT]).split())
    flat = _USERINFO.sub(r"\1", _DATA.sub(r"\1…", _KEY.sub("***", blank(flat, secret))))
    flat = _SIGNATURE.sub(r"\1\2***", _BARE_QUERY.sub(r"\1?…", _QUERY.sub("?…", flat)))
    # A key is blanked before the text is cut: half a key would not be known for one.
    return flat if len(flat) <= limit else f"{flat[: max(0, limit - 1)]}…"


def blank(text: str, secret: str) -> str:
    """Return a text without the key, whole or in parts, in any case or as base64; a key too short to be one is left."""
    if len(secret) < _SHORTEST_SECRET or len(text) < _SHORTEST_HALF:
        return text
    width, windows = _windows(secret)
    hidden = [
        range(start, start + width)
        for start in range(len(text) - width + 1)
        if text[start : start + width].lower() in windows
    ]
    cut = _cut_key(text, secret)
    if cut:
        hidden.append(range(len(text) - cut, len(text)))
    pieces, shown = [], 0
    for span in hidden:
        if span.start > shown:
            pieces.append(text[shown : span.start])
        if span.start > shown or not pieces or pieces[-1] != "***":
            pieces.append("***")
        shown = max(shown, span.stop)
    return "".join([*pieces, text[shown:]])


def holds_key(text: str, secret: str) -> bool:
    """Whether a text repeats the key."""
    return blank(text, secret) != text


def _cut_key(text: str, secret: str) -> int:
    """Return how many characters of the key's beginning a cut text ends with; a cut may leave a mark of its own."""
    tail = text[-len(secret) - _SHORTEST_HALF :].lower()
    marks = len(tail) - len(tail.rstrip(".… "))
    body, lowered = tail.rstrip(".… "), secret.lower()
    for length in range(min(len(body), len(lowered) - 1), _SHORTEST_HALF - 1, -1):
        if body.endswith(lowered[:length]):
            return length + marks
    return 0


@lru_cache(maxsize=16)
def _windows(secret: str) -> tuple[int, frozenset[str]]:
    """Return how many characters in a row give the key away, and every such row of its spellings, in lower case."""
    width = max(_SHORTEST_SECRET, min(16, len(secret) // 2))
    raw, spellings = secret.encode("utf-8", "replace"), [secret]
    for shift in range(3):
        # Base64 depends on what stands before; the characters at either end depend on the neighbours as well.
        text = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")[0 if shift == 0 else 4 : -1]
        spellings += [text, text.replace("+", "-").replace("/", "_")]
    rows = (spelling[at : at + width].lower() for spelling in spellings for at in range(len(spelling) - width + 1))
    return width, frozenset(rows)
