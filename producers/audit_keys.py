"""What the audit log is told when a key ring changes: which keys came, went or were retired, and whose. Never a key."""

from __future__ import annotations

from ..schemas.audit import EVERYBODY
from .audit_log import AuditLog
from .keyring import Key, KeyRing
from .sealing import fingerprint_id


def tell_keys(audit: AuditLog, before: KeyRing | None, after: KeyRing, *, own: bool) -> None:
    """Write down what is about to change with a ring; `before` is None where there is none yet. `own`: it is the one that signs
    the log, and does so with what it holds already, unless it is new. Raises `UsageError`."""
    signing = (before or after) if own else None
    known = {key.key_id: key for key in before.keys} if before is not None else {}
    stays = {key.key_id for key in after.keys}

    def tell(action: str, key: Key) -> None:
        audit.append(action, key.tenant or EVERYBODY, {"key": key.key_id}, ring=signing)

    for key in after.keys:
        if key.key_id not in known:
            tell("key.made", key)
        elif key.retired and not known[key.key_id].retired:
            tell("key.retired", key)
    for key in known.values():
        if key.key_id not in stays:
            tell("key.shredded", key)
    if before is not None and before.fingerprint_key != after.fingerprint_key:
        ids = {"before": fingerprint_id(before.fingerprint_key), "after": fingerprint_id(after.fingerprint_key)}
        audit.append("key.fingerprints", EVERYBODY, ids, ring=signing)
