"""What the environment says of proxies and certificates: one rule, and what cannot be used is named."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_nanobanana.toapis.client import AsyncToApisClient, ToApisClient
from airflow_provider_nanobanana.toapis.errors import ConfigurationError, ConnectionFailed
from airflow_provider_nanobanana.toapis.http import shared_ssl_context
from airflow_provider_nanobanana.toapis.proxy import bypasses, find_proxy
from airflow_provider_nanobanana.toapis.retry import NO_RETRY
from tests.support.responses import KEY, STATUS

CLIENTS = (ToApisClient, AsyncToApisClient)


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
    shared_ssl_context.cache_clear()
    yield
    shared_ssl_context.cache_clear()


@pytest.mark.parametrize(
    ("no_proxy", "named", "others"),
    [
        ("example.com", ["example.com", "a.example.com", "EXAMPLE.com", "example.com."], ["badexample.com", "com"]),
        (".example.com", ["example.com", "a.b.example.com"], ["badexample.com"]),
        ("*.example.com", ["a.example.com"], ["badexample.com"]),
        ("*", ["anything", "10.0.0.1", "::1"], []),
        ("a.example, *", ["b.example"], []),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "10.example.com"]),
        ("10.1.2.3/8", ["10.9.9.9"], ["11.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "x127.0.0.1"]),
        ("fd07:b51a:cc66:f0::/64", ["fd07:b51a:cc66:f0::9"], ["fd07:b51a:cc66:f1::9", "10.0.0.1"]),
        ("[::1]", ["::1", "0:0:0:0:0:0:0:1"], ["::2"]),
        ("::1", ["::1"], ["::2"]),
        ("[fd00::]/8,[fd00::/8]", ["fd12::1"], ["fe80::1"]),
        ("localhost\t127.0.0.1 .svc", ["localhost", "127.0.0.1", "db.svc"], ["svc.com"]),
        ("https://example.com", ["example.com"], []),
        ("http://example.com", [], ["example.com"]),
        ("all://example.com", ["example.com"], ["example.org"]),
        ("example.com:443", ["example.com"], ["example.org"]),
        ("example.com:8080,[::1]:8080", [], ["example.com", "::1"]),
        ("[::1]:443", ["::1"], ["::2"]),
        (",, ,[::,[,]:,://,999.1/8,fd00::/999,:::,\u2028,*:*,.", [], ["example.com", "::1", "10.0.0.1", "::"]),
        ("", [], ["example.com"]),
    ],
)
def test_no_proxy_names(no_proxy: str, named: list[str], others: list[str]) -> None:
    assert [host for host in named if not bypasses(no_proxy, "https", host, 443)] == []
    assert [host for host in others if bypasses(no_proxy, "https", host, 443)] == []


def test_the_proxy_of_the_scheme_comes_before_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", " proxy.example:3128 ")
    secure, plain = find_proxy("https", "toapis.com"), find_proxy("http", "toapis.com")
    assert secure is not None and (secure.url, secure.variable) == ("http://proxy.example:3128", "HTTPS_PROXY")
    assert plain is not None and plain.variable == "ALL_PROXY" and "127" not in repr(plain)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "value",
    [
        "socks://user:PASSWORD@127.0.0.1:9",
        "socks5://user:PASSWORD@127.0.0.1:9",  # the package socksio is not installed
        "socks4://127.0.0.1:9",
        "ftp://PASSWORD@proxy",
        "http://[::1",
        "http://proxy:PASSWORD",
        "http://proxy:99999",
        "http://",
        "http://:3128",
        "http://user:PASSWORD@",
        "http://pro xy:3128",
        "http://xn--zzzzzz.com:3128",
        "http://" + "a" * 70 + ".example:3128",
        "://",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_cannot_be_used_is_named_at_once(
    client: type, value: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        client("https://toapis.com", KEY)
    assert variable in caught.value.message and "PASSWORD" not in caught.value.message
    monkeypatch.setenv("NO_PROXY", "toapis.com")
    client("https://toapis.com", KEY)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("kind", ["missing", "empty", "no PEM", "folder or file", "nul"])
def test_certificates_that_cannot_be_read_are_named_at_once(
    client: type, variable: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without certificates under their hashes would fail every handshake, and blame the other side."""
    place = tmp_path / "certificates"
    file = variable == "SSL_CERT_FILE"
    if kind in ("empty", "no PEM") and file:
        place.write_text("" if kind == "empty" else "no certificate")
    elif kind == "no PEM":
        place.mkdir()
        (place / "readme.txt").write_text("no certificate")
    elif kind != "missing":
        place.mkdir() if file or kind == "empty" else place.write_text("")
    monkeypatch.setenv(variable, str(place))
    with pytest.raises(ConfigurationError, match=variable):
        client("https://toapis.com", KEY)
    monkeypatch.delenv(variable)
    client("https://toapis.com", KEY)


def test_certificates_that_can_be_read_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    bundle = Path(certifi.where()).read_text()
    one = bundle[bundle.index("-----BEGIN") : bundle.index("-----END CERTIFICATE-----") + 25] + "\n"
    (tmp_path / "one.pem").write_text(one)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one.pem"))
    assert len(shared_ssl_context().get_ca_certs()) == 1
    shared_ssl_context.cache_clear()
    (tmp_path / "0123abcd.0").write_text(one)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", f"/nonexistent:{tmp_path}")
    assert isinstance(shared_ssl_context(), ssl.SSLContext)


@pytest.mark.parametrize("path", ["/nonexistent/keys.log", "/"])
def test_a_key_log_that_cannot_be_written_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", path)
    with pytest.raises(ConfigurationError, match="SSLKEYLOGFILE"):
        ToApisClient("https://toapis.com", KEY)


def test_no_entry_of_no_proxy_keeps_a_client_from_being_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "fd00::/8,[::,[::1]:x,\\,127.0.0.1,%zz,http://[")
    with pytest.raises(ConnectionFailed):
        ToApisClient("http://127.0.0.1:1", KEY).call(STATUS, NO_RETRY)

    async def look() -> None:
        await AsyncToApisClient("http://127.0.0.1:1", KEY).call(STATUS)

    with pytest.raises(ConnectionFailed):
        asyncio.run(look())
