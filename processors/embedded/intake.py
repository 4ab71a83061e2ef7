"""What one door puts into the log: under the sender's numbers, or this node's own."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence

from ...producers.ports import Log, Position
from ...schemas.envelope import SCHEMA
from ...schemas.errors import EnvelopeRefused, LogUnavailable
from . import ingest


class Intake:
    """Appends the lines of one schema, one body at a time, as a log wants it. From any thread."""

    def __init__(self, log: Log, schema: str = SCHEMA) -> None:
        self._log = log
        self._schema = schema
        self._producer, self._next_seq = _own_producer(), 0
        self._lock = threading.Lock()

    def append(self, producer: str | None, seq: int, dropped: int, lines: Sequence[bytes]) -> Position | None:
        """Where the last of them went; gates ask, to know when their spend is counted in. Raises `LogUnavailable`,
        `BadBody`."""
        if not lines:
            return None
        with self._lock:
            try:
                if producer is not None:
                    return self._log.append(ingest.envelopes(producer, seq, lines, dropped, self._schema))[-1]
                own = ingest.envelopes(self._producer, self._next_seq, lines, schema=self._schema)
                position = self._log.append(own)[-1]
                self._next_seq += len(lines)
                return position
            except LogUnavailable:
                if producer is None:
                    # Whether it is in the log nobody knows. Under these numbers the next events might be taken for
                    # repetitions, after them for a gap; so this node goes on under another name.
                    self._producer, self._next_seq = _own_producer(), 0
                raise
            except EnvelopeRefused as error:
                raise ingest.BadBody(str(error), 413) from error


def _own_producer() -> str:
    return f"node-{secrets.token_hex(8)}"
