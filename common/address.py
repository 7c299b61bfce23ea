"""Network addresses as people write them: `host:port`, `[::1]:port`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_WILDCARDS = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where something listens or is dialled. Port 0 lets the system choose one."""

    host: str  # a name or an IP address; IPv6 without brackets
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def wildcard(self) -> bool:
        """Whether it means every interface of a machine, which can be listened on but not dialled."""
        return self.host in _WILDCARDS


def parse_address(text: str) -> Address:
    """Read `host:port`; an IPv6 address stands in brackets.

    Raises:
        ValueError: saying what is wrong, as the end of a sentence.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError("must be host:port, such as 127.0.0.1:8000")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"has port {port!r}, and a port must be a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return Address(host=_ipv6(host[1:-1]), port=int(port))
    if ":" in host:
        raise ValueError(f"must have its IPv6 address in brackets, such as [::1]:{port}")
    return Address(host=_host(host), port=int(port))


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise ValueError(f"has {host!r} in brackets, which is not an IPv6 address") from None


def _host(host: str) -> str:
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(f"has host {host!r}, which is not an IPv4 address") from None
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"has host {host!r}, which is neither a host name nor an IP address")
    return host
