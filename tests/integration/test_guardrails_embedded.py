"""The guardrails in the embedded engine: content in the log becomes verdicts that the meter counts, and transcripts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.guardrails_engine import GuardrailsEngine
from tidegate.processors.embedded.guardrails_thread import GuardrailsThread, Pauses
from tidegate.processors.meter import KEYED
from tidegate.producers.key_source import FolderKeys
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sealing import seal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.errors import LogUnavailable
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, CONTENT, FINDINGS, QUARANTINE, TRANSCRIPTS

LOADER = "guard_suites:names"


def content(keys: FolderKeys, call_id: str, prompt: str, tenant: str = "harbor-health", **fields: Any) -> bytes:
    key = keys.sealing(tenant)
    event = {
        "event": "content",
        "call_id": call_id,
        "started_at": "2026-11-02T08:00:00Z",
        "tenant": tenant,
        "request_model": "gpt-4o",
        "mode": "sealed",
        "key_id": key.key_id,
        "sealed": seal(Texts(prompt=prompt), call_id, key),
    } | fields
    return orjson.dumps(event)


def send(data: Path, seq: int, *lines: bytes, producer: str = "svc") -> None:
    with closing(LocalLog(data, partitions=1, fsync="normal")) as log:
        log.append([Envelope.of(producer, seq, lines, schema=CONTENT_SCHEMA)])


def engine(data: Path, at: Callable[[str], None] = lambda _step: None, **settings: Any) -> GuardrailsEngine:
    settings = {"guard_detectors": ("phi", "toxicity"), "guard_batch": 4} | settings
    return GuardrailsEngine(data, Settings(**settings), FolderKeys(data), at=at, loader=LOADER)


def settle(one: GuardrailsEngine, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while one.waits() and time.monotonic() < deadline:
        one.run_once(0.1)
    assert not one.waits()


def scoring_process() -> int:
    """The id of the process that the thread which asks has started."""
    [pid] = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return int(pid)


def records(data: Path, topic: str) -> list[tuple[dict[str, str], list[Any]]]:
    with SqliteLog(data) as log:
        return [
            (dict(record.headers), [orjson.loads(line) for line in record.value.split(b"\n")])
            for record in log.read(topic, 0, 0)
        ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with SqliteLog(tmp_path / "data", partitions=1, fsync="normal"):
        pass
    return tmp_path / "data"


def test_content_becomes_verdicts_and_transcripts(data: Path) -> None:
    keys = FolderKeys(data)
    send(data, 0, content(keys, "a", "How is Zqann?"), content(keys, "b", "Hello."))
    send(data, 2, content(keys, "c", "RAISE Zqbob"))

    with closing(engine(data)) as one:
        settle(one)
        tally = one.look()

    verdicts = [event for _, events in records(data, CALLS.name) for event in events]
    assert [(event["call_id"], event["outcome"]) for event in verdicts] == [("a", "scored"), ("b", "scored"), ("c", "partial")]
    assert [(one["type"], one["start"], one["end"]) for one in verdicts[0]["findings"]] == [("PERSON", 7, 12)]
    [(headers, rows)] = records(data, TRANSCRIPTS.name)
    assert [row["redacted_prompt"] for row in rows] == ["How is <PERSON>?", "Hello."]
    assert headers["source_offset"] == "0"
    [(_, [quarantined])] = records(data, QUARANTINE.name)
    assert quarantined["call_id"] == "c"
    assert [row["kind"] for _, rows in records(data, ALERTS.name) for row in rows] == ["guardrails_phi"]
    assert tally.outcomes == Counter(scored=2, partial=1)
    assert tally.findings == Counter({("phi", "PERSON"): 1})


def test_the_meter_counts_each_verdict_once_wherever_the_guardrails_are_cut_off(data: Path) -> None:
    keys = FolderKeys(data)
    calls = [f"call-{number}" for number in range(12)]
    for seq, call_id in enumerate(calls):
        send(data, seq, content(keys, call_id, f"text {seq} Zqann"))
    steps = Counter[str]()

    class CutOff(BaseException):
        pass

    for fatal in ("1 judged", "2 appended", "3 committed"):

        def at(step: str, fatal: str = fatal) -> None:
            steps[step] += 1
            if step == fatal:
                raise CutOff

        with closing(engine(data, at, guard_batch=1)) as one, pytest.raises(CutOff):
            settle(one)
    with closing(engine(data)) as one:
        settle(one)
    with closing(MeterEngine(data, Settings(max_future_s=1e9))) as meter:
        while meter.run_once():
            pass
        totals = meter.totals()

    found = [row["call_id"] for _, rows in records(data, FINDINGS.name) for row in rows]
    assert found == calls
    assert totals.get("duplicates", 0) == totals.get("lost", 0) == totals.get("dead_letters", 0) == 0
    assert [row["call_id"] for _, rows in records(data, TRANSCRIPTS.name) for row in rows] == calls
    assert steps["3 committed"]


def test_an_envelope_that_a_producer_sends_again_after_a_restart_is_known(data: Path) -> None:
    keys = FolderKeys(data)
    lines = [content(keys, "a", "one"), content(keys, "b", "two")]

    for _ in range(2):
        send(data, 0, *lines)
        with closing(engine(data)) as one:
            settle(one)

    assert [row["call_id"] for _, rows in records(data, TRANSCRIPTS.name) for row in rows] == ["a", "b"]
    assert len([event for _, events in records(data, CALLS.name) for event in events]) == 2


def test_a_producer_that_sends_again_after_months_or_after_many_others_is_known(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.processors.guardrails.step._MOST_PRODUCERS", 2)
    keys = FolderKeys(data)
    lines = {producer: content(keys, producer, "one") for producer in ("svc-a", "svc-b", "svc-c", "svc-d")}
    settings = Settings(guard_detectors=("phi",), guard_always={"tenant": ("harbor-health",)})

    for months in (0, 0, 5):
        for producer, line in lines.items():
            send(data, 0, line, producer=producer)
        later = lambda months=months: time.time() + months * 30 * 86_400  # noqa: E731
        with closing(GuardrailsEngine(data, settings, keys, loader=LOADER, clock=later)) as one:
            settle(one)

    assert sorted(row["call_id"] for _, rows in records(data, TRANSCRIPTS.name) for row in rows) == sorted(lines)


def test_what_came_under_an_idempotency_key_is_forgotten_when_the_meter_forgets_it(data: Path) -> None:
    keys = FolderKeys(data)
    names = ("svc", "idempotency-key:0a1b")
    for producer in names:
        send(data, 0, content(keys, "a", "one"), producer=producer)
    four_days_later = lambda: time.time() + 4 * 86_400  # noqa: E731

    with closing(engine(data)) as one:
        settle(one)
        before = one.log.db.execute("SELECT count(*) FROM guard_producers").fetchone()
    with closing(GuardrailsEngine(data, Settings(guard_detectors=("phi",)), keys, loader=LOADER, clock=four_days_later)) as one:
        one.run_once()
        kept = one.log.db.execute("SELECT producer FROM guard_producers").fetchall()

    assert before == (2,)
    assert kept == [("svc",)]


def test_however_many_came_under_idempotency_keys_all_are_forgotten_in_their_time(data: Path) -> None:
    months_ago_ms = int((time.time() - 90 * 86_400) * 1_000)

    with closing(engine(data)) as one:
        with one.log.transaction():
            one.log.db.executemany(
                "INSERT INTO guard_producers VALUES (0, ?, 1, ?)",
                ((f"{KEYED}{number}", months_ago_ms) for number in range(5_000)),
            )
        for _ in range(3):
            one.run_once(0.0)
        (left,) = one.log.db.execute("SELECT count(*) FROM guard_producers").fetchone()

    assert left == 0


def test_content_of_a_shredded_tenant_is_unreadable_and_that_of_others_is_judged(data: Path) -> None:
    keys = FolderKeys(data)
    kept, gone = content(keys, "a", "one"), content(keys, "b", "two", tenant="gone")
    ring = orjson.loads((data / "keys.json").read_bytes())
    ring["keys"] = [key for key in ring["keys"] if key["tenant"] != "gone"]
    (data / "keys.json").write_bytes(orjson.dumps(ring))

    send(data, 0, kept, gone)
    with closing(engine(data)) as one:
        settle(one)

    verdicts = {event["call_id"]: event for _, events in records(data, CALLS.name) for event in events}
    assert verdicts["a"]["outcome"] == "scored"
    assert verdicts["b"]["outcome"] == "unreadable"
    assert verdicts["b"]["failed"] == {"content": "key_gone"}


def test_content_waits_for_a_ring_that_cannot_be_read(data: Path) -> None:
    keys = FolderKeys(data)
    send(data, 0, content(keys, "a", "one"))
    (data / "keys.json").chmod(0o644)

    with closing(engine(data)) as one:
        passed = one.run_once(0.1)
        trouble = one.trouble or ""
        (data / "keys.json").chmod(0o600)
        settle(one)
        mended = one.trouble

    assert passed == 0
    assert "chmod 600" in trouble
    assert mended is None
    assert len(records(data, CALLS.name)) == 1


def test_scoring_that_is_behind_leaves_out_what_is_ordinary_and_judges_what_is_at_risk(data: Path) -> None:
    keys = FolderKeys(data)
    for seq, tenant in enumerate(["other", "harbor-health", "other"]):
        send(data, seq, content(keys, f"call-{seq}", "one", tenant=tenant, request_model=None))
    an_hour_later = lambda: time.time() + 3_600  # noqa: E731

    settings = Settings(guard_detectors=("phi",), guard_always={"tenant": ("harbor-health",)})
    with closing(GuardrailsEngine(data, settings, keys, loader=LOADER, clock=an_hour_later)) as one:
        settle(one)

    verdicts = [(event["call_id"], event["outcome"]) for _, events in records(data, CALLS.name) for event in events]
    assert verdicts == [("call-0", "sampled_out"), ("call-1", "scored"), ("call-2", "sampled_out")]
    assert "guardrails_behind" in [row["kind"] for _, rows in records(data, ALERTS.name) for row in rows]


def test_no_partition_waits_for_a_busier_one(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    busy = [Envelope.of("busy", seq, [content(keys, f"b-{seq}", "one")], schema=CONTENT_SCHEMA) for seq in range(200)]
    quiet = [Envelope.of("quiet", seq, [content(keys, f"q-{seq}", "one")], schema=CONTENT_SCHEMA) for seq in range(3)]
    with SqliteLog(tmp_path, partitions=2, fsync="normal") as log, log.transaction():
        for number, envelopes in enumerate((busy, quiet)):
            log.append(CONTENT.name, number, [(None, one.headers(), one.value) for one in envelopes])

    with closing(engine(tmp_path, guard_batch=1)) as one:
        deadline = time.monotonic() + 60
        while one.log.committed("guardrails", CONTENT.name, 1) < 3 and time.monotonic() < deadline:
            one.run_once(0.1)
        passed = [one.log.committed("guardrails", CONTENT.name, number) for number in (0, 1)]

    assert passed[1] == 3
    assert passed[0] < 50


def test_a_scope_that_a_policy_on_findings_is_not_at_ease_with_is_judged_whatever_the_share(data: Path) -> None:
    keys = FolderKeys(data)
    signal = {"measure": "finding_rate", "state": "warn", "scope": {"tenant": "leaky"}}
    with SqliteLog(data) as log, log.transaction():
        log.append("tidegate.signals", 0, [(b'signal|leaks|["leaky"]', {}, orjson.dumps(signal))])
    for seq, tenant in enumerate(["leaky", "other"]):
        send(data, seq, content(keys, f"call-{seq}", "one", tenant=tenant, request_model=None))

    with closing(engine(data, guard_sample=0.0)) as one:
        settle(one)

    verdicts = [(event["call_id"], event["outcome"]) for _, events in records(data, CALLS.name) for event in events]
    assert verdicts == [("call-0", "scored"), ("call-1", "sampled_out")]


def test_the_thread_says_what_is_missing_and_starts_nothing(data: Path) -> None:
    thread = GuardrailsThread(data, Settings(guard=False))

    thread.start()
    status = thread.status()
    thread.stop()

    assert (status["state"], status["why"]) == ("off", "TIDEGATE_GUARD is off")


def test_the_thread_judges_what_comes_and_ends_with_its_processes(data: Path) -> None:
    keys = FolderKeys(data)
    thread = GuardrailsThread(data, Settings(guard_detectors=("phi",)), loader=LOADER)
    thread.start()

    send(data, 0, content(keys, "a", "How is Zqann?"))
    deadline = time.monotonic() + 60
    while not thread.status()["outcomes"] and time.monotonic() < deadline:
        time.sleep(0.05)
    status = thread.status()
    thread.stop()

    assert status["outcomes"] == {"scored": 1}
    assert status["findings"] == {"phi/PERSON": 1}
    assert status["state"] == "working"
    assert len(records(data, CALLS.name)) == 1


def test_an_engine_that_fails_is_begun_again(data: Path) -> None:
    keys = FolderKeys(data)
    failures: list[str] = []

    def at(step: str) -> None:
        if not failures:
            failures.append(step)
            raise RuntimeError("a step that breaks once")

    thread = GuardrailsThread(data, Settings(guard_detectors=("phi",)), at=at, loader=LOADER)
    thread.start()
    send(data, 0, content(keys, "a", "fine"))
    deadline = time.monotonic() + 60
    while not thread.status()["outcomes"] and time.monotonic() < deadline:
        time.sleep(0.05)
    thread.stop()

    assert failures == ["1 judged"]
    assert [event["outcome"] for _, events in records(data, CALLS.name) for event in events] == ["scored"]


def test_what_content_there_is_does_not_outlive_its_time_though_nobody_judged_it(data: Path) -> None:
    keys = FolderKeys(data)
    send(data, 0, content(keys, "a", "old"))
    send(data, 1, content(keys, "b", "new"))
    with SqliteLog(data) as log:
        log.trim(CONTENT.name, 0, 1, int(time.time() * 1_000) + 1)

    with closing(engine(data)) as one:
        settle(one)
        lost = one.look().lost_records

    assert lost == 1
    assert [event["call_id"] for _, events in records(data, CALLS.name) for event in events] == ["b"]


def test_somebody_is_told_when_nothing_at_all_gets_done(data: Path) -> None:
    keys = FolderKeys(data)
    send(data, 0, content(keys, "a", "one"))
    an_hour_later = lambda: time.time() + 3_600  # noqa: E731
    settings = Settings(guard_detectors=("phi",), guard_always={"tenant": ("harbor-health",)})

    with closing(GuardrailsEngine(data, settings, keys, loader="guard_suites:refusing", clock=an_hour_later)) as one:
        deadline = time.monotonic() + 30
        while not (told := records(data, ALERTS.name)) and time.monotonic() < deadline:
            one.run_once(0.1)
        one.run_once(0.1)

    [(_, [alert])] = told
    assert alert["kind"] == "guardrails_behind"
    assert "60 minutes behind" in alert["title"]
    assert len(records(data, ALERTS.name)) == 1
    assert records(data, CALLS.name) == []


def test_a_log_that_cannot_be_written_for_a_while_costs_no_process_and_no_second_judgement(data: Path) -> None:
    keys = FolderKeys(data)
    send(data, 0, *[content(keys, f"call-{number}", "fine") for number in range(3)])
    refusals = iter(["1 judged", "2 appended"])
    refused: list[str] = []
    due = next(refusals)

    def at(step: str) -> None:
        nonlocal due
        if step == due:
            refused.append(step)
            due = next(refusals, "")
            raise LogUnavailable("database is locked")

    with closing(engine(data, at)) as one:
        deadline = time.monotonic() + 60
        while one.waits() and time.monotonic() < deadline:
            with contextlib.suppress(LogUnavailable):
                one.run_once(0.1)
        judged, processes = one.runtime.pool.account.judged, one.look().processes

    assert refused == ["1 judged", "2 appended"]
    assert (judged, processes) == (3, 1)
    assert [event["call_id"] for _, events in records(data, CALLS.name) for event in events] == ["call-0", "call-1", "call-2"]


def test_the_thread_keeps_its_processes_while_the_log_cannot_be_had(data: Path) -> None:
    keys = FolderKeys(data)
    pids: list[int] = []
    refusals = 3

    def at(step: str) -> None:
        nonlocal refusals
        pids.append(scoring_process())
        if step == "2 appended" and refusals:
            refusals -= 1
            raise LogUnavailable("database or disk is full")

    thread = GuardrailsThread(data, Settings(guard_detectors=("phi",)), at=at, loader=LOADER)
    thread.start()
    send(data, 0, content(keys, "a", "fine"))
    deadline = time.monotonic() + 60
    while not thread.status()["outcomes"] and time.monotonic() < deadline:
        time.sleep(0.05)
    thread.stop()

    assert refusals == 0
    assert len(set(pids)) == 1
    assert [event["outcome"] for _, events in records(data, CALLS.name) for event in events] == ["scored"]


def test_what_fails_again_soon_waits_longer_and_what_was_well_for_long_does_not() -> None:
    now = 0.0
    pauses = Pauses(1.0, 60.0, clock=lambda: now)
    found = []

    for well_s in (5, 5, 5, 5, 5, 5, 5, 700, 5):
        now += well_s
        found.append(pauses.next_s())
        now += found[-1]

    assert found == [1, 2, 4, 8, 16, 32, 60, 1, 2]
