"""Tokens that are given to people: one opens a tenant's views at the node's ClickHouse door, or the console in a role.

<data folder>/tokens.json       0600; of each token the SHA-256, what it opens and until when: never the token itself
<data folder>/tokens.json.lock  flock held while somebody changes it

A token is 256 random bits, so its plain hash tells nothing about it. `tidegate access` changes the file, and a running node
reads it again when it has changed. Each grant and revocation, and a token's first use, is in the audit log first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ..producers.audit_log import AuditLog, operator
from ..schemas.call import Identifier
from ..schemas.errors import UsageError
from .console_access import Role

FILE: Final = "tokens.json"
# Tells people, and those who look for secrets in repositories, what they have found.
PREFIX: Final = "tgt_"
# Every tenant's people, tools and dashboards, many times over; the file is read whole.
MOST_TOKENS: Final = 10_000
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 4


class Grant(BaseModel):
    """What is known of one token. It opens a tenant's views, or the console in a role: one of them is there."""

    model_config = ConfigDict(frozen=True, extra="forbid", regex_engine="python-re")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}\Z")]
    tenant: Identifier | None = None
    role: Role | None = None
    name: Annotated[str, Field(max_length=64)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\Z", repr=False)]
    granted_at: AwareDatetime
    granted_by: str
    expires_at: AwareDatetime
    first_used_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _opens_one_thing(self) -> Self:
        if (self.tenant is None) == (self.role is None):
            raise ValueError("a token is either a tenant's or a role's")
        return self

    @property
    def opens(self) -> str:
        """What the audit log calls it."""
        return self.tenant if self.tenant is not None else "everybody"

    @classmethod
    def made(cls, tenant: str | None, role: Role | None, name: str, lasts: timedelta, now: datetime) -> tuple[Self, str]:
        """A new token's grant, and the token, which nobody can tell again. Raises `UsageError`."""
        if tenant == "*":
            raise UsageError("a token is one tenant's: '*' is everybody, and everybody's is the node's own token")
        if (tenant is None) == (role is None):
            raise UsageError("a token opens a tenant's views or the console: give either --tenant or --role")
        if role == "operator":
            raise UsageError(
                "the operator is who may read the data folder: `tidegate console` signs in with the node's own token"
            )
        if role is not None and role not in get_args(Role):
            raise UsageError(f"there is no role {role!r}; choose from viewer, oncall, analyst, compliance")
        if role is not None and not name.strip():
            raise UsageError("whose token is it? --name says who acknowledged an incident")
        token = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        try:
            grant = cls(
                id=secrets.token_hex(_ID_BYTES),
                tenant=tenant,
                role=role,
                name=name,
                sha256=_hash(token),
                granted_at=now,
                granted_by=operator(),
                expires_at=now + lasts,
            )
        except ValidationError:
            raise UsageError("a tenant has 1 to 128 printable characters, and a token's name at most 64") from None
        return grant, token

    def has_expired(self, now: datetime) -> bool:
        return now >= self.expires_at


_GRANTS: Final = TypeAdapter(tuple[Grant, ...])


class TenantTokens:
    """The tokens of one data folder. Holds nothing open, and may be used from any thread and process."""

    def __init__(self, data_dir: Path, audit: AuditLog, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = data_dir / FILE
        self.now = now
        self._audit = audit
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Grant] = {}

    def grants(self) -> tuple[Grant, ...]:
        """All of them, as they are now. Raises `UsageError`."""
        with self._lock:
            return tuple(self._current().values())

    def grant_of(self, token: str) -> Grant | None:
        """Whose token this is, expired or not; None: nobody's. Raises `UsageError` where the file cannot be read."""
        if not token.startswith(PREFIX):
            return None
        with self._lock:
            return self._current().get(_hash(token))

    def grant_with(self, token_id: str) -> Grant | None:
        """The token of this id, expired or not; None: there is none any more. Raises `UsageError`."""
        with self._lock:
            return next((grant for grant in self._current().values() if grant.id == token_id), None)

    def grant(self, tenant: str | None, name: str, lasts: timedelta, role: Role | None = None) -> tuple[Grant, str]:
        """A new token. Raises `UsageError`."""
        grant, token = Grant.made(tenant, role, name, lasts, self.now())
        with self._changing() as grants:
            if len(grants) >= MOST_TOKENS:
                raise UsageError(f"there are {MOST_TOKENS:,} tokens; revoke some: tidegate access revoke ID")
            told = {"token": grant.id, "name": grant.name, "expires_at": grant.expires_at.isoformat(timespec="seconds")}
            self._audit.append("access.granted", grant.opens, told | ({"role": role} if role else {}))
            grants.append(grant)
        return grant, token

    def revoke(self, which: Callable[[Grant], bool]) -> list[Grant]:
        """Those that are gone now, at a running node too. Raises `UsageError`."""
        with self._changing() as grants:
            gone = [grant for grant in grants if which(grant)]
            for grant in gone:
                self._audit.append("access.revoked", grant.opens, {"token": grant.id, "name": grant.name})
            grants[:] = [grant for grant in grants if grant not in gone]
        return gone

    def used(self, grant: Grant, client: str | None) -> None:
        """Write down the first use of a token, before anything is answered to it. Raises `UsageError`."""
        if grant.first_used_at is not None:
            return
        with self._changing() as grants:
            for place, one in enumerate(grants):
                if one.id == grant.id and one.first_used_at is None:
                    self._audit.append("access.first_used", one.opens, {"token": one.id, "client": client}, actor="token")
                    grants[place] = one.model_copy(update={"first_used_at": self.now()})

    def _current(self) -> dict[str, Grant]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._by_hash = None, {}
            return self._by_hash
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read ({error.strerror})") from None
        seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        if seen != self._seen:
            self._seen, self._by_hash = None, {}
            self._by_hash = {grant.sha256: grant for grant in self._read()}
            self._seen = seen
        return self._by_hash

    def _read(self) -> tuple[Grant, ...]:
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                content = file.read()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read ({error.strerror})") from None
        if mode & 0o077:
            raise UsageError(f"{self.path} is open to others (mode {mode:04o}); chmod 600 {self.path}")
        try:
            return _GRANTS.validate_json(content)
        except ValidationError:
            raise UsageError(f"{self.path} is not a list of tokens; restore it, or remove it and grant new ones") from None

    @contextmanager
    def _changing(self) -> Iterator[list[Grant]]:
        """The grants, to be changed in place; the file then appears whole. One process at a time."""
        try:
            lock = os.open(self.path.with_name(f"{FILE}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                before = list(self._read())
                grants = list(before)
                yield grants
                if grants != before:
                    self._write(_GRANTS.dump_json(tuple(grants), indent=2))
            finally:
                os.close(lock)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror})") from None

    def _write(self, content: bytes) -> None:
        draft = self.path.with_name(f".{FILE}.tmp")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
