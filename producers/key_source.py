"""Where a key ring comes from, and how it stays up to date.

TIDEGATE_KEY_FILE         a file, 0600, read again when it changes                ┐
TIDEGATE_KEYS             the same JSON, in the environment                       ├─► KeySource ─► KeyRing ─► Key
TIDEGATE_KEY_COMMAND      a command that prints it: a vault's client              │
<data folder>/keys.json   made at first use, and so is a key of its own a tenant  ┘
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from ..schemas.errors import KeyGone, UsageError
from ..schemas.settings import Settings
from .audit_keys import tell_keys
from .audit_log import AuditLog
from .keyring import Key, KeyRing
from .ring_file import change_ring, read_ring

# A vault's client answers in a second or two; one that has not after ten waits for somebody to log in.
_COMMAND_TIMEOUT_S: Final = 10.0
# How soon a rotation in the vault is heard of; a key that nobody here knows is asked for sooner.
_COMMAND_EVERY_S: Final = 300.0
_COMMAND_AGAIN_S: Final = 10.0
# A closer that saves what a stuck thread has left must not be stuck itself.
_COMMAND_PATIENCE_S: Final = 1.0


class KeySource(Protocol):
    """Gives out keys. Thread-safe. Every method raises `UsageError`, which says what to do, where it cannot."""

    def ring(self) -> KeyRing:
        """The ring as it is now."""
        ...

    def sealing(self, tenant: str | None) -> Key:
        """What seals for this tenant now; where rings are made, perhaps a new key."""
        ...

    def opening(self, key_id: str) -> Key:
        """The key of that name. Raises `KeyGone`."""
        ...


def key_source(settings: Settings, data_dir: Path | None = None) -> KeySource | None:
    """Where the settings say that keys are; else the ring of the data folder; None without either. Opens nothing yet.

    Raises `UsageError` when the settings name two rings.
    """
    named = [name for name in ("key_file", "keys", "key_command") if getattr(settings, name) is not None]
    if len(named) > 1:
        both = " and ".join(f"TIDEGATE_{name.upper()}" for name in named)
        raise UsageError(f"{both} each name a key ring; keep one of them")
    if settings.key_file is not None:
        return FileKeys(settings.key_file)
    if settings.keys is not None:
        return GivenKeys(settings.keys.get_secret_value())
    if settings.key_command is not None:
        return CommandKeys(settings.key_command)
    return None if data_dir is None else FolderKeys(data_dir)


class _Keys:
    """The half that all sources share."""

    where: str

    def ring(self) -> KeyRing:
        raise NotImplementedError

    def sealing(self, tenant: str | None) -> Key:
        key = self.ring().sealing(tenant)
        if key is None:
            raise UsageError(f"{self.where} has no key for this tenant, and none for everybody; add one: tidegate keys rotate")
        return key

    def opening(self, key_id: str) -> Key:
        return self.ring().opening(key_id)


class FileKeys(_Keys):
    """A ring in a file, read again when the file changes: keys rotate, and shreds are heeded, without a restart."""

    def __init__(self, path: Path) -> None:
        # Absolute now: a service may change its working directory before the first content.
        self.path = path.expanduser().absolute()
        self.where = f"the key ring {self.path}"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._ring: KeyRing | None = None
        self._problem = ""

    def ring(self) -> KeyRing:
        with self._lock:
            try:
                found = self.path.stat()
            except OSError:
                self._seen = self._ring = None
                return read_ring(self.path)  # says what is wrong
            seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if seen != self._seen:
                self._ring, self._problem = None, ""
                try:
                    self._ring = read_ring(self.path)
                except UsageError as error:
                    self._problem = str(error)
                self._seen = seen
            if self._ring is None:
                raise UsageError(self._problem)
            return self._ring


class FolderKeys(FileKeys):
    """The ring of a data folder, `keys.json`: made at first use, with a key for everybody, and one for each tenant at its
    first content. It lies beside what it seals: set TIDEGATE_KEY_FILE where whoever copies the folder must not read it."""

    # Two megabytes of ring. Whoever has more has put something else in the tenant's place: the key for everybody does.
    MOST_KEYS: Final = 10_000

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir / "keys.json")
        self._audit = AuditLog(data_dir)

    def ring(self) -> KeyRing:
        if not self.path.exists():
            change_ring(self.path, lambda ring: ring, make=True, tell=self._tell)
        return super().ring()

    def sealing(self, tenant: str | None) -> Key:
        ring = self.ring()
        key = ring.own(tenant)
        if key is None and tenant is not None and len(ring.keys) >= self.MOST_KEYS:
            key = ring.own(None)
        if key is not None:
            return key

        def added(ring: KeyRing) -> KeyRing:
            # Of processes that come here at once, the first adds the key and the others find it.
            return ring if ring.own(tenant) is not None else ring.adding(Key.made(tenant))

        change_ring(self.path, added, make=True, tell=self._tell)
        return super().sealing(tenant)

    def _tell(self, before: KeyRing | None, after: KeyRing) -> None:
        tell_keys(self._audit, before, after, own=True)


class GivenKeys(_Keys):
    """A ring that the settings hold."""

    where = "TIDEGATE_KEYS"

    def __init__(self, ring: str) -> None:
        self._given = ring
        self._ring: KeyRing | None = None

    def ring(self) -> KeyRing:
        if self._ring is None:
            self._ring = KeyRing.parse(self._given.encode(), self.where)
        return self._ring


class CommandKeys(_Keys):
    """A ring that a command prints, run without a shell; again every five minutes, and for a key that nobody here knows.

    When it fails later on, the ring of the last time stays: a vault that is away for a while must not cost the content.
    """

    where = "what TIDEGATE_KEY_COMMAND prints"

    def __init__(self, command: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError:
            raise UsageError("TIDEGATE_KEY_COMMAND has a quote that does not end") from None
        if not self._command:
            raise UsageError("TIDEGATE_KEY_COMMAND is empty; give a command that prints the key ring, or unset it")
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ran_at = float("-inf")
        self._ring: KeyRing | None = None
        self._problem = ""

    def ring(self) -> KeyRing:
        # While somebody waits for the command, others go on with what it has printed before.
        if not self._lock.acquire(timeout=0 if self._ring is not None else _COMMAND_PATIENCE_S):
            if self._ring is None:
                raise UsageError("TIDEGATE_KEY_COMMAND has not printed a key ring yet")
            return self._ring
        try:
            self._run_if_older(_COMMAND_EVERY_S if self._ring is not None else _COMMAND_AGAIN_S)
            if self._ring is None:
                raise UsageError(self._problem)
            return self._ring
        finally:
            self._lock.release()

    def opening(self, key_id: str) -> Key:
        try:
            return self.ring().opening(key_id)
        except KeyGone:
            with self._lock:
                self._run_if_older(_COMMAND_AGAIN_S)
            return self.ring().opening(key_id)

    def _run_if_older(self, than_s: float) -> None:
        if self._monotonic() - self._ran_at < than_s:
            return
        import subprocess  # rarely needed, and not small

        try:
            done = subprocess.run(  # noqa: S603 — the operator's own command
                self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False
            )
            if done.returncode:
                self._problem = f"TIDEGATE_KEY_COMMAND ended with status {done.returncode}; run it by hand to see why"
            else:
                self._ring = KeyRing.parse(done.stdout, self.where)
        except UsageError as error:
            self._problem = str(error)
        except OSError as error:
            self._problem = f"TIDEGATE_KEY_COMMAND cannot be run ({error.strerror}); name a program and its arguments"
        except subprocess.TimeoutExpired:
            self._problem = f"TIDEGATE_KEY_COMMAND did not end within {_COMMAND_TIMEOUT_S:g} s; does it wait for a login?"
        finally:
            self._ran_at = self._monotonic()
