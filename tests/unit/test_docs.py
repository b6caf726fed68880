"""README and docs/: what they show works as shown, what they list is what there is, and no link is dead."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.models.connection import Connection
from PIL import Image

from airflow_provider_nanobanana.__main__ import parser as command_line
from airflow_provider_nanobanana.cli import check
from airflow_provider_nanobanana.emulator import Emulator
from airflow_provider_nanobanana.emulator.__main__ import parser
from airflow_provider_nanobanana.emulator.faults.rules import word_rules
from airflow_provider_nanobanana.emulator.routes_control import routes
from airflow_provider_nanobanana.get_provider_info import get_provider_info
from airflow_provider_nanobanana.hooks.connection import read_connection
from airflow_provider_nanobanana.toapis import catalogue, errors
from airflow_provider_nanobanana.toapis.failure_codes import FAILURE_CODES
from airflow_provider_nanobanana.toapis.model_row import DIALECTS, Dialect, ModelRow
from airflow_provider_nanobanana.toapis.models import ImageRequest
from airflow_provider_nanobanana.toapis.settings import ToApisSettings
from dev.constraints import known_versions
from dev.docs.links import ROOT_PAGES, absolute_readme, is_external, replace_links, site_link
from tests.support.pages import (
    PAGES,
    REPO,
    Snippet,
    anchors,
    links,
    name_of,
    navigation,
    page,
    prose,
    quoted,
    snippets,
    table,
)

PROMISED: dict[str, Any] = json.loads((REPO / "tests" / "integration" / "public_surface.json").read_text())
PROVIDER = "airflow_provider_nanobanana"
URLS: dict[str, str] = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["urls"]
#: How a comment cites a section of that page, also where a line ends in between.
CITATION = re.compile(r'docs/toapis\.md(?:``)?,[\s#:]+"([^"]+)"')
COMMAND = "python -m airflow_provider_nanobanana "
OPERATORS = "operators.nanobanana.NanoBanana"
CONNECTIONS = [each for each in snippets("sh") if each.text.startswith("export AIRFLOW_CONN_")]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_leads_somewhere(path: Any) -> None:
    for link in links(path.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_table_says_the_same_thing_twice(path: Any) -> None:
    """Two rows for one code, parameter or key are two answers to one question."""
    for block in re.findall(r"(?:^\|.*\n)+", prose(path.read_text()), re.MULTILINE):
        firsts = [row.strip("|").split("|")[0].strip() for row in block.splitlines()[2:]]
        twice = [first for first, times in Counter(firsts).items() if times > 1 and first.startswith("`")]
        assert twice == []


def test_every_page_is_in_the_navigation_of_the_site_once() -> None:
    # The strict build only warns of a page that is missing in it.
    pages = [name_of(path) for path in PAGES if path != REPO / "README.md"]
    assert sorted(navigation()) == sorted(ROOT_PAGES.get(name, name) for name in pages)


def test_the_pictures_of_the_pages_are_small_and_described() -> None:
    shown = [(path, *found) for path in PAGES for found in re.findall(r"!\[(.*)\]\((\S+\.webp)\)", path.read_text())]
    assert len(shown) >= 4
    for path, words, link in shown:
        with Image.open(path.parent / link) as opened:
            opened.load()
            assert opened.width > opened.height > 500, link
        assert (path.parent / link).stat().st_size < 150_000, link
        assert len(words) > 30, link


def test_links_to_other_places_are_whole_addresses() -> None:
    for path in PAGES:
        for link in links(path.read_text()):
            if is_external(link):
                parts = urlsplit(link)
                assert parts.scheme == "https" and "." in parts.netloc and parts.netloc.isascii(), (path.name, link)


def test_readme_on_pypi_has_no_relative_link() -> None:
    text = absolute_readme(REPO, URLS)
    assert [link for link in links(text) if not link.startswith(("https://", "#"))] == []
    assert f"]({URLS['Documentation']}paying-once/)" in text
    assert f"]({URLS['Documentation']}contact-sheet.webp)" in text
    assert f"]({URLS['Source']}/tree/main/example_dags)" in text
    assert prose(text) != prose(page("README.md")) and snippets("sh")[0].text in text


@pytest.mark.parametrize(
    ("source", "link", "leads_to"),
    [
        ("docs/check.md", "costs.md#prices", "costs.md#prices"),
        ("docs/check.md", "../CONTRIBUTING.md#layers", "contributing.md#layers"),
        ("docs/check.md", "../example_dags", "https://host/tree/main/example_dags"),
        ("docs/check.md", "../Makefile", "https://host/blob/main/Makefile"),
        ("docs/guides/alerts.md", "../costs.md", "../costs.md"),
        ("docs/guides/alerts.md", "../../SECURITY.md", "../security.md"),
        ("CONTRIBUTING.md", "docs/costs.md", "costs.md"),
        ("CHANGELOG.md", "CONTRIBUTING.md", "contributing.md"),
        ("docs/check.md", "#here", "#here"),
        ("docs/check.md", "https://toapis.com", "https://toapis.com"),
    ],
)
def test_a_link_leads_on_the_site_where_it_leads_in_the_repository(source: str, link: str, leads_to: str) -> None:
    assert site_link(link, source, REPO, "https://host") == leads_to


def test_links_in_code_stay() -> None:
    text = "[a](b.md)\n\n```text\n[a](b.md)\n```\n[c](d.md)\n"
    assert replace_links(text, str.upper) == "[a](B.MD)\n\n```text\n[a](b.md)\n```\n[c](D.MD)\n"


# --- snippets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snippet", CONNECTIONS, ids=str)
def test_a_connection_that_is_shown_can_be_read(snippet: Snippet) -> None:
    for line in snippet.text.splitlines():
        shown = subprocess.run(
            ["bash", "-c", f'{line}\nprintf %s "$AIRFLOW_CONN_NANOBANANA_DEFAULT"'],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        connection = (
            Connection.from_json(shown, conn_id="shown")
            if shown.startswith("{")
            else Connection(conn_id="shown", uri=shown)
        )
        settings = read_connection(connection, connection.extra_dejson)
        assert (settings.api_key.get_secret_value(), settings.base_url) == ("sk-...", "https://toapis.com")
        assert settings.timeout == 30


@pytest.mark.parametrize("snippet", [each for each in snippets("sh") if "pip install" in each.text], ids=str)
def test_what_pip_is_asked_for_exists(snippet: Snippet) -> None:
    # Installed for real by `make wheel`, and from the README's own words by hand: it needs the network.
    (constraints,) = re.findall(r"-c (\S+)", snippet.text)
    assert (REPO / constraints).exists()
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"(?:\.|whl)\[(\w+)\]", page("README.md"))) == {"emulator", "s3"} <= set(extras)


#: How a shell block begins, and by what it is run or checked; nothing else is shown.
SHELL = {
    "export AIRFLOW_CONN_": "test_a_connection_that_is_shown_can_be_read",
    "python3 -m venv": "test_what_pip_is_asked_for_exists: needs the network; README's words are tried by hand",
    "export AIRFLOW_HOME": "tests/system/test_readme.py runs it",
    "mkdir -p dags": "tests/system/test_readme.py runs it",
    "airflow db migrate": "tests/system/test_readme.py runs it",
    "python -m airflow_provider": "test_every_command_that_is_shown_can_be_given; tests/integration/test_docs.py",
    "curl": "tests/integration/test_docs.py runs it",
    "make ": "test_every_make_target_that_is_shown_exists",
    "airflow ": "test_every_command_of_airflow_that_is_shown_can_be_given",
}
SHELL_SNIPPETS = [each for language in ("sh", "bash", "shell", "console") for each in snippets(language)]


def test_every_shell_snippet_is_run_or_checked() -> None:
    assert [str(each) for each in SHELL_SNIPPETS if not each.text.startswith(tuple(SHELL))] == []


def test_every_command_of_airflow_that_is_shown_can_be_given() -> None:
    from airflow.cli.cli_parser import get_parser

    line = get_parser()
    shown = [
        command.strip()
        for each in SHELL_SNIPPETS
        for command in re.split(r"&&|;|\n", re.sub(r"\$\(.*?\)", "2026-01-01", each.text))
        if command.strip().startswith("airflow ")
    ]
    assert len(shown) >= 4
    for command in shown:
        assert callable(line.parse_args(shlex.split(command, comments=True)[1:]).func), command


def test_every_command_that_is_shown_can_be_given() -> None:
    lines = [line for each in SHELL_SNIPPETS for line in each.text.splitlines() if line.startswith(COMMAND)]
    assert lines
    for line in lines:
        assert command_line().parse_args(shlex.split(line.removeprefix(COMMAND), comments=True)).run


def test_the_options_of_check_are_its_own() -> None:
    shown = {quoted(row[0])[0] for row in table("check.md", "# Check: what the service does with your key")}
    line = argparse.ArgumentParser()
    check.add_arguments(line)
    assert {option for option in shown if option.startswith("--")} == {
        option for action in line._actions for option in action.option_strings if option not in ("-h", "--help")
    }


def test_every_make_target_that_is_shown_exists() -> None:
    targets = {line.split(":")[0] for line in (REPO / "Makefile").read_text().splitlines() if ": " in line}
    shown = {words[1] for path in PAGES for text in quoted(path.read_text()) if (words := text.split())[:1] == ["make"]}
    assert {"test", "demo"} <= shown <= targets


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "architecture.md", "toapis.md"])
def test_every_file_and_class_that_is_named_exists(name: str) -> None:
    package = REPO / PROVIDER
    code = "\n".join(path.read_text() for path in package.rglob("*.py"))
    made = (REPO / ".gitignore").read_text().split()  # there once it has been made
    drawn = re.findall(r"\w+/\w+\.py", (REPO / "docs" / "architecture.svg").read_text())
    for text in [*quoted(prose(page(name))), *drawn]:
        if re.fullmatch(r"\w[\w./-]*(/|\.(py|md|toml|txt))", text) and text not in made:
            assert (REPO / text).exists() or (package / text).exists(), text
        elif name != "toapis.md" and re.fullmatch(r"([A-Z][a-z0-9]+){2,}(\.\w+)?", text):
            head, _, member = text.partition(".")
            assert re.search(rf"^class {head}\b", code, re.MULTILINE), text
            assert not member or re.search(rf"\b{member}\b", code), text


def test_the_layers_that_are_shown_are_those_that_are_checked() -> None:
    (layers,) = (
        contract["layers"]
        for contract in tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    assert "\n".join(layers) in page("CONTRIBUTING.md")


def test_what_is_cited_of_the_service_is_on_its_page() -> None:
    sections = set(re.findall(r"^## (.+)$", page("toapis.md"), re.MULTILINE))
    sources = [path for folder in (PROVIDER, "tests", "dev") for path in (REPO / folder).rglob("*.py")]
    cited = [
        (path.name, " ".join(found.replace("#:", " ").split()))
        for path in sources
        for found in re.findall(CITATION, path.read_text())
    ]
    assert len(cited) > 10
    assert [each for each in cited if each[1] not in sections] == []


def test_there_is_one_file_of_pins_for_each_airflow() -> None:
    folder = REPO / "constraints"
    names = [*known_versions(), "lowest"]
    assert sorted(path.name for path in folder.glob("*.txt")) == [f"constraints-{name}.txt" for name in names]
    for name in names:
        pins = [
            line for line in (folder / f"constraints-{name}.txt").read_text().splitlines() if not line.startswith("#")
        ]
        # Nothing but pins: an index address would send everybody to somebody's machine.
        assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", pin)] == [], name
        (airflow,) = re.findall(r"^apache-airflow==\S+", (folder / f"{name}.in").read_text(), re.MULTILINE)
        assert airflow in pins
    released = [name for name in names if re.fullmatch(r"[\d.]+", name)]
    assert f"constraints/constraints-{released[-1]}.txt" in (REPO / "Makefile").read_text()


# --- shapes --------------------------------------------------------------------------------------------------------


def keys(value: Any) -> Any:
    """Keep the keys of JSON, of a list those of its first entry; a row's own data has the keys of its row."""
    if isinstance(value, Mapping):
        return {key: None if key == "meta" else keys(inner) for key, inner in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else type(value) if value == [] else None


@pytest.mark.parametrize(("number", "name"), [(0, "generate"), (1, "sensor"), (2, "download")])
def test_a_result_that_is_shown_has_the_keys_of_a_real_one(number: int, name: str) -> None:
    shown = json.loads([each for each in snippets("json") if each.page == "results.md"][number].text)
    assert keys(shown) == keys(PROMISED[name])


@pytest.mark.parametrize("name", ["generate_manifest", "download_manifest"])
def test_every_key_of_a_manifest_is_described(name: str) -> None:
    described = set(quoted(prose(page("results.md"))))
    assert set(PROMISED[name]) <= described


# --- lists ---------------------------------------------------------------------------------------------------------


def arguments(name: str) -> set[str]:
    return {argument.split("=")[0] for argument in PROMISED["arguments"][name] if argument != "*"}


@pytest.mark.parametrize(
    ("name", "heading", "argument_names"),
    [
        ("generate.md", "## Parameters", arguments(f"{OPERATORS}GenerateOperator")),
        ("three-tasks.md", "## `NanoBananaSubmitOperator`", arguments(f"{OPERATORS}SubmitOperator")),
        ("three-tasks.md", "## `NanoBananaSensor`", arguments("sensors.nanobanana.NanoBananaSensor")),
        ("three-tasks.md", "## `NanoBananaDownloadOperator`", arguments(f"{OPERATORS}DownloadOperator")),
        ("hook.md", "# Hook", set(PROMISED["hook"])),
        ("metrics.md", "# Metrics", {f"nanobanana.{name}" for name in PROMISED["metrics"]}),
    ],
)
def test_a_table_lists_all_there_is(name: str, heading: str, argument_names: set[str]) -> None:
    listed = [entry.split("(")[0] for row in table(name, heading) for entry in quoted(row[0])]
    assert sorted(listed) == sorted(argument_names)


@pytest.mark.parametrize(
    ("name", "heading", "operator"),
    [
        ("generate.md", "## Parameters", "NanoBananaGenerateOperator"),
        ("three-tasks.md", "## `NanoBananaSubmitOperator`", "NanoBananaSubmitOperator"),
        ("three-tasks.md", "## `NanoBananaSensor`", "NanoBananaSensor"),
        ("three-tasks.md", "## `NanoBananaDownloadOperator`", "NanoBananaDownloadOperator"),
    ],
)
def test_the_templated_arguments_are_named(name: str, heading: str, operator: str) -> None:
    section = page(name).partition(f"{heading}\n")[2]
    sentence = section.partition("Templated: ")[2].partition(".")[0]
    # The argument dry_run is kept under another name: that one is a method of Airflow's operators.
    promised = {name.removeprefix("is_") for name in PROMISED["templates"][operator]}
    assert sorted(quoted(sentence)) == sorted(promised)


def test_every_field_of_the_connection_is_described() -> None:
    (connection,) = get_provider_info()["connection-types"]
    fields = [quoted(row[0])[0] for row in table("connection.md", "# Connection")]
    assert sorted(fields) == sorted(["password", "host", *connection["conn-fields"]])


def test_sizes_and_prices_are_those_of_the_catalogue() -> None:
    model = catalogue.MODELS[catalogue.DEFAULT_MODEL]
    resolutions = model.resolutions or ()

    def pixels(size: str, resolution: str) -> str:
        return " x ".join(map(str, model.pixel_size(size, resolution) or ()))

    assert {quoted(row[0])[0]: row[1:] for row in table("requests.md", "## Sizes")} == {
        size: [pixels(size, resolution) for resolution in resolutions] for size in model.ratios
    }
    assert {quoted(row[0])[0]: row[1:] for row in table("README.md", "## Sizes and costs")} == {
        resolution: [
            *(pixels(size, resolution) for size in ("1:1", "4:3", "16:9")),
            f"{catalogue.LIST_PRICES[resolution]:.3f}",
        ]
        for resolution in resolutions
    }
    assert table("costs.md", "# Costs")[0][1:] == [f"{price:.3f}" for price in catalogue.LIST_PRICES.values()]


def test_the_models_are_those_of_the_catalogue() -> None:
    shown = {name: row[1:] for row in table("requests.md", "## Models") for name in quoted(row[0])}
    assert shown == {name: _cells(row) for name, row in catalogue.MODELS.items()}


def _cells(row: ModelRow) -> list[str]:
    """Return what the table of models says of a row."""
    dialect = next(name for name, known in DIALECTS.items() if known == row.dialect)
    left_out = [ratio for ratio in catalogue.REFERENCE_RATIOS if ratio not in (row.sizes or ())]
    sizes = "any" if row.sizes is None else ", ".join(row.sizes)
    if row.sizes and set(row.sizes) <= set(catalogue.REFERENCE_RATIOS) and len(left_out) <= 4:
        sizes = "all 14 but " + ", ".join(left_out) if left_out else "all 14"
    formats = ", ".join(name.upper() for name in row.reference_formats)
    prices = row.prices if isinstance(row.prices, Mapping) else {"": row.prices}
    usd = " / ".join(f"{price:.3f}" for price in prices.values()) or "not known"
    if row.reference_price is None:
        usd += "; references from the second on cost more"
        assert row.free_references == 1
    elif row.reference_price:
        usd += f"; {row.reference_price:.3f} a reference"
    known = sum(map(len, row.pixels.values()))
    return [
        f"`{dialect}`",
        sizes + (", pixels" if row.pixel_sizes else ""),
        "any" if row.resolutions is None else ", ".join(row.resolutions) or "none",
        str(row.max_references) + ("" if len(row.reference_formats) == 3 else f" ({formats})"),
        usd,
        "all"
        if known and known == len(row.sizes or ()) * len(row.resolutions or ())
        else ", ".join(row.pixels) or "none",
        row.read,
    ]


def test_the_dialects_are_written_as_shown() -> None:
    shown = {quoted(row[0])[0]: json.loads(quoted(row[1])[0]) for row in table("requests.md", "## Models", 1)}
    link = "https://..."
    for name, body in shown.items():
        own = {"mine": ModelRow.model_validate({"dialect": name})}
        said = {} if DIALECTS[name].resolution is None else {"resolution": "2K"}
        request = {"prompt": "x", "reference_images": [link], **said}
        sent = ImageRequest.parse(request, "mine", models=own).to_body()
        assert sent == {"model": "mine", "prompt": "x", "size": "1:1", **body}
    assert shown.keys() == DIALECTS.keys()


def test_every_field_of_a_row_is_described_and_the_example_is_taken() -> None:
    rows = table("requests.md", "### A model of your own")
    assert {name for row in rows for name in quoted(row[0])} == ModelRow.model_fields.keys()
    assert all(f"`{name}`" in rows[0][1] for name in Dialect.model_fields)
    (example,) = [each for each in snippets("json") if each.page == "requests.md" and '"models"' in each.text]
    settings = ToApisSettings(base_url="https://x", api_key="sk-x", **json.loads(example.text))  # type: ignore[arg-type]
    assert catalogue.list_price("gemini-4-image", "2K", own=settings.models) == 0.05


def test_every_error_is_described_with_what_follows_from_it() -> None:
    families = (errors.ToApisError, errors.NotAccepted)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ToApisError)]
    shown = {quoted(row[0])[0]: row[2:] for row in table("failures.md", "## Errors", 1)}
    assert shown == {
        kind.__name__: ["yes" if kind.retryable else "no", kind.charged] for kind in kinds if kind not in families
    }


def test_every_failure_code_is_described() -> None:
    shown = {code for row in table("failures.md", "## Codes") for code in quoted(row[0])}
    assert shown == {row.code for row in FAILURE_CODES}


def test_the_emulators_words_options_and_routes_are_its_own() -> None:
    words = [word for row in table("emulator.md", "## Faults by words in the prompt") for word in quoted(row[0])]
    assert words and all(word_rules(word) for word in words)
    options = {
        option for row in table("emulator.md", "# The emulator: develop without a key") for option in quoted(row[0])
    }
    assert options == {name for action in parser()._actions for name in action.option_strings} - {"-h", "--help"}
    shown = {text.split()[-1] for row in table("emulator.md", "## Control routes") for text in quoted(row[0])}
    assert {path for path in shown if path.startswith("/")} == {route.path for route in routes(Emulator().service)}
