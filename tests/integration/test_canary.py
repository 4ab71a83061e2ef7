"""A patient said in prompts, answers, context, errors and garbage, with a kill -9 in the middle: afterwards no byte of that
is in any file, line of output, metric or row; the transcripts have it redacted, and the sealed records open with the key and
not without."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import canaries
import kafka_ledger as ledger
import pytest
import urllib3
from canaries import EMAIL, MRN, NAME, SSN, left_in, texts, traces
from kafka_broker import needs_broker
from kafka_fleet import Fleet, Worker
from node_process import NodeProcess, eventually, rows, tidegate
from support import line, response
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed.topics import create_topics
from tidegate.producers.connect import connect
from tidegate.producers.emitter import Emitter
from tidegate.producers.key_source import FileKeys, FolderKeys, KeySource
from tidegate.producers.sealing import unseal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import decode_content
from tidegate.schemas.errors import Unreadable
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CONTENT, GUARDRAILS_NAMES, METER_CHANGELOG, TOPICS

pytestmark = pytest.mark.slow

GUARDED = {"TIDEGATE_GUARD_BATCH": "4"}
GARBAGE = [
    b'{"event": "response", "prompt": "%b' % canaries.prompt(0).encode(),
    canaries.prompt(1).encode(),
    json.dumps([canaries.prompt(2)]).encode(),
    line(response(patient=NAME)),
    line(response(error_type=f"no record of {NAME}")),
    line(response(labels={"note": f"{NAME} {MRN} {SSN} " * 9})),
    line({"event": "content", "call_id": "in-the-clear", "started_at": "2026-11-02T08:00:00Z", "prompt": canaries.prompt(3)}),
    line({"event": "content", "call_id": "call-1", "started_at": NAME, "mode": "sealed", "key_id": SSN, "sealed": EMAIL}),
    canaries.prompt(4).encode("utf-16-le").replace(b"\n", b""),
]


class ProviderError(Exception):
    """What a provider's client raises; providers quote the prompt in it."""


def speak(tide: Emitter, first: int, count: int) -> None:
    """Calls about the patient; every fifth fails with an error that quotes them."""
    for number in range(first, first + count):
        said = texts(number)
        try:
            with tide.call(model="gpt-4o", provider="openai", tenant="harbor-health", prompt="triage@2.1") as call:
                call.ask(said["prompt"], context=said["context"])
                if number % 5 == 4:
                    raise ProviderError(f"400: cannot answer {said['prompt']}")
                call.answer({"choices": [{"message": {"content": said["response"]}}], "usage": {"prompt_tokens": 9}})
        except ProviderError:
            pass


def scoring_processes() -> set[int]:
    """Scoring processes on this machine that are alive."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if b"tidegate.processors.guardrails.worker" in command and state != "Z":
                found.add(int(folder.name))
    return found


def children_of(pid: int) -> set[int]:
    return {child for child in scoring_processes() if parent_of(child) == pid}


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def said_by(node: NodeProcess) -> Iterator[bytes]:
    """What the doors tell, to whoever may ask."""
    for path in ("/metrics", "/", "/healthz", "/readyz"):
        yield node.get(path).data
    yield node.get("/v1/status", token=node.token).data


def everything_stored(data: Path) -> bytes:
    """Every column of every table, as text: the store's files are compressed."""
    tables = rows(data, "SELECT name FROM system.tables WHERE database = 'tidegate' AND engine LIKE '%MergeTree'")
    return b"".join(
        tidegate("query", "--data", data, "--format", "csv", f"SELECT * FROM {row['name']}").stdout for row in tables
    )


def judged(node: NodeProcess) -> dict[str, Any]:
    """The status, once all content has a verdict and that is in the store."""
    names = ("guardrails_lag_records", "meter_lag_records", "sink_lag_records")
    status = eventually(node.status, lambda found: not any(found[name] for name in names), 120)
    assert not any(status[name] for name in names), status
    return status


