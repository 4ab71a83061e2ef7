"""Is the audit log whole? Every entry hashed again, every link looked at, the end compared with the head.

    lines ─► Chain.see(line) … ─► Chain.end(head, ring) ─► problems, each with the number of an entry; remarks

What a problem says is what is there, and not who did it: a disk that lost a block looks like somebody who cut it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..schemas.audit import GENESIS, RESUMED, SIGNED, Entry
from .audit_head import Head
from .keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and the number of the entry that it is wrong with; in which log, where it is another one than
    the folder's."""

    seq: int
    what: str
    log: str = ""

    def __str__(self) -> str:
        return f"entry {self.seq:,} {f'of log {self.log} ' if self.log else ''}{self.what}"


@dataclass(slots=True)
class Chain:
    """A log, looked at from its first line on."""

    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lines: int = 0
    last: Entry | None = None
    _last_is_sound: bool = True
    _hashes: dict[int, str] = field(default_factory=dict)
    _signing_since: int | None = None

    def see(self, line: bytes) -> Entry | None:
        """Look at the next line; its entry, where it is one."""
        self.lines += 1
        entry = Entry.parse(line)
        expected = self.last.seq + 1 if self.last is not None else 1
        if entry is None:
            self._wrong(expected, f"cannot be read (line {self.lines:,} of the file)")
            return None
        sound = entry.hash == entry.computed_hash()
        if not sound:
            self._wrong(entry.seq, "was changed: its hash is that of something else")
        if self.last is not None and entry.log != self.last.log:
            self._wrong(entry.seq, "is of another log")
        if entry.seq < expected:
            self._wrong(entry.seq, f"stands twice, or out of its place, behind entry {expected - 1:,}")
            return entry
        if entry.seq > expected:
            missing = f"and all up to entry {entry.seq - 1:,} are" if entry.seq - 1 > expected else "is"
            self._wrong(expected, f"{missing} missing at this place")
        elif sound and self._last_is_sound and entry.prev_hash != (self.last.hash if self.last is not None else GENESIS):
            # Where it was hashed anew itself, it is the next one that remembers what it was.
            seq = self.last.seq if self.last is not None else entry.seq
            self._wrong(seq, f"is not what entry {entry.seq:,} was chained to" if self.last else "is not the first of a log")
        self._hear_of_signing(entry)
        self.last, self._last_is_sound = entry, sound
        self._hashes[entry.seq] = entry.hash
        return entry

    def _hear_of_signing(self, entry: Entry) -> None:
        if entry.action == RESUMED:
            self._wrong(entry.seq, "tells that the head before it was lost, or not ours")
        elif entry.action == SIGNED and self._signing_since is not None:
            self._wrong(entry.seq, f"begins to sign anew, though entry {self._signing_since:,} had begun before")
        elif entry.action == SIGNED:
            self._signing_since = entry.seq
            self.remarks.append(f"signed from entry {entry.seq:,} on; before that there was no key ring")

    def end(self, head: Head | None, ring: KeyRing | None) -> None:
        """Compare the end with the head, and the head with its signature, where there is a ring to do so."""
        if head is None:
            if self.last is not None:
                self._wrong(self.last.seq, "is the last, but there is no head to say so: more may have been cut off")
            return
        self._end_as(head)
        signature, key = head.signature, ring.own(None) if ring is not None else None
        if signature is None:
            if key is not None:
                self._wrong(head.entry.seq, "is not signed, though there is a key ring: run with it, or taken away")
            else:
                self.remarks.append("not signed: without a key ring, who can write the log can also write it anew")
            return
        if signature.seq not in self._hashes or self._hashes[signature.seq] != signature.hash:
            self._wrong(signature.seq, "is not the one that was signed")
        if ring is None:
            self.remarks.append(f"signed with {signature.key}, and no key ring is here: the signature was not checked")
        elif (holds := signature.holds(head.entry.log, ring)) is None:
            self._wrong(signature.seq, f"is signed with {signature.key}, which is not in the ring here: is it the right ring?")
        elif not holds:
            self._wrong(signature.seq, "bears a signature that its key has not made")
        elif signature.seq < head.entry.seq:
            self.remarks.append(f"the entries after {signature.seq:,} were written without the key ring, and are chained only")

    def _end_as(self, head: Head) -> None:
        last_seq = self.last.seq if self.last is not None else 0
        if last_seq < head.entry.seq:
            missing = f"and all up to entry {head.entry.seq:,} are" if head.entry.seq > last_seq + 1 else "is"
            self._wrong(last_seq + 1, f"{missing} missing at the end")
        elif last_seq > head.entry.seq:
            self._wrong(head.entry.seq + 1, "stands behind the head: nobody of ours has written it")
        elif self.last is not None and self.last.hash != head.entry.hash:
            self._wrong(last_seq, "is not the one that the head knows: it, or what it is chained to, was hashed anew")

    def _wrong(self, seq: int, what: str) -> None:
        self.problems.append(Problem(seq, what))

    def hash_of(self, seq: int) -> str | None:
        """The hash of an entry that was seen."""
        return self._hashes.get(seq)
