"""Tiny servers on loopback for download tests, and what those tests share: no timing, nothing beyond loopback."""

from __future__ import annotations

import contextlib
import datetime
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_nanobanana.landing.address_policy import AddressPolicy
from airflow_provider_nanobanana.landing.link_fetcher import LinkFetcher
from airflow_provider_nanobanana.toapis.errors import ToApisError
from tests.support.text import flat

Send = Callable[[bytes], None]
Responder = Callable[[str, Send], None]


LOOPBACK_POLICY = AddressPolicy(allow_http=True, reach="loopback")
BODY = bytes(range(256)) * 1000
SECRET = "?X-Amz-Signature=s3cret"


def resolver(*addresses: str) -> Callable[[str, int], list[str]]:
    """A resolver with one answer, and a list of what it was asked."""
    return lambda host, port: list(addresses)


def fetch_link(url: str, sink: BinaryIO, policy: AddressPolicy = LOOPBACK_POLICY, **options: Any) -> bool:
    """Fetch one link; options as :class:`LinkFetcher` takes them."""
    with LinkFetcher(policy, **options) as fetcher:
        return fetcher.fetch(url, sink)


def body_of(url: str, policy: AddressPolicy = LOOPBACK_POLICY, **options: Any) -> bytes:
    """Return what a link serves."""
    sink = io.BytesIO()
    fetch_link(url, sink, policy, **options)
    return sink.getvalue()


def fetch_error(url: str, policy: AddressPolicy = LOOPBACK_POLICY, **options: object) -> ToApisError:
    """Fetch, expect an error, and check what holds for every error: no secret, no byte left in the sink."""
    sink = io.BytesIO(b"before")
    sink.seek(0, io.SEEK_END)
    with pytest.raises(ToApisError) as caught:
        fetch_link(url, sink, policy, **options)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in flat(error)
        error = error.__cause__
    assert sink.getvalue() == b"before"
    return caught.value


@dataclass
class Server:
    """A running server: ``requests`` holds the head of each request, ``peers`` one entry for each connection."""

    port: int
    requests: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


def respond(status: int = 200, body: bytes = b"", *, length: bool = True, **headers: str) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} Some Words", *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())]
    if length and "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def fixed(answer: bytes) -> Responder:
    """Answer every request the same way."""
    return lambda _, send: send(answer)


@contextlib.contextmanager
def serve(answer: Responder, *, tls: ssl.SSLContext | None = None, keep_alive: bool = False) -> Iterator[Server]:
    """Serve ``answer(path, send)`` until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(port=listener.getsockname()[1])
    if tls is not None:
        tls.sni_callback = lambda _sock, name, _ctx: server.names.append(name)

    def connection(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            stream = tls.wrap_socket(plain, server_side=True) if tls else plain
            with stream:
                while head := _read_head(stream):
                    server.requests.append(head)
                    answer(head.split(" ")[1], stream.sendall)
                    if not keep_alive:
                        break

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, peer = listener.accept()
                server.peers.append(peer[0])
                threading.Thread(target=connection, args=(plain,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)


def _read_head(stream: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = stream.recv(4096)
        if not piece:
            return ""
        head += piece
    return head.decode("latin-1")


@dataclass(frozen=True)
class Certificates:
    """A private authority and one server certificate it signed."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def certificates(folder: Path, name: str) -> Certificates:
    """Make an authority and a certificate for ``name`` (not for 127.0.0.1)."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca = _builder(ca_name, ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    ca_cert = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    leaf = _builder(subject, ca_name, key.public_key()).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("192.0.2.1"))]), critical=False
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    cert = leaf.add_extension(authority, critical=False).sign(ca_key, hashes.SHA256())
    chain = folder / "server.pem"
    chain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cadata=ca_cert.public_bytes(serialization.Encoding.PEM).decode())
    return Certificates(server, client)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
