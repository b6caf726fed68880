"""Connections as Airflow reads them: URI, JSON and form, and what is said when they are unusable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.models import Connection as ModelConnection
from airflow.sdk import Connection as SdkConnection

from airflow_provider_nanobanana.hooks.connection import read_connection
from airflow_provider_nanobanana.toapis.catalogue import MODELS
from airflow_provider_nanobanana.toapis.errors import ConfigurationError
from airflow_provider_nanobanana.toapis.settings import ToApisSettings
from tests.support.versions import SDK_CONNECTION, gives

KEY = "sk-live-0123456789"
BOTH = gives(SDK_CONNECTION)


def read(connection: Any) -> ToApisSettings:
    return read_connection(connection, connection.extra_dejson)


def from_uri(uri: str) -> list[ToApisSettings]:
    """Return what Airflow's connection classes make of a URI: from 3.1 on the SDK has one, too."""
    connections = [ModelConnection(conn_id="nb", uri=uri)]
    return [read(each) for each in [*connections, *([SdkConnection.from_uri(uri, "nb")] if BOTH else [])]]


def from_json(**fields: Any) -> list[ToApisSettings]:
    text = json.dumps({"conn_type": "nanobanana", "password": KEY, **fields})
    connections = [ModelConnection.from_json(text, "nb")]
    return [read(each) for each in [*connections, *([SdkConnection.from_json(text, "nb")] if BOTH else [])]]


