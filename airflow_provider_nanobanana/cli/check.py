"""``check``: whether the account of a connection could buy an image, found out with free calls."""

from __future__ import annotations

import argparse
from typing import Final

PURPOSE: Final = "See whether a connection's key, host, model and credits would buy an image; buys none."


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    command.add_argument(
        "--conn-id", default="nanobanana_default", metavar="ID", help="the Airflow connection (%(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Test the connection; return 0 where an image could be bought, else 1."""
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook

    with NanoBananaHook(options.conn_id) as hook:
        works, words = hook.test_connection()
    print(words)
    return 0 if works else 1
