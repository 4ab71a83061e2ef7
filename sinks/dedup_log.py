"""Lets the embedded engine forget a batch that it remembers and does not have.

MergeTree takes a block of an insert in two steps, some half a millisecond apart: it writes the block's token into the
table's deduplication log, and then renames the finished part into its place.

    store/767/767ba4d9-…/deduplication_logs/deduplication_log_1.txt
        1 ⇥ 202611_7_7_1 ⇥ 202611_981235…_362221…       1: this block came in as this part
        2 ⇥ 202611_7_7_1 ⇥ 202611_981235…_362221…       2: the part was dropped, and so is the memory of it
    store/767/767ba4d9-…/202611_7_7_1/                  the part: partition 202611, blocks 7 to 7

A process that ends in between leaves a token without its rows. The sink sends the batch again under the same token, as it
must, and the engine would drop it as a duplicate: in `calls`, or in one rollup of it. So before an engine takes the folder,
such tokens are forgotten, by the record that the engine itself writes when a part is dropped.

Only the end of a log is looked at. One engine at a time writes here, and one insert at a time in each table; it renames
each part before it writes the next record. So what is torn stands last, and a part that went missing further up is none of
ours. (The engine forgets the parts that it drops, by hand or TTL, in the same way; so whatever is remembered is there.)

The files are the engine's own, and another version may write them in another way. What is not as above is left alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

# Not structlog, which writes to stdout where nobody has configured it: there the answer to a question may be on its way.
_logger: Final = logging.getLogger("tidegate.store")

_FILE: Final = re.compile(r"deduplication_log_(\d{1,19})\.txt")
# Level and mutation follow the blocks; what is being written or removed has a prefix, which no partition's name allows.
_PART: Final = re.compile(r"([0-9A-Za-z-]+)_(\d{1,19})_(\d{1,19})_\d{1,10}(?:_\d{1,19})?")
_RECORD: Final = re.compile(r"([12])\t([^\t]+)\t([^\t]+)")
_CAME, _DROPPED = "1", "2"
# A record whose writing was cut off, by a full disk or a power cut.
_STUMP: Final = re.compile(rb"[0-9A-Za-z_\t-]*")


class _UnknownFormat(Exception):
    """The log holds something that is not described above."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The blocks that a part holds: `first` to `last` of one partition, both included."""

    partition: str
    first: int
    last: int

    @classmethod
    def of(cls, part: str) -> Self | None:
        """Those of the part with this name; None when it is no part's name."""
        match = _PART.fullmatch(part)
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    def hold(self, other: Self) -> bool:
        """Whether a part with these blocks is, or was merged or mutated from, a part with those."""
        return self.partition == other.partition and self.first <= other.first and other.last <= self.last


def forget_lost_parts(folder: Path) -> list[str]:
    """Make the logs of a data folder's tables remember no last block whose part is not there; the names of those parts.

    No engine may have the folder open. Harmless when there is nothing to forget, and when cut off half-way. A log that is
    not understood is left as it is, and said so. Raises `OSError` when a log cannot be read or written.
    """
    return [part for logs in sorted(folder.glob("store/*/*/deduplication_logs")) for part in _mend(logs)]


def _mend(logs: Path) -> list[str]:
    try:
        files = _in_order(logs)
        if not files:
            return []
        stump = _stump(files[-1])
        lost = list(_lost(files, [blocks for path in logs.parent.iterdir() if (blocks := _Blocks.of(path.name))]))
    except _UnknownFormat as unknown:
        # What it says of the way it looks, never what it holds.
        _logger.warning(
            "dedup_log_unknown table_uuid=%s reason=%r; after a kill -9 the last batch may be missing in this table",
            logs.parent.name,
            str(unknown),
        )
        return []
    if stump:
        # The engine stops reading at it, and would write its next record right behind it: nothing after would be read.
        os.truncate(files[-1], files[-1].stat().st_size - stump)
    if lost:
        _forget(files[-1], lost)
    if stump or lost:
        forgotten = ",".join(part for part, _ in lost)
        _logger.warning("dedup_log_mended table_uuid=%s forgotten=%s cut_bytes=%d", logs.parent.name, forgotten, stump)
    return [part for part, _ in lost]


def _in_order(logs: Path) -> list[Path]:
    """The log's files, oldest first: the engine begins another every 20,000 records."""
    numbered: dict[int, Path] = {}
    for path in logs.iterdir():
        if (match := _FILE.fullmatch(path.name)) is None:
            raise _UnknownFormat("a file of another name among its own")
        numbered[int(match[1])] = path
    return [path for _, path in sorted(numbered.items())]


def _stump(file: Path) -> int:
    """How many bytes at the end of the file are no whole record."""
    content = file.read_bytes()
    stump = content[content.rfind(b"\n") + 1 :]
    if not _STUMP.fullmatch(stump):
        raise _UnknownFormat("it ends in what is no beginning of a record")
    return len(stump)


def _lost(files: list[Path], parts: list[_Blocks]) -> Iterator[tuple[str, str]]:
    """From the log's end: (part, token) of blocks that came in as a part that is not there, up to the first that is."""
    dropped: set[str] = set()
    for record in _backwards(files):
        match = _RECORD.fullmatch(record)
        if match is None or (blocks := _Blocks.of(match[2])) is None:
            raise _UnknownFormat("its last records are not of a kind, a part and a block")
        kind, part, token = match.groups()
        if kind == _DROPPED:
            dropped.add(token)
        elif token in dropped:
            dropped.remove(token)
        elif any(there.hold(blocks) for there in parts):
            return
        else:
            yield part, token


def _backwards(files: list[Path]) -> Iterator[str]:
    for file in reversed(files):
        whole, _, _ = file.read_bytes().rpartition(b"\n")
        for record in reversed(whole.split(b"\n") if whole else []):
            try:
                yield record.decode("ascii")
            except UnicodeDecodeError:
                raise _UnknownFormat("its last records are not plain text") from None


def _forget(file: Path, lost: list[tuple[str, str]]) -> None:
    with open(file, "ab") as stream:
        stream.write("".join(f"{_DROPPED}\t{part}\t{token}\n" for part, token in lost).encode("ascii"))
        stream.flush()
        os.fsync(stream.fileno())
