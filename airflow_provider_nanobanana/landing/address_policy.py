"""AddressPolicy: which addresses a link may lead to; it makes no connection.

A link comes from the service's answer, a redirect from the host that serves it; neither may make a worker talk to the
machines around it. Judged twice: the link as it is written (:func:`check_url`) and every address its host resolves
to (:func:`check_address`). The tables are our own because ``ipaddress.is_private`` and its siblings changed their
meaning between Python versions; they follow the IANA special-purpose address registries (RFC 6890 and updates).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from airflow_provider_nanobanana.toapis.errors import DownloadFailed, UnsafeAddress

Reach = Literal["public", "private", "loopback"]
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class AddressPolicy:
    """What links of one connection may lead to, besides public https addresses.

    ``allow_http``: plain http is taken (the connection's own base URL is http). ``reach``: "private" adds private
    networks, "loopback" adds this machine, because the connection's own host is there (an emulator, a gateway).
    """

    allow_http: bool = False
    reach: Reach = "public"


@dataclass(frozen=True)
class LinkTarget:
    """What a connection needs of a checked link: ``host`` without brackets, ``literal`` where it is an address."""

    scheme: str
    host: str
    port: int
    literal: IPAddress | None


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_LOOPBACK: Final = _networks("127.0.0.0/8", "::1/128")
_PRIVATE: Final = _networks(
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
    # Benchmark networks, which "fake IP" proxies (common where toapis.cn is used) give out for every name.
    "198.18.0.0/15",
)  # fmt: skip
_NEVER: Final = _networks(
    # Metadata services outside link-local: Alibaba Cloud, Azure, AWS, Google Cloud, Oracle Cloud (in 192.0.0.0/24).
    "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", "fd20:ce::254/128",
    # Unspecified, link-local, protocol assignments, documentation, multicast, reserved and broadcast.
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "2001:db8::/32", "3fff::/20",
)  # fmt: skip
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
_MAPPED: Final = _networks("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
_SIX_TO_FOUR: Final = ipaddress.IPv6Network("2002::/16")
_IPV6_PROTOCOLS: Final = ipaddress.IPv6Network("2001::/23")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")

_METADATA_NAMES: Final = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"})
_INSIDE_SUFFIXES: Final = (
    ".localhost",
    ".local",
    ".internal",
    ".home.arpa",
    ".lan",
    ".intranet",
    ".corp",
    ".svc",
    ".cluster",
)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# No user information, zone id, percent sign, backslash or non-ASCII digit: parsers disagree about all of them.
_NETLOC: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def check_url(url: str, policy: AddressPolicy) -> LinkTarget:
    """Judge a link as it is written.

    :raises UnsafeAddress: Another scheme than https (or http where allowed), user information, a host written in a
        way that parsers read differently, a literal address or a name that :class:`AddressPolicy` keeps out. The
        message holds no part of the link but its host.
    """
    if _CONTROL.search(url):
        raise UnsafeAddress("The link holds control characters, or half a character")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UnsafeAddress("The link is not a URL: its host or port cannot be read") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and policy.allow_http):
        allowed = "https or http" if policy.allow_http else "https"
        raise UnsafeAddress(f"The link to {host[:80]!r} has the scheme {parts.scheme[:20]!r}; only {allowed} is taken")
    if not _NETLOC.fullmatch(parts.netloc) or port == 0:
        raise UnsafeAddress(f"The link's host {host[:80]!r} is not written as a plain host, with a port or without")
    literal = _literal(parts, host)
    if literal is None:
        _check_name(host, policy)
    else:
        check_address(literal, policy)
    return LinkTarget(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), literal)


def check_address(address: str | IPAddress, policy: AddressPolicy) -> None:
    """Judge one address, and the IPv4 address inside it where it carries one.

    :raises UnsafeAddress: Private or loopback beyond the policy's reach; link-local, metadata, unspecified,
        multicast, reserved and unparsable addresses always.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as error:
        raise UnsafeAddress(f"{str(address)[:80]!r} is not an address") from error
    for one in (ip, *_inner(ip)):
        kind = _kind(one)
        if kind not in ("public", policy.reach):
            inside = f" (inside {ip})" if one != ip else ""
            raise UnsafeAddress(f"The link leads to {one}{inside}, {_WHY[kind]}")


def checked_addresses(link: LinkTarget, policy: AddressPolicy, resolve: Resolve) -> tuple[str, ...]:
    """Look a link's host up once and return its addresses, all of them checked: connections go to no other.

    :raises UnsafeAddress: Any of the addresses is kept out by the policy: a host with mixed answers is not trusted.
    :raises DownloadFailed: The host has no address.
    """
    if link.literal is not None:
        return (str(link.literal),)
    try:
        addresses = resolve(link.host, link.port)
    except (OSError, UnicodeError) as error:
        raise DownloadFailed(f"The link's host {link.host} cannot be resolved: {error}") from error
    if not addresses:
        raise DownloadFailed(f"The link's host {link.host} has no address")
    for address in addresses:
        try:
            check_address(address, policy)
        except UnsafeAddress as error:
            raise UnsafeAddress(f"{error.message} (host {link.host})") from error
    return tuple(dict.fromkeys(addresses))


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host, in the order it would connect to them.

    :raises OSError: There is no such host, or nobody to ask.
    """
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def address_policy_for(base_url: str, resolve: Resolve) -> AddressPolicy:
    """Derive the policy from where the connection itself leads.

    :param base_url: The connection's normalised base URL.
    :param resolve: Host and port to addresses; an ``OSError`` (no DNS behind a proxy) means the strict policy.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        addresses = [str(ipaddress.ip_address(host))]
    except ValueError:
        try:
            addresses = resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
        except (OSError, UnicodeError):
            addresses = []
    kinds = {_effective_kind(ipaddress.ip_address(address)) for address in addresses}
    # A host with mixed addresses proves nothing: the strict policy.
    reach: Reach = "public"
    if kinds == {"loopback"}:
        reach = "loopback"
    elif kinds == {"private"}:
        reach = "private"
    return AddressPolicy(allow_http=parts.scheme == "http", reach=reach)


_Kind = Literal["public", "private", "loopback", "never"]
_WHY: Final[dict[_Kind, str]] = {
    "private": "a private network that this connection's own host is not in",
    "loopback": "this machine, where this connection's own host is not",
    "never": "a link-local, metadata or reserved address, which is never connected to",
}


def _kind(ip: IPAddress) -> _Kind:
    if _within(ip, _NEVER):
        return "never"
    if _within(ip, _LOOPBACK):
        return "loopback"
    if _within(ip, _PRIVATE):
        return "private"
    if ip.version == 4 or ip in _TEREDO or _within(ip, _MAPPED):
        return "public"  # of the last two, what they carry is judged
    return "public" if ip in _GLOBAL_IPV6 and ip not in _IPV6_PROTOCOLS else "never"


def _effective_kind(ip: IPAddress) -> _Kind:
    """Return the kind of the address itself, or of the strictest one inside it."""
    kinds = {_kind(one) for one in (ip, *_inner(ip))} - {"public"}
    return kinds.pop() if len(kinds) == 1 else "never" if kinds else "public"


def _within(ip: IPAddress, networks: Iterable[Network]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _inner(ip: IPAddress) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses an IPv6 address carries: mapped, translated, NAT64, 6to4, Teredo, ISATAP."""
    if ip.version == 4:
        return ()
    number = int(ip)
    last = number & 0xFFFFFFFF
    if _within(ip, _MAPPED):
        return (ipaddress.IPv4Address(last),)
    if ip in _SIX_TO_FOUR:
        return (ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF),)
    if ip in _TEREDO:  # server, and the client's address with every bit turned over
        return (ipaddress.IPv4Address(number >> 64 & 0xFFFFFFFF), ipaddress.IPv4Address(last ^ 0xFFFFFFFF))
    if number >> 32 & 0xFCFFFFFF == 0x00005EFE:  # ISATAP interface identifier
        return (ipaddress.IPv4Address(last),)
    return ()


def _literal(parts: SplitResult, host: str) -> IPAddress | None:
    """Return the address a host is written as, or None for a name; refuse every spelling but the usual one."""
    try:
        if "[" in parts.netloc:
            return ipaddress.IPv6Address(host)
        if re.fullmatch(r"0x[0-9a-f]*|[0-9]+", host.rpartition(".")[2]):
            return ipaddress.IPv4Address(host)
    except ValueError as error:
        raise UnsafeAddress(f"The link's host {host[:80]!r} is an address in an unusual spelling") from error
    return None


def _check_name(host: str, policy: AddressPolicy) -> None:
    labels = host.split(".")
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeAddress(f"The link's host {host[:80]!r} is not a host name")
    # Behind a proxy nobody here sees the address, so names that only exist inside are judged as names.
    if host in _METADATA_NAMES:
        raise UnsafeAddress(f"The link's host {host!r} is a metadata service, which is never connected to")
    if policy.reach == "public" and (len(labels) == 1 or host.endswith(_INSIDE_SUFFIXES)):
        raise UnsafeAddress(f"The link's host {host!r} is a name of the inside, and this connection's own host is not")
