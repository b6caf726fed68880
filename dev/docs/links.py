"""Where a relative link of a page in the repository leads on the site.

A page links to what is beside it in the repository, so that its links work there. On the site a page of docs/ is found
in the same way, a file of the root that has a page of its own is that page, and everything else is looked at in the
repository at its address.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

#: Files of the root that are pages of the site, and what these are called there.
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def replace_links(markdown: str, replace: Callable[[str], str]) -> str:
    """Return a page with the target of each of its links and pictures replaced, but for what stands in code blocks."""
    pieces = []
    end = 0
    for block in _FENCED.finditer(markdown):
        pieces += [_LINK.sub(lambda found: replace(found[1]), markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*pieces, _LINK.sub(lambda found: replace(found[1]), markdown[end:])])


def site_link(link: str, source: str, repository: Path, address: str) -> str:
    """Return where a link of a page leads on the site.

    :param link: As written in the page.
    :param source: The page's path in the repository, such as ``docs/check.md`` or ``CONTRIBUTING.md``.
    :param repository: The root of the checkout.
    :param address: The repository's, such as ``https://github.com/owner/name``.
    """
    if is_external(link) or link.startswith("#"):
        return link
    path, mark, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    on_site = ROOT_PAGES.get(target) or target.removeprefix("docs/")
    if target in ROOT_PAGES or target.startswith("docs/"):
        page = ROOT_PAGES.get(source) or source.removeprefix("docs/")
        return posixpath.relpath(on_site, posixpath.dirname(page) or ".") + mark + anchor
    return repository_link(target, repository, address) + mark + anchor


def repository_link(target: str, repository: Path, address: str) -> str:
    """Return the address at which a file or folder of the repository is looked at."""
    kind = "tree" if (repository / target).is_dir() else "blob"
    return f"{address}/{kind}/main/{target}"


def absolute_readme(repository: Path, urls: Mapping[str, str]) -> str:
    """Return README as PyPI is to show it: pages and pictures of docs/ on the site, other files in the repository.

    :param urls: ``[project.urls]`` of ``pyproject.toml``.
    """
    address, site = project_addresses(urls)

    def absolute(link: str) -> str:
        if is_external(link) or link.startswith("#"):
            return link
        path, mark, anchor = link.partition("#")
        target = posixpath.normpath(path)
        on_site = ROOT_PAGES.get(target) or target.removeprefix("docs/")
        if on_site == target:
            return repository_link(target, repository, address) + mark + anchor
        return site + site_path(on_site) + mark + anchor

    return replace_links((repository / "README.md").read_text(encoding="utf-8"), absolute)


def site_path(page: str) -> str:
    """Return where the site has a page or file of docs/: ``a/b.md`` is ``a/b/``."""
    folder, _, name = page.rpartition("/")
    if name == "index.md":
        return f"{folder}/" if folder else ""
    return page.removesuffix(".md") + "/" if page.endswith(".md") else page


def is_external(link: str) -> bool:
    """Return whether a link has an address of its own."""
    return re.match(r"[a-z][a-z0-9+.-]*:", link) is not None


def project_addresses(urls: Mapping[str, str]) -> tuple[str, str]:
    """Return the repository's address and that of the site, from ``[project.urls]`` of ``pyproject.toml``."""
    return urls["Source"].rstrip("/"), urls["Documentation"].rstrip("/") + "/"
