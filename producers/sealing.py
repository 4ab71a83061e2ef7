"""Texts made unreadable, and readable again for whoever has the key. The form is drawn in `schemas/content.py`.

    Texts ── JSON ── zlib ── AES-256-GCM(key, nonce, associated data = call_id) ── base64 ──► sealed

A sealed record opens with its own key, for its own call, and only as it was written: any changed byte is `tampered`.
Nonces are random; one key is good for four thousand million records, which a rotation a year stays far below.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import zlib
from functools import lru_cache
from typing import Final, Protocol

import orjson
from pydantic import ValidationError

from ..schemas.content import MAX_SEALED_CHARS, TEXTS_ADAPTER, ContentEvent, Texts, Where
from ..schemas.errors import TidegateError, Unreadable
from .keyring import Key

# Of the texts' JSON. Prose that just fits in when sealed has some two megabytes; what opens to more than twice that is
# nothing we have sealed.
MAX_TEXTS_BYTES: Final = 4 * 1024 * 1024
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_KEY_DIGITS: Final = 8
_TEXT_DIGITS: Final = 24
# Half the size of level 1's, for a quarter of a millisecond on a long prompt, off the caller's thread.
_ZLIB_LEVEL: Final = 6


class TextsTooLarge(TidegateError):
    """These texts fit into no record, even compressed."""


class Opens(Protocol):
    """A ring, or where one comes from."""

    def opening(self, key_id: str) -> Key:
        """The key of that name. Raises `KeyGone`."""
        ...


def seal(texts: Texts, call_id: str, key: Key) -> str:
    """The texts of that call for whoever has the key. Raises `TextsTooLarge`."""
    plain = orjson.dumps({"prompt": texts.prompt, "response": texts.response, "context": texts.context})
    if len(plain) > MAX_TEXTS_BYTES:
        raise TextsTooLarge(f"the texts of a call may have at most {MAX_TEXTS_BYTES} bytes")
    text = seal_bytes(plain, call_id, key)
    if len(text) > MAX_SEALED_CHARS:
        raise TextsTooLarge(f"the sealed texts of a call may have at most {MAX_SEALED_CHARS} characters")
    return text


def seal_bytes(plain: bytes, bound_to: str, key: Key) -> str:
    """Any bytes, for whoever has the key and says the same `bound_to`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # a service without content does not need it in memory

    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key.secret).encrypt(nonce, zlib.compress(plain, _ZLIB_LEVEL), bound_to.encode())
    return base64.b64encode(nonce + sealed).decode()


def unseal(event: ContentEvent, keys: Opens) -> Texts:
    """The texts in a sealed record. Raises `Unreadable`: key_gone (as `KeyGone`), tampered, malformed, too_large."""
    if event.mode != "sealed" or event.sealed is None or event.key_id is None:
        raise Unreadable("malformed")
    return opened(event.sealed, event.call_id, keys.opening(event.key_id))


def opened(sealed: str, call_id: str, key: Key) -> Texts:
    """What `seal` was given. Raises `Unreadable`: tampered, malformed, too_large."""
    try:
        return TEXTS_ADAPTER.validate_json(open_bytes(sealed, call_id, key))
    except ValidationError:  # its message would quote the texts
        raise Unreadable("malformed") from None


def open_bytes(sealed: str, bound_to: str, key: Key) -> bytes:
    """What `seal_bytes` was given. Raises `Unreadable`: tampered, malformed, too_large."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        packed = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("malformed") from None
    # One text for one record: what merely decodes to the same bytes was written by somebody else.
    if len(packed) < NONCE_BYTES + TAG_BYTES or base64.b64encode(packed).decode() != sealed:
        raise Unreadable("malformed")
    try:
        squeezed = AESGCM(key.secret).decrypt(packed[:NONCE_BYTES], packed[NONCE_BYTES:], bound_to.encode())
    except InvalidTag:
        raise Unreadable("tampered") from None
    # Our own key may still seal what we would not: unpacked no further than to its bound.
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(squeezed, MAX_TEXTS_BYTES + 1)
    except zlib.error:
        raise Unreadable("malformed") from None
    if len(plain) > MAX_TEXTS_BYTES:
        raise Unreadable("too_large")
    if not unpacker.eof or unpacker.unused_data:
        raise Unreadable("malformed")
    return plain


def fingerprint(key: bytes, text: str) -> str:
    """32 hex digits, equal for equal texts under one key; without the key nobody can test a guess.

    The first eight are of the key: what two keys have made never looks the same by chance, and everybody sees that it cannot
    be compared. The other twenty-four meet by chance once in 2⁴⁸ texts.
    """
    return _mark(key) + hmac.digest(key, text.encode(errors="surrogatepass"), "sha256").hex()[:_TEXT_DIGITS]


def fingerprint_id(key: bytes) -> str:
    """What a fingerprint key is called in the clear; its fingerprints begin with the same digits."""
    return f"f-{_mark(key)}"


@lru_cache(maxsize=8)
def _mark(key: bytes) -> str:
    return hmac.digest(key, b"tidegate fingerprint key", "sha256").hex()[:_KEY_DIGITS]


def fingerprints(key: bytes, texts: Texts) -> dict[Where, list[str]]:
    """Of each text that is there."""
    found: dict[Where, list[str]] = {
        "prompt": [] if texts.prompt is None else [fingerprint(key, texts.prompt)],
        "response": [] if texts.response is None else [fingerprint(key, texts.response)],
        "context": [fingerprint(key, chunk) for chunk in texts.context],
    }
    return {where: prints for where, prints in found.items() if prints}
