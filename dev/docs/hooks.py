"""What mkdocs calls: addresses from ``pyproject.toml``, pages of the root's files, links that lead out of docs/."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO))  # mkdocs loads this file by its path

from mkdocs.structure.files import File  # noqa: E402

from dev.docs.generated import fill_in  # noqa: E402
from dev.docs.html import linked_pictures, readable  # noqa: E402
from dev.docs.links import ROOT_PAGES, project_addresses, replace_links, site_link  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_ROOT_FILES = {page: name for name, page in ROOT_PAGES.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the addresses that the project says elsewhere."""
    urls = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["urls"]
    config.repo_url, config.site_url = project_addresses(urls)
    config.repo_name = "Source"
    config.watch += [str(REPO / "airflow_provider_nanobanana"), *(str(REPO / name) for name in ROOT_PAGES)]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each file of the root that is one."""
    for name, page in ROOT_PAGES.items():
        if (REPO / name).exists():
            files.append(File.generated(config, page, abs_src_path=str(REPO / name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code, and let each link lead on the site where it leads in the repository."""
    source = _ROOT_FILES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return replace_links(fill_in(markdown, source), lambda link: site_link(link, source, REPO, config.repo_url or ""))


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let everything be read on any screen."""
    return linked_pictures(readable(html))
