"""Content of processes that really end: orderly, by signal, by force and by forking; none of it is readable on any disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tidegate.producers.key_source import FolderKeys
from tidegate.producers.sealing import unseal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import decode_content
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.topics import CONTENT

if not hasattr(os, "fork"):
    pytest.skip("processes of POSIX only", allow_module_level=True)

CANARY = "Rosa-Martinez-MRN-4711"
PRELUDE = """
import os, signal, sys
import tidegate

tide = tidegate.connect("data", spool_dir="spool", fsync="normal", linger_s=0.005)

def say(number):
    with tide.call(model="m", tenant=f"tenant-{number % 3}", call_id=f"c{number}") as call:
        call.ask(f"Rosa-Martinez-MRN-4711 {number}")
"""


def started(folder: Path, program: str) -> subprocess.Popen[str]:
    code = PRELUDE + textwrap.dedent(program)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], text=True, cwd=folder, **pipes)


def ended(process: subprocess.Popen[str]) -> str:
    """What it wrote, on both."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return out + err


def opened(folder: Path) -> Iterator[tuple[str, str | None]]:
    """(call, prompt) of what is in the log, each of a producer's numbers once."""
    with SqliteLog(folder / "data") as log:
        records = log.read(CONTENT.name, 0, 0)
    seen = set()
    for record in records:
        envelope = Envelope.from_record(record.headers, record.value, frozenset({CONTENT_SCHEMA}))
        for number, line in enumerate(envelope.lines(), envelope.seq):
            event = decode_content(line)
            if (envelope.producer, number) not in seen:
                seen.add((envelope.producer, number))
                yield event.call_id, unseal(event, FolderKeys(folder / "data")).prompt


def readable(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def said(*numbers: int) -> list[tuple[str, str]]:
    return [(f"c{number}", f"{CANARY} {number}") for number in numbers]


@pytest.mark.parametrize(
    ("end", "status"),
    [("", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM)],
    ids=["by running out", "by exiting", "by SIGTERM"],
)
def test_a_process_that_ends_leaves_its_content_sealed_in_the_log(tmp_path: Path, end: str, status: int) -> None:
    process = started(tmp_path, f"for number in range(40): say(number)\n{end}")

    written = ended(process)

    assert process.returncode == status
    assert list(opened(tmp_path)) == said(*range(40))
    assert readable(tmp_path) == []
    assert CANARY not in written


def test_a_process_that_is_killed_leaves_nothing_to_read(tmp_path: Path) -> None:
    process = started(
        tmp_path,
        """
        for number in range(40): say(number)
        print(tide.flush(), flush=True)
        for number in range(40, 2_000): say(number)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )

    written = ended(process)

    found = list(opened(tmp_path))
    assert written == "True\n"
    assert found[:40] == said(*range(40))
    assert found == said(*range(len(found))), "what came after is there up to some call, and whole"
    assert readable(tmp_path) == []


def test_parent_and_child_of_a_fork_each_seal_their_own(tmp_path: Path) -> None:
    process = started(
        tmp_path,
        """
        say(0)
        child = os.fork()
        say(1 if child else 2)
        if child: os.waitpid(child, 0)
        """,
    )

    ended(process)

    assert sorted(opened(tmp_path)) == said(0, 1, 2)
    assert readable(tmp_path) == []


def test_a_log_that_cannot_be_written_leaves_sealed_content_in_the_spool_for_the_next_process(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    ring = FolderKeys(tmp_path / "data")
    ring.ring()
    in_the_way = tmp_path / "data" / "log.sqlite"
    in_the_way.mkdir()  # no log can be opened there
    first = started(tmp_path, "for number in range(5): say(number)\ntide.close(1)")
    ended(first)
    spooled = sorted(path.parent.parent.name for path in tmp_path.rglob("*.seg"))
    unread = readable(tmp_path)

    in_the_way.rmdir()
    second = started(tmp_path, "say(5)\ntide.flush(20)")
    ended(second)

    assert spooled == ["content", "spool"]
    assert unread == readable(tmp_path) == []
    assert list(opened(tmp_path)) == said(*range(6))
