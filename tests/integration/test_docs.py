"""Snippets of docs/ that need a service: run as they stand, but for ports and the folder of the pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from airflow_provider_nanobanana.emulator import Emulator
from dev.docs.html import readable
from dev.docs.links import site_path
from tests.support.docs_site import build_site
from tests.support.manifests import manifest_faults
from tests.support.pages import REPO, navigation, snippets

PROMISED: dict[str, Any] = json.loads((REPO / "tests" / "integration" / "public_surface.json").read_text())


@dataclass
class ReadPage:
    """What a page of the site links to, loads, and may be linked at."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


def read_html(text: str) -> ReadPage:
    """Return what stands in a page of the site."""
    read = ReadPage()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            if given.get("id"):
                read.ids.add(str(given["id"]))
            if tag == "a" and given.get("href"):
                read.links.append(str(given["href"]))
            if given.get("src"):
                read.loaded.append(str(given["src"]))
            if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
                read.loaded.append(str(given["href"]))

    Reader().feed(text)
    return read


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as ``make docs`` builds it: a warning ends it."""
    return build_site(tmp_path_factory.mktemp("site"))


def test_the_site_has_every_page_and_no_dead_link(site: Path) -> None:
    pages = {path: read_html(path.read_text()) for path in site.rglob("*.html")}
    for name in navigation():
        assert site / site_path(name) / "index.html" in pages, name
    for path, read in pages.items():
        for link in read.links:
            parts = urlsplit(link)
            if parts.scheme or not link or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), (path, link)
            assert not parts.fragment or unquote(parts.fragment) in pages[target].ids, (path, link)


def test_no_mark_of_markdown_is_left_in_the_text(site: Path) -> None:
    """A table without a blank line before it, or a list that is cut off, is text with marks in it."""
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
            words = unescape(re.sub(r"<[^>]+>", "", paragraph))
            assert not re.search(r"^\s*([*+|-] ?|\d+\. |#+ )|\*\*|\]\(|``", words, re.MULTILINE), (path, words)


def test_code_may_be_broken_between_its_words_only() -> None:
    for shown in (
        "nanobanana.|lost_|race_|micro_|usd",
        "AIRFLOW__|NANOBANANA__|GALLERY_|ROOTS",
        "on_|unknown_|submission=|&quot;resubmit&quot;",
        "manifest-|&lt;dag&gt;-|&lt;run&gt;.|&lt;hash&gt;.json",
        "Airflow|Inactive|Asset|In|Inlet|Or|Outlet|Exception",
        "python |-m |dev.benchmarks |--seed |1",
        "nanobanana.timed_out",
    ):
        cell = readable(f"<td><code>{shown.replace('|', '')}</code></td>")
        assert cell.partition("<code")[2] == f' class="words">{shown.replace("|", "<wbr>")}</code></td>'
    assert (
        readable("<p><code>a_name_of_up_to_a_line x</code>")
        == '<p><code class="words">a_name_of_up_to_a_line <wbr>x</code>'
    )
    block = "<pre><code>on_unknown_submission_or_not</code></pre>"
    assert readable(block) == block


def test_a_cell_with_a_sentence_is_marked() -> None:
    row = '<td>R1</td><td style="text-align: left;">what <em>happens</em> then, and why</td>'
    assert readable(row) == row.replace("<td style", '<td class="long" style')


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = read_html(path.read_text()).loaded
        assert [link for link in loaded if urlsplit(link).netloc] == [], path
        assert 'data-md-component="source"' not in path.read_text()
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", path.read_text()), path


def test_the_reference_shows_each_argument_with_its_words(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "reference" / "operators" / "index.html").read_text())
    for name, arguments in PROMISED["arguments"].items():
        if name.startswith("operators."):
            for argument in arguments:
                assert argument == "*" or argument.split("=")[0] in text, (name, argument)
    assert ":param" not in text and ":class:" not in text


def test_the_manifest_that_is_shown_is_a_valid_one() -> None:
    manifest, line = (json.loads(each.text) for each in snippets("json") if each.page == "manifest.md")
    assert manifest_faults(manifest) == []
    # Both as a task writes them: the line flat, about the manifest's first image.
    (image,) = manifest["images"]
    assert {key: image[key] for key in ("uri", "sha256", "name", "prompt", "cost_usd")}.items() <= line.items()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page shows curl")
def test_the_emulator_is_steered_as_shown(emulator: Emulator) -> None:
    (shown,) = (each.text for each in snippets("sh") if each.text.startswith("curl"))
    text = shown.replace("http://127.0.0.1:8787", emulator.api_url)
    assert text != shown
    ended = subprocess.run(["bash", "-ec", text], check=True, capture_output=True, text=True)
    faults, ledger, none = ended.stdout.replace("}{", "}\n{").splitlines()
    assert [fault["kind"] for fault in json.loads(faults)["faults"]] == ["rate_limit", "expired"]
    assert json.loads(ledger)["count"] == 0
    assert json.loads(none) == {"faults": []} and emulator.faults() == []


def test_the_emulator_starts_as_shown() -> None:
    (shown,) = (
        each.text for each in snippets("sh") if each.text.startswith("python -m airflow_provider_nanobanana.emu")
    )
    command = shown.replace("--port 8787", "--port 0").split()
    with subprocess.Popen([sys.executable, *command[1:]], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        process.terminate()
    assert greeting.startswith("API http://127.0.0.1:") and "AIRFLOW_CONN_NANOBANANA_DEFAULT" in greeting
