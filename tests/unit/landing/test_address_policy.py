"""AddressPolicy: to which addresses a link may lead."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_nanobanana.landing.address_policy import (
    AddressPolicy,
    Reach,
    address_policy_for,
    check_address,
    check_url,
)
from airflow_provider_nanobanana.toapis.errors import UnsafeAddress

PUBLIC, PRIVATE, LOOPBACK = AddressPolicy(), AddressPolicy(reach="private"), AddressPolicy(reach="loopback")
POLICIES = {"public": PUBLIC, "private": PRIVATE, "loopback": LOOPBACK}

NEVER = (
    "169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0", "0.1.2.3",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.7", "203.0.113.9",
    "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254", "::", "ff02::1", "2001:db8::1", "fec0::1", "100::1",
    "::127.0.0.1", "::8.8.8.8", "64:ff9b:1::a00:1", "5f00::1", "3fff::1", "2001:20::1", "4000::1",
    # the same, wrapped: mapped, translated, NAT64, 6to4, Teredo (server, then client), ISATAP
    "::ffff:169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::", "2001:0:808:808:0:0:5601:5601", "2a00::5efe:a9fe:a9fe", "2a00::200:5efe:a9fe:a9fe",
)  # fmt: skip
INSIDE = (
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255", "198.18.0.5",
    "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::",
)  # fmt: skip
HERE = ("127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1")
OUTSIDE = (
    "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "192.169.0.1", "11.0.0.0", "2606:4700::1111", "2a00:1450::1",
    "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2001:0:808:808:0:0:f7f7:f7f7",
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("address", NEVER)
def test_never_whatever_the_policy(address: str, policy: AddressPolicy) -> None:
    with pytest.raises(UnsafeAddress):
        check_address(address, policy)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_taken_by_every_policy(address: str, policy: AddressPolicy) -> None:
    check_address(address, policy)


@pytest.mark.parametrize(
    ("address", "reach"), [*((one, "private") for one in INSIDE), *((one, "loopback") for one in HERE)]
)
def test_inside_needs_its_own_reach_and_no_other(address: str, reach: Reach) -> None:
    for name, policy in POLICIES.items():
        if name == reach:
            check_address(address, policy)
        else:
            with pytest.raises(UnsafeAddress, match=r"private network|this machine"):
                check_address(address, policy)


@given(st.ip_addresses(v=4))
def test_every_wrapping_is_as_strict_as_the_address_inside(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    wrapped = [
        0xFFFF << 32 | number,
        0x0064FF9B << 96 | number,
        0x2002 << 112 | number << 80 | 1,
        0x20010000 << 96 | number << 64 | 0xF7F7F7F7,
        0x20010000 << 96 | 0x08080808 << 64 | (number ^ 0xFFFFFFFF),
    ]
    for policy in POLICIES.values():
        for outer in wrapped:
            assert _refused(ipaddress.IPv6Address(outer), policy) == _refused(inner, policy)


@given(st.ip_addresses())
def test_public_reach_never_takes_what_python_calls_special(address: ipaddress.IPv4Address) -> None:
    if not _refused(address, PUBLIC):
        assert not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
        if address.version == 4:
            assert address.is_global


def _refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address, policy: AddressPolicy) -> bool:
    try:
        check_address(address, policy)
    except UnsafeAddress:
        return True
    return False


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "0x7f000001", "017.0.0.1", "::g"])
def test_what_is_no_address_is_unsafe(text: str) -> None:
    with pytest.raises(UnsafeAddress):
        check_address(text, LOOPBACK)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://files.toapis.com/a", "file:///etc/passwd", "//files.toapis.com/a", "files.toapis.com/a", "", "data:,x",
        "https://user@files.toapis.com/", "https://user:pw@files.toapis.com/", "https://@files.toapis.com/",
        "https://files.toapis.com\\@10.0.0.1/", "https://files.toapis.com:0/", "https://files.toapis.com:99999/",
        "https://files.toapis.com:/", "https://files.toapis.com:x/", "https:///a", "https://./a", "https://a..b/",
        "https://files.toapis.com./a", "https://127.0.0.1./", "https://-a.example/", "https://a_.-.example/",
        "https://%6cocalhost/", "https://fïles.example/", "https://127。0。0。1/", "https://１２７.0.0.1/",
        "https://exa mple.com/", "https://files.toapis.com/a\r\nHost: x", "https://files.toapis.com/\x00",
        "https://2130706433/", "https://017700000001/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/",
        "https://0177.0.0.1/", "https://127.0.0.1.0x1/", "https://1.2.3.4.5/", "https://256.1.1.1/", "https://0/",
        "https://[fe80::1%25eth0]/", "https://[2606:4700::1%eth0]/", "https://[::1]evil.example/", "https://[::1/",
        "https://[v1.x]/", "https://[2606:4700::1111]x:80/", "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 130 + "example/",
        "https://metadata.google.internal/computeMetadata/v1/", "https://169.254.169.254/latest/",
        "https://[::ffff:169.254.169.254]/", "https://[fd00:ec2::254]/",
    ],
)  # fmt: skip
def test_unsafe_however_it_is_written(url: str) -> None:
    for reach in POLICIES:
        with pytest.raises(UnsafeAddress):
            check_url(url, AddressPolicy(allow_http=True, reach=reach))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/", "https://emulator/", "https://printer.local/", "https://db.internal/",
        "https://a.localhost/", "https://127.0.0.1/", "https://[::1]/", "https://10.1.2.3/", "https://[fd00::1]/",
    ],
)  # fmt: skip
def test_names_and_addresses_of_the_inside_are_refused_from_outside(url: str) -> None:
    with pytest.raises(UnsafeAddress):
        check_url(url, PUBLIC)


def test_what_a_connection_needs_of_a_link() -> None:
    host = check_url("HTTPS://Files.ToAPIs.com/generated/1 2.png?sig=é#x", PUBLIC)
    assert (host.scheme, host.host, host.port, host.literal) == ("https", "files.toapis.com", 443, None)
    host = check_url("https://[2606:4700::1111]:8443/a", PUBLIC)
    assert (host.host, host.port, host.literal) == (
        "2606:4700::1111",
        8443,
        ipaddress.ip_address("2606:4700::1111"),
    )
    assert check_url("http://8.8.8.8/a", AddressPolicy(allow_http=True)).port == 80


def test_plain_http_only_where_the_connection_is_plain_http() -> None:
    with pytest.raises(UnsafeAddress, match="only https is taken"):
        check_url("http://files.toapis.com/a.png", PUBLIC)
    assert check_url("http://files.toapis.com/a.png", AddressPolicy(allow_http=True)).scheme == "http"


def test_messages_keep_path_and_query_to_themselves() -> None:
    for url in (
        "ftp://h.example/p?signature=s3cret",
        "https://u@h.example/p?signature=s3cret",
        "https://10.0.0.1/?k=s3cret",
    ):
        with pytest.raises(UnsafeAddress) as caught:
            check_url(url, PUBLIC)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "addresses", "expected"),
    [
        ("https://toapis.com", ["104.18.0.1", "2606:4700::1"], AddressPolicy(False, "public")),
        ("http://127.0.0.1:8787", None, AddressPolicy(True, "loopback")),
        ("http://[::1]:8787", None, AddressPolicy(True, "loopback")),
        ("http://localhost:8787", ["127.0.0.1", "::1"], AddressPolicy(True, "loopback")),
        ("http://emulator:8787", ["172.18.0.3"], AddressPolicy(True, "private")),
        ("https://gateway.corp.example", ["10.1.1.1", "fd00::5"], AddressPolicy(False, "private")),
        ("https://toapis.cn", ["198.18.0.7"], AddressPolicy(False, "private")),
        ("https://mixed.example", ["10.1.1.1", "8.8.8.8"], AddressPolicy(False, "public")),
        ("https://mixed.example", ["127.0.0.1", "10.0.0.1"], AddressPolicy(False, "public")),
        ("https://odd.example", ["169.254.169.254"], AddressPolicy(False, "public")),
        ("https://wrapped.example", ["64:ff9b::808:808"], AddressPolicy(False, "public")),
        ("https://wrapped.example", ["64:ff9b::a00:1"], AddressPolicy(False, "private")),
        ("https://nowhere.example", [], AddressPolicy(False, "public")),
    ],
)
def test_policy_follows_the_connections_own_host(
    base_url: str, addresses: list[str] | None, expected: AddressPolicy
) -> None:
    def resolve(host: str, port: int) -> list[str]:
        assert addresses is not None, "a literal address needs no look-up"
        return addresses

    assert address_policy_for(base_url, resolve) == expected


def test_policy_is_strict_where_nobody_resolves() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise OSError("no DNS behind this proxy")

    assert address_policy_for("https://gateway.example", resolve) == PUBLIC


@given(st.text(max_size=60), st.sampled_from(sorted(POLICIES)))
def test_any_text_is_taken_or_unsafe_and_nothing_else(text: str, reach: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/p", f"https://a.example{text}"):
        try:
            check_url(url, POLICIES[reach])
        except UnsafeAddress:
            continue
