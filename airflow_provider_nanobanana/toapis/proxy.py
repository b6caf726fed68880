"""Which proxy leads to a host, by the environment: one rule for API calls and for result links."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EnvironmentProxy:
    """A proxy that the environment names.

    :param url: As it was written, with a scheme; it may hold a password and is never shown.
    :param variable: The environment variable it stands in.
    """

    url: str = field(repr=False)
    variable: str


def find_proxy(scheme: str, host: str, port: int | None = None) -> EnvironmentProxy | None:
    """Return the proxy for a host by ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, or None.

    :param host: A name or a literal address, without brackets.
    :param port: The default one of the scheme when absent.
    """
    proxies = urllib.request.getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    url = (proxies.get(kind) or "").strip()
    if not url:
        return None
    port = port or (443 if scheme == "https" else 80)
    # urllib knows the system settings of macOS and Windows, too.
    if bypasses(proxies.get("no", ""), scheme, host, port) or urllib.request.proxy_bypass(host):
        return None
    return EnvironmentProxy(url if "://" in url else f"http://{url}", _variable(kind))


def bypasses(no_proxy: str, scheme: str, host: str, port: int) -> bool:
    """Whether ``NO_PROXY`` names a host: what curl, urllib and httpx take, and networks.

    An entry is ``*``, a domain (it and all below it, with or without a leading dot or ``*.``), an address or a network
    (``10.0.0.0/8``, ``fd00::/8``, ``[::1]``), with ``:port`` and ``scheme://`` where only those are meant. An entry
    that is none of these names no host.
    """
    name = host.lower().strip("[]").rstrip(".")
    return any(
        _names(entry, scheme.lower(), name, port) for entry in re.split(r"[\s,]+", no_proxy.strip().lower()) if entry
    )


def _names(entry: str, scheme: str, host: str, port: int) -> bool:
    only, _, entry = entry.rpartition("://")
    if only not in ("", "all", scheme):
        return False
    if found := re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?", entry):
        address, name, wanted = found.groups()
        if wanted is not None and wanted.lstrip("0") != str(port):
            return False
        entry = name if address is None else address
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.lstrip("*").strip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _variable(kind: str) -> str:
    """Return the name a proxy was read from; the lower-case one wins, as in urllib."""
    name = f"{kind}_proxy"
    return next((variable for variable in (name, name.upper()) if os.environ.get(variable)), name.upper())
