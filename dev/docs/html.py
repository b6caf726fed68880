"""What is done to a page's HTML: where code may be broken, which cells want room, pictures that open in full size."""

from __future__ import annotations

import html
import re
from functools import partial

#: Shorter words stay whole: a column or a heading, or a line on a telephone, holds as many characters of code.
_WHOLE_IN_CELL = 20
_WHOLE = 36
#: A cell with more text is not squeezed on a telephone; a shorter one may be as narrow as it is.
_LONG_CELL = 24
_PRE = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
_CELL = re.compile(r"(<(t[dh]|h\d)\b)([^>]*>)(.*?)(</\2>)", re.DOTALL)
_CODE = re.compile(r"<code>([^<]+)</code>")
_PICTURE = re.compile(r'<img [^>]*?src="([^"]+)"[^>]*>')
#: After a separator within a name, and between the words of a class's name; not before a suffix such as ``.json``.
_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|(?!(?<=\.)\w{1,5}\b)(?<=[\w;)][/_.,=:@-])(?=[^\W_]|[\"&'{\[<.])")


def readable(text: str) -> str:
    """Return a page's HTML with ``<wbr>`` where code may be broken, and long cells marked.

    ``docs/site/site.css`` has code broken there alone, and never inside a word as a browser does: ``class="words"``.
    A cell of a table that holds a sentence is of the class ``long``.
    """
    pieces = _PRE.split(text)
    return "".join(piece if piece.startswith("<pre") else _prose(piece) for piece in pieces)


def _prose(text: str) -> str:
    return _CODE.sub(partial(_words, whole=_WHOLE), _CELL.sub(_cell, text))


def _cell(cell: re.Match[str]) -> str:
    start, name, attributes, content, end = cell.groups()
    long = len(html.unescape(re.sub(r"<[^>]+>", "", content))) > _LONG_CELL
    mark = ' class="long"' if long and name == "td" and "class=" not in attributes else ""
    return f"{start}{mark}{attributes}{_CODE.sub(partial(_words, whole=_WHOLE_IN_CELL), content)}{end}"


def _words(code: re.Match[str], whole: int) -> str:
    words = (word if len(html.unescape(word)) <= whole else _BREAK.sub("<wbr>", word) for word in code[1].split(" "))
    return f'<code class="words">{" <wbr>".join(words)}</code>'


def linked_pictures(text: str) -> str:
    """Return a page's HTML with each picture a link to itself: a figure with small words is opened in full size."""
    return _PICTURE.sub(lambda picture: f'<a class="picture" href="{picture[1]}">{picture[0]}</a>', text)
