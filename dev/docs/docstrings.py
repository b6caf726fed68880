"""How the reference shows our docstrings: their roles as code, the pages that they cite as links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from pymdownx.slugs import slugify

REPO = Path(__file__).parents[2]
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
_CITED = re.compile(r'(?:``)?docs/([\w/-]+)\.md(?:``)?(?:,\s+"([^"]+)")?')
#: What stands for the connection's id in a signature.
_DEFAULT_ID = "default_conn_name"


class Docstrings(griffe.Extension):
    """Rewrite each docstring before it is parsed, and the default that only the source explains."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Show the id of the connection itself where a signature names the constant."""
        for parameter in func.parameters:
            if str(parameter.default).rpartition(".")[2] == _DEFAULT_ID:
                parameter.default = "'nanobanana_default'"


def readable(text: str) -> str:
    """Return a docstring as Markdown: without Sphinx's roles, with a link where it cites a page of docs/.

    The links are for pages of ``docs/reference/``, whose addresses lie two folders deep.
    """
    return _CITED.sub(_link, _ROLE.sub(r"`\1`", text))


def _link(cited: re.Match[str]) -> str:
    page, section = cited[1], cited[2]
    if section is None:
        title = (REPO / "docs" / f"{page}.md").read_text().partition("\n")[0].lstrip("# ").partition(":")[0]
        return f"[{title}](../../{page}/)"
    section = " ".join(section.split())
    return f"[{section}](../../{page}/#{slugify(case='lower')(section, '-')})"
