"""What the node, the commands and the workers tell the audit log, beside what they do with keys and sealed texts."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from ..producers.audit_log import AuditLog
from ..schemas.errors import UsageError
from ..schemas.policy import PolicySet
from ..schemas.residency import Residency
from ..schemas.settings import Settings

log = structlog.get_logger("tidegate.audit")

MIGRATED: Final = "schema.migrated"
IN_FORCE: Final = "policies.in_force"
RESIDENCY: Final = "residency.in_force"

# Settings that are secrets or may hold one: a hash of few possible values would give them away.
_SECRET: Final = frozenset({"token", "keys", "key_command", "kafka_password", "store", "url", "guard_canaries"})


def tell_started(audit: AuditLog, settings: Settings) -> None:
    """A node takes the folder: with which version, and which settings."""
    audit.append("node.started", details=started(settings))


def tell_stopped(audit: AuditLog, failure: BaseException | None) -> None:
    """A node lets the folder go; one that was killed does not say so."""
    _try(audit, "node.stopped", {"failure": type(failure).__name__ if failure is not None else None})


def tell_migrated(audit: AuditLog, done: Sequence[int]) -> None:
    """The store's schema was brought up to date."""
    if done:
        audit.append(MIGRATED, details=migrated(done))


def tell_kept(audit: AuditLog, table: str, days: int | None, tenant: str | None) -> None:
    """Rows of a table, or of one tenant in it, are kept for another time; `days` None: for ever."""
    audit.append("retention.set", tenant or "", {"table": table, "days": days})


def tell_residency(audit: AuditLog, residency: Residency, file: Path | None) -> None:
    """A node holds to a residency map."""
    audit.append(RESIDENCY, details=residency_in_force(residency, file))


def tell_repriced(audit: AuditLog, told: Mapping[str, Any], tenant: str) -> None:
    """Calls of the past are about to be priced anew, beside what was metered; `told`: which, how many, by which prices."""
    audit.append("calls.repriced", "" if tenant == "*" else tenant, told)


def tell_policies(audit: AuditLog, policies: PolicySet, file: Path | None) -> None:
    """Policies came in force."""
    _try(audit, IN_FORCE, in_force(policies, file))


def started(settings: Settings) -> dict[str, Any]:
    """What starts: which version, and which settings."""
    return {
        "version": version("tidegate"),
        "settings": settings_hash(settings),
        "store": "server" if settings.store else "folder",
    }


def migrated(done: Sequence[int]) -> dict[str, Any]:
    """Which migrations were applied, and whose they are."""
    return {"migrations": list(done), "version": version("tidegate")}


def in_force(policies: PolicySet, file: Path | None) -> dict[str, Any]:
    """Which policies; whose the file is, as the file system says, beside what it held."""
    return {"version": policies.version, "policies": len(policies.policies), "file_owner_uid": _owner(file)}


def residency_in_force(residency: Residency, file: Path | None) -> dict[str, Any]:
    """Which map, where, and whose the file is."""
    return {
        "version": residency.map.version,
        "region": residency.here,
        "tenants": len(residency.map.tenants),
        "file_owner_uid": _owner(file),
    }


def _owner(file: Path | None) -> int | None:
    with contextlib.suppress(OSError):  # gone, and with it what it said
        return file.stat().st_uid if file is not None else None
    return None


def _try(audit: AuditLog, action: str, details: Mapping[str, Any]) -> None:
    """Write down what happens anyway: a node must stop, and policies hold, also where nothing can be written."""
    try:
        audit.append(action, details=details)
    except UsageError as error:
        log.error("audit_not_written", action=action, error=str(error))


def settings_hash(settings: Settings) -> str:
    """The same where the settings are the same, secrets aside."""
    told = settings.model_dump(mode="json", exclude=set(_SECRET))
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
