"""Request bodies within bounds: no body above its limit is held, and all that are under way together have one too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Final

from starlette.requests import Request

# What is refused is read on for a while, so that the sender hears the answer and not a reset connection. Above this,
# nobody sends it by mistake.
_READ_ON: Final = 8
# Bodies of full size that may be under way together; small ones in any number.
_AT_ONCE: Final = 16


class TooLarge(Exception):
    """A body above its limit; the fingerprint and size of what was read of it."""

    def __init__(self, sha256: str, size_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes")
        self.sha256 = sha256
        self.size_bytes = size_bytes


class NoRoom(Exception):
    """Other bodies under way fill what this node gives them; the same body may be sent again."""


class Bodies:
    """Reads the bodies of one node's requests. Used from its event loop only."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._room = limit_bytes * _AT_ONCE

    @asynccontextmanager
    async def read(self, request: Request, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
        """The body, which counts as under way until the context ends. Raises `TooLarge`, `NoRoom`, `ClientDisconnect`."""
        limit = limit_bytes or self._limit
        chunks: list[bytes] = []
        size = held = 0
        digest = None
        no_room = False
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit * _READ_ON:
                    break
                if digest is not None:
                    digest.update(chunk)
                elif size > limit:
                    digest = sha256(b"".join(chunks))
                    digest.update(chunk)
                    chunks.clear()
                elif no_room or len(chunk) > self._room:
                    no_room = True
                    chunks.clear()
                else:
                    chunks.append(chunk)
                    held += len(chunk)
                    self._room -= len(chunk)
            if digest is not None:
                raise TooLarge(digest.hexdigest(), size)
            if no_room:
                raise NoRoom
            yield b"".join(chunks)
        finally:
            self._room += held

    async def discard(self, request: Request) -> None:
        """Let the sender finish. Raises `ClientDisconnect`."""
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._limit * _READ_ON:
                return
