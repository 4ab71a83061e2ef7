"""The names that guardrails workers have met, as records of a compacted topic of one partition that all of them read.

    key      the name as JSON: ["model", …] or ["version", tenant, prompt, version]
    value    [first seen, last written], in milliseconds of the log's clock

So whoever takes a partition over knows which models and prompt versions are new there. A name in use is written again every
few days; so the topic need keep nothing for longer than a name may be out of use. Should two workers meet a name at once,
the earlier sighting counts for both from the next one on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from aiokafka import ConsumerRecord

from ..guardrails.sampling import Name, Sighting

_name: Final = msgspec.json.Decoder(tuple[str, ...])
_when: Final = msgspec.json.Decoder(tuple[int, int])


def dump_names(names: Mapping[Name, Sighting]) -> list[tuple[bytes, bytes]]:
    """As the topic takes them, (key, value)."""
    return [(msgspec.json.encode(name), msgspec.json.encode(tuple(sighting))) for name, sighting in names.items()]


def load_names(records: Iterable[ConsumerRecord]) -> list[tuple[Name, Sighting]]:
    """What `dump_names` wrote, in order; a record of somebody else says nothing."""
    found = []
    for record in records:
        try:
            found.append((_name.decode(record.key or b""), Sighting(*_when.decode(record.value or b""))))
        except msgspec.MsgspecError:
            continue
    return found
