"""A URI in a message holds nothing secret."""

from __future__ import annotations

import pytest

from airflow_provider_nanobanana.toapis.storage_uris import shown


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://key:pass/word@box/a.csv", "s3://…@box/a.csv"),
        ("https://shop.example:8443/a.csv?sig=abc", "https://shop.example:8443/a.csv?…"),
        ("s3://my_connection@box/a.csv", "s3://my_connection@box/a.csv"),
        ("a kite?", "a kite?"),
    ],
)
def test_password_and_query_are_left_out(uri: str, said: str) -> None:
    assert shown(uri) == said
