"""A patient who does not exist, said wherever text can come in, and the search for what is left of that."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "Zxqvarda Whitcombe"
MRN = "84619273"
SSN = "536-22-8817"
PHONE = "617-555-0182"
EMAIL = "zxqvarda.whitcombe@mailbox-quarrel.org"
# As a word processor sets them: hyphens and blanks at which no line breaks.
TYPESET_SSN = SSN.replace("-", "\u2011")
TYPESET_PHONE = PHONE.replace("-", "\u00a0")
CANARIES = ("Zxqvarda", "zxqvarda", "Whitcombe", MRN, SSN, PHONE, TYPESET_SSN, TYPESET_PHONE)


def prompt(number: int) -> str:
    return f"Patient {NAME} (MRN {MRN}, SSN {SSN}) asks question {number} about ibuprofen; call {PHONE} or write {EMAIL}."


def texts(number: int) -> dict[str, Any]:
    """What a call about the patient says; each is another, so that none is known already."""
    return {
        "prompt": prompt(number),
        "response": f"Answer {number}: I wrote to {EMAIL}. The SSN {SSN} of Mr. {NAME} is on file.",
        "context": [f"Chart {number} of {NAME}, MRN: {MRN}, phone {PHONE}; SSN {TYPESET_SSN}, or call {TYPESET_PHONE}."],
    }


def _forms() -> list[bytes]:
    """As it is, as a log or a store might fold it, and as base64 would hide it, wherever in three bytes it begins."""
    found = []
    for canary in CANARIES:
        raw = canary.encode()
        found += [
            raw,
            canary.encode("utf-16-le"),
            json.dumps(canary)[1:-1].encode(),
            "".join(f"\\u{ord(char):04x}" for char in canary).encode(),
            raw.hex().encode(),
        ]
        found += [base64.b64encode(b"." * shift + raw)[4 : 4 + len(raw) * 4 // 3 - 4] for shift in (1, 2, 3)]
    return found


_FORMS = _forms()


def traces(content: bytes) -> list[bytes]:
    """What of the patient is in it."""
    return [form for form in _FORMS if form in content]


def left_in(*folders: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Every file with a trace in it, or in its name."""
    for folder in folders:
        for path in folder.rglob("*"):
            # A store moves its parts while it is looked at, and a pipe or socket is no file.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and (found := traces(os.fsencode(path.name) + path.read_bytes())):
                    yield path, found
