from __future__ import annotations

from importlib import import_module

import pytest

from airflow_provider_nanobanana.__main__ import COMMANDS, main


def test_help_names_every_command_and_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for name in COMMANDS:
        assert f"{name} {import_module(f'airflow_provider_nanobanana.cli.{name}').PURPOSE}" in shown


@pytest.mark.parametrize("line", [[], ["no-such-command"], ["check", "--no-such-option"]])
def test_a_line_that_names_no_command_does_nothing(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line)
    assert end.value.code == 2
    assert "usage: python -m airflow_provider_nanobanana" in capsys.readouterr().err
