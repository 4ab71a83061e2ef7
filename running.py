"""What every command that runs for long needs: to be told to stop, to show how far it is, and to log."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Any

from tidegate.schemas.errors import UsageError
from tidegate.schemas.policy import parse_duration


class Stopping:
    """Whether somebody wants the end.

    A plain flag, looked at now and then: the lock inside a `threading.Event` may be held by the very thread that the
    signal interrupts, and then its handler waits for ever.
    """

    def __init__(self) -> None:
        self._told = False

    @classmethod
    def on_signals(cls) -> Stopping:
        """Told by SIGINT and SIGTERM."""
        stopping = cls()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stopping.set())
        return stopping

    def set(self) -> None:
        self._told = True

    def is_set(self) -> bool:
        return self._told

    def wait(self, timeout_s: float) -> bool:
        """Up to `timeout_s`; a signal is heard within a twentieth of a second."""
        deadline = time.monotonic() + timeout_s
        while not self._told and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.05))
        return self._told


def log_to_stderr() -> None:
    """The application configures logging; the libraries never do."""
    import structlog  # a command that answers at once does not need it

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # While the store is away we say so at every try; its client, and that one's, would say it again, with the whole request.
    for client in ("urllib3.connectionpool", "clickhouse_connect"):
        logging.getLogger(client).setLevel(logging.ERROR)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Whatever it is by then: who runs a command within another program may have put something else in its place.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar on the terminal's error stream, wiped away at the end; nothing off a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Off a terminal even a bar that is wiped away leaves an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def moment(option: str, text: str, now: float) -> float:
    """`7d` before now, or a day or time, as seconds since 1970. Raises `UsageError`, naming the option."""
    try:
        return now - int(parse_duration(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: give a duration such as 7d or 12h, a day such as 2026-11-02, or a time") from None
    zone: tzinfo = found.tzinfo or UTC
    return found.replace(tzinfo=zone).timestamp()
