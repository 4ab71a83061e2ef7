"""Content through the emitter: sealed off the caller's thread, beside metering, and never in the clear on any disk."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tidegate
from memory_log import MemoryLog
from tidegate.producers.connect import connect
from tidegate.producers.emitter import Emitter
from tidegate.producers.key_source import FolderKeys, GivenKeys, KeySource
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.ring_file import change_ring
from tidegate.producers.sealing import fingerprint, fingerprint_id, unseal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import ContentEvent, Texts, decode_content
from tidegate.schemas.envelope import CONTENT_SCHEMA, SCHEMA, Envelope
from tidegate.schemas.errors import KeyGone, UsageError
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, CONTENT

AT = datetime(2026, 11, 2, 8, 0, 9, 778000, UTC)
CANARY = "Rosa-Martinez-MRN-4711"
RING = KeyRing([Key("k-all", None, b"a" * 32, AT), Key("k-st-anne", "st-anne", b"b" * 32, AT)], b"f" * 32)


def call(call_id: str = "c1", **fields: Any) -> dict[str, Any]:
    return {"call_id": call_id, "started_at": AT, "request_model": "m", **fields}


def until(condition: Callable[[], object]) -> None:
    """Poll for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the other thread did not get there"
        time.sleep(0.001)


class Side:
    """An emitter with a log for calls and one for content."""

    def __init__(self, keys: KeySource | None = None, **settings: Any) -> None:
        self.calls, self.content = MemoryLog(), MemoryLog()
        self.keys = keys or GivenKeys(RING.dump().decode())
        self.emitter = Emitter(
            self.calls,
            settings=Settings(**{"linger_s": 0.001, **settings}),
            reopen=lambda: self.content,
            keys=lambda: self.keys,
        )

    def events(self) -> list[ContentEvent]:
        assert self.emitter.flush()
        return [decode_content(line) for envelope in self.content.envelopes for line in envelope.lines()]


@pytest.fixture
def sides() -> Iterator[Callable[..., Side]]:
    made: list[Side] = []

    def make(keys: KeySource | None = None, **settings: Any) -> Side:
        made.append(Side(keys, **settings))
        return made[-1]

    yield make
    for side in made:
        side.content.gate.set()
        side.emitter.close(0)


# ---- the way through


def test_texts_arrive_sealed_with_the_scopes_that_findings_are_counted_by(sides: Callable[..., Side]) -> None:
    side = sides()
    found = Texts(prompt="What now?", response="Wait.", context=["a guide"])

    accepted = side.emitter.emit_content(
        call(tenant="st-anne", team="triage", prompt_name="triage", prompt_version="2", input_tokens=7, labels={"a": "b"}),
        found,
    )

    assert accepted
    (event,) = side.events()
    assert unseal(event, RING) == found
    assert (event.call_id, event.started_at, event.key_id) == ("c1", AT, "k-st-anne")
    assert (event.tenant, event.team, event.prompt_name, event.prompt_version) == ("st-anne", "triage", "triage", "2")
    assert side.calls.envelopes == [], "nothing of it goes among the calls"


def test_content_has_a_producer_a_schema_and_numbers_of_its_own(sides: Callable[..., Side]) -> None:
    side = sides()

    for number in range(200):
        side.emitter.emit({"event": "response", **call(f"c{number}")})
        side.emitter.emit_content(call(f"c{number}"), {"prompt": str(number)})

    assert [event.call_id for event in side.events()] == [f"c{number}" for number in range(200)]
    assert side.content.numbers() == side.calls.numbers() == list(range(200))
    assert {(envelope.producer, envelope.schema) for envelope in side.content.envelopes} == {
        (f"{side.emitter.producer}-content", CONTENT_SCHEMA)
    }
    assert {envelope.schema for envelope in side.calls.envelopes} == {SCHEMA}


def test_two_tenants_are_sealed_with_their_own_keys_and_open_with_no_other(sides: Callable[..., Side]) -> None:
    side = sides()

    for tenant in ("st-anne", "harbor-health", None):
        side.emitter.emit_content(call(tenant=tenant), {"prompt": "p"})

    events = side.events()
    assert [event.key_id for event in events] == ["k-st-anne", "k-all", "k-all"]
    with pytest.raises(KeyGone):
        unseal(events[0], RING.without("k-st-anne"))