def test_no_byte_of_what_a_patient_said_is_left_by_a_node_that_was_killed(tmp_path: Path) -> None:
    data, state = tmp_path / "data", tmp_path / "state"
    more = GUARDED | {"XDG_STATE_HOME": str(state)}
    said: list[bytes] = []
    tide = connect(str(data), producer_id="service")

    # A budget that is soon spent: the kill comes with some judged, some under way and some waiting.
    with NodeProcess(data, TIDEGATE_GUARD_CPU_SHARE="0.0001", **more) as node:
        remote = connect(node.url, producer_id="remote", spool_dir=state / "spool", key_file=data / "keys.json", gate=False)
        for number in range(0, 20, 2):
            # Many small records, so that some are finished when the budget is spent.
            speak(tide, number, 2)
            # Its first text makes the ring that the other one reads.
            assert tide.flush(30)
            speak(remote, 100 + number, 2)
            assert remote.flush(30)
        for garbage in GARBAGE:
            said.append(node.post(garbage).data)
            said.append(node.post(garbage, {"Idempotency-Key": "again"}).data)
            said.append(node.post(garbage, path="/v1/content").data)
        held = eventually(node.status, lambda found: found["guardrails"]["outcomes"] and found["guardrails"]["held_back"], 90)
        assert held["guardrails"]["outcomes"], held
        assert held["guardrails_lag_records"], "all is judged: the kill comes too late to test anything"
        said += said_by(node)
        judging = children_of(node.process.pid)
        node.kill()
        orphans = eventually(lambda: judging & scoring_processes(), lambda found: not found)
        # What is said while nobody listens goes to a spool, and to the folder's log.
        speak(tide, 200, 10)
        speak(remote, 300, 10)
        assert tide.flush(30)
        eventually(lambda: list((state / "spool").rglob("*.*")), bool)
        node.process.returncode = 0  # killed on purpose
    spooled = [path for path in (state / "spool").rglob("*") if path.is_file()]
    midway = list(left_in(data, state))
    with NodeProcess(data, **more) as node:
        status = judged(node)
        said += said_by(node)
        running = list(left_in(data, state))
        output = node.output
    tide.close()
    remote.close()
    stored = everything_stored(data)

    assert judging
    assert not orphans
    assert spooled
    assert midway == running == list(left_in(data, state)) == []
    assert not traces(output.read_bytes()), output
    assert [answer for answer in said if traces(answer)] == []
    assert status["guardrails"]["outcomes"]["scored"]
    assert not traces(stored)
    assert b"<PERSON>" in stored
    transcripts = rows(data, "SELECT call_id, redacted_prompt, redacted_response, redacted_context FROM transcripts")
    verdicts = rows(data, "SELECT call_id, outcome FROM scored_calls")
    assert Counter(row["outcome"] for row in verdicts) == {"scored": 50}
    assert len({row["call_id"] for row in verdicts}) == 50
    assert sorted(row["call_id"] for row in transcripts) == sorted(row["call_id"] for row in verdicts)
    for row in transcripts:
        assert row["redacted_prompt"].startswith("Patient <PERSON> (MRN <MEDICAL_RECORD_NUMBER>, SSN <US_SSN>) asks question")
    with SqliteLog(data) as log:
        opens_with_the_key_alone(log.read(CONTENT.name, 0, 0)[0].value, FolderKeys(data))


