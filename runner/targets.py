"""Which addresses may be called for a stranger: public ones, and those that the operator lists."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST = 2000
"""Characters of a URL."""

PORTS = (80, 443)

SHAPE = "is not a host or a network, such as n8n:5678 or 10.0.0.0/8"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What `is_global` takes for public though it leads inside, or to no host at all.
DECEPTIVE = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # the platform of Azure, seen from its machines
            "192.88.99.0/24",  # 6to4 relays
            "2002::/16",  # 6to4: holds an IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
UNICAST = ipaddress.ip_network("2000::/3")
"""The only part of IPv6 that is given to hosts; NAT64 and v4-compatible ones lie elsewhere."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads; `host` is a name or an address without brackets, `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        """Return what may stand in a log: neither path nor query, which may hold secrets."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The host and, unless the scheme implies it, the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name or a network, and the port: None means the usual ones, 0 any."""

    place: str | Network
    port: int | None

    def covers(self, port: int) -> bool:
        return port in PORTS if self.port is None else self.port in (0, port)


class Allowed:
    """What the operator lets be called although it is not public, or not over https."""

    def __init__(self, text: str = "") -> None:
        """Read `n8n:5678 10.1.0.0/16 [fd00::/8]:8443 127.0.0.1:*`; raises `ValueError`."""
        words = re.split(r"[\s,]+", text.strip())
        self._text = " ".join(words)
        self._entries = [_entry(word) for word in words if word]

    def __str__(self) -> str:
        return self._text

    def names(self, host: str, port: int) -> bool:
        """Tell whether the host is listed by its name."""
        name = host.lower().rstrip(".")
        return any(one.place == name and one.covers(port) for one in self._entries)

    def holds(self, address: Address, port: int) -> bool:
        """Tell whether a listed network holds the address."""
        return any(
            address in one.place
            for one in self._entries
            if not isinstance(one.place, str) and one.covers(port)
        )

    def may_hold(self, port: int) -> bool:
        """Tell whether a network is listed that an unknown address could lie in."""
        return any(one.covers(port) for one in self._entries if not isinstance(one.place, str))


def target_of(url: str) -> Target:
    """Return where a URL leads; raises `ValueError` for what is not plainly a URL to call."""
    if len(url) > LONGEST:
        raise ValueError(f"the URL has {len(url):,} characters; at most {LONGEST:,} are taken")
    if not re.fullmatch(r"[\x21-\x7e]*", url) or "\\" in url:
        raise ValueError("the URL holds a character that must be percent-encoded")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("the URL must start with https://")
    if "@" in parts.netloc:
        raise ValueError("the URL must not hold a user or a password")
    if "#" in url:
        raise ValueError("the URL must not have a fragment")
    host = parts.hostname or ""
    if not re.fullmatch(r"[a-z0-9_]([a-z0-9._-]{0,252})", host) and not _literal(host):
        raise ValueError("the URL names no host")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the URL's port must be 1 to 65535")
    query = f"?{parts.query}" if parts.query else ""
    usual = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, host, port or usual, (parts.path or "/") + query)


def check(target: Target, allowed: Allowed, addresses: Sequence[str] = ()) -> None:
    """Raise `ValueError` unless the target may be called at all of these addresses.

    Without addresses, which is before the name is looked up, only what is certain is refused.
    """
    if allowed.names(target.host, target.port):
        return
    literal = _literal(target.host)
    found = [_address(text) for text in addresses] or ([literal] if literal else [])
    known = [address for address in found if not allowed.holds(address, target.port)]
    if found and not known:
        return
    if not found and allowed.may_hold(target.port):
        return
    if target.scheme != "https":
        raise ValueError("the URL must start with https://")
    if target.port not in PORTS:
        raise ValueError(f"port {target.port} is not called, only {PORTS[1]} and {PORTS[0]}")
    if not all(map(public, known)):
        raise ValueError("the host is not on the public internet")


def public(address: Address) -> bool:
    """Tell whether an address belongs to a host that anybody on the internet could call."""
    if isinstance(address, ipaddress.IPv6Address) and address not in UNICAST:
        return False
    deceptive = any(address in network for network in DECEPTIVE)
    return address.is_global and not address.is_multicast and not deceptive


def _address(text: str) -> Address:
    """Return the address that is really called: of a mapped one, the IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _literal(host: str) -> Address | None:
    try:
        return _address(host)
    except ValueError:
        return None


def _entry(word: str) -> _Entry:
    place, port = word, None
    if bracketed := re.fullmatch(r"\[([^\]]+)\](?::(.*))?", word):
        place, port = bracketed.groups()
    elif word.count(":") == 1:
        place, _, port = word.partition(":")
    number: int | None = None
    if port is not None:
        number = 0 if port == "*" else int(port) if re.fullmatch("[1-9][0-9]{0,4}", port) else -1
        if not 0 <= number <= 65535:
            raise ValueError(f"{word[:100]!r} {SHAPE}")
    with contextlib.suppress(ValueError):
        return _Entry(ipaddress.ip_network(place), number)
    if not re.fullmatch("(?![0-9.]*$)[a-z0-9_][a-z0-9._-]{0,252}", place.lower()):
        raise ValueError(f"{word[:100]!r} {SHAPE}")
    return _Entry(place.lower().rstrip("."), number)
