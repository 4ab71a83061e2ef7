"""What the pool and its processes say to each other, over a socket pair and in memory only.

    pool ─ Hello, Work, Work, … ─► process ─ Ready (or Refused), Done, Done, … ─► pool

A job carries its text sealed, and the key that opens it. So the plaintext is in the scoring process alone, and what comes
back of it is redacted. Nothing here says in its repr what it carries.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from ...schemas.finding import Outcome

# A frame is its length, then as many bytes of msgpack.
LENGTH: Final = struct.Struct(">I")


class Secretive(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shows its type and nothing else."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Job(Secretive, frozen=True, kw_only=True, omit_defaults=True):
    """One call's sealed text. `number` is the pool's; `known` are facts of the call that a detector may use."""

    number: int
    call_id: str
    sealed: str
    key_id: str
    key: bytes
    known: dict[str, str] = {}


class Hello(Secretive, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """The first word to a process: the settings as JSON, without any secret; `module:function` that loads the suite; where
    modules are found; and the canaries of the settings, which are secret and yet needed."""

    settings: bytes
    loader: str
    path: list[str]
    canaries: str | None = None


class Work(Secretive, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A batch, and the key for fingerprints and redaction."""

    jobs: list[Job]
    fingerprint_key: bytes


class Entry(Secretive, frozen=True, kw_only=True, omit_defaults=True):
    """A finding, as a scored event has it."""

    detector: str
    type: str
    where: str
    chunk: int = 0
    start: int
    end: int
    score: float
    leak: bool = False
    rule: str | None = None
    fingerprint: str | None = None


class Redacted(Secretive, frozen=True, kw_only=True, omit_defaults=True):
    """A call's texts, with all PHI replaced."""

    prompt: str | None = None
    response: str | None = None
    context: list[str] = []


class Judged(Secretive, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one job. `redacted` is None where PHI was not surely found: then nothing of the text may be kept."""

    number: int
    outcome: Outcome
    findings: list[Entry] = []
    more_findings: int = 0
    evidence: list[dict[str, int | float | str]] = []
    scores: dict[str, float] = {}
    detectors: dict[str, str] = {}
    failed: dict[str, str] = {}
    redacted: Redacted | None = None
    cached: bool = False
    texts: int = 0
    scoring_s: float | None = None


class Ready(Secretive, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """The suite is loaded and has judged a sentence of our own. Detector → version; `troubles`: models that could not be
    had, with what stands in for them."""

    detectors: dict[str, str]
    troubles: list[str] = []
    resident_mb: float


class Refused(Secretive, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """The suite cannot be loaded; `reason` is for a person."""

    reason: str


class Done(Secretive, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A batch, judged. `seconds`: detector → processor time it took."""

    judged: list[Judged]
    cpu_s: float
    resident_mb: float
    seconds: dict[str, float] = {}


Said = Ready | Refused | Done

encode: Final = msgspec.msgpack.Encoder().encode
decode_said: Final = msgspec.msgpack.Decoder(Said).decode
decode_told: Final = msgspec.msgpack.Decoder(Hello | Work).decode


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes over the socket."""
    body = encode(message)
    return LENGTH.pack(len(body)) + body