def test_rotation_and_shredding_are_heeded_without_a_restart(sides: Callable[..., Side], tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    side = sides(keys)
    side.emitter.emit_content(call("old", tenant="st-anne"), {"prompt": "p"})
    (old,) = side.events()

    change_ring(keys.path, lambda ring: ring.retiring(str(old.key_id)).adding(Key.made("st-anne")))
    side.emitter.emit_content(call("new", tenant="st-anne"), {"prompt": "p"})
    _, new = side.events()
    readable = unseal(old, keys)
    change_ring(keys.path, lambda ring: ring.without(str(old.key_id)))

    assert new.key_id != old.key_id
    assert readable == unseal(new, keys) == Texts(prompt="p")
    with pytest.raises(KeyGone):
        unseal(old, keys)


def test_hashed_content_has_fingerprints_and_nothing_to_open(sides: Callable[..., Side]) -> None:
    side = sides(content="hashed")

    side.emitter.emit_content(call(tenant="st-anne"), {"prompt": CANARY, "context": ["a", CANARY]})

    (event,) = side.events()
    assert event.sealed is None
    assert event.key_id == fingerprint_id(b"f" * 32)
    assert event.fingerprints == {
        "prompt": [fingerprint(b"f" * 32, CANARY)],
        "context": [fingerprint(b"f" * 32, "a"), fingerprint(b"f" * 32, CANARY)],
    }


def test_each_tenant_has_its_mode(sides: Callable[..., Side]) -> None:
    side = sides(content="off", content_tenants={"st-anne": "sealed", "harbor-health": "hashed"})

    tenants = (None, "x", "st-anne", "harbor-health")
    accepted = [side.emitter.emit_content(call(tenant=tenant), {"prompt": "p"}) for tenant in tenants]

    assert accepted == [True] * 4
    assert [(event.tenant, event.mode) for event in side.events()] == [("st-anne", "sealed"), ("harbor-health", "hashed")]
    assert side.emitter.stats().content.emitted == 2


def test_off_starts_nothing() -> None:
    before = threading.active_count()

    with Emitter(MemoryLog(), settings=Settings(content="off")) as emitter:
        accepted = emitter.emit_content(call(), {"prompt": CANARY})
        running = threading.active_count()

    assert accepted
    assert running == before
    assert emitter.stats().content.dropped == {}


def test_a_call_without_texts_leaves_nothing(sides: Callable[..., Side]) -> None:
    side = sides()

    accepted = [side.emitter.emit_content(call(), found) for found in (Texts(), {}, {"prompt": "", "context": [""]})]

    assert accepted == [True] * 3
    assert side.events() == []


def test_more_chunks_than_the_schema_takes_are_joined_and_none_is_lost(sides: Callable[..., Side]) -> None:
    side = sides()

    side.emitter.emit_content(call(), {"context": [f"chunk {number}" for number in range(300)]})

    (event,) = side.events()
    context = unseal(event, RING).context
    assert len(context) == 256
    assert context[254] == "chunk 254"
    assert context[255].split("\n\n") == [f"chunk {number}" for number in range(255, 300)]


def test_half_a_surrogate_pair_costs_one_character_and_no_call(sides: Callable[..., Side]) -> None:
    side = sides()

    side.emitter.emit_content(call(), {"prompt": "a\ud83db"})

    (event,) = side.events()
    assert unseal(event, RING).prompt == "a?b"


# ---- what is refused


def test_without_a_ring_content_is_refused_with_one_warning_and_metering_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()

    with caplog.at_level(logging.WARNING, "tidegate"), Emitter(log, settings=Settings(linger_s=0)) as emitter:
        accepted = [emitter.emit_content(call(), {"prompt": CANARY}) for _ in range(5)]
        emitter.emit({"event": "response", **call()})

    assert accepted == [False] * 5
    assert emitter.stats().content.dropped == {"no_key": 5}
    assert len(log.envelopes) == 1
    (warning,) = caplog.messages
    assert "TIDEGATE_KEY_FILE" in warning
    assert "TIDEGATE_CONTENT=off" in warning


class NoKeys:
    """A ring that cannot be had until `ring_` is there."""

    ring_: KeyRing | None = None

    def ring(self) -> KeyRing:
        if self.ring_ is None:
            raise UsageError("the vault is away; log in")
        return self.ring_

    def sealing(self, tenant: str | None) -> Key:
        key = self.ring().sealing(tenant)
        assert key is not None
        return key

    def opening(self, key_id: str) -> Key:
        return self.ring().opening(key_id)


def test_a_ring_that_cannot_be_had_costs_content_until_it_can(
    sides: Callable[..., Side], caplog: pytest.LogCaptureFixture
) -> None:
    keys = NoKeys()
    side = sides(keys)

    with caplog.at_level(logging.WARNING, "tidegate"):
        for _ in range(3):
            side.emitter.emit_content(call("lost"), {"prompt": CANARY})
        assert side.emitter.flush()
    keys.ring_ = RING
    side.emitter.emit_content(call("kept"), {"prompt": "p"})

    assert [event.call_id for event in side.events()] == ["kept"]
    stats = side.emitter.stats().content
    assert (stats.emitted, stats.appended, stats.pending, stats.dropped) == (4, 1, 0, {"no_key": 3})
    assert sum("log in" in message for message in caplog.messages) == 1
    assert CANARY not in caplog.text


@pytest.mark.parametrize("many", [4 * 1024 * 1024 + 1, 400_000], ids=["at the door", "once sealed"])
def test_texts_that_fit_into_no_record_are_counted(sides: Callable[..., Side], many: int) -> None:
    side = sides()
    incompressible = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(many))

    side.emitter.emit_content(call("large"), {"prompt": incompressible})
    side.emitter.emit_content(call("small"), {"prompt": "p"})

    assert [event.call_id for event in side.events()] == ["small"]
    assert side.emitter.stats().content.dropped == {"too_large": 1}


