"""Takes a person out of records: what their calls cost stays, and nobody can be told from it any more.

    line of a call, a row, a verdict ─► the same without user, conversation, trace, labels; its call has another id
    line of content, a transcript    ─► that, and its texts are gone
    line of an alert                 ─► gone where its scope names them; else without them among those who spent it
    anything that cannot be read     ─► gone where it says their id

A person is a tenant and a user. What names no user and is of one of their calls is theirs, too. A call's new id is the same
wherever the call is told of, and nobody without the key ring can tell from which one it was made.

Events of theirs may come late: out of a spool, or a log that is replayed. `Forgotten` knows them by a keyed fingerprint.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, Final, NamedTuple

import orjson

from ..schemas.call import parse_timestamp

# What of an event may tell who it was, beside `user`.
IDENTIFYING: Final = ("user", "conversation_id", "trace_id", "span_id", "response_id", "labels")
# A chunk has to have an id.
NO_CHUNK: Final = "-"
_TEXTS: Final = ("redacted_prompt", "redacted_response")
_DIGITS: Final = 32
# Names of users, looked up and remembered: some megabytes at most.
_MOST_KNOWN: Final = 10_000


class Person(NamedTuple):
    """Somebody, as events name them."""

    tenant: str
    user: str


def fingerprint_of(person: Person, key: bytes) -> str:
    """What a person is called where they must not be named; under another key they are called otherwise."""
    return hmac.digest(key, _spelled(b"tidegate forgotten person", person), "sha256").hex()[:_DIGITS]


def salt_of(person: Person, key: bytes) -> str:
    """What the ids of their calls are made new with: secret."""
    return hmac.digest(key, _spelled(b"tidegate forgotten calls", person), "sha256").hex()


def _spelled(label: bytes, person: Person) -> bytes:
    return label + orjson.dumps(list(person))


@dataclass(frozen=True, slots=True)
class Eraser:
    """Takes one person out of lines of JSON. `call_ids`: their calls, where a line may not name them."""

    person: Person
    salt: str = field(repr=False)
    call_ids: Collection[str] = ()

    def new_id(self, call_id: str) -> str:
        """As the store makes it (`sinks/erasure.py`)."""
        return hashlib.sha256((self.salt + call_id).encode()).hexdigest()[:_DIGITS]

    def line(self, line: bytes) -> bytes | None:
        """The line without the person; None: nothing of it is left. The very same object where they are not in it."""
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            return b"{}" if self.is_said_in(line) else line
        if not isinstance(event, dict):
            return b"{}" if self.is_said_in(line) else line
        if isinstance(event.get("scope"), dict):
            return self._told(event, line)
        return orjson.dumps(self._cleared(event)) if self._is_theirs(event) else line

    def is_said_in(self, line: bytes) -> bool:
        """Whether something that cannot be read has their id in quotes."""
        return orjson.dumps(self.person.user) in line

    def names(self, scope: Mapping[str, Any]) -> bool:
        """Whether a scope is theirs. One without a tenant holds all who are called so."""
        return scope.get("user") == self.person.user and self.may_hold(scope)

    def may_hold(self, scope: Mapping[str, Any]) -> bool:
        """Whether they may be in a scope."""
        return bool(scope.get("tenant", self.person.tenant) == self.person.tenant)

    def _is_theirs(self, event: dict[str, Any]) -> bool:
        if (event.get("tenant") or "") != self.person.tenant:
            return False
        user = event.get("user")
        return bool(user == self.person.user or (not user and event.get("call_id") in self.call_ids))

    def _cleared(self, event: dict[str, Any]) -> dict[str, Any]:
        left = {name: value for name, value in event.items() if name not in IDENTIFYING}
        if isinstance(call_id := left.get("call_id"), str):
            left["call_id"] = self.new_id(call_id)
        for chunk in _dicts(left.get("retrieval")):
            chunk |= {name: NO_CHUNK for name in ("chunk_id", "source") if name in chunk}
        for finding in _dicts(left.get("findings")):
            finding.pop("fingerprint", None)
        left |= {name: None for name in _TEXTS if name in left}
        if "redacted_context" in left:
            left["redacted_context"] = []
        if left.get("event") == "content":
            for name in ("sealed", "key_id"):
                left.pop(name, None)
            left |= {"mode": "hashed", "fingerprints": {}}
        return left

    def _told(self, alert: dict[str, Any], line: bytes) -> bytes | None:
        scope, name = alert["scope"], f"user={self.person.user}"
        if self.names(scope):
            return None
        spenders = alert.get("contributors")
        if not self.may_hold(scope) or not isinstance(spenders, dict) or name not in spenders:
            return line
        del spenders[name]
        return orjson.dumps(alert)


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class Forgotten:
    """Who was forgotten, and when: of calls that began before, nobody is to know whose they were. Later ones are another
    matter: a person may come back. Used from one thread."""

    def __init__(self, before_ms: Mapping[str, int], key: bytes) -> None:
        """`before_ms`: fingerprint to when; not empty, or it is for nothing."""
        self._before_ms = dict(before_ms)
        self._key = key
        self._known: dict[Person, int] = {}

    def has(self, event: Any) -> bool:
        """Whether a decoded event is one of theirs."""
        user = getattr(event, "user", None)
        return user is not None and event.started_at.timestamp() * 1_000 < self._before(Person(event.tenant or "", user))

    def erased(self, line: bytes) -> bytes:
        """A line of an event, without the person where they are forgotten."""
        try:
            event = orjson.loads(line)
            tenant, user = event.get("tenant") or "", event["user"]
            started_at = parse_timestamp(event["started_at"])
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            return line
        if not isinstance(user, str) or not isinstance(tenant, str):
            return line
        person = Person(tenant, user)
        if started_at.timestamp() * 1_000 >= self._before(person):
            return line
        return Eraser(person, salt_of(person, self._key)).line(line) or b"{}"

    def _before(self, person: Person) -> int:
        found = self._known.get(person)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[person] = self._before_ms.get(fingerprint_of(person, self._key), 0)
        return found


@dataclass(frozen=True, slots=True)
class Traces:
    """What a person's id looks like in bytes that nobody parses."""

    patterns: tuple[re.Pattern[bytes], ...]
    # Said to whoever reads the report.
    described: str
    # For the store, which takes the id as it is.
    as_sql: str

    @classmethod
    def of(cls, user: str) -> Traces:
        """Long ids are looked for anywhere, as a word of its own; short ones, and short numbers, only where a user is named:
        they stand in every file as something else."""
        raw = user.encode()
        forms = dict.fromkeys((raw, orjson.dumps(user)[1:-1], "".join(_escaped(char) for char in user).encode()))
        if is_telling(user):
            patterns = [rb"(?<![0-9A-Za-z_])" + re.escape(form) + rb"(?![0-9A-Za-z_])" for form in forms]
            patterns.append(re.escape(user.encode("utf-16-le")))
            described = "the id as a word of its own, in UTF-8, in UTF-16 and as JSON escapes it"
        else:
            patterns = [
                pattern
                for form in forms
                for pattern in (rb'"user":\s*"' + re.escape(form) + rb'"', rb"user=" + re.escape(form) + rb"(?![0-9A-Za-z_])")
            ]
            described = "the id where a user is named; it is too short to be looked for anywhere"
        as_sql = rf"(^|[^0-9A-Za-z_]){re.escape(user)}($|[^0-9A-Za-z_])"
        return cls(tuple(map(re.compile, patterns)), described, as_sql)

    def are_in(self, content: bytes | mmap) -> bool:
        return any(pattern.search(content) for pattern in self.patterns)


def is_telling(user: str) -> bool:
    """Whether an id is unlike anything else that a file may hold."""
    return len(user) >= (8 if user.isdigit() else 5)


def _escaped(char: str) -> str:
    return char if char.isascii() else "".join(f"\\u{unit:04x}" for unit in _utf16(char))


def _utf16(char: str) -> Iterable[int]:
    raw = char.encode("utf-16-be", errors="surrogatepass")
    return (int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))
