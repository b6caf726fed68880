"""The documentation's pages in a browser: everything on them can be read, on a desk and on a telephone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.campaign import of_campaign
from tests.support.docs_site import build_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: A desk's and a telephone's width in pixels, and what may be wider than its place there.
_WIDTHS: dict[int, tuple[str, ...]] = {1280: (), 400: ("tables", "code")}
#: What of a page is wider than it may be, and which names are broken inside a word.
_READ = """() => {
    const root = document.documentElement, wide = node => node.scrollWidth > node.clientWidth + 1;
    const all = css => [...document.querySelectorAll(`.md-content ${css}`)];
    const broken = [];
    for (const code of all('code.words')) {
        for (const text of [...code.childNodes].filter(node => node.nodeType === Node.TEXT_NODE)) {
            const range = document.createRange();
            range.selectNodeContents(text);
            const lines = new Set([...range.getClientRects()].map(line => Math.round(line.top)));
            if (lines.size > 1) broken.push(code.textContent);
        }
    }
    return {
        page: wide(root) ? [root.scrollWidth] : [],
        broken,
        tables: all('.md-typeset__scrollwrap').filter(wide).map(table => table.textContent.slice(0, 60)),
        code: all('pre > code').filter(wide).map(code => code.textContent.slice(0, 60)),
        pictures: all('img').filter(picture => !picture.naturalWidth).map(picture => picture.src),
    };
}"""

#: The theme's script puts each table into a place of its own that can be moved sideways.
_WRAPPED = """() => document.querySelectorAll('.md-content table:not([class])').length
    === document.querySelectorAll('.md-content .md-typeset__scrollwrap').length"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what was asked for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a site."""
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the site is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.timeout(900)
def test_every_page_can_be_read(browser: Browser, folder: Path, address: str) -> None:
    """Tables and code may be moved sideways on a telephone alone, a page as a whole never.

    Of all pages ``make test`` opens a third, each time others.
    """
    pages = sorted(folder.rglob("index.html"))
    assert len(pages) > 50
    context = browser.new_context(reduced_motion="reduce")
    # The index of the search is large, and each page would read it.
    context.route("**/workers/*", lambda route: route.abort())
    wrong = {}
    try:
        page = context.new_page()
        for path in random.sample(pages, of_campaign(len(pages) // 3, len(pages))):
            page.goto(f"{address}/{path.relative_to(folder)}")
            page.wait_for_function(_WRAPPED)
            for width, may_be_moved in _WIDTHS.items():
                page.set_viewport_size({"width": width, "height": 900})
                read = page.evaluate(_READ)
                found = {what: where for what, where in read.items() if where and what not in may_be_moved}
                if found:
                    wrong[f"{path.parent.relative_to(folder)} at {width}"] = found
    finally:
        context.close()
    assert wrong == {}