@pytest.mark.parametrize("found", [{"prompt": 3}, {"response": ["x"]}, {"context": [3]}, "text", 3, None])
def test_what_are_no_texts_is_counted_and_raises_nothing(sides: Callable[..., Side], found: Any) -> None:
    side = sides()

    assert not side.emitter.emit_content(call(), found)

    assert side.emitter.stats().content.dropped == {"invalid": 1}


def test_a_scope_that_the_schema_refuses_is_left_out_and_the_texts_are_kept(
    sides: Callable[..., Side], caplog: pytest.LogCaptureFixture
) -> None:
    side = sides()

    with caplog.at_level(logging.WARNING, "tidegate"):
        side.emitter.emit_content(call(user=f"{CANARY}\n", team="triage"), {"prompt": "p"})
        side.emitter.emit_content({"call_id": "x" * 200, "started_at": AT}, {"prompt": "p"})
        (event,) = side.events()

    assert (event.user, event.team) == (None, "triage")
    assert side.emitter.stats().content.dropped == {"invalid": 1}
    assert CANARY not in caplog.text


# ---- beside metering


@pytest.mark.parametrize("tenant", ["x" * 200, "", "two\nlines", 42])
def test_a_tenant_that_is_none_gets_no_key_and_leaves_the_ring_as_it_was(
    sides: Callable[..., Side], tmp_path: Path, tenant: Any
) -> None:
    keys = FolderKeys(tmp_path)
    side = sides(keys)
    side.emitter.emit_content(call("before", tenant="st-anne"), {"prompt": CANARY})
    assert len(side.events()) == 1

    side.emitter.emit_content(call("odd", tenant=tenant), {"prompt": CANARY})
    side.emitter.emit_content(call("after", tenant="st-anne"), {"prompt": CANARY})

    before, odd, after = side.events()
    assert odd.tenant is None
    assert [unseal(event, keys.ring()).prompt for event in (before, odd, after)] == [CANARY] * 3
    assert {key.tenant for key in keys.ring().keys} == {None, "st-anne"}


@pytest.mark.parametrize(
    "give",
    [
        lambda emitter, one: emitter.emit_content(call(), {"context": one["text"]}),
        lambda emitter, one: _observed(emitter, lambda observed: observed.ask("q", context=one["text"])),
        lambda emitter, one: _observed(emitter, lambda observed: observed.ask("q", context=one)),
        lambda emitter, one: _observed(emitter, lambda observed: observed.retrieved(one)),
    ],
)
def test_one_text_or_chunk_where_several_may_stand_is_one(sides: Callable[..., Side], give: Callable[..., Any]) -> None:
    side = sides()

    give(side.emitter, {"id": "n1", "text": CANARY})

    (event,) = side.events()
    assert unseal(event, RING).context == [CANARY]


def _observed(emitter: Emitter, given: Callable[[Any], None]) -> None:
    with emitter.call(model="m") as observed:
        given(observed)
        observed.answer(text="a")


