"""The node: HTTP doors before a backend, run until told to stop. Its data folder is its own as long as it runs."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from ...producers.folder_audit import audit_of
from ...schemas.errors import UsageError
from ...schemas.residency_file import residency_of
from ...schemas.settings import Settings
from ..audit_copy import AuditCopying
from ..audit_events import tell_residency, tell_started, tell_stopped
from ..folder import FolderLock, own_or_find
from ..listening import bind, is_loopback
from ..tenant_tokens import TenantTokens
from .app import Doors
from .backend import Backend
from .folder_backend import FolderBackend


class Node:
    """`start()` returns once events are taken at `url`; `stop()` drains what was accepted and lets the folder go.

    Raises `UsageError` when another process has the folder, when the port is taken, or when the node would listen
    beyond this machine without a token; and whatever `open_backend` does, which gets the folder once it is ours.
    """

    def __init__(
        self, data_dir: Path, settings: Settings, open_backend: Callable[[Path, Settings], Backend] = FolderBackend
    ) -> None:
        if not is_loopback(settings.host) and not settings.token:
            raise UsageError(
                f"listening on {settings.host} is open to other machines: set TIDEGATE_TOKEN to a long random value first"
            )
        self._residency = residency_of(settings)
        found = own_or_find(data_dir)
        if not isinstance(found, FolderLock):
            raise UsageError(f"a node (pid {found.pid}) already runs on {data_dir} at {found.url}")
        self._lock = found
        self.settings = settings
        self._open_backend = open_backend
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._doors: Doors | None = None
        self.backend: Backend | None = None
        self.url = ""
        self._data_dir = data_dir
        self._audit = audit_of(data_dir, settings)
        self._copying: AuditCopying | None = None

    def start(self) -> None:
        """Bind first, so that a taken port is told before anything else is touched."""
        self._socket = bind(self.settings.host, self.settings.port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.backend = self._open_backend(self._data_dir, self.settings)
        tell_started(self._audit, self.settings)
        if self._residency is not None:
            tell_residency(self._audit, self._residency, self.settings.residency_file)
        self._copying = AuditCopying(self._audit, self.backend.store)
        own_token = secrets.token_urlsafe(24)
        tenants = TenantTokens(self._data_dir, self._audit)
        self._doors = Doors(self.backend, self.settings, own_token, self.status, self._audit, tenants, self._residency)
        config = uvicorn.Config(
            self._doors.app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            # Longer than a producer's pause between two envelopes: it need not connect anew each time.
            timeout_keep_alive=60,
        )
        self._server = uvicorn.Server(config)
        self.backend.start()
        self._copying.start()
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="tidegate-http", daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        if not self._server.started:
            raise RuntimeError("the HTTP server ended before it began")
        self._lock.announce(self.url, own_token)

    def stop(self) -> None:
        """Close the doors, bring what was accepted into the store, let go. Idempotent."""
        # First, so that a command which comes now waits for the folder instead of asking doors that are closing.
        self._lock.withdraw()
        if self._server is not None and self._thread is not None:
            if self._doors is not None:
                self._doors.end_waits()
            self._server.should_exit = True
            self._thread.join()
            self._server = None
        if self._doors is not None:
            self._doors.close()
            self._doors = None
        if self._copying is not None:
            tell_stopped(self._audit, self.failure)
            self._copying.stop()
            self._copying = None
        if self.backend is not None:
            self.backend.close()
        if self._socket is not None:
            self._socket.close()
        self._lock.release()

    def console_link(self) -> str:
        """What signs in to the console as operator, once and soon."""
        if self._doors is None:
            raise UsageError("the node is not running")
        return self.url + self._doors.console.entrance()

    @property
    def failure(self) -> BaseException | None:
        """What ended the work behind the doors, if anything did."""
        return self.backend.failure if self.backend else None

    def status(self) -> dict[str, Any]:
        """The account of every event, the lags, and the newest day's usage by model."""
        if self.backend is None:
            raise UsageError("the node is not running")
        return {"url": self.url, **self.backend.status()}
