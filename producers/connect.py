"""`connect()`: from the settings to a working emitter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..schemas.errors import UsageError
from ..schemas.residency_file import residency_of_service
from ..schemas.settings import Settings
from .emitter import Emitter
from .key_source import key_source
from .ports import Log
from .signals import SignalSource


def connect(
    url: str | None = None, *, producer_id: str | None = None, first_seq: int = 0, gate: bool = True, **overrides: Any
) -> Emitter:
    """An emitter to `url` (default: TIDEGATE_URL): the http(s) address of a node, a list of Kafka brokers, or a data folder.

    `overrides` are settings by name, such as `service="triage"` or `spool_dir=Path(…)`. `producer_id` and `first_seq` are
    for replays: the same events under the same id and numbers are counted once. Over HTTP and to Kafka, events wait in a
    spool under the user's state folder while nobody takes them; a data folder is on the same machine and needs none.

    With a `gate`, observed calls are guarded: they raise `GateClosed` before the provider is called when a policy does not
    let them go. `emitter.gate` answers questions of your own.

    Texts of calls leave sealed with the ring that the settings name; a data folder makes its own. Where there is none, they
    do not leave, and calls are metered all the same.

    Nothing is opened before the first event or question. Raises `UsageError` when a setting is wrong.
    """
    settings = Settings.read(url=url, **overrides)
    ring_of: Path | None = None
    scheme, found, _ = settings.url.partition("://")
    reopen: Callable[[], Log]
    signals: Callable[[], SignalSource]
    if found and scheme.lower() in ("http", "https"):
        from .http_log import HttpLog
        from .http_signals import HttpSignals  # a service on a data folder does not need urllib3 in memory

        settings = _with_spool(settings)
        reopen = lambda: HttpLog(settings.url, settings.token)  # noqa: E731 — all branches name one thing
        signals = lambda: HttpSignals(settings.url, settings.token)  # noqa: E731
    elif found and scheme.lower() == "kafka":
        try:
            from .kafka_log import KafkaLog
            from .kafka_signals import KafkaSignals
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "aiokafka":
                raise
            raise UsageError("TIDEGATE_URL begins with kafka://, which needs aiokafka: pip install 'tidegate[kafka]'") from None
        settings = _with_spool(settings)
        reopen = lambda: KafkaLog(settings)  # noqa: E731
        signals = lambda: KafkaSignals(settings)  # noqa: E731
    elif found and scheme.lower() != "file":
        raise UsageError(f"TIDEGATE_URL begins with {scheme}://; use http://, https://, kafka://, or the path of a data folder")
    else:
        from .local_log import LocalLog
        from .local_signals import LocalSignals  # and a service over HTTP no SQLite

        folder = Path(settings.url.removeprefix("file://")).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"TIDEGATE_URL names {folder}, which is not a folder")
        # Absolute now: a service may change its working directory before the first event.
        folder = ring_of = folder.absolute()
        reopen = lambda: LocalLog(folder, fsync=settings.fsync)  # noqa: E731
        signals = lambda: LocalSignals(folder)  # noqa: E731
    key_source(settings, ring_of)  # what is wrong with its settings is told here
    residency = residency_of_service(settings)
    return Emitter(
        reopen(),
        settings=settings,
        producer_id=producer_id,
        first_seq=first_seq,
        reopen=reopen,
        signals=signals if gate else None,
        keys=lambda: key_source(settings, ring_of),
        residency=residency,
    )


def _with_spool(settings: Settings) -> Settings:
    """For a log that is not on this machine."""
    return settings if settings.spool_dir is not None else settings.model_copy(update={"spool_dir": default_spool_dir()})


def default_spool_dir() -> Path | None:
    """`$XDG_STATE_HOME/tidegate/spool`, or `~/.local/state/tidegate/spool`; None for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    except RuntimeError:
        return None
    return base / "tidegate" / "spool"
