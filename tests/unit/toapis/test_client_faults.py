"""Whether bytes left: servers that refuse, never accept, fail TLS or break it later, proxies that say no."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_nanobanana.toapis import client as client_module
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.protocol import ApiCall
from tests.support.responses import RUNNING, STATUS, SUBMIT, SUBMITTED
from tests.support.scripted_server import ScriptedServer, raw, reply, silence
from tests.unit.toapis.test_client import call_once

SHELLS = ("sync", "async")
OK = reply(200, json.dumps(SUBMITTED))


def failure(shell: str, base_url: str, call: ApiCall[Any] = SUBMIT, **options: Any) -> errors.ToApisError:
    result, _ = call_once(shell, base_url, call, **options)
    assert isinstance(result, errors.ToApisError), result
    return result


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "loopback.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return path


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def deaf() -> Iterator[str]:
    """A port whose queue is full: the kernel drops every further connection attempt."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_refused_connection_was_not_sent(shell: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = failure(shell, f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert (type(error), error.charged) == (errors.ConnectionFailed, "no")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_that_does_not_resolve_was_not_sent(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert type(failure(shell, "http://gateway.invalid")) is errors.ConnectionFailed


@pytest.mark.parametrize("shell", SHELLS)
def test_a_connection_that_is_never_accepted_was_not_sent(shell: str) -> None:
    """Also where the whole call's time is no longer than the connection's: the POST cannot have left."""
    with deaf() as base_url:
        error = failure(shell, base_url, timeout=0.5)
    assert (type(error), error.charged) == (errors.ConnectionFailed, "no")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_server_without_tls_was_not_sent_anything(shell: str) -> None:
    with ScriptedServer([raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")]) as server:
        # The greeting of TLS holds no request; what answers it is not TLS.
        error = failure(shell, f"https://{server.address}", timeout=5)
    assert type(error) is errors.ConnectionFailed


@pytest.mark.parametrize("shell", SHELLS)
def test_an_untrusted_certificate_was_not_sent_anything(shell: str, certificate: Path) -> None:
    with ScriptedServer([OK], serving(certificate)) as server:
        error = failure(shell, f"https://{server.address}")
    assert (type(error), server.requests) == (errors.ConnectionFailed, [])
    assert "SSL_CERT_FILE" in error.message


@pytest.fixture
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    context = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(client_module, "shared_ssl_context", lambda: context)
    return certificate


def spoil(connection: socket.socket) -> None:
    """Write below the TLS layer: a record that no key ever sealed."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as bare:
        bare.sendall(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("call", "expected"),
    [(SUBMIT, errors.SubmissionUnknown), (STATUS, errors.TransientFailure)],
    ids=["submit", "status"],
)
def test_tls_that_breaks_after_the_request_may_have_been_accepted(
    shell: str, call: ApiCall[Any], expected: type, trusting: Path
) -> None:
    with ScriptedServer([spoil], serving(trusting)) as server:
        error = failure(shell, f"https://{server.address}", call)
    assert (type(error), len(server.requests)) == (expected, 1)


@pytest.mark.parametrize("shell", SHELLS)
def test_tls_that_works_is_used(shell: str, trusting: Path) -> None:
    with ScriptedServer([OK], serving(trusting)) as server:
        result, _ = call_once(shell, f"https://{server.address}", SUBMIT)
    assert result.id == SUBMITTED["id"]


@pytest.mark.parametrize("shell", SHELLS)
def test_silence_after_the_request_may_have_been_accepted(shell: str) -> None:
    with ScriptedServer([silence]) as server:
        error = failure(shell, f"http://{server.address}", timeout=0.3)
    assert (type(error), error.charged) == (errors.SubmissionUnknown, "unknown")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_proxy_that_refuses_was_sent_neither_request_nor_key(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([reply(403, "not through here")]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        error = failure(shell, "https://gateway.invalid")
    assert (type(error), error.charged) == (errors.ConnectionFailed, "no")
    assert "403" in error.message
    (request,) = proxy.requests
    assert request.line == "CONNECT gateway.invalid:443 HTTP/1.1"
    assert (request.header("authorization"), request.body) == (None, b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_compressed_answers_are_read(shell: str) -> None:
    body = gzip.compress(json.dumps(RUNNING).encode())
    with ScriptedServer([reply(200, body, Content_Encoding="gzip")]) as server:
        result, _ = call_once(shell, f"http://{server.address}", STATUS)
    assert result.wire_status == "in_progress"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("base_url", ["https://a\x00b.com", "https://xn--.com", "https://\u3002.com", "https://h/\x7f"])
def test_a_host_that_httpx_cannot_take_is_a_configuration_error(shell: str, base_url: str) -> None:
    """``normalise_host`` lets these through today; whichever of the two refuses them, it is the tree's error."""
    from airflow_provider_nanobanana.toapis.protocol import normalise_host

    with pytest.raises(errors.ConfigurationError):
        raise failure(shell, normalise_host(base_url))
