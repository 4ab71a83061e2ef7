"""Takes a person out of a data folder's log. Nobody else may have the folder; services may go on appending.

    calls, content, rows, alerts    lines without them, in the place of those with them; numbers and counts stay as they are
    quarantine, refused             records of theirs deleted; sealed lines are opened for that, where there is a key
    usage                           their scopes deleted, and their name among the spenders of other scopes
    signals, incidents              words on their scopes deleted
    the meter's buckets             their scopes added to those of nobody
    forgotten                       a keyed fingerprint, for what comes late

Each transaction is whole, and doing all of it again changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson

from ...producers.key_source import key_source
from ...producers.keyring import KeyRing
from ...producers.sqlite_log import Record, SqliteLog
from ...schemas.errors import Unreadable, UsageError
from ...schemas.settings import Settings
from ...schemas.signal import parse_signal_key
from ...schemas.topics import GATES, INCIDENTS, QUARANTINE, REFUSED, SIGNALS, TOPICS, USAGE
from ...schemas.usage import Usage
from ..aggregate import UsageKey
from ..forgetting import Eraser, Forgotten, Traces
from ..letters import Letter
from ..series import CALL, Series, Values, parse_usage_key, without_scopes, without_spender

# Whatever is not of another form has lines of JSON in it: a topic that is new is not left out.
_LINES: Final = tuple(
    topic for topic in TOPICS.values() if topic not in (USAGE, SIGNALS, GATES, INCIDENTS, QUARANTINE, REFUSED)
)
# Events of theirs may lie in a service's spool for as long as that is let; then nobody need know of them any more.
FORGOTTEN_FOR_MS: Final = 400 * 86_400_000

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS forgotten (fingerprint TEXT PRIMARY KEY, before_ms INTEGER NOT NULL) WITHOUT ROWID"


def fingerprint_key(settings: Settings, data_dir: Path) -> bytes:
    """The key of this folder's fingerprints. Raises `UsageError` where its ring is not there."""
    source = key_source(settings, data_dir)
    if source is None:
        raise UsageError("there is no key ring; set TIDEGATE_KEY_FILE")
    return source.ring().fingerprint_key


def forgotten_in(log: SqliteLog, fingerprint_key: Callable[[], bytes]) -> Forgotten | None:
    """Whose late events are nobody's; None, and nobody's key is asked for, where no one was forgotten."""
    if not log.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'forgotten'").fetchone():
        return None
    before_ms = dict(log.db.execute("SELECT fingerprint, before_ms FROM forgotten"))
    return Forgotten(before_ms, fingerprint_key()) if before_ms else None


