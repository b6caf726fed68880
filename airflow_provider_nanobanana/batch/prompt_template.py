"""PromptTemplate: a prompt over the columns of a row, such as ``"{name}, {colour}, on a café table"``.

A placeholder is a brace, a column's exact name, a brace. Any other brace is literal: a prompt may hold JSON. But an
identifier in braces that is no column is a mistake. What is filled in is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

#: What ``str.format`` and its like would understand, and is literal here.
_BEHIND_A_NAME: Final = r"\s*(?:[:!.\[][^{}]*)?"


@dataclass(frozen=True)
class PromptTemplate:
    """A template; the columns are passed to each question, since rows of a list need not have the same."""

    text: str

    def placeholders(self, columns: Collection[str]) -> list[str]:
        """Return the columns that the template names, each once, in its order."""
        found = _pattern(frozenset(columns)).finditer(self.text)
        return list(dict.fromkeys(match["column"] for match in found if match["column"] is not None))

    def unknown(self, columns: Collection[str]) -> list[str]:
        """Return the identifiers in braces that are no columns, each once."""
        found = _pattern(frozenset(columns)).finditer(self.text)
        others = (match["other"] for match in found if match["column"] is None)
        return list(dict.fromkeys(other for other in others if other.isidentifier()))

    def doubtful(self, columns: Collection[str]) -> list[str]:
        """Return what looks like a placeholder with a format, such as ``{price:.2f}``, and is taken literally."""
        names = "|".join(map(re.escape, sorted(filter(None, columns), key=len, reverse=True)))
        if not names:
            return []
        taken = {f"{{{name}}}" for name in columns}
        found = (match[0] for match in re.finditer(rf"\{{\s*(?:{names}){_BEHIND_A_NAME}\}}", self.text))
        return list(dict.fromkeys(text for text in found if text not in taken))

    def fill(self, texts: Mapping[str, str], columns: Collection[str]) -> str:
        """Return the prompt with the columns' texts in it.

        :param texts: By column, for each of :meth:`placeholders`.
        """
        return _pattern(frozenset(columns)).sub(
            lambda match: match[0] if match["column"] is None else texts[match["column"]], self.text
        )


@lru_cache(maxsize=64)
def _pattern(columns: frozenset[str]) -> re.Pattern[str]:
    """Return what finds placeholders: the longest name first, then anything else without blanks in braces."""
    names = "|".join(map(re.escape, sorted(filter(None, columns), key=len, reverse=True)))
    column = rf"\{{(?P<column>{names})\}}" if names else r"(?P<column>(?!))"
    return re.compile(rf"{column}|\{{(?P<other>[^{{}}\s]+)\}}")
