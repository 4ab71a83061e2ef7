"""The real calls, as logs of several services; none where the file is absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[1]
REAL_CALLS = Path(os.environ.get("TIDEGATE_REAL_CALLS") or ROOT.parent / "shared" / "data" / "real_calls.jsonl")
needs_real_calls = pytest.mark.skipif(
    not REAL_CALLS.is_file(), reason="real_calls.jsonl is absent; name it in TIDEGATE_REAL_CALLS"
)


def parts(folder: Path, shift: timedelta) -> Iterator[Path]:
    """The log in four files, each a producer's, every time in it moved by `shift`."""
    lines = [orjson.loads(line) for line in REAL_CALLS.read_bytes().splitlines()]
    for number in range(4):
        path = folder / f"calls-{number}.jsonl"
        with path.open("wb") as out:
            for line in lines[number::4]:
                moved = {
                    name: (datetime.fromisoformat(line[name]) + shift).isoformat()
                    for name in ("started_at", "first_token_at", "ended_at")
                    if line.get(name)
                }
                out.write(orjson.dumps(line | moved) + b"\n")
        yield path


def moved_by(when: str) -> timedelta:
    last = orjson.loads(REAL_CALLS.read_bytes().splitlines()[-1])["ended_at"]
    return timedelta(0) if when == "as recorded" else datetime.now(UTC) - datetime.fromisoformat(last)
