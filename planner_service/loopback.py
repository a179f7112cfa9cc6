"""Addresses that never leave this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine, reached by nobody else."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_this_machine(url: str) -> bool:
    """Whether the host of `url` is a loopback address. No proxy of the environment is asked for these: at the
    proxy the same address is another machine.
    """
    try:
        host = urlsplit(url).hostname
    except ValueError:  # half an IPv6 address
        return False
    return host is not None and is_loopback(host)
