"""``fold()``: a text in lines that the log pane of Airflow shows whole, without a scroll to the right."""

from __future__ import annotations

import re
from typing import Final

#: Characters of a line. On a screen of 1,500 pixels the log pane of Airflow 3.1 to 3.3 shows about 105 of an exception.
LINE_WIDTH: Final = 104
#: Characters of the first line of an exception: the name of its class stands before it.
FIRST_LINE_WIDTH: Final = 78
_SENTENCE_END: Final = re.compile(r"(?<=[.?!]) (?=[A-Z])")


def fold(text: str, *, width: int = LINE_WIDTH, first: int | None = None, indent: str = "") -> str:
    """Return a text whose lines have at most ``width`` characters; a longer word, such as a URI, stays whole.

    A line that is short enough stays as it is. In one that is not, a sentence that does not fit behind the one before
    begins a line.

    :param first: Characters of the first line, where that is another number.
    :param indent: Begins what is left of a line that was too long.
    """
    folded: list[str] = []
    for line in text.split("\n"):
        room = width if first is None or folded else first
        folded += [line] if len(line) <= room else _fold_line(line, width, room, indent)
    return "\n".join(folded)


def _fold_line(line: str, width: int, room: int, indent: str) -> list[str]:
    words = line.lstrip(" ")
    begin = line[: len(line) - len(words)]
    lines: list[str] = []
    current = ""
    for sentence in _SENTENCE_END.split(words):
        # A sentence that needs more than a line may as well begin behind the one before.
        if current and room < len(current) + 1 + len(sentence) and len(sentence) <= width - len(indent):
            lines.append(current)
            current, room, begin = "", width, indent
        for word in sentence.split(" "):
            if current and len(current) + 1 + len(word) > room:
                lines.append(current)
                current, room, begin = "", width, indent
            current = f"{current} {word}" if current else f"{begin}{word}"
    return [*lines, current]
