"""Usage on its way from the meter to the policies: many scopes in one record, because a Faust message costs 75 µs.

The scopes of a flush go to the partitions of the usage topic by name, so one policies worker has all that every meter
says of a scope. Each block says up to which offset of its source partition it counts, and a block without scopes says
just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from zlib import crc32

import msgspec

SCHEMA: Final = "usage-block/1"
# Entries that are no scopes: what a token costs at most, for the partition 0 alone; and the series of which the past is
# completely counted in this source partition, for all.
PRICES: Final = b"prices"
WATCHED: Final = b"watched"

# Stands in the headers of a block that is not the last of its flush.
MORE: Final = {"more": "1"}

# (usage key, value); see series.py. An empty value takes a key back.
Entry = tuple[bytes, bytes]

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])


def partition_of_scope(key: bytes, partitions: int) -> int:
    """The partition of the usage topic that hears of a scope; stable across processes and versions."""
    return crc32(key) % partitions


def encode_block(entries: Iterable[Entry]) -> bytes:
    return _encoder.encode(list(entries))


def decode_block(value: bytes) -> list[Entry]:
    return _decoder.decode(value)


def block_headers(source_partition: int, source_offset: int) -> dict[str, str]:
    return {"schema": SCHEMA, "source_partition": str(source_partition), "source_offset": str(source_offset)}


def source_of(headers: Mapping[str, str]) -> tuple[int, int]:
    """(source partition, the last offset counted in)"""
    return int(headers["source_partition"]), int(headers["source_offset"])
