"""The embedded node: one data folder's pipeline with its HTTP doors, run until told to stop."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from ...schemas.errors import UsageError
from ...schemas.policy import SEVERITY
from ...schemas.settings import Settings
from ...schemas.usage import COUNTERS
from ..listening import bind, is_loopback
from .app import Doors
from .folder import FolderLock, own_or_find
from .pipeline import Pipeline


class Node:
    """`start()` returns once events are taken at `url`; `stop()` drains what was accepted and lets the folder go.

    Raises `UsageError` when another process has the folder, when the port is taken, or when the node would listen
    beyond this machine without a token.
    """

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        if not is_loopback(settings.host) and not settings.token:
            raise UsageError(
                f"listening on {settings.host} is open to other machines: set TIDEGATE_TOKEN to a long random value first"
            )
        found = own_or_find(data_dir)
        if not isinstance(found, FolderLock):
            raise UsageError(f"a node (pid {found.pid}) already runs on {data_dir} at {found.url}")
        self._lock = found
        self.settings = settings
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._doors: Doors | None = None
        self.pipeline: Pipeline | None = None
        self.url = ""
        self._data_dir = data_dir

    def start(self) -> None:
        """Bind first, so that a taken port is told before anything else is touched."""
        self._socket = bind(self.settings.host, self.settings.port)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.pipeline = Pipeline(self._data_dir, self.settings)
        own_token = secrets.token_urlsafe(24)
        self._doors = Doors(self.pipeline, self.settings, own_token, self.status)
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
        self.pipeline.start()
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
        if self.pipeline is not None:
            self.pipeline.close()
        if self._socket is not None:
            self._socket.close()
        self._lock.release()

    @property
    def failure(self) -> BaseException | None:
        """What ended the pipeline, if anything did."""
        return self.pipeline.failure if self.pipeline else None

    def status(self) -> dict[str, Any]:
        """The account of every event, the lags, and the newest day's usage by model."""
        pipeline = self.pipeline
        if pipeline is None:
            raise UsageError("the node is not running")
        return status_of(pipeline, self.url)


def status_of(pipeline: Pipeline, url: str) -> dict[str, Any]:
    """A pipeline's account, lags and newest day."""
    meter_lag, sink_lag = pipeline.lags()
    return {
        "url": url,
        "totals": pipeline.meter.totals(),
        "meter_lag_records": meter_lag,
        "sink_lag_records": sink_lag,
        "backlog_bytes": pipeline.backlog_bytes,
        "store_away": pipeline.store_away,
        "healthy": pipeline.healthy,
        "price_book": pipeline.meter.book.version,
        "policies": standing(pipeline),
        "today": today(pipeline),
    }


def standing(pipeline: Pipeline) -> dict[str, Any]:
    """The policies in force, and the scopes that are not fine, harshest first; read beside the policies at work."""
    state = pipeline.policies.state
    found = [
        (rule.policy, values, word.state)
        for watched in list(state.watched.values())
        for values, scope in list(watched.scopes.items())
        for rule, word in zip(watched.rules, scope.words, strict=False)
        if word.state != "ok"
    ]
    found.sort(key=lambda entry: (-SEVERITY[entry[2]], entry[0].name, str(entry[1])))
    return {
        "version": state.version,
        "in_force": len(state.rules),
        "not_fine": len(found),
        "worst": [
            {"policy": policy.name, "scope": dict(zip(policy.scope, values, strict=True)), "state": what}
            for policy, values, what in found[:8]
        ],
    }


def today(pipeline: Pipeline) -> dict[str, Any]:
    """Usage of the newest UTC day that has any, in all and by model; `day` is None before the first call.

    Read beside the meter at work: a call may be in one number and not yet in the next.
    """
    watermark_s = max(state.usage.watermark_s for state in pipeline.meter.states.values())
    start = watermark_s - watermark_s % 86_400
    # One scope set only: what another one says of the same calls is not to be added to it.
    sets = pipeline.settings.scope_sets
    fields = min([fields for fields in sets if "model" in fields] or sets, key=len, default=())
    sums: dict[str, list[int]] = {}
    for state in pipeline.meter.states.values():
        for key, usage in list(state.usage.live.items()):
            if key.bucket == "day" and key.start == start and key.fields == fields:
                model = (key.values[fields.index("model")] if "model" in fields else None) or "any model"
                known = sums.get(model)
                sums[model] = [a + b for a, b in zip(known, usage.counts, strict=True)] if known else list(usage.counts)
    models: list[dict[str, Any]] = [
        {"model": model, **dict(zip(COUNTERS, counts, strict=True))} for model, counts in sums.items()
    ]
    for row in models:
        row["tokens"] = int(row["input_tokens"]) + int(row["output_tokens"])
    models.sort(key=lambda row: (-int(row["cost_nano_usd"]), -int(row["requests"]), row["model"]))
    names = ("requests", "errors", "cost_nano_usd", "input_tokens", "output_tokens", "unpriced")
    return {
        "day": datetime.fromtimestamp(start, UTC).date().isoformat() if watermark_s else None,
        **{name: sum(int(row[name]) for row in models) for name in names},
        "models": models,
    }