def test_content_that_goes_nowhere_holds_up_no_call(sides: Callable[..., Side]) -> None:
    side = sides(buffer_events=8)
    side.content.gate.clear()
    side.emitter.emit_content(call(), {"prompt": "p"})
    assert side.content.entered.wait(20)

    refused = sum(not side.emitter.emit_content(call(), {"prompt": "p"}) for _ in range(50))
    taken = [side.emitter.emit({"event": "response", **call(f"c{number}")}) for number in range(8)]
    until(lambda: side.emitter.stats().appended == 8)

    assert all(taken)
    assert refused == side.emitter.stats().content.dropped["buffer_full"] > 0
    assert side.emitter.stats().dropped == {}


def test_what_is_emitted_is_sent_dropped_or_still_there(sides: Callable[..., Side]) -> None:
    side = sides(buffer_bytes=65_536)
    side.content.gate.clear()

    accepted = sum(side.emitter.emit_content(call(), {"prompt": "p" * 1_000}) for _ in range(500))

    stats = side.emitter.stats().content
    assert stats.emitted == accepted == stats.pending
    assert stats.dropped["buffer_full"] == 500 - accepted > 0
    side.content.gate.set()
    assert len(side.events()) == accepted == side.emitter.stats().content.appended


def test_of_many_threads_and_a_close_among_them_every_text_is_accounted_for() -> None:
    side = Side(buffer_events=200)
    tries = 400
    went: list[bool] = []

    def talk(name: int) -> None:
        went.extend(side.emitter.emit_content(call(f"{name}-{number}"), {"prompt": "p"}) for number in range(tries))

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: side.emitter.stats().content.appended)
    side.emitter.close(20)
    for thread in threads:
        thread.join()

    stats = side.emitter.stats().content
    assert len(went) == 4 * tries == stats.appended + stats.dropped.total()
    assert stats.pending == 0
    assert len(set(side.content.call_ids())) == stats.appended


def test_a_replay_from_the_middle_numbers_its_texts_apart_from_the_beginning() -> None:
    names = []
    for first_seq in (0, 7):
        log = MemoryLog()
        with Emitter(
            log,
            settings=Settings(linger_s=0),
            producer_id="replay-1",
            first_seq=first_seq,
            reopen=lambda log=log: log,  # type: ignore[misc]
            keys=lambda: GivenKeys(RING.dump().decode()),
        ) as emitter:
            emitter.emit_content(call(), {"prompt": "p"})
        names += [(envelope.producer, envelope.seq) for envelope in log.envelopes]

    assert names == [("replay-1-content", 0), ("replay-1-7-content", 0)]


def test_closing_gives_both_ways_out_the_same_time(tmp_path: Path) -> None:
    side = Side(spool_dir=tmp_path)
    side.calls.gate.clear()
    side.content.gate.clear()
    side.emitter.emit({"event": "response", **call()})
    side.emitter.emit_content(call(), {"prompt": CANARY})
    assert side.calls.entered.wait(20)
    assert side.content.entered.wait(20)

    began = time.monotonic()
    kept = side.emitter.close(0.2)
    took_s = time.monotonic() - began
    side.calls.gate.set()
    side.content.gate.set()

    assert kept, "both are in the spool"
    assert took_s < 10
    assert not side.emitter.emit_content(call(), {"prompt": "p"})
    assert side.emitter.stats().content.dropped == {"closed": 1}


def test_what_a_dead_process_could_not_send_is_sealed_on_disk_and_sent_by_the_next(tmp_path: Path) -> None:
    first = Side(spool_dir=tmp_path)
    first.content.then = "away"
    for number in range(5):
        first.emitter.emit_content(call(f"c{number}"), {"prompt": f"{CANARY} {number}"})
    assert first.emitter.close()
    spooled = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    second = Side(spool_dir=tmp_path)
    second.emitter.emit_content(call("c5"), {"prompt": "p"})
    events = second.events()
    second.emitter.close()

    assert first.emitter.stats().content.spooled == 5
    assert b"c4" in spooled
    assert CANARY.encode() not in spooled
    assert [event.call_id for event in events] == [f"c{number}" for number in range(6)]
    assert unseal(events[4], RING).prompt == f"{CANARY} 4"
    assert second.emitter.stats().content.adopted == 5


