"""Helpers for URLs in options: parsing, redaction, and whether the connection is protected."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pat_sync.errors import ConfigurationError

_SECRET_PARAMETER = re.compile(r"pass|secret|token|key$|credential|signature|^sig$|^auth", re.IGNORECASE)


def redact(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "***"
    user, separator, place = rest.partition("?")[0].rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{separator}{place}"


def is_loopback(host: str) -> bool:
    """Whether an address or a name is loopback; of names only "localhost", as others would have to be resolved."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def split(url: str, name: str) -> SplitResult:
    """Parse a URL; raise ConfigurationError without quoting the URL."""
    try:
        parts = urlsplit(url)
        parts.port  # validated on access
    except ValueError:
        raise ConfigurationError(f"{name} is not a URL; write special characters in it as %XX") from None
    return parts


def has_secret(url: str) -> bool:
    user = url.partition("://")[2].partition("?")[0].rpartition("@")[0]
    parameters = url.partition("?")[2]
    return ":" in user or any(_SECRET_PARAMETER.search(name) for name, _ in parse_qsl(parameters))


def is_exposed(parts: SplitResult) -> bool:
    """Whether others on the network can read and change the traffic."""
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
