"""The audit log of a data folder, signed with the ring that the settings name."""

from __future__ import annotations

from pathlib import Path

from ..schemas.errors import UsageError
from ..schemas.settings import Settings
from .audit_log import AuditLog
from .key_source import FolderKeys, KeySource, key_source
from .keyring import KeyRing


def audit_of(data_dir: Path, settings: Settings) -> AuditLog:
    """The log of this folder. A ring that is not there is not made for it; one that cannot be read does not sign."""
    source: KeySource | None = None

    def ring() -> KeyRing | None:
        nonlocal source
        try:
            source = source or key_source(settings, data_dir)
            if source is None or (isinstance(source, FolderKeys) and not source.path.exists()):
                return None
            return source.ring()
        except UsageError:
            return None

    return AuditLog(data_dir, ring)
