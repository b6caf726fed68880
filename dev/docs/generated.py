"""Parts of pages that are made from the code: a page says where with ``<!-- generated: name -->``."""

from __future__ import annotations

import argparse
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

PACKAGE = Path(__file__).parents[2] / "airflow_provider_nanobanana"
_CITED = re.compile(r"\bdocs/([\w/-]+)\.md")
_MARK = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


def fill_in(markdown: str, source: str) -> str:
    """Return a page with each of its marks replaced; what a part cites of docs/ is a link.

    :param source: The page's path in the repository, such as ``docs/manifest.md``.
    :raises KeyError: A mark names no part.
    """

    def link(cited: re.Match[str]) -> str:
        return f"[{cited[1]}]({posixpath.relpath(cited[0], posixpath.dirname(source))})"

    return _MARK.sub(lambda mark: _CITED.sub(link, PARTS[mark[1]]()), markdown)


def command_line() -> str:
    """Return a section for each command, as ``--help`` describes it, and for the emulator."""
    from airflow_provider_nanobanana.__main__ import parser
    from airflow_provider_nanobanana.emulator.__main__ import parser as emulator_parser

    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    sections = [_command(f"`{name}`", command) for name, command in commands.choices.items()]
    return "\n\n".join([*sections, _command("The emulator", emulator_parser())])


def _command(title: str, command: argparse.ArgumentParser) -> str:
    lines = [f"## {title}", "", command.description or "", "", f"```text\n{_usage(command)}\n```", ""]
    lines += ["| argument | meaning |", "|---|---|"]
    for action in command._actions:
        if not isinstance(action, argparse._HelpAction):
            name = ", ".join(action.option_strings) or action.metavar or action.dest
            value = f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
            choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""
            shown = f"{name} {choices}" if choices else f"{name}{value}"
            lines.append(f"| `{shown}` | {_cell((action.help or '') % vars(action))} |")
    return "\n".join([*lines, "", command.epilog or ""])


def _usage(command: argparse.ArgumentParser) -> str:
    return " ".join(command.format_usage().removeprefix("usage: ").split())


def connection_fields() -> str:
    """Return the fields of the connection's extra as the form in Airflow shows them."""
    from airflow_provider_nanobanana.get_provider_info import get_provider_info

    (connection,) = get_provider_info()["connection-types"]
    rows = [
        [f"`{name}`", field["label"], _types(field["schema"]), _default(field["schema"]), field["description"]]
        for name, field in connection["conn-fields"].items()
    ]
    return _table(["extra", "in the form", "type", "default", "meaning"], rows)


def configuration() -> str:
    """Return a section for each section of Airflow's configuration that is ours."""
    from airflow_provider_nanobanana.get_provider_info import get_provider_info

    return "\n\n".join(
        f"## `[{section}]`\n\n{described['description']}\n\n"
        + _table(
            ["option", "environment variable", "type", "default", "meaning"],
            [
                [
                    f"`{name}`",
                    f"`AIRFLOW__{section.upper()}__{name.upper()}`",
                    option["type"],
                    f"`{option['default']}`" if option["default"] else "",
                    option["description"] + (f" Example: `{option['example']}`" if option["example"] else ""),
                ]
                for name, option in described["options"].items()
            ],
        )
        for section, described in get_provider_info()["config"].items()
    )


def manifest_keys() -> str:
    """Return a table of the manifest's keys, and one for each kind of its records."""
    schema = json.loads((PACKAGE / "manifest.schema.json").read_text())
    sections = [_keys(schema)]
    for name, record in schema["$defs"].items():
        users = [key for key, value in schema["properties"].items() if name in json.dumps(value.get("items", {}))]
        sections.append(f"### `{'`, `'.join(users)}`: each entry\n\n{record['description']}\n\n{_keys(record)}")
    return "\n\n".join(sections)


def _keys(record: Mapping[str, Any]) -> str:
    rows = [
        [
            f"`{name}`" + ("" if name in record["required"] else " (not always there)"),
            _types(value),
            value.get("description", ""),
        ]
        for name, value in record["properties"].items()
    ]
    return _table(["key", "type", "meaning"], rows)


def _types(schema: Mapping[str, Any]) -> str:
    """Return the types that a value may have, in words."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kinds = schema.get("type", "any")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    return " or ".join("moment" if name == "string" and schema.get("format") else name for name in names)


def _default(schema: Mapping[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if schema.get("default") not in (None, "") else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


PARTS: Final[dict[str, Callable[[], str]]] = {
    "command line": command_line,
    "connection fields": connection_fields,
    "configuration": configuration,
    "manifest keys": manifest_keys,
}
