"""What a policies worker knows: the last word of every source partition on every scope of its own, and of the policies.

    meter.changelog ─► remember ─┐
    usage (blocks) ─► take ──────┴─► scopes, by source partition        raw bytes, as they came
    signals ─► said ─► words

`marks` are the offsets of `calls` that all of this counts in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
import orjson
import structlog

from ...schemas.signal import SIGNAL_PREFIX, decode_signal, heartbeat_number, parse_signal_key
from ...schemas.unit_prices import PRICES_KEY, decode_unit_prices
from ..enforcement import Prices, Share
from ..judging import Rule
from ..series import ScopeUsage, Series, Values, parse_usage_key, usage_key, usage_prefix
from ..watch import Watch
from .blocks import PRICES, SCHEMA, WATCHED, decode_block, partition_of_scope, source_of
from .changelog import OFFSET, SCOPE, STATE, WATCH

log = structlog.get_logger("tidegate.policies")

_prices: Final = msgspec.json.Decoder(Prices)
_series_ids: Final = msgspec.json.Decoder(frozenset[str])
_watch: Final = msgspec.json.Decoder(Watch)

# (source partition, usage key, value)
Heard = tuple[int, bytes, bytes]


def share_of(number: int, of: int) -> Share:
    """The scopes of which the usage topic's partition `number` hears."""

    def owns(series_id: str, values: Values) -> bool:
        return partition_of_scope(usage_key((series_id, values)), of) == number

    return Share(number, of, owns) if of > 1 else Share()


