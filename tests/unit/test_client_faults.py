"""Whether bytes left: servers that refuse, never accept, fail TLS, break it later, or drip."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import itertools
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
from airflow_provider_nanobanana.toapis.protocol import NO_REPEATS, ApiCall
from tests.unit.samples import RUNNING, STATUS, SUBMIT, SUBMITTED
from tests.unit.scripted import ScriptedServer, drip, raw, reply, silence
from tests.unit.test_client import call_once

SHELLS = ("sync", "async")
OK = reply(200, json.dumps(SUBMITTED))


def failure(shell: str, base_url: str, call: ApiCall[Any] = SUBMIT, **options: Any) -> errors.ToApisError:
    result, _ = call_once(shell, base_url, call, policy=NO_REPEATS, **options)
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


BODY = json.dumps({**SUBMITTED, "padding": "x" * 60}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n" % len(BODY)
#: gzip with a file name of 60 letters: bytes that decode to nothing for a long while.
NAMED = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff" + b"n" * 60 + b"\x00" + gzip.compress(BODY)[10:]


def pieces(content: bytes) -> list[bytes]:
    return [content[n : n + 1] for n in range(len(content))]


DRIPS: dict[str, list[bytes]] = {
    "body": [HEAD + b"\r\n", *pieces(BODY)],
    "headers": [HEAD, *pieces(b"X-Slow: " + b"x" * 60), b"\r\n\r\n" + BODY],
    "interim answers": [*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 60, HEAD + b"\r\n" + BODY],
    "gzip": [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(NAMED),
        *pieces(NAMED[:71]),
        NAMED[71:],
    ],
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("where", DRIPS)
def test_a_slow_drip_ends_with_the_call_s_time(shell: str, where: str) -> None:
    """Each piece comes long before a read times out; all of them would take six times the call's own 0.5 s.

    The client has to hang up midway, which the server sees. A client that waits for the end gets a whole answer.
    """
    sent: list[bytes] = []
    with ScriptedServer([drip(DRIPS[where], 0.04, sent)]) as server:
        result, _ = call_once(shell, f"http://{server.address}", SUBMIT, timeout=0.5, policy=NO_REPEATS)
        assert isinstance(result, errors.SubmissionUnknown)
    assert len(sent) < len(DRIPS[where])


@pytest.mark.parametrize("shell", SHELLS)
def test_an_endless_answer_is_cut(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1_000_000)
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"x" * 65536))
    with ScriptedServer([drip(endless, 0.0, [])]) as server:
        assert isinstance(failure(shell, f"http://{server.address}", STATUS), errors.TransientFailure)


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
