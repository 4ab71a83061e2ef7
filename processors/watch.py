"""From where on a series is watched in a source partition, and how far its past has been counted."""

from __future__ import annotations

import msgspec


class Watch(msgspec.Struct, frozen=True):
    """From which offset of `calls` on the meter counts a series itself, and up to where of `metered`, and of `findings`, the
    rows of what was before will be found in the store; and of the parts of that (0: not known yet how many), how many are
    counted."""

    from_offset: int
    metered: int
    parts: int = 0
    done: int = 0
    findings: int = 0

    @property
    def complete(self) -> bool:
        return self.from_offset == 0 or 0 < self.parts <= self.done
