"""Sockets that doors are opened on."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from ..schemas.errors import UsageError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_at_home(host: str, headers: Iterable[str]) -> bool:
    """Whether a request, by its Host and the names of its headers, comes from this machine to this machine.

    A web page whose name was made to mean this machine sends that name along; a proxy says whom it speaks for.
    """
    if any(name.lower() in _OF_PROXIES or name.lower().startswith("x-forwarded-") for name in headers):
        return False
    try:
        found = urlsplit(f"//{host}")
        return is_loopback(found.hostname or "") and found.port != 0
    except ValueError:  # of a name in brackets that is none, or a port that is no number
        return False


_OF_PROXIES: Final = frozenset({"forwarded", "via", "x-real-ip"})


def bind(host: str, port: int, setting: str = "--port") -> socket.socket:
    """A listening socket. Raises `UsageError` naming the setting when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, because asyncio turns Nagle off only then: without it every answer waits 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {setting} (0 picks a free one)"
        ) from error
    bound.listen(512)
    return bound
