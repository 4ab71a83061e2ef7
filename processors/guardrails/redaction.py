"""Texts with their PHI taken out. What stands in its place is a tag, a surrogate, or a keyed hash.

    tag        <PERSON> was seen on <DATE_TIME>
    surrogate  Thea Larkin was seen on 05/02/2018     the same value, the same stand-in, within a call; days move by one offset
    hash       PERSON_3fa9c1d2 was seen on …          the same value, the same hash, under one key: calls can be joined

No character of a finding's span is let through, however spans overlap.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...schemas.content import Where
from .phi.meaning import meant
from .ports import Finding, Sample
from .surrogates import Surrogates

Style = Literal["tag", "surrogate", "hash"]


@dataclass(frozen=True, slots=True)
class Redacted:
    """The texts of one call without its PHI; None where there was no text. Not shown in a repr: names may be left in it."""

    prompt: str | None = field(default=None, repr=False)
    response: str | None = field(default=None, repr=False)
    context: tuple[str, ...] = field(default=(), repr=False)


def redact(sample: Sample, findings: Sequence[Finding], style: Style, *, key: bytes) -> Redacted:
    """The texts of `sample` with every finding of detector `phi` replaced; other detectors' findings are left alone.

    `key` is the ring's fingerprint key: what a surrogate or hash is cannot be undone without it. The same arguments give the
    same texts. Raises `ValueError` on a finding that lies outside its text: redacting elsewhere would let PHI through.
    """
    spans: dict[tuple[Where, int], list[Finding]] = {}
    for finding in findings:
        if finding.detector == "phi":
            spans.setdefault((finding.where, finding.chunk if finding.where == "context" else 0), []).append(finding)
    done: dict[tuple[Where, int], str] = {}
    texts = {(where, chunk): text for where, chunk, text in sample.texts()}
    if not spans.keys() <= texts.keys():
        raise ValueError("a finding is in a text that is not there")
    parts = {place: _united(spans.get(place, ()), len(text)) for place, text in texts.items()}
    values = [(kind, texts[place][start:end]) for place, united in parts.items() for start, end, kind in united]
    replace = _replacer(style, key, sample.id, values)
    for place, text in texts.items():
        done[place] = _without(text, parts[place], replace)
    return Redacted(
        prompt=done.get(("prompt", 0)),
        response=done.get(("response", 0)),
        context=tuple(done["context", chunk] for chunk in range(len(sample.context))),
    )


def _united(findings: Sequence[Finding], length: int) -> list[tuple[int, int, str]]:
    """(start, end, type) in order, overlapping ones made one; the type is that of the longest."""
    united: list[tuple[int, int, str, int]] = []
    for finding in sorted(findings, key=lambda finding: (finding.start, finding.start - finding.end)):
        start, end, kind = finding.start, finding.end, finding.type
        if not 0 <= start <= end <= length:
            raise ValueError("a finding lies outside its text")
        if united and start < united[-1][1]:
            first, last, known, longest = united[-1]
            united[-1] = (first, max(last, end), kind if end - start > longest else known, max(longest, end - start))
        elif start < end:
            united.append((start, end, kind, end - start))
    return [(start, end, kind) for start, end, kind, _ in united]


def _without(text: str, spans: Sequence[tuple[int, int, str]], replace: Callable[[str, str], str]) -> str:
    parts: list[str] = []
    place = 0
    for start, end, kind in spans:
        parts += (text[place:start], replace(kind, text[start:end]))
        place = end
    return "".join((*parts, text[place:]))


def _replacer(style: Style, key: bytes, call: str, values: Sequence[tuple[str, str]]) -> Callable[[str, str], str]:
    if style == "tag":
        return lambda kind, value: f"<{kind}>"
    if style == "surrogate":
        return Surrogates(key, call, values).of
    return lambda kind, value: f"{kind}_{_fingerprint(key, kind, value)}"


def _fingerprint(key: bytes, kind: str, value: str) -> str:
    """Eight hex digits, the same however the value is written: by what it means."""
    return hmac.digest(key, f"redaction\0{kind}\0{meant(kind, value)}".encode("utf-8", "surrogatepass"), "sha256").hex()[:8]
