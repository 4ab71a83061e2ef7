from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import tidegate
from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog
from tidegate.producers.emitter import Emitter, new_producer_id
from tidegate.schemas.call import RequestEvent, ResponseEvent
from tidegate.schemas.envelope import MAX_ENVELOPE_BYTES, MAX_EVENT_BYTES
from tidegate.schemas.hot import decode_event
from tidegate.schemas.settings import Settings

AT = datetime(2026, 11, 2, 8, 0, 9, 778000, UTC)


def response(call_id: object = "c1", **fields: Any) -> dict[str, Any]:
    return {"event": "response", "call_id": str(call_id), "started_at": AT, "request_model": "m", **fields}


def hurried() -> Callable[[], float]:
    """A clock on which every back-off is over at the next look, so that no test waits for one."""
    return itertools.count(0.0, 1_000.0).__next__


def until(condition: Callable[[], object]) -> None:
    """Poll for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the other thread did not get there"
        time.sleep(0.001)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as the interpreter can, so that races happen."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def emitters() -> Iterator[Callable[..., Emitter]]:
    made: list[Emitter] = []

    def make(
        log: Any, *, monotonic: Callable[[], float] = time.monotonic, producer_id: str | None = None, **rest: Any
    ) -> Emitter:
        first_seq, reopen = rest.pop("first_seq", 0), rest.pop("reopen", None)
        settings = Settings(**{"linger_s": 0.001, **rest})
        emitter = Emitter(
            log, settings=settings, producer_id=producer_id, first_seq=first_seq, reopen=reopen, monotonic=monotonic
        )
        made.append(emitter)
        return emitter

    yield make
    for emitter in made:
        emitter.close(0)


# --- the way through


def test_events_reach_the_log_in_order_and_are_numbered_from_zero(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log)

    accepted = [emitter.emit(response(n)) for n in range(1_000)]

    assert all(accepted)
    assert emitter.flush()
    assert log.call_ids() == [str(n) for n in range(1_000)]
    assert log.numbers() == list(range(1_000))


@pytest.mark.parametrize(
    "event",
    [
        response(),
        RequestEvent(event="request", call_id="c1", started_at=AT, request_model="m", estimated_input_tokens=7),
        ResponseEvent(event="response", call_id="c1", started_at=AT, request_model="m", quality={"relevance": 0.5}),
        decode_event(orjson.dumps(response(input_tokens=3))),
    ],
    ids=["dict", "request model", "response model", "hot struct"],
)
def test_every_kind_of_event_is_encoded(emitters: Callable[..., Emitter], event: Any) -> None:
    log = MemoryLog()
    emitter = emitters(log)

    assert emitter.emit(event)
    emitter.flush()

    ((_, stored),) = log.counted()[emitter.producer]
    assert stored["call_id"] == "c1"
    assert datetime.fromisoformat(str(stored["started_at"])) == AT
    assert emitter.stats().invalid == 0


def test_no_line_written_to_the_log_was_refused_by_the_schema(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log)

    emitter.emit(response(1))
    emitter.emit(response(2, messages=[{"role": "user", "content": "MRN 4711, chest pain"}]))
    emitter.emit(response(3))
    emitter.flush()

    (events,) = log.counted().values()
    assert [event["event"] for _, event in events] == ["response", "rejected", "response"]
    rejected = events[1][1]
    assert rejected["source"] == "emitter"
    assert rejected["size_bytes"] == len(
        orjson.dumps(response(2, messages=[{"role": "user", "content": "MRN 4711, chest pain"}]))
    )
    assert re.fullmatch("[0-9a-f]{64}", str(rejected["sha256"]))
    assert b"4711" not in b"".join(envelope.value for envelope in log.envelopes)
    assert emitter.stats().invalid == 1


def test_an_edge_reports_lines_it_could_not_read_in_the_same_sequence(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log)

    emitter.emit(response(1))
    emitter.reject(b"{torn", "not valid\nJSON", "calls.jsonl", 2)
    emitter.emit(response(3))
    emitter.flush()

    (events,) = log.counted().values()
    assert [seq for seq, _ in events] == [0, 1, 2]
    assert {name: events[1][1][name] for name in ("event", "source", "line", "size_bytes", "reason")} == {
        "event": "rejected",
        "source": "calls.jsonl",
        "line": 2,
        "size_bytes": 5,
        "reason": "not valid JSON",
    }
    assert emitter.stats().invalid == 0


def test_envelopes_stay_below_the_bound_and_are_consecutive(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    log.gate.clear()
    emitter = emitters(log)
    labels = {f"l{n}": "x" * 250 for n in range(32)}

    for n in range(300):
        emitter.emit(response(n, labels=labels))
    log.gate.set()
    emitter.flush()

    assert len(log.envelopes) > 2
    assert all(len(envelope.value) <= MAX_ENVELOPE_BYTES for envelope in log.envelopes)
    assert log.numbers() == list(range(300))


def test_a_replay_resumes_its_numbers_under_its_own_name(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log, producer_id="replay-1", first_seq=40)

    emitter.emit(response())
    emitter.flush()

    assert [(envelope.producer, envelope.seq) for envelope in log.envelopes] == [("replay-1", 40)]


# --- what is not accepted


def test_what_cannot_be_encoded_is_counted_and_never_raises(emitters: Callable[..., Emitter]) -> None:
    class Sly(dict[str, Any]):
        def keys(self) -> Any:
            raise RuntimeError("no keys for you")

        __iter__ = keys

    emitter = emitters(MemoryLog())

    answers = [emitter.emit(event) for event in ({"x": object()}, {1: 2}, {"x": "\ud800"}, Sly(a=1), None, 7)]  # type: ignore[arg-type, list-item]

    assert answers == [False] * 6
    assert emitter.stats().dropped == {"unencodable": 6}
    assert emitter.stats().emitted == 0


def test_an_event_above_the_bound_is_refused(emitters: Callable[..., Emitter]) -> None:
    emitter = emitters(MemoryLog())

    assert not emitter.emit(response(user="x" * MAX_EVENT_BYTES))
    assert emitter.stats().dropped == {"event_too_large": 1}


def test_the_buffer_is_bounded_by_events_and_every_drop_is_counted(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    log.gate.clear()
    emitter = emitters(log, buffer_events=50)
    emitter.emit(response(0))
    assert log.entered.wait(20)  # the thread is held up with one event in hand

    accepted = sum(emitter.emit(response(n)) for n in range(1, 200))

    assert accepted == 49
    assert emitter.stats().dropped == {"buffer_full": 150}
    log.gate.set()
    assert emitter.flush()
    assert log.call_ids() == [str(n) for n in range(50)]
    assert log.numbers() == list(range(50)), "what was not accepted takes no number"


def test_the_buffer_is_bounded_by_bytes(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    log.gate.clear()
    emitter = emitters(log, buffer_bytes=65_536)
    big = response(labels={f"l{n}": "x" * 250 for n in range(30)})

    accepted = sum(emitter.emit(big) for _ in range(100))

    assert accepted == 65_536 // len(orjson.dumps(big))
    log.gate.set()
    assert emitter.flush()
    assert emitter.emit(big), "room is given back"


def test_the_envelope_tells_how_much_was_dropped_so_far(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log)

    emitter.emit({"x": object()})
    emitter.emit(response())
    emitter.flush()

    assert log.envelopes[-1].dropped == 1


def test_a_refused_envelope_is_counted_and_the_rest_goes_on(
    emitters: Callable[..., Emitter], caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryLog()
    log.gate.clear()
    log.refuses = lambda envelope: envelope.seq <= 150 < envelope.seq + envelope.count
    emitter = emitters(log)
    labels = {f"l{n}": "x" * 250 for n in range(32)}
    for n in range(300):
        emitter.emit(response(n, labels=labels))

    with caplog.at_level(logging.WARNING, logger="tidegate"):
        log.gate.set()
        assert emitter.flush(), "refused for good is settled too"

    stats = emitter.stats()
    assert stats.dropped["refused"] == 300 - len(log.numbers()) > 0
    assert stats.emitted == stats.appended + stats.dropped["refused"] == 300
    assert 150 not in log.numbers()
    assert {0, 299} <= set(log.numbers())
    assert "envelope_refused" in caplog.text
    assert "xxx" not in caplog.text


def test_an_unknown_error_of_the_log_neither_ends_the_thread_nor_loses_events(
    emitters: Callable[..., Emitter], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryLog):
        def append(self, envelopes: Any) -> None:
            if not self.tries:
                self.tries += 1
                raise RuntimeError("chest pain")
            super().append(envelopes)

    log = Broken()
    emitter = emitters(log, monotonic=hurried())

    with caplog.at_level(logging.WARNING, logger="tidegate"):
        emitter.emit(response())
        assert emitter.flush()

    assert log.numbers() == [0]
    assert emitter.stats().internal_errors == 1
    assert "RuntimeError" in caplog.text
    assert "chest pain" not in caplog.text


def test_drops_are_told_once_a_minute_with_their_reasons(
    emitters: Callable[..., Emitter], caplog: pytest.LogCaptureFixture
) -> None:
    emitter = emitters(MemoryLog())

    with caplog.at_level(logging.WARNING, logger="tidegate"):
        for n in range(3):
            emitter.emit({"x": object()})
            emitter.emit(response(n))
            emitter.flush()

    assert [record.message for record in caplog.records] == ["events_dropped total=1 unencodable=1"]


# --- outages


def test_flush_reports_that_the_log_is_away_and_the_events_come_later(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog(then="away")
    emitter = emitters(log, monotonic=lambda: 0.0)  # time stands still: no retry comes by itself
    emitter.emit(response())

    assert not emitter.flush(0.02)
    assert emitter.stats().pending == 1

    log.then = "ok"
    assert emitter.flush(), "somebody who waits is a reason to try at once"
    assert log.numbers() == [0]


def test_while_the_log_is_away_events_wait_on_disk_and_go_first_when_it_is_back(
    emitters: Callable[..., Emitter], tmp_path: Path
) -> None:
    log = MemoryLog(then="away")
    emitter = emitters(log, spool_dir=tmp_path / "spool", buffer_events=20)

    for n in range(100):
        emitter.emit(response(n))
        if n % 10 == 9:
            until(lambda n=n: emitter.stats().spooled == n + 1)
    assert emitter.stats().dropped == {}, "the disk has more room than memory"

    log.then = "ok"
    emitter.emit(response(100))
    assert emitter.flush()
    assert log.numbers() == list(range(101))
    assert emitter.stats().spooled == 0


def test_a_full_disk_is_named_as_the_reason_for_drops(emitters: Callable[..., Emitter], tmp_path: Path) -> None:
    log = MemoryLog(then="away")
    emitter = emitters(log, spool_dir=tmp_path, spool_max_bytes=3_000, buffer_events=10)

    for n in range(200):
        emitter.emit(response(n))
        emitter.flush(0)
        until(lambda: emitter._queue.qsize() == 0)

    stats = emitter.stats()
    assert stats.spooled > 0
    assert stats.pending == 10
    assert stats.dropped == {"spool_full": 200 - stats.spooled - 10}
    log.then = "ok"
    assert emitter.flush()
    assert log.numbers() == list(range(stats.spooled + 10))


def test_a_spool_that_cannot_be_made_leaves_memory_to_hold_events(
    emitters: Callable[..., Emitter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    log = MemoryLog(then="away")
    emitter = emitters(log, spool_dir=tmp_path / "file" / "spool")

    with caplog.at_level(logging.WARNING, logger="tidegate"):
        emitter.emit(response())
        emitter.flush(0.02)
        log.then = "ok"
        assert emitter.flush()

    assert log.numbers() == [0]
    assert "spool_unusable" in caplog.text


@given(
    script=st.lists(st.sampled_from(["ok", "away", "torn", "lost"]), max_size=14),
    bursts=st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=8),
    spooling=st.booleans(),
)
def test_whatever_the_log_does_each_event_is_counted_once_in_order_without_gaps(
    script: list[str], bursts: list[tuple[int, bool]], spooling: bool
) -> None:
    log = MemoryLog(script)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(linger_s=0, spool_dir=Path(folder) / "spool" if spooling else None)
        emitter = Emitter(log, settings=settings, monotonic=hurried())
        count = 0
        for size, wait in bursts:
            for _ in range(size):
                assert emitter.emit(response(count))
                count += 1
            if wait:
                assert emitter.flush(20)
        assert emitter.flush(20)

        assert emitter.close(20)

    if count:
        assert log.call_ids() == [str(n) for n in range(count)]
        assert log.numbers() == list(range(count))
    stats = emitter.stats()
    assert (stats.emitted, stats.appended, stats.pending, stats.spooled) == (count, count, 0, 0)


# --- threads, closing, waiting


@pytest.mark.usefixtures("restless")
def test_counts_are_exact_when_many_threads_emit_at_once(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log, buffer_events=300)
    accepted = [0] * 8

    def work(place: int) -> None:
        for n in range(2_000):
            accepted[place] += emitter.emit(response(f"{place}-{n}") if n % 7 else {"x": object()})

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    emitter.close()

    stats = emitter.stats()
    assert stats.emitted == stats.appended == sum(accepted) == len(log.numbers())
    assert stats.dropped["unencodable"] == 8 * 286
    assert stats.dropped.total() == 16_000 - sum(accepted)
    assert log.numbers() == list(range(sum(accepted)))


@pytest.mark.usefixtures("restless")
def test_an_emit_that_races_with_close_is_sent_or_counted(emitters: Callable[..., Emitter]) -> None:
    for _ in range(50):
        log = MemoryLog()
        emitter = emitters(log, buffer_events=20)
        tries = [0]

        def work(emitter: Emitter = emitter, tries: list[int] = tries) -> None:
            while emitter.stats().dropped["closed"] == 0:
                emitter.emit(response())
                tries[0] += 1

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: emitter.stats().appended > 5)  # noqa: B023 — called at once
        emitter.close()
        thread.join(20)

        stats = emitter.stats()
        assert tries[0] == stats.appended + stats.dropped.total()
        assert stats.pending == 0


def test_a_close_that_interrupts_an_emit_leaves_nothing_behind_uncounted() -> None:
    """A timer closes the emitter wherever the main thread happens to be, in most rounds in the middle of `emit`."""
    before = signal.getsignal(signal.SIGALRM)
    try:
        for round_ in range(60):
            emitter = Emitter(MemoryLog(), settings=Settings(linger_s=0))
            signal.signal(signal.SIGALRM, lambda signum, frame, emitter=emitter: emitter.close(20))
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + round_ * 1e-6)
            tries = 0
            while not emitter.stats().dropped["closed"]:
                for _ in range(20):
                    emitter.emit(response())
                tries += 20

            stats = emitter.stats()
            assert stats.pending == 0
            assert emitter._queue.qsize() == 0
            assert tries == stats.appended + stats.dropped.total()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_closing_sends_what_is_left_and_lets_go_of_the_log() -> None:
    log = MemoryLog()

    with Emitter(log, settings=Settings(linger_s=5)) as emitter:
        emitter.emit(response())

    assert log.numbers() == [0], "a linger of seconds is cut short"
    assert log.closed == 1
    assert emitter.close()
    assert not emitter.emit(response())
    assert emitter.stats().dropped == {"closed": 1}


def test_closing_without_a_spool_gives_up_in_time_and_says_what_was_lost() -> None:
    log = MemoryLog(then="away")
    emitter = Emitter(log, settings=Settings(linger_s=0))
    emitter.emit(response())

    assert not emitter.close(0.05)

    assert emitter.stats().dropped == {"unsent": 1}
    assert emitter.stats().pending == 0


def test_closing_while_the_log_is_away_leaves_the_events_to_the_next_process(tmp_path: Path) -> None:
    log = MemoryLog(then="away")
    first = Emitter(log, settings=Settings(spool_dir=tmp_path))
    for n in range(5):
        first.emit(response(n))

    assert first.close(), "nothing is lost"
    assert first.stats().spooled == 5

    log.then = "ok"
    second = Emitter(log, settings=Settings(spool_dir=tmp_path))
    second.emit(response(5))
    assert second.flush()
    assert [envelope.producer for envelope in log.envelopes] == [first.producer, second.producer]
    assert [seq for seq, _ in log.counted()[first.producer]] == list(range(5))
    assert second.stats().adopted == 5
    second.close()
    assert list(tmp_path.iterdir()) == [], "what is sent leaves no trace"


def test_closing_while_an_append_hangs_saves_its_events_to_disk(tmp_path: Path) -> None:
    log = MemoryLog()
    log.gate.clear()
    emitter = Emitter(log, settings=Settings(spool_dir=tmp_path, linger_s=0))
    emitter.emit(response(0))
    assert log.entered.wait(20)
    emitter.emit(response(1))

    assert emitter.close(0.02)
    log.gate.set()
    until(lambda: log.closed)

    heir = Emitter(log, settings=Settings(spool_dir=tmp_path))
    heir.emit(response(2))
    assert heir.flush()
    heir.close()
    assert [event["call_id"] for _, event in log.counted()[emitter.producer]] == ["0", "1"]
    assert len(log.envelopes) == 4, "the hung append came through after all, and its events twice, under the same numbers"


def test_idle_flushes_leave_nothing_behind(emitters: Callable[..., Emitter]) -> None:
    emitter = emitters(MemoryLog())

    assert all(emitter.flush() for _ in range(100))

    assert emitter._nudges.qsize() <= 1


def test_closing_before_the_first_event_starts_nothing() -> None:
    before = threading.active_count()
    emitter = Emitter(MemoryLog(), settings=Settings())

    assert emitter.close()
    assert threading.active_count() == before


def test_a_batch_tool_waits_for_room_and_drops_nothing(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    emitter = emitters(log, buffer_events=64)

    for n in range(5_000):
        assert emitter.wait_for_room()
        assert emitter.emit(response(n))

    assert emitter.flush()
    assert log.numbers() == list(range(5_000))


def test_waiting_for_room_ends_at_its_bound(emitters: Callable[..., Emitter]) -> None:
    log = MemoryLog()
    log.gate.clear()
    emitter = emitters(log, buffer_events=4)
    for n in range(4):
        emitter.emit(response(n))

    assert not emitter.wait_for_room(0.01)
    log.gate.set()
    assert emitter.wait_for_room(20)


def test_an_event_loop_may_flush_and_close() -> None:
    log = MemoryLog()

    async def serve() -> bool:
        async with Emitter(log, settings=Settings()) as emitter:
            emitter.emit(response())
            return await emitter.aflush()

    assert asyncio.run(serve())
    assert log.numbers() == [0]
    assert log.closed == 1


def test_a_signal_handler_may_emit_flush_and_close_wherever_it_interrupts() -> None:
    """One handler run after every few bytecodes of `emit`, by way of a timer as fast as the system gives."""
    log = MemoryLog()
    emitter = Emitter(log, settings=Settings(linger_s=0, buffer_events=1_000_000))
    fired = itertools.count()
    flushed: list[bool] = []

    def handler(signum: int, frame: object) -> None:
        emitter.emit(response(f"signal-{next(fired)}"))
        if len(flushed) < 50:
            flushed.append(emitter.flush(20))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        calls = 0
        while len(flushed) < 50:
            emitter.emit(response(calls))
            calls += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    emitter.close(20)

    assert all(flushed)
    assert len(log.numbers()) == calls + next(fired)
    assert emitter.stats().dropped == {}


def test_an_emitter_that_never_worked_is_not_kept_alive() -> None:
    import weakref

    emitter = Emitter(MemoryLog(), settings=Settings())
    ref = weakref.ref(emitter)

    del emitter
    gc.collect()

    assert ref() is None


# --- names


def test_a_producer_id_is_visible_ascii_and_new_in_every_run() -> None:
    ids = {new_producer_id(None, "Triage für Ärzte " + "x" * 300) for _ in range(50)}

    assert len(ids) == 50
    assert all(re.fullmatch(r"[\x21-\x7e]{1,200}", producer) for producer in ids)
    assert all(re.search(r"-\d+-[0-9a-f]{12}\Z", producer) for producer in ids)


def test_a_configured_name_is_made_unique_so_that_a_restart_is_not_taken_for_a_repetition() -> None:
    log = MemoryLog()
    for run in range(2):
        with Emitter(log, settings=Settings(producer_id="clinic")) as emitter:
            emitter.emit(response(run))

    assert [len(events) for events in log.counted().values()] == [1, 1]
    assert all(envelope.producer.startswith("clinic-") for envelope in log.envelopes)


def test_the_package_knows_the_version_it_was_built_as() -> None:
    from importlib.metadata import version

    assert tidegate.__version__ == version("tidegate")
