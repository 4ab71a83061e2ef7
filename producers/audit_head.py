"""The head of the audit log: its newest entry, and the last signature; so that a tail that is cut off is missed.

audit.head.json   {"entry": <the newest line>, "signature": {"seq", "hash", "key", "mac"} | null}

It is written before the line is, so that a process that is killed in between leaves all that is needed to write it. The MAC
is HMAC-SHA256 by a key that is derived from the ring's key for everybody: who has not got the ring can take entries away, or
hash the chain anew, but cannot sign what is left. A writer without the ring leaves the last signature where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import orjson

from ..schemas.audit import Entry
from ..schemas.errors import KeyGone
from .keyring import Key, KeyRing

_LABEL: Final = b"tidegate audit head"


@dataclass(frozen=True, slots=True)
class Signature:
    """A key's word that the log had this entry."""

    seq: int
    hash: str
    key: str
    mac: str

    @classmethod
    def of(cls, entry: Entry, key: Key) -> Self:
        return cls(entry.seq, entry.hash, key.key_id, _mac(entry.log, entry.seq, entry.hash, key))

    def holds(self, log: str, ring: KeyRing) -> bool | None:
        """Whether the key has signed this; None where the ring has not got it."""
        try:
            key = ring.opening(self.key)
        except KeyGone:
            return None
        return hmac.compare_digest(self.mac, _mac(log, self.seq, self.hash, key))


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry, and the newest signature; they are of the same entry where its writer had the ring."""

    entry: Entry
    signature: Signature | None

    @classmethod
    def read(cls, path: Path) -> Head | None:
        """The head in a file; None where there is none, or nothing that can be read."""
        try:
            told: dict[str, Any] = orjson.loads(path.read_bytes())
            entry = Entry.parse(told["entry"].encode())
            signed = told["signature"]
            signature = Signature(**signed) if signed is not None else None
            texts = (signature.hash, signature.key, signature.mac) if signature is not None else ()
            whole = all(isinstance(text, str) for text in texts) and (signature is None or isinstance(signature.seq, int))
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
            return None
        if entry is None or entry.hash != entry.computed_hash() or not whole:
            return None
        return cls(entry, signature)

    def write(self, path: Path) -> None:
        """Put it in the place of the one before; it appears whole, and stays after a power cut. Raises `OSError`."""
        told = {"entry": self.entry.line().decode(), "signature": asdict(self.signature) if self.signature else None}
        draft = path.with_name(f".{path.name}.tmp")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(orjson.dumps(told))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder_fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder_fd)
        finally:
            os.close(folder_fd)


def _mac(log: str, seq: int, hash_: str, key: Key) -> str:
    own = hmac.digest(key.secret, _LABEL, hashlib.sha256)
    return hmac.new(own, f"{log}:{seq}:{hash_}".encode(), hashlib.sha256).hexdigest()