@needs_broker
def test_no_byte_of_what_a_patient_said_is_left_on_kafka_by_workers_that_were_killed(tmp_path: Path) -> None:
    data, state, ring = tmp_path / "data", tmp_path / "state", tmp_path / "ring.json"
    kept = (data, state, tmp_path / "kafka", tmp_path / "workers")
    kept[-1].mkdir()
    made = tidegate("keys", "make", "--file", ring)
    assert made.returncode == 0, made.stderr
    more = GUARDED | {
        "TIDEGATE_GUARD_DETECTORS": '["phi", "toxicity"]',
        "TIDEGATE_KEY_FILE": str(ring),
        "XDG_STATE_HOME": str(state),
    }
    said: list[bytes] = []

    with Broker(tmp_path / "kafka") as broker:
        url = f"kafka://{broker.bootstrap}"
        asyncio.run(create_topics(Settings(url=url), partitions=2, policy_partitions=1))
        tides = [
            connect(url, producer_id=f"service-{number}", spool_dir=state / f"spool-{number}", key_file=ring, gate=False)
            for number in range(4)
        ]
        with Fleet(kept[-1], url, **more) as fleet, NodeProcess(data, TIDEGATE_URL=url, **more) as node:
            meter = fleet.start("meter")
            doomed = fleet.start("guardrails", TIDEGATE_GUARD_CPU_SHARE="0.0001")
            doomed.wait_until_it_works()
            for number in range(0, 8, 2):
                for place, tide in enumerate(tides):
                    speak(tide, 100 * place + number, 2)
                    assert tide.flush(30)
            for garbage in GARBAGE:
                said.append(node.post(garbage).data)
                said.append(node.post(garbage, path="/v1/content").data)
            eventually(lambda: b'outcome="scored"' in metrics_of(doomed), bool, 90)
            said.append(metrics_of(doomed))
            judging = children_of(doomed.process.pid)
            fleet.kill(doomed)
            fleet.kill(meter)
            orphans = eventually(lambda: judging & scoring_processes(), lambda found: not found)
            lag = node.status()["guardrails_lag_records"]
            workers = [fleet.start("meter"), fleet.start("guardrails")]
            for place, tide in enumerate(tides):
                speak(tide, 100 * place + 8, 2)
                assert tide.flush(30)
                tide.close()
            for worker in workers:
                worker.wait_until_it_works()
            judged(node)
            said += [*said_by(node), metrics_of(workers[1])]
            for worker in workers:
                fleet.stop(worker)
        held = {topic.name: ledger.records(url, topic) for topic in (*TOPICS.values(), METER_CHANGELOG, GUARDRAILS_NAMES)}
    on_kafka = b"".join(
        b"".join((record.key or b"", record.value or b"", *(value for _, value in record.headers)))
        for records in held.values()
        for record in records
    )
    stored = everything_stored(data)

    assert judging
    assert not orphans
    assert lag, "all was judged: the kill came too late to test anything"
    assert list(left_in(*kept)) == []
    assert not traces(node.output.read_bytes())
    assert [answer for answer in said if traces(answer)] == []
    assert held[CONTENT.name]
    assert not traces(on_kafka)
    assert not traces(stored)
    transcripts = rows(data, "SELECT call_id, redacted_prompt FROM transcripts")
    verdicts = rows(data, "SELECT call_id, outcome FROM scored_calls")
    assert Counter(row["outcome"] for row in verdicts) == {"scored": 40}
    assert len({row["call_id"] for row in verdicts}) == 40
    assert sorted(row["call_id"] for row in transcripts) == sorted(row["call_id"] for row in verdicts)
    assert all(row["redacted_prompt"].startswith("Patient <PERSON> (MRN <") for row in transcripts)
    opens_with_the_key_alone(held[CONTENT.name][0].value, FileKeys(ring))


def metrics_of(worker: Worker) -> bytes:
    return urllib3.request("GET", f"{worker.doors}/metrics", retries=False, timeout=10).data


def opens_with_the_key_alone(record: bytes, keys: KeySource) -> None:
    event = decode_content(record.split(b"\n")[0])
    key = keys.opening(event.key_id or "")

    opened = unseal(event, keys)

    assert NAME in (opened.prompt or "")

    class Another:
        def opening(self, _key_id: str) -> Any:
            return replace(key, secret=bytes(32))

    with pytest.raises(Unreadable, match="tampered"):
        unseal(event, Another())


def test_the_search_finds_what_there_is(tmp_path: Path) -> None:
    hidden = [canaries.prompt(0).encode(), NAME.encode("utf-16-le"), SSN.encode().hex().encode()]
    for number, content in enumerate(hidden):
        (tmp_path / str(number)).write_bytes(b"\x00" * number + content)

    found = list(left_in(tmp_path))

    assert {path.name for path, _ in found} == {"0", "1", "2"}
