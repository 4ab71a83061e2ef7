"""The key ring: which keys seal and open the texts of calls.

A ring as JSON (a key is 32 random bytes in base64; `tenant` null: for all that have none of their own):

    {"version": 1, "fingerprint": "<base64>",
     "keys": [{"id": "k-…", "tenant": null, "key": "<base64>", "created_at": "2026-01-31T12:00:00Z", "retired": false}]}

The newest key of a tenant that is not retired seals; every key that is there opens. Whoever deletes a tenant's keys has
shredded what they sealed. No key is in a repr, a log line or an error: errors about a ring say where, never what.
Where rings come from: `key_source`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Self

import orjson
from pydantic import ValidationError

from ..schemas.call import Identifier, Slug, Timestamp, _Model
from ..schemas.errors import KeyGone, UsageError

# AES-256.
KEY_BYTES: Final = 32
# A ring and not a disk: room for ten thousand tenants, several times.
MAX_RING_BYTES: Final = 8 * 1024 * 1024
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `tenant` None: for everybody without one of their own. `retired`: it opens, and no longer seals."""

    key_id: str
    tenant: str | None
    secret: bytes = field(repr=False)
    created_at: datetime
    retired: bool = False

    @classmethod
    def made(cls, tenant: str | None, at: datetime | None = None) -> Self:
        """A new random one. Its id says nothing about the tenant: ids travel in the clear."""
        created_at = at if at is not None else datetime.now(UTC)
        return cls(f"k-{secrets.token_hex(8)}", tenant, secrets.token_bytes(KEY_BYTES), created_at)


class KeyRing:
    """Some keys, and the one that fingerprints are made with. Never changes; what changes it gives out another one."""

    __slots__ = ("_by_id", "_sealing", "fingerprint_key", "keys")

    def __init__(self, keys: Iterable[Key], fingerprint_key: bytes) -> None:
        self.keys = tuple(sorted(keys, key=lambda key: (key.created_at, key.key_id)))
        self.fingerprint_key = fingerprint_key
        self._by_id = {key.key_id: key for key in self.keys}
        # The newest of a tenant is the last to be put in.
        self._sealing = {key.tenant: key for key in self.keys if not key.retired}

    @classmethod
    def made(cls) -> Self:
        """A new ring, with one key for everybody."""
        return cls([Key.made(None)], secrets.token_bytes(KEY_BYTES))

    def __repr__(self) -> str:
        return f"KeyRing({len(self.keys)} keys)"

    def sealing(self, tenant: str | None) -> Key | None:
        """What seals for this tenant: its own key, or the one for everybody; None when there is neither."""
        return self._sealing.get(tenant) or self._sealing.get(None)

    def own(self, tenant: str | None) -> Key | None:
        """What seals for this tenant and for nobody else."""
        return self._sealing.get(tenant)

    def opening(self, key_id: str) -> Key:
        """The key of that name. Raises `KeyGone`."""
        try:
            return self._by_id[key_id]
        except KeyError:
            raise KeyGone from None

    def adding(self, key: Key) -> KeyRing:
        return KeyRing((*self.keys, key), self.fingerprint_key)

    def retiring(self, *key_ids: str) -> KeyRing:
        """With these no longer sealing."""
        return KeyRing(
            (replace(key, retired=True) if key.key_id in key_ids else key for key in self.keys), self.fingerprint_key
        )

    def without(self, *key_ids: str) -> KeyRing:
        """With these gone, and all that they sealed."""
        return KeyRing((key for key in self.keys if key.key_id not in key_ids), self.fingerprint_key)

    def fingerprinting_anew(self) -> KeyRing:
        """With a new key for fingerprints. The old one is gone: it opens nothing, and who had it could test guesses."""
        return KeyRing(self.keys, secrets.token_bytes(KEY_BYTES))

    def dump(self) -> bytes:
        """The JSON of it: secret."""
        keys = [
            {
                "id": key.key_id,
                "tenant": key.tenant,
                "key": base64.b64encode(key.secret).decode(),
                "created_at": key.created_at,
                "retired": key.retired,
            }
            for key in self.keys
        ]
        fingerprint = base64.b64encode(self.fingerprint_key).decode()
        ring = {"version": _VERSION, "fingerprint": fingerprint, "keys": keys}
        return orjson.dumps(ring, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def parse(cls, content: bytes, where: str) -> KeyRing:
        """A ring from its JSON. Raises `UsageError`, which names `where` and the field, and quotes nothing."""
        if len(content) > MAX_RING_BYTES:
            raise UsageError(f"{where}: a key ring has at most {MAX_RING_BYTES} bytes")
        try:
            found = _RingForm.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            at = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELDS)
            raise UsageError(f"{where} is not a key ring{f' (at {at})' if at else ''}; make one: tidegate keys make") from None
        if found.version != _VERSION:
            raise UsageError(f"{where} is a key ring of a version that this Tidegate does not read; upgrade it")
        ring = cls(
            (Key(key.id, key.tenant, _secret(key.key, where), key.created_at, key.retired) for key in found.keys),
            _secret(found.fingerprint, where),
        )
        if len(ring._by_id) != len(ring.keys):
            raise UsageError(f"{where} has two keys of one id; each needs its own")
        return ring


class _KeyForm(_Model):
    id: Slug
    tenant: Identifier | None = None
    key: str
    created_at: Timestamp
    retired: bool = False


class _RingForm(_Model):
    version: int
    fingerprint: str
    keys: list[_KeyForm]


_FIELDS: Final = frozenset((*_RingForm.model_fields, *_KeyForm.model_fields))


def _secret(text: str, where: str) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise UsageError(f"{where} holds a key that is not {KEY_BYTES} bytes in base64; make rings with: tidegate keys make")
    return secret