class LogErasure:
    """One person in one log. `series`: what is counted there, by id. `at` hears of each step, for tests of crashes."""

    def __init__(
        self,
        log: SqliteLog,
        eraser: Eraser,
        series: Mapping[str, Series],
        ring: KeyRing,
        *,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._log = log
        self._eraser = eraser
        self._series = series
        self._ring = ring
        self._at = at
        self._traces = Traces.of(eraser.person.user)
        self._spender = f"user={eraser.person.user}"
        # Refused lines that no key opens here.
        self.unopened = 0

    def remember(self, fingerprint: str, before_ms: int) -> None:
        """From now on, what comes of calls that began before is nobody's."""
        with self._log.transaction():
            self._log.db.execute(_SCHEMA)
            self._log.db.execute("DELETE FROM forgotten WHERE before_ms < ?", (before_ms - FORGOTTEN_FOR_MS,))
            self._log.db.execute(
                "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO UPDATE SET before_ms = excluded.before_ms",
                (fingerprint, before_ms),
            )

    def erase(self) -> Counter[str]:
        """Do it; how many records of each topic, and buckets of the meter, were changed or deleted."""
        return self._go(change=True)

    def found(self) -> Counter[str]:
        """How many there are; nothing is changed."""
        return self._go(change=False)

    def _go(self, *, change: bool) -> Counter[str]:
        found: Counter[str] = Counter()
        self.unopened = 0
        for partition in range(self._log.partitions):
            for topic in _LINES:
                found[topic.name] += self._lines(topic.name, partition, change)
            for topic_name, is_theirs in ((QUARANTINE.name, self._is_held), (REFUSED.name, self._is_refused)):
                found[topic_name] += self._records(topic_name, partition, is_theirs, change)
            found[USAGE.name] += self._values(USAGE.name, partition, self._counted, change)
            found[INCIDENTS.name] += self._values(INCIDENTS.name, partition, self._noted, change)
            found[SIGNALS.name] += self._values(SIGNALS.name, partition, self._said, change)
            found["meter"] += self._buckets(partition, change)
        return +found

    def _batches(self, topic: str, partition: int) -> Iterator[list[Record]]:
        start, end = 0, self._log.end_offset(topic, partition)
        while records := self._log.read(topic, partition, start, end=end):
            yield records
            start = records[-1].offset + 1

    def _lines(self, topic: str, partition: int, change: bool) -> int:
        found = 0
        for records in self._batches(topic, partition):
            anew = [(record, lines) for record in records if (lines := self._anew(record)) is not None]
            found += len(anew)
            if not (change and anew):
                continue
            with self._log.transaction():
                for record, lines in anew:
                    if not lines:
                        self._log.remove(topic, partition, record.offset)
                        continue
                    counted = {"count": str(len(lines))} if "count" in record.headers else {}
                    self._log.rewrite(topic, partition, record.offset, b"\n".join(lines), {**record.headers, **counted})
            self._at(f"rewritten {topic}")
        return found

    def _anew(self, record: Record) -> list[bytes] | None:
        """The lines of a record without the person; None where they are not in it."""
        before = record.value.split(b"\n")
        after = [self._eraser.line(line) for line in before]
        if all(old is new for old, new in zip(before, after, strict=True)):
            return None
        return [line for line in after if line is not None]

    def _records(self, topic: str, partition: int, is_theirs: Callable[[Record], bool], change: bool) -> int:
        found = 0
        for records in self._batches(topic, partition):
            theirs = [record.offset for record in records if is_theirs(record)]
            found += len(theirs)
            if change and theirs:
                with self._log.transaction():
                    for offset in theirs:
                        self._log.remove(topic, partition, offset)
                self._at(f"deleted {topic}")
        return found

    def _is_held(self, record: Record) -> bool:
        return self._eraser.line(record.value) is not record.value

    def _is_refused(self, record: Record) -> bool:
        letter = Letter.read(record.key or b"", record.headers, record.value, record.appended_ms)
        if letter is None:
            return False
        try:
            line = letter.opened(self._ring)
        except Unreadable:
            self.unopened += 1
            return False
        return self._eraser.line(line) is not line

    def _values(self, topic: str, partition: int, anew: Callable[[Record], bytes | None], change: bool) -> int:
        found = 0
        for records in self._batches(topic, partition):
            changed = [(record, value) for record in records if (value := anew(record)) is not record.value]
            found += len(changed)
            if change and changed:
                with self._log.transaction():
                    for record, value in changed:
                        if value is None:
                            # Not a tombstone: that would name them for another day.
                            self._log.remove(topic, partition, record.offset)
                        else:
                            self._log.rewrite(topic, partition, record.offset, value, record.headers)
                self._at(f"changed {topic}")
        return found

    def _said(self, record: Record) -> bytes | None:
        """A policy's word without the person; None: none, as it is on a scope of theirs."""
        named = parse_signal_key(record.key or b"")
        if named is None:
            return record.value
        if not record.value:
            return None if self._eraser.person.user in named[1] else record.value
        signal = orjson.loads(record.value)
        if self._eraser.names(signal["scope"]):
            return None
        spenders = signal.get("contributors", [])
        kept = [one for one in spenders if one["scope"].get("user") != self._eraser.person.user]
        if len(kept) == len(spenders) or not self._eraser.may_hold(signal["scope"]):
            return record.value
        return orjson.dumps(signal | {"contributors": kept})

    def _noted(self, record: Record) -> bytes | None:
        """What the notifier remembers without the person; None: nothing, as it is of their scope, or says so in words."""
        if not self._traces.are_in((record.key or b"") + b"\n" + record.value):
            return record.value
        if not record.value:
            return None
        told = orjson.loads(record.value)
        alert = told.get("alert") or told
        if not self._eraser.may_hold(alert.get("scope") or {}):
            return record.value
        spenders = alert.get("contributors") or []
        if spenders and not self._eraser.names(alert.get("scope") or {}):
            alert["contributors"] = [one for one in spenders if one["scope"].get("user") != self._eraser.person.user]
        anew = orjson.dumps(told)
        return None if self._traces.are_in((record.key or b"") + b"\n" + anew) else anew

    def _counted(self, record: Record) -> bytes | None:
        """What the usage topic says without the person; None: nothing, as it is of their scope."""
        key, value = record.key or b"", record.value
        if key.startswith(CALL):
            return without_scopes(value, self._is_scope) if value else value
        scope = parse_usage_key(key)
        if scope is None:
            return value
        if self._is_scope(*scope):
            return None
        return without_spender(value, self._spender) if value else value

    def _is_scope(self, series: str, values: Values) -> bool:
        known = self._series.get(series)
        if known is None:
            # Of a policy that is no more: which value is what, nobody knows.
            return self._eraser.person.user in values
        return self._eraser.names(dict(zip(known.fields, values, strict=True)))

    def _buckets(self, partition: int, change: bool) -> int:
        """Add what the meter has counted for the person to what it has counted for nobody."""
        db = self._log.db
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'usage'").fetchone():
            return 0
        theirs = [
            (stored, key)
            for (stored,) in db.execute("SELECT key FROM usage WHERE partition = ?", (partition,))
            if self._eraser.names(dict(zip((key := UsageKey.load(stored)).fields, key.values, strict=True)))
        ]
        if change and theirs:
            with self._log.transaction():
                for stored, key in theirs:
                    self._add_to_nobody(partition, stored, key)
            self._at("buckets")
        return len(theirs)

    def _add_to_nobody(self, partition: int, stored: bytes, key: UsageKey) -> None:
        db = self._log.db
        nobody = key._replace(
            values=tuple(None if name == "user" else value for name, value in zip(key.fields, key.values, strict=True))
        )
        counted = Usage()
        for place in (nobody.dump(), stored):
            row = db.execute("SELECT value FROM usage WHERE partition = ? AND key = ?", (partition, place)).fetchone()
            if row:
                counted.merge(Usage.load(row[0]))
        db.execute("DELETE FROM usage WHERE partition = ? AND key = ?", (partition, stored))
        db.execute(
            "INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (partition, nobody.dump(), nobody.bucket, nobody.start, counted.dump()),
        )