def refusal(**fields: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        from_json(**fields)
    assert caught.value.message.startswith("Connection 'nb'") and KEY not in caught.value.message
    return caught.value.message


URIS = {
    f"nanobanana://:{KEY}@": "https://toapis.com",
    f"nanobanana://:{KEY}@/": "https://toapis.com",
    f"nanobanana://:{KEY}@toapis.cn": "https://toapis.cn",
    f"nanobanana://:{KEY}@toapis.com/v1": "https://toapis.com",
    f"nanobanana://:{KEY}@api.example.com:8443": "https://api.example.com:8443",
    f"nanobanana://:{KEY}@api.example.com:8443/v1": "https://api.example.com:8443",
    f"nanobanana://:{KEY}@api.example.com/gateway": "https://api.example.com/gateway",
    f"nanobanana://:{KEY}@https%3A%2F%2Fapi.example.com%3A8443%2Fv1/": "https://api.example.com:8443",
    f"nanobanana://:{KEY}@https%3A%2F%2Fapi.example.com%2Fgateway%2Fv1": "https://api.example.com/gateway",
    f"nanobanana://https://:{KEY}@api.example.com:8443/v1": "https://api.example.com:8443",
    f"nanobanana://https://:{KEY}@api.example.com/": "https://api.example.com",
    f"nanobanana://http://:{KEY}@localhost:8787": "http://localhost:8787",
    f"nanobanana://:{KEY}@http%3A%2F%2Flocalhost%3A8787": "http://localhost:8787",
    f"nanobanana://:{KEY}@localhost:8787": "http://localhost:8787",
    f"nanobanana://:{KEY}@localhost:8787/https": "https://localhost:8787",
    f"nanobanana://:{KEY}@127.0.0.1:8787/http": "http://127.0.0.1:8787",
    f"nanobanana://:{KEY}@emulator:8787/http?allow_http=true": "http://emulator:8787",
    f"nanobanana://:{KEY}@[::1]:8787": "http://[::1]:8787",
    f"nanobanana://:{KEY}@http%3A%2F%2F%5B%3A%3A1%5D%3A8787": "http://[::1]:8787",
}


@pytest.mark.parametrize("uri", URIS)
def test_uri_forms(uri: str) -> None:
    for settings in from_uri(uri):
        assert settings.base_url == URIS[uri]
        assert settings.api_key.get_secret_value() == KEY


FORMS: list[tuple[dict[str, Any], str]] = [
    ({}, "https://toapis.com"),
    ({"host": ""}, "https://toapis.com"),
    ({"host": "https://toapis.com"}, "https://toapis.com"),
    ({"host": " https://toapis.com/v1/ "}, "https://toapis.com"),
    ({"host": "toapis.com", "schema": "https"}, "https://toapis.com"),
    ({"host": "api.example.com", "port": 8443, "schema": "v1"}, "https://api.example.com:8443"),
    ({"host": "https://api.example.com:8443", "port": 8443}, "https://api.example.com:8443"),
    ({"host": "https://api.example.com/v1", "port": 8443}, "https://api.example.com:8443"),
    ({"host": "api.example.com", "schema": "gateway/v1"}, "https://api.example.com/gateway"),
    ({"host": "localhost", "port": 8787}, "http://localhost:8787"),
    ({"host": "LOCALHOST:8787"}, "http://localhost:8787"),
    ({"host": "127.0.0.1:8787"}, "http://127.0.0.1:8787"),
    ({"host": "::1", "port": 8787}, "http://[::1]:8787"),
    ({"host": "[::1]", "port": 8787}, "http://[::1]:8787"),
    ({"host": "http://emulator:8787", "extra": {"allow_http": True}}, "http://emulator:8787"),
    ({"host": "http://emulator:8787", "extra": json.dumps({"allow_http": "true"})}, "http://emulator:8787"),
    ({"host": "emulator", "port": 8787, "schema": "http", "extra": {"allow_http": 1}}, "http://emulator:8787"),
]


@pytest.mark.parametrize(("fields", "base_url"), FORMS, ids=[json.dumps(fields) for fields, _ in FORMS])
def test_json_forms(fields: dict[str, Any], base_url: str) -> None:
    for settings in from_json(**fields):
        assert settings.base_url == base_url


@pytest.mark.parametrize("allow", [None, False, "false", "no", 0, "", "0"])
def test_plain_http_elsewhere_needs_allow_http(allow: Any) -> None:
    assert "allow_http" in refusal(host="http://emulator:8787", extra={"allow_http": allow})


@pytest.mark.parametrize(
    "host", ["ftp://toapis.com", "https://user:pw@toapis.com", "https://toapis.com/?a=b", "to apis"]
)
def test_an_unusable_host_is_refused(host: str) -> None:
    assert "pw" not in refusal(host=host).partition("host may hold")[0]


def test_defaults() -> None:
    for settings in from_json():
        assert settings.model_dump(exclude={"api_key", "base_url"}) == {
            "model": "nano_banana_2", "timeout": 30.0, "submit_rate": 5.0, "query_rate": 50.0, "prices": {},
            "models": {}, "client_ids": True, "namespace": "",
        }  # fmt: skip


def test_extras_of_a_uri_are_texts_and_become_values() -> None:
    query = "timeout=12.5&submit_rate=16.7&query_rate=166&client_ids=false&model=gemini-x&prices=%7B%221K%22%3A0.02%7D"
    for settings in from_uri(f"nanobanana://:{KEY}@toapis.com/?{query}"):
        assert (settings.timeout, settings.submit_rate, settings.query_rate) == (12.5, 16.7, 166.0)
        assert (settings.client_ids, settings.model, settings.prices) == (False, "gemini-x", {"1K": 0.02})


def test_unset_and_unknown_extras_are_ignored() -> None:
    extra = {
        "timeout": "",
        "model": None,
        "prices": "",
        "client_ids": None,
        "verify": False,
        "base_url": "http://evil",
        "api_key": "x",
    }
    for settings in from_json(extra=extra):
        assert (settings.timeout, settings.model, settings.client_ids) == (30.0, "nano_banana_2", True)
        assert (settings.base_url, settings.api_key.get_secret_value()) == ("https://toapis.com", KEY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("timeout", timeout) for timeout in (0, -1, "soon", "nan", "inf", 601)],
        *[(rate, value) for rate in ("submit_rate", "query_rate") for value in (0, -5, "fast", "nan", "inf", 1e9)],
        ("prices", "cheap"),
        ("prices", [1]),
        ("prices", {"1K": "x"}),
        ("prices", '{"1K": NaN}'),
        ("prices", {"1K": -1}),
        ("prices", {"gpt-image-2": {"1K": -1}}),
        ("prices", {"gpt-image-2": {"1K": "x"}}),
        ("models", "flux"),
        ("models", "[1]"),
        ("models", [1]),
        ("models", {"mine": "guide"}),
        ("models", {"mine": {}}),
        ("models", {"mine": {"dialect": "gemini"}}),
        ("models", {"mine": {"dialect": "guide", "ratios": ["1:1"]}}),
        ("models", {"nano_banana_2": {"max_references": 99}}),
        ("client_ids", "perhaps"),
        ("client_ids", 2),
        ("allow_http", "perhaps"),
        ("allow_http", []),
        *[(number, True) for number in ("timeout", "submit_rate", "query_rate")],
        ("timeout", 10**400),
        ("prices", {"1K": 1e308}),
        ("prices", '{"1K": 1e999}'),
        ("model", 3),
        *[("namespace", text) for text in ("a\nb", "a\x00", "\x85", "a\u2028b", "n" * 101)],
        ("namespace", 7),
        ("namespace", ["a"]),
    ],
)
def test_a_bad_extra_is_named(field: str, value: Any) -> None:
    assert f"extra '{field}" in refusal(extra={field: value})


