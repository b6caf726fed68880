"""What is done to a page's HTML: where long names in code may be broken, and pictures that open in full size."""

from __future__ import annotations

import html
import re

#: Shorter words stay whole: a column can be as wide as that.
_WHOLE = 20
_PRE = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
_CODE = re.compile(r"<code>([^<]+)</code>")
_PICTURE = re.compile(r'<img [^>]*?src="([^"]+)"[^>]*>')
#: After a separator within a name, and between the words of a class's name; not before a suffix such as ``.json``.
_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|(?!(?<=\.)\w{1,5}\b)(?<=[\w;)][/_.,=:@-])(?=[^\W_]|[\"&'{\[<.])")


def breakable(text: str) -> str:
    """Return a page's HTML with ``<wbr>`` where a long name in code may go on in the next line.

    ``docs/site/site.css`` keeps code in tables whole but for these places: a browser breaks it after any letter.
    """
    pieces = _PRE.split(text)
    return "".join(
        piece if piece.startswith("<pre") else _CODE.sub(lambda code: f"<code>{_broken(code[1])}</code>", piece)
        for piece in pieces
    )


def _broken(code: str) -> str:
    words = (word if len(html.unescape(word)) <= _WHOLE else _BREAK.sub("<wbr>", word) for word in code.split(" "))
    return " <wbr>".join(words)


def linked_pictures(text: str) -> str:
    """Return a page's HTML with each picture a link to itself: a figure with small words is opened in full size."""
    return _PICTURE.sub(lambda picture: f'<a class="picture" href="{picture[1]}">{picture[0]}</a>', text)
