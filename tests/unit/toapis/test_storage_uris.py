"""A URI in a message holds nothing secret."""

from __future__ import annotations

import pytest

from airflow_provider_nanobanana.toapis.storage_uris import is_object_address, shown


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://store@bucket/xcom/shop/run/task/0c9d", True),
        (" file:///srv/xcom/a.json\n", True),
        ("GS://bucket/a", True),
        ("https://example.org/a.png", False),
        ("a poster that says s3://bucket/a", False),
        ("s3://bucket/a on a poster", False),
        ("noir: // rain", False),
        ("", False),
    ],
)
def test_a_text_that_is_nothing_but_an_address(text: str, expected: bool) -> None:
    assert is_object_address(text) is expected