@pytest.mark.parametrize("as_text", [False, True])
def test_rows_of_models_are_read_and_the_field_at_fault_is_named(as_text: bool) -> None:
    rows = {"mine": {"dialect": "guide", "prices": {"1K": 0.02}}, "flux-2-pro": {"max_references": 2}}
    for settings in from_json(extra={"models": json.dumps(rows) if as_text else rows}):
        assert (settings.models["mine"].prices, settings.models["flux-2-pro"].max_references) == ({"1K": 0.02}, 2)
        assert settings.models["flux-2-pro"].sizes == MODELS["flux-2-pro"].sizes, "what is not given stays as it is"
    assert "extra 'models.mine.dialect.resolution'" in refusal(
        extra={"models": {"mine": {"dialect": {"resolution": "prompt"}}}}
    )
    message = refusal(extra={"models": {"mine": {"prices": 0.03}}})
    assert "'mine' is not known, so its row needs a dialect; use one of guide, reference" in message


@pytest.mark.parametrize(("given", "namespace"), [("", ""), (None, ""), ("   ", ""), (" staging ", "staging")])
def test_a_namespace_is_a_short_text(given: str | None, namespace: str) -> None:
    for settings in [*from_json(extra={"namespace": given}), *from_json(extra=json.dumps({"namespace": given}))]:
        assert settings.namespace == namespace
    for settings in from_uri(f"nanobanana://:{KEY}@toapis.com/?namespace=prod%20eu"):
        assert settings.namespace == "prod eu"


@pytest.mark.parametrize("password", [None, "", "   "])
def test_a_missing_key_says_where_it_belongs(password: str | None) -> None:
    assert "password" in refusal(password=password)
    assert "login" in refusal(password=password, login="sk-something") and "sk-something" not in refusal(
        password=password, login="sk-something"
    )


def test_the_key_is_stripped_and_never_shown() -> None:
    for settings in from_json(password=f" {KEY}\n"):
        assert settings.api_key.get_secret_value() == KEY
        assert KEY not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize("host", [f"https://{KEY}@toapis.com", f"https://toapis.com/?key={KEY}", f"{KEY} "])
