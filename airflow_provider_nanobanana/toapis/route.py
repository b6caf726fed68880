"""How a link's host is reached: by addresses that were all checked, or through the environment's proxy."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from airflow_provider_nanobanana.toapis.address import LinkHost, LinkPolicy, Resolve, check_address
from airflow_provider_nanobanana.toapis.errors import DownloadFailed, UnsafeAddress
from airflow_provider_nanobanana.toapis.proxy import EnvironmentProxy, find_proxy


@dataclass(frozen=True)
class Route:
    """Either ``addresses`` to connect to, one after another, or a ``proxy`` that resolves by itself."""

    addresses: tuple[str, ...] = ()
    proxy: EnvironmentProxy | None = None


def find_route(link: LinkHost, policy: LinkPolicy, resolve: Resolve) -> Route:
    """Look the host up once and check every address it has; the connection goes to those and to no other.

    :raises UnsafeAddress: Any of the addresses is kept out by the policy: a host with mixed answers is not trusted.
    :raises DownloadFailed: The host has no address.
    """
    proxy = find_proxy(link.scheme, link.host, link.port)
    if proxy is not None:
        return Route(proxy=proxy)
    if link.literal is not None:
        return Route(addresses=(str(link.literal),))
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
    return Route(addresses=tuple(dict.fromkeys(addresses)))


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host, in the order it would connect to them.

    :raises OSError: There is no such host, or nobody to ask.
    """
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
