"""A refused line is kept sealed or not at all, opens as it was for whoever has its key, and counts once when it is replayed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from support import LogRecord, envelope, line, response
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.embedded.ingest import MAX_KEPT, judge, rejection
from tidegate.processors.letters import Keeper, Letter, LetterId, Refused
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.producers.key_source import FileKeys, FolderKeys
from tidegate.producers.keyring import Key
from tidegate.producers.ring_file import change_ring
from tidegate.schemas.envelope import MAX_EVENT_BYTES
from tidegate.schemas.errors import KeyGone, Unreadable, UsageError

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
CANARY = b"Zqann4711"
TOLD = line(response(note="Zqann4711 has a rash"))
BOOK = PriceBook.load()


def refused(text: bytes) -> Refused:
    return Refused(LetterId(0, 17, 4), "meter", "unknown field", "triage-1", len(text), hashlib.sha256(text).hexdigest(), text)


def kept(keys: FolderKeys | FileKeys, text: bytes) -> Letter:
    [(key, headers, value)] = Keeper(keys).records([refused(text)])
    letter = Letter.read(key, headers, value, 1_793_606_400_000)
    assert letter is not None
    return letter


@pytest.mark.parametrize("text", [TOLD, b"\xff\x00 not even text " + CANARY, b"{" * 60_000])
def test_a_letter_opens_as_it_was_and_shows_nothing_until_then(tmp_path: Path, text: bytes) -> None:
    keys = FolderKeys(tmp_path)

    letter = kept(keys, text)

    assert letter.opened(keys) == text
    assert letter.letter_id == LetterId(0, 17, 4)
    assert CANARY not in b"".join((letter.record()[0], orjson.dumps(letter.record()[1]), letter.record()[2]))
    assert CANARY.decode() not in repr(letter) + repr(refused(text))


def test_who_shreds_a_tenant_shreds_its_dead_letters(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    own = Key.made("harbor-health")
    keys.ring()
    change_ring(keys.path, lambda ring: ring.adding(own), make=True)

    hers, nobodys = kept(keys, TOLD), kept(keys, b"no JSON")
    change_ring(keys.path, lambda ring: ring.without(own.key_id))

    assert nobodys.opened(keys) == b"no JSON"
    with pytest.raises(KeyGone):
        hers.opened(keys)


def test_a_letter_with_another_ones_seal_is_not_believed(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    first, second = kept(keys, b"one"), kept(keys, b"two")

    with pytest.raises(Unreadable, match="tampered"):
        replace(first, sealed=second.sealed).opened(keys)


@pytest.mark.parametrize("text", [b"", b"x" * (MAX_EVENT_BYTES + 1)])
def test_what_is_nothing_or_too_large_keeps_its_fingerprint_only(tmp_path: Path, text: bytes) -> None:
    assert Keeper(FolderKeys(tmp_path)).records([refused(text)]) == []


def test_a_ring_that_is_not_there_costs_the_line_and_not_the_work(tmp_path: Path) -> None:
    assert Keeper(FileKeys(tmp_path / "nowhere.json")).records([refused(TOLD)]) == []
    assert Keeper(None).records([refused(TOLD)]) == []


def test_a_body_of_nonsense_is_kept_up_to_a_bound(tmp_path: Path) -> None:
    lines = [(number, b"nonsense") for number in range(1, MAX_KEPT + 11)]

    judged = judge(lines, "http", NOW, Keeper(FolderKeys(tmp_path)).seal)

    assert judged.rejected == MAX_KEPT + 10
    assert sum("sealed" in orjson.loads(one) for one in judged.lines) == MAX_KEPT


def test_what_a_door_has_sealed_passes_the_meter_as_it_is(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    sealed = Keeper(keys).seal(TOLD)
    sent = envelope("node-1", 5, [rejection(TOLD, "unknown field", "http", 1, NOW, sealed)])

    state = MeterState(3, UsageState(ScopeSets(((),))))
    _, outputs = meter(state, [LogRecord.of(9, sent)], BOOK, 86_400.0)

    [(key, headers, value)] = Keeper(None).records(outputs.refused)
    letter = Letter.read(key, headers, value, 0)
    assert letter is not None
    assert (str(letter.letter_id), letter.stage, letter.opened(keys)) == ("3:9:5", "edge", TOLD)


def test_a_letter_that_is_replayed_twice_counts_once(tmp_path: Path) -> None:
    letter = kept(FolderKeys(tmp_path), TOLD)
    sent = letter.envelope([line(response("a")), line(response("b"))])

    state = MeterState(0, UsageState(ScopeSets(((),))))
    meter(state, [LogRecord.of(0, sent), LogRecord.of(1, sent)], BOOK, 86_400.0)

    assert (state.totals["responses"], state.totals["duplicates"], state.totals.get("lost", 0)) == (2, 2, 0)


@pytest.mark.parametrize("text", ["0:17:4", "12:0"])
def test_an_id_is_read_as_it_is_written(text: str) -> None:
    assert str(LetterId.parse(text)) == text


@pytest.mark.parametrize("text", ["", "0", "0:1:2:3", "a:1", "0:-1", "0:1:", "0:" + "9" * 30])
def test_what_is_no_id_is_refused_with_how_one_looks(text: str) -> None:
    with pytest.raises(UsageError, match="0:17:4"):
        LetterId.parse(text)