class PoliciesMemory:
    """`Memory` of the scopes of one share, over so many source partitions. Blocks below offset `covered` of the usage topic
    are in what was remembered.

    `series` are those of which values are looked at before they are kept. `refused` counts what could not be read.
    """

    def __init__(self, partitions: int, share: Share, covered: int = 0) -> None:
        # By usage key: what each source partition says.
        self.scopes: dict[bytes, list[bytes | None]] = {}
        self.words: dict[bytes, bytes] = {}
        self.marks = [-1] * partitions
        self.watched: list[frozenset[str]] = [frozenset()] * partitions
        self.series: Mapping[str, Series] = {}
        self.refused = 0
        self.share = share
        self._covered = covered
        self._prices: list[Prices | None] = [None] * partitions
        self._stored_prices: Prices = {}
        self._dearest: Prices | None = None

    # the port

    def usage(self, partition: int, key: bytes) -> bytes | None:
        said = self.scopes.get(key)
        return said[partition] if said else None

    def usage_of(self, prefix: bytes) -> Iterator[Heard]:
        for key, said in self.scopes.items():
            if key.startswith(prefix):
                for partition, value in enumerate(said):
                    if value is not None:
                        yield partition, key, value

    def _put(self, partition: int, key: bytes, value: bytes | None) -> None:
        said = self.scopes.get(key)
        if said is None:
            if value is None:
                return
            said = self.scopes[key] = [None] * len(self.marks)
        said[partition] = value
        if value is None and not any(said):
            del self.scopes[key]

    def signal(self, key: bytes) -> bytes | None:
        return self.words.get(key)

    def signals(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        return [(key, value) for key, value in self.words.items() if key.startswith(prefix)]

    # the meters' changelog

    def remember(self, partition: int, records: Iterable[tuple[bytes, bytes | None]], applied: dict[bytes, int]) -> None:
        """Take in records of the changelog, in order. `applied` keeps up to which offset each scope counts: of two meters
        that wrote at once, the one that had come further is right."""
        share = self.share
        for key, value in records:
            kind, name = key[:1], key[1:]
            if kind == SCOPE:
                if partition_of_scope(name, share.of) != share.number:
                    continue
                if value is None:
                    self._put(partition, name, None)
                    applied.pop(name, None)
                elif (offset := OFFSET.unpack_from(value)[0]) >= applied.get(name, -1):
                    self._put(partition, name, value[OFFSET.size :])
                    applied[name] = offset
            elif kind == WATCH:
                complete = {name.decode()} if value is not None and _watch.decode(value).complete else set()
                self.watched[partition] = self.watched[partition] - {name.decode()} | complete
            elif kind == STATE and value is not None:
                self.marks[partition] = max(self.marks[partition], orjson.loads(value)["next_offset"] - 1)

    # blocks of usage

    def take(self, headers: Mapping[str, str], value: bytes, offset: int) -> list[Heard]:
        """Take in the block at an offset of the usage topic. What is news of scopes; never raises."""
        try:
            if headers.get("schema") != SCHEMA:
                raise ValueError(f"schema is not {SCHEMA}")
            partition, upto = source_of(headers)
            if not 0 <= partition < len(self.marks):
                raise ValueError("calls has got more partitions since; restart the workers")
            entries = decode_block(value)
        except (KeyError, ValueError, msgspec.MsgspecError) as error:
            self._refuse("usage_block_refused", offset, error)
            return []
        mark = self.marks[partition]
        covered = offset < self._covered or upto < mark
        heard = []
        for key, entry in entries:
            try:
                if key == PRICES:
                    self._prices[partition], self._dearest = _prices.decode(entry), None
                elif key == WATCHED:
                    self._watch(partition, _series_ids.decode(entry))
                elif not covered and self._keep(partition, key, entry):
                    heard.append((partition, key, entry))
            except Exception as error:  # noqa: BLE001 — the engine's door for one entry: the others are none the worse
                self._refuse("usage_entry_refused", offset, error)
        if not covered:
            # Of a flush in several blocks only the last one has told it all.
            self.marks[partition] = max(mark, upto - ("more" in headers))
        return heard

    def _keep(self, partition: int, key: bytes, value: bytes) -> bool:
        """Whether it is news of a scope of ours."""
        parsed = parse_usage_key(key)
        if parsed is None or partition_of_scope(key, self.share.of) != self.share.number:
            return False
        if not value:
            self._put(partition, key, None)
            return False
        if (series := self.series.get(parsed[0])) is not None:
            ScopeUsage.load(series, value)  # raises now, instead of whenever the scope is judged
        self._put(partition, key, value)
        return True

    def _watch(self, partition: int, complete: frozenset[str]) -> None:
        """The past of these series is counted. Those that were among them are watched no more, and should they come back,
        then with nothing of what was."""
        for series_id in self.watched[partition] - complete:
            prefix = usage_prefix(series_id)
            for key in [key for key in self.scopes if key.startswith(prefix)]:
                self._put(partition, key, None)
        self.watched[partition] = complete

    def _refuse(self, event: str, offset: int, error: Exception) -> None:
        self.refused += 1
        log.error(event, offset=offset, error_type=type(error).__name__, refused=self.refused)

    def prices(self) -> Prices:
        """What a token of each model costs at most, as the meters know. Until all have spoken, nothing gets cheaper."""
        if self._dearest is not None:
            return self._dearest
        told = [prices for prices in self._prices if prices is not None]
        if len(told) < len(self._prices):
            told.append(self._stored_prices)
        found: Prices = {}
        for prices in told:
            for model, (read, written) in prices.items():
                known = found.get(model, (0.0, 0.0))
                found[model] = max(known[0], read), max(known[1], written)
        self._dearest = found
        return found

    # words

    def said(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """These are in the signals topic, in this order."""
        for key, value in records:
            if not value:
                self.words.pop(key, None)
            elif key.startswith(SIGNAL_PREFIX):
                self.words[key] = _gist(value)
            elif heartbeat_number(key) is None:
                self.words[key] = value
            if key == PRICES_KEY:
                self._stored_prices, self._dearest = dict(decode_unit_prices(value).nano_usd) if value else {}, None

    def keep_own(self, rules: Mapping[str, Rule]) -> None:
        """Forget signals on scopes of other shares, or of policies that are not in force."""
        if self.share.of == 1:
            return
        for key in list(self.words):
            parsed = parse_signal_key(key)
            if parsed is not None:
                rule = rules.get(parsed[0])
                if rule is None or not self.share.owns(rule.series.id, parsed[1]):
                    del self.words[key]


def _gist(value: bytes) -> bytes:
    """A signal without what only gates and people want of it: of a hundred thousand, each byte counts."""
    signal = msgspec.structs.replace(
        decode_signal(value),
        reason="",
        contributors=[],
        applied=[],
        gates=1,
        remaining=None,
        window_start=0,
        window_end=0,
        resets_at=None,
        burn_per_s=None,
        exhausted_at=None,
    )
    return msgspec.json.encode(signal)
