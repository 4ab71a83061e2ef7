"""What was judged lately, by the keyed fingerprint of the texts: the same question twice is judged once.

In the memory of one scoring process only. An entry holds findings and scores, and no text: places, kinds, numbers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from .ports import Sample
from .suite import Assessment

# Half a kilobyte an assessment with a few findings: some sixty thousand of them.
DEFAULT_BYTES: Final = 32 << 20
# What Python needs for a key, an entry and its place in the order.
_OVERHEAD_BYTES: Final = 300

_encode: Final = msgspec.msgpack.Encoder().encode


class Fingerprints:
    """Names texts so that only who has the key can tell which they are. `versions` of the detectors are part of a name:
    what an older detector said is not found any more."""

    def __init__(self, key: bytes, versions: Iterable[str]) -> None:
        self._start = hmac.new(key, _encode(sorted(versions)), hashlib.sha256)

    def of(self, sample: Sample) -> bytes:
        """Of all texts of a sample, each in its place, and of what else its detectors are told."""
        mac = self._start.copy()
        known: Mapping[str, str] = sample.known
        mac.update(_encode((sample.prompt, sample.response, sample.context, sorted(known.items()))))
        return mac.digest()


@dataclass(slots=True)
class Cache:
    """The assessments used last, up to `most_bytes`."""

    most_bytes: int = DEFAULT_BYTES
    size_bytes: int = 0
    hits: int = 0
    _kept: OrderedDict[bytes, tuple[Assessment, int]] = field(default_factory=OrderedDict, repr=False)

    def get(self, name: bytes) -> Assessment | None:
        found = self._kept.get(name)
        if found is None:
            return None
        self._kept.move_to_end(name)
        self.hits += 1
        return found[0]

    def put(self, name: bytes, assessment: Assessment) -> None:
        """Keep what every detector has judged; what failed may work the next time."""
        if assessment.failed or name in self._kept:
            return
        size = _OVERHEAD_BYTES + 120 * (len(assessment.findings) + len(assessment.evidence)) + 60 * len(assessment.scores)
        self._kept[name] = (assessment, size)
        self.size_bytes += size
        while self.size_bytes > self.most_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self.size_bytes -= freed

    def __len__(self) -> int:
        return len(self._kept)
