"""ClickHouse's compressed blocks, as its JDBC driver and native clients want them (`compress=1`).

16 bytes  CityHash128 (v1.0.2) of what follows, its first half first
 1 byte   0x82: LZ4
 4 bytes  size of these nine bytes and the data, little-endian
 4 bytes  size of the data before compression
 …        the data, one raw LZ4 block
"""

from __future__ import annotations

import struct
from typing import Final

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

_BLOCK_BYTES: Final = 1 << 20
_HEADER: Final = struct.Struct("<BII")
_LZ4: Final = 0x82
_CHECKSUM: Final = struct.Struct("<QQ")
_LOW: Final = 2**64 - 1


def blocks(data: bytes) -> bytes:
    """The bytes in as many blocks as they need; none at all for no bytes."""
    packed = []
    for start in range(0, len(data), _BLOCK_BYTES):
        part = data[start : start + _BLOCK_BYTES]
        inner = lz4.block.compress(part, store_size=False)
        body = _HEADER.pack(_LZ4, _HEADER.size + len(inner), len(part)) + inner
        checksum = CityHash128(body)
        packed += [_CHECKSUM.pack(checksum >> 64, checksum & _LOW), body]
    return b"".join(packed)