def test_a_key_in_the_host_field_is_never_shown(host: str) -> None:
    try:
        from_json(host=host)
    except ConfigurationError as error:
        assert KEY not in error.message


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ("[1, 2]", "a list"),
        ("5", "a number"),
        ("0", "a number"),
        ("true", "true or false"),
        ('"sk-abc"', "a text"),
        (json.dumps("[1]"), "a list"),
        (json.dumps(json.dumps(json.dumps({"timeout": 5}))), "a text"),
    ],
)
def test_an_extra_that_is_no_object_is_said_and_not_shown(extra: str, kind: str) -> None:
    connection = SdkConnection(conn_id="nb", conn_type="nanobanana", password=KEY, extra=extra)
    with pytest.raises(ConfigurationError) as caught:
        read(connection)
    said = caught.value.message
    assert said.endswith(f"it is {kind}.") and "JSON object" in said and "sk-abc" not in said


def test_json_inside_a_json_text_is_read_once_more() -> None:
    for extra, timeout in {
        json.dumps(json.dumps({"timeout": 5})): 5.0,
        "null": 30.0,
        "{}": 30.0,
        json.dumps("null"): 30.0,
    }.items():
        connection = SdkConnection(conn_id="nb", conn_type="nanobanana", password=KEY, extra=extra)
        assert read(connection).timeout == timeout


@pytest.mark.parametrize(
    ("password", "hint"),
    [
        (f"Bearer {KEY}", "Bearer"),
        (f"bearer  {KEY}", "Bearer"),
        (f"Authorization: Bearer {KEY}", "Bearer"),
        (f'"{KEY}"', "quotes"),
        (f"'{KEY}'", "quotes"),
        (f"\u201c{KEY}\u201d", "quotes"),
        (f"{KEY}`", "quotes"),
        ("${TOAPIS_API_KEY}", "placeholder"),
        ("<your key>", "placeholder"),
        (f"{KEY[:7]} {KEY[7:]}", "blank"),
        (f"{KEY[:7]}\n{KEY[7:]}", "line end"),
        (f"{KEY}\u200b", "invisible"),
        (f"\ufeff{KEY}", "invisible"),
    ],
)
def test_what_is_pasted_around_a_key_is_said_before_anything_is_sent(password: str, hint: str) -> None:
    said = refusal(password=password)
    assert hint in said and "password" in said and KEY[7:] not in said


@pytest.mark.parametrize("key", ["1", "test", "bearer-1234", "sk-proj/AbC+12=="])
def test_whatever_may_be_a_key_is_taken(key: str) -> None:
    assert {settings.api_key.get_secret_value() for settings in from_json(password=f"{key} \r\n")} == {key}


@pytest.mark.parametrize(
    ("pasted", "base_url"),
    [
        ("https://api.example.com/v1/images/generations", "https://api.example.com"),
        ("https://api.example.com/v1/images/generations/tsk_1/", "https://api.example.com"),
        ("https://api.example.com/gateway/v1/models", "https://api.example.com/gateway"),
        ("https://api.example.com/v1/user/balance", "https://api.example.com"),
        ("https://api.example.com/v1/account/gateway", "https://api.example.com/v1/account/gateway"),
        ("https://api.example.com/v1/account/v1/uploads/images", "https://api.example.com/v1/account"),
        ("https://api.example.com/v1images", "https://api.example.com/v1images"),
    ],
)
def test_a_pasted_route_is_cut_off_the_host(pasted: str, base_url: str) -> None:
    assert {settings.base_url for settings in from_json(host=pasted)} == {base_url}


@pytest.mark.parametrize("form", ["uri", "json"])
def test_environment_variables(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``AIRFLOW_CONN_NANOBANANA_DEFAULT`` works as URI and as JSON."""
    value = (
        f"nanobanana://:{KEY}@localhost:8787/?timeout=5"
        if form == "uri"
        else json.dumps({"conn_type": "nanobanana", "host": "localhost:8787", "password": KEY, "extra": {"timeout": 5}})
    )
    monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", value)
    settings = read(ModelConnection.get_connection_from_secrets("nanobanana_default"))
    assert (settings.base_url, settings.timeout) == ("http://localhost:8787", 5.0)