def test_a_forked_childs_content_is_its_own() -> None:
    side = Side()
    side.emitter.emit_content(call("parent"), {"prompt": "p"})
    parents = side.emitter.producer

    side.emitter.forked()
    side.emitter.emit_content(call("child"), {"prompt": "p"})

    side.events()
    assert side.emitter.producer != parents
    assert side.emitter.stats().content.emitted == 1
    side.emitter.close()


# ---- in a data folder


def _content_of(folder: Path) -> list[ContentEvent]:
    with SqliteLog(folder) as log:
        assert log.read(CALLS.name, 0, 0)
        records = log.read(CONTENT.name, 0, 0)
    envelopes = [Envelope.from_record(record.headers, record.value, frozenset({CONTENT_SCHEMA})) for record in records]
    return [decode_content(line) for envelope in envelopes for line in envelope.lines()]


def test_a_service_on_a_data_folder_sets_nothing_and_leaves_nothing_to_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, spool = tmp_path / "data", tmp_path / "spool"
    answer = {"choices": [{"message": {"content": f"Yes, {CANARY}."}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    with connect(str(folder), spool_dir=spool) as tide:
        with tide.call(model="gpt-4o", tenant="st-anne", call_id="c1") as found:
            found.ask([{"role": "user", "content": f"Is it {CANARY}?"}], context=[f"{CANARY} is known"])
            found.retrieved([{"id": "guide-1", "score": 0.8, "text": f"{CANARY} again"}])
            found.answer(answer)
        failing = tide.call(model="gpt-4o", tenant="st-anne", call_id="c2")
        with contextlib.suppress(ValueError), failing:
            failing.ask(CANARY)
            raise ValueError(CANARY)

    first, second = _content_of(folder)
    assert unseal(first, FolderKeys(folder)) == Texts(
        prompt=f"Is it {CANARY}?", response=f"Yes, {CANARY}.", context=[f"{CANARY} is known", f"{CANARY} again"]
    )
    assert unseal(second, FolderKeys(folder)) == Texts(prompt=CANARY)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "log.sqlite" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in caplog.text + "".join(capfd.readouterr())


def test_a_streamed_answer_is_put_together_from_its_chunks(tmp_path: Path) -> None:
    with tidegate.connect(str(tmp_path)) as tide, tide.call(model="gpt-4o") as found:
        found.ask("How are you?")
        for piece in ("Fine", ", ", "thanks"):
            found.chunk({"choices": [{"delta": {"content": piece}}]})
        found.usage(input_tokens=3, output_tokens=3)

    (event,) = _content_of(tmp_path)
    assert unseal(event, FolderKeys(tmp_path)) == Texts(prompt="How are you?", response="Fine, thanks")


def test_what_texts_leave_out_is_counted_by_provider_and_the_unknown_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tidegate.connect(str(tmp_path)) as tide:
        for _ in range(2):
            with tide.call(model="m", provider="In House") as found:
                found.ask([{"utterance": f"Is it {CANARY} now?"}])
                found.answer({"reply": "Yes."})
        with tide.call(model="m", provider="openai") as found:
            found.ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}])
            found.answer({"choices": [{"message": {"content": "A"}}, {"message": {"content": "B"}}]})
        stats = tide.stats()

    assert [unseal(event, FolderKeys(tmp_path)).prompt for event in _content_of(tmp_path)] == [f"Is it {CANARY} now?"] * 2 + [
        None
    ]
    assert stats.content.passed_over == {("unknown", "unknown"): 4, ("openai", "media"): 1, ("openai", "choices"): 1}
    told = [message for message in caplog.messages if message.startswith("content_not_understood")]
    assert [message.split(" hint=")[0] for message in told] == [
        "content_not_understood where=prompt provider=unknown",
        "content_not_understood where=response provider=unknown",
    ]
    assert CANARY not in caplog.text


def test_what_cannot_be_read_costs_its_text_and_nothing_else(tmp_path: Path) -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(CANARY)

    with tidegate.connect(str(tmp_path)) as tide:
        with tide.call(model="gpt-4o") as found:
            found.ask(Hostile())
            found.ask("and this", context=[Hostile()])
            found.chunk(Hostile())
            found.answer(Hostile())
        stats = tide.stats()

    (event,) = _content_of(tmp_path)
    assert unseal(event, FolderKeys(tmp_path)) == Texts(prompt="and this")
    assert stats.emitted == 1
    assert stats.internal_errors >= 3
