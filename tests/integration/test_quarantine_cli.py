"""`tidegate quarantine` lists what nobody could judge, shows it to whoever has the key, has it judged again, or drops it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import kafka_ledger as ledger
import orjson
import pytest
from aiokafka import TopicPartition
from kafka_broker import needs_broker
from tidegate.cli import app
from tidegate.processors.distributed.quarantine import KafkaQuarantine
from tidegate.processors.distributed.topics import create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.guardrails_engine import GuardrailsEngine
from tidegate.processors.quarantine import Held, Place
from tidegate.producers.key_source import FileKeys, FolderKeys
from tidegate.producers.sealing import seal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import Texts
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CONTENT, FINDINGS, QUARANTINE, TRANSCRIPTS
from typer.testing import CliRunner

TEXT = "How is Zqann?\x1b[2J"


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KEY_FILE", "KEYS", "KEY_COMMAND", "DATA_DIR", "URL"):
        monkeypatch.delenv(f"TIDEGATE_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder whose quarantine holds three records in two partitions."""
    folder = tmp_path / "tidegate-data"
    keys = FolderKeys(folder)
    held = [
        (0, "a", "harbor-health", "phi_failed", "phi"),
        (0, "b", "st-anne", "crash", "worker"),
        (1, "c", "harbor-health", "crash", "worker"),
    ]
    with SqliteLog(folder, partitions=2, fsync="normal") as log, log.transaction():
        for partition, call_id, tenant, reason, detector in held:
            log.append(QUARANTINE.name, partition, [quarantined(keys, call_id, tenant, reason, detector)])
    return folder


def quarantined(
    keys: FolderKeys | FileKeys, call_id: str, tenant: str, reason: str, detector: str
) -> tuple[None, dict[str, str], bytes]:
    key = keys.sealing(tenant)
    event = {
        "event": "content",
        "call_id": call_id,
        "started_at": "2026-11-02T08:00:00Z",
        "tenant": tenant,
        "request_model": "gpt-4o",
        "prompt_name": "triage",
        "prompt_version": "2.1",
        "mode": "sealed",
        "key_id": key.key_id,
        "sealed": seal(Texts(prompt=TEXT, context=["Metformin 500 mg."]), call_id, key),
    }
    headers = {"schema": "content/1", "producer": "svc", "seq": "7", "count": "1", "reason": reason, "detector": detector}
    return None, headers, orjson.dumps(event)


def run(*arguments: object, code: int = 0) -> str:
    """What a command prints. Raises what it raises."""
    done = CliRunner().invoke(app, ["quarantine", *map(str, arguments)])
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stdout
    return done.stdout


def left(data: Path) -> list[str]:
    with SqliteLog(data) as log:
        return [orjson.loads(record.value)["call_id"] for number in (0, 1) for record in log.read(QUARANTINE.name, number, 0)]


def rows(data: Path, topic: str) -> list[dict[str, Any]]:
    with SqliteLog(data) as log:
        found = [record for number in (0, 1) for record in log.read(topic, number, 0)]
    return [orjson.loads(line) for record in found for line in record.value.split(b"\n")]


def test_a_list_says_when_whose_why_and_what_failed_and_nothing_of_a_text(data: Path) -> None:
    said = run("list")
    listed = [json.loads(line) for line in run("list", "--json").splitlines()]

    assert "3 texts in quarantine" in said
    assert "2 crash, 1 phi_failed" in said
    assert [(one["place"], one["tenant"], one["reason"], one["detector"]) for one in listed] == [
        ("0:0", "harbor-health", "phi_failed", "phi"),
        ("0:1", "st-anne", "crash", "worker"),
        ("1:0", "harbor-health", "crash", "worker"),
    ]
    assert {(one["producer"], one["seq"]) for one in listed} == {("svc", 7)}
    assert all(one["size_bytes"] > 100 for one in listed)
    assert "Zqann" not in said
    assert not any(record["sealed"][:40] in said for record in rows(data, QUARANTINE.name))


