"""README and docs/ as tests read them: fenced blocks, tables, headings, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dev.docs.links import ROOT_PAGES

REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"
PAGES = (
    *(REPO / name for name in ("README.md", *sorted(ROOT_PAGES)) if (REPO / name).exists()),
    *sorted(DOCS.rglob("*.md")),
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a page.

    :param language: As after the fence; empty for none.
    :param number: Its place among all blocks of the page, from 1.
    """

    page: str
    language: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def name_of(path: Path) -> str:
    """Return what a page is called here: its path below docs/, or its name in the root."""
    return path.relative_to(DOCS if DOCS in path.parents else REPO).as_posix()


def page(name: str) -> str:
    """Return the text of a page, ``README.md`` or one below docs/, such as ``guides/review.md``."""
    (path,) = (path for path in PAGES if name_of(path) == name)
    return path.read_text()


def snippets(language: str) -> list[Snippet]:
    """Return the blocks of a language on all pages."""
    return [
        Snippet(name_of(path), found[1], number, found[2])
        for path in PAGES
        for number, found in enumerate(_BLOCK.finditer(path.read_text()), 1)
        if found[1] == language
    ]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """Return where the links and pictures of a page lead."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(name: str, heading: str, number: int = 0) -> list[list[str]]:
    """Return the rows of a table below a heading, without the one that names the columns; ``\\|`` is no border.

    :param number: Which table below that heading, from 0.
    """
    _, _, rest = page(name).partition(f"{heading}\n")
    assert rest, f"{name} has no heading {heading!r}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = tables[number].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def quoted(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def navigation() -> list[str]:
    """Return the pages that the site's navigation names, in its order."""
    text = (REPO / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    return re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE)