def test_a_list_is_narrowed_by_reason_and_tenant_and_bounded_to_the_latest(data: Path) -> None:
    narrow = [
        json.loads(line)["place"] for line in run("list", "--reason", "crash", "-t", "harbor-health", "--json").splitlines()
    ]
    bounded = run("list", "--limit", 1)

    assert narrow == ["1:0"]
    assert "3 texts" in bounded
    assert "the latest 1 shown" in bounded
    assert "st-anne" not in bounded


def test_a_list_has_each_place_and_time_whole_on_a_narrow_terminal(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    times = {json.loads(line)["at"] for line in run("list", "--json").splitlines()}

    said = run("list")

    assert [line[:3] for line in said.splitlines() if ":0 " in line[:4] or ":1 " in line[:4]] == ["0:0", "0:1", "1:0"]
    assert all(at in said for at in times)
    assert "phi_failed" in said


def test_a_name_of_any_length_stands_apart_from_its_value(data: Path) -> None:
    said = run("show", "0:0")

    assert ["prompt_version", "2.1"] in [line.split() for line in said.splitlines()]


def test_a_text_is_shown_only_when_asked_for_and_only_to_whoever_has_the_key(data: Path) -> None:
    closed = run("show", "0:0")
    opened = run("show", "0:0", "--open")
    ring = orjson.loads((data / "keys.json").read_bytes())
    (data / "keys.json").write_bytes(orjson.dumps(ring | {"keys": []}))
    with pytest.raises(UsageError) as caught:
        run("show", "0:0", "--open")

    assert "gpt-4o" in closed
    assert "Zqann" not in closed
    assert "How is Zqann?" in opened
    assert "Metformin 500 mg." in opened
    assert "\x1b" not in opened
    assert "key_gone" in str(caught.value)


def test_what_is_released_is_judged_and_counted_and_gone_from_quarantine(data: Path) -> None:
    said = run("release", "0:0", "1:0")

    settings = Settings(guard_detectors=("phi",))
    with closing(GuardrailsEngine(data, settings, FolderKeys(data), loader="guard_suites:names")) as engine:
        deadline = time.monotonic() + 60
        while engine.waits() and time.monotonic() < deadline:
            engine.run_once(0.1)
    with closing(MeterEngine(data, Settings(max_future_s=1e9))) as meter:
        while meter.run_once():
            pass
        totals = meter.totals()

    assert "2 texts will be judged again" in said
    assert left(data) == ["b"]
    assert sorted(row["call_id"] for row in rows(data, FINDINGS.name)) == ["a", "c"]
    assert {row["redacted_prompt"][:15] for row in rows(data, TRANSCRIPTS.name)} == {"How is <PERSON>"}
    assert totals.get("duplicates", 0) == totals.get("lost", 0) == 0


def test_all_of_a_reason_or_a_tenant_is_dropped_at_once(data: Path) -> None:
    said = run("drop", "--all", "--tenant", "harbor-health")
    kept = left(data)
    run("drop", "--all")

    assert "2 texts dropped" in said
    assert kept == ["b"]
    assert left(data) == []
    assert rows(data, CONTENT.name) == []


def test_a_place_that_is_empty_is_said_and_the_others_are_done(data: Path) -> None:
    said = run("drop", "0:0", "0:99", "7:0", code=1)

    assert "1 text dropped" in said
    assert "not there" in said
    assert left(data) == ["b", "c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("release",), "give --all"),
        (("drop", "0:0", "--all"), "give --all"),
        (("drop", "0:0", "--reason", "crash"), "among --all"),
        (("show", "0-0"), "PARTITION:OFFSET"),
        (("show", "0:99"), "nothing is held"),
        (("list", "--data", "elsewhere"), "no data folder"),
    ],
)
def test_what_cannot_be_done_is_said(data: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*arguments)

    assert said in str(caught.value)
    assert left(data) == ["a", "b", "c"]


def test_a_place_is_read_as_it_is_written() -> None:
    place = Place(3, 17)

    again = Place.parse(str(place))

    assert again == place


def hold_on_kafka(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, counts: dict[int, int]) -> bytes:
    """Put so many into each partition of the quarantine, all the same one. Returns it."""
    asyncio.run(create_topics(Settings(url=url), partitions=2, policy_partitions=1))
    CliRunner().invoke(app, ["keys", "make", "--file", "ring.json"])
    monkeypatch.setenv("TIDEGATE_KEY_FILE", str(folder / "ring.json"))
    _, headers, value = quarantined(FileKeys(folder / "ring.json"), "a", "harbor-health", "phi_failed", "phi")

    async def put() -> None:
        wire = Wire(Settings(url=url))
        await wire.start()
        for partition, count in counts.items():
            await asyncio.gather(*await wire.send_rows(QUARANTINE, partition, [(headers, value)] * count))
        await wire.stop()

    asyncio.run(put())
    return value


@pytest.mark.slow
@needs_broker
def test_on_kafka_many_are_released_by_reading_them_once(
    kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = hold_on_kafka(kafka_url, tmp_path, monkeypatch, {0: 300, 1: 3})
    quarantine = KafkaQuarantine(Settings(url=kafka_url))
    reads: list[tuple[int, int]] = []
    read = quarantine._read

    def noted(tp: TopicPartition, start: int, end: int) -> Iterator[Held]:
        reads.append((tp.partition, end - start))
        return read(tp, start, end)

    monkeypatch.setattr(quarantine, "_read", noted)
    asked = [Place(1, 2), *(Place(0, offset) for offset in (7, 5, 250, 6)), Place(1, 0), Place(1, 3), Place(9, 0)]
    with closing(quarantine):
        released = quarantine.release(asked)

    found = ledger.records(kafka_url, CONTENT)
    assert released == len(found) == 6
    assert sorted(record.partition for record in found) == [0, 0, 0, 0, 1, 1]
    assert {record.value for record in found} == {value}
    assert len({(ledger.headers_of(record)["producer"], ledger.headers_of(record)["seq"]) for record in found}) == 6
    assert reads == [(0, 3), (0, 1), (1, 3)]


@pytest.mark.slow
@needs_broker
def test_on_kafka_it_is_listed_shown_and_released_and_lies_on(
    kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_URL", kafka_url)
    value = hold_on_kafka(kafka_url, tmp_path, monkeypatch, {1: 2})
    listed = [json.loads(line)["place"] for line in run("list", "--json").splitlines()]
    opened = run("show", "1:1", "--open")
    released = run("release", "1:0")
    with pytest.raises(UsageError, match="kafka-delete-records"):
        run("drop", "--all")

    [content] = ledger.records(kafka_url, CONTENT)
    assert listed == ["1:0", "1:1"]
    assert "How is Zqann?" in opened
    assert "1 text will be judged again" in released
    assert (content.partition, content.value) == (1, value)
    assert ledger.headers_of(content)["producer"].startswith("released-")
    assert len(ledger.records(kafka_url, QUARANTINE)) == 2


def test_what_is_done_with_a_held_text_is_written_down_without_it(data: Path) -> None:
    run("show", "0:0")
    run("show", "0:0", "--open")
    run("release", "0:1")
    run("drop", "--all", "--tenant", "harbor-health")

    told = [json.loads(line) for line in (data / "audit.jsonl").read_bytes().splitlines()]
    acts = [(one["action"], one["subject"], one["details"]) for one in told if one["action"].startswith("quarantine.")]
    assert acts == [
        ("quarantine.opened", "harbor-health", {"place": "0:0", "call_id": "a"}),
        ("quarantine.released", "", {"texts": 1, "places": ["0:1"]}),
        ("quarantine.dropped", "", {"texts": 2, "places": ["0:0", "1:0"]}),
    ]
    assert "Zqann" not in (data / "audit.jsonl").read_text()
