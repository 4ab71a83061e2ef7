"""docs/operations.md names what is there, its sizes are as measured here, and its commands run on a real broker."""

from __future__ import annotations

import asyncio
import gc
import re
import shlex
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cramjam
import kafka_commands
import orjson
import pytest
import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from deployment import ROOT, read
from kafka_broker import needs_broker
from tidegate.bench.__main__ import BENCHES
from tidegate.bench.traffic import START, calls, envelopes, lines
from tidegate.cli import app
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.distributed import changelog
from tidegate.processors.distributed.acls import ROLES
from tidegate.processors.distributed.blocks import block_headers, encode_block
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.kafka_admin import kafka_admin, topics_of
from tidegate.processors.distributed.policies_memory import PoliciesMemory, share_of
from tidegate.processors.distributed.topic_plan import LIKE_CALLS, plan
from tidegate.processors.distributed.topics import check_topics, create_topics
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.embedded.metrics import Metrics
from tidegate.processors.enforcement import Enforcement
from tidegate.processors.guardrails.runtime import Tally
from tidegate.processors.guardrails.telling import told
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.policy_file import read_policies
from tidegate.processors.pricing import PriceBook
from tidegate.processors.residency_alerts import Refusals
from tidegate.processors.series import SeriesState, series_of
from tidegate.producers.kafka_client import client_options
from tidegate.schemas.hot import decode_event
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.policy import Policy, PolicySet
from tidegate.schemas.residency import CrossRegion
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS, Settings
from tidegate.schemas.topics import ALERTS, CALLS, DEAD_LETTERS, METERED

PAGE: Final = (ROOT / "docs" / "operations.md").read_text()
PROSE: Final = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
QUOTED: Final = re.findall(r"`([^`\n]+)`", PROSE)
BLOCKS: Final = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
# As a shell has them: one command a line.
LINES: Final = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


def section(title: str) -> str:
    """What stands below a heading, until the next one."""
    return re.split(r"^#{2,3} ", PAGE.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section(title).splitlines() if line.startswith("|")
    ]
    return [cells for number, cells in enumerate(found) if set("".join(cells)) - set("-:") and not _is_head(found, number)]


def _is_head(found: list[list[str]], number: int) -> bool:
    return number + 1 < len(found) and not set("".join(found[number + 1])) - set("-:")


# what is named


def test_every_command_of_ours_is_one_that_the_command_line_has() -> None:
    lines = [line.partition("#")[0] for line in LINES if line.startswith("tidegate ")]
    said = [one for one in QUOTED if re.match(r"tidegate [a-z]", one)]

    assert len(lines) >= 8
    assert len(said) >= 8
    for command in (*lines, *said):
        _understood(shlex.split(command.replace("FILE", "file.yaml")))


def _understood(words: list[str]) -> None:
    """Raises as the command line does when these words are wrong."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    name, *rest = words
    while hasattr(command, "commands"):
        context = command.make_context(name, rest, parent=context, resilient_parsing=not rest)
        left = [*context._protected_args, *context.args]
        if not left:
            return  # a group, named as such
        name, *rest = left
        assert name in command.commands, " ".join(words)
        command = command.commands[name]
    # Without its arguments a command may be named all the same.
    command.make_context(name, rest, parent=context, resilient_parsing=not rest)


def test_every_setting_is_one_that_the_code_reads() -> None:
    named = set(re.findall(r"TIDEGATE_[A-Z_]+", PAGE))

    assert {name for name in named if name.removeprefix("TIDEGATE_").lower() not in Settings.model_fields} == set()


def test_the_table_has_every_setting_of_kafka_and_of_workers_with_its_default() -> None:
    told = {cells[0].strip("`"): cells[1].strip("`") for cells in rows("Settings")}

    fields = {f"TIDEGATE_{name.upper()}": field for name, field in Settings.model_fields.items()}
    expected = {name for name in fields if name.startswith(("TIDEGATE_KAFKA_", "TIDEGATE_WORKER_"))}
    assert set(told) == expected | {"TIDEGATE_URL"}
    for name in expected:
        assert told[name] == ("–" if fields[name].default is None else str(fields[name].default)), name


def test_every_topic_and_group_is_one_of_ours() -> None:
    topics = {planned.topic.name for planned in plan()}
    groups = {f"tidegate.{role}" for role in ROLES}
    files = {"tidegate.toml"}

    named = set(re.findall(r"\btidegate\.[a-z_]+(?:\.[a-z_]+)?", PAGE))

    assert topics - named == set()
    assert named <= topics | groups | files


def test_every_metric_is_one_that_somebody_shows() -> None:
    shown = _shown()
    named = {one for one in QUOTED if re.fullmatch(r"tidegate_[a-z_]+", one)}

    assert len(named) >= 9
    assert {
        name for name in named if name not in shown and f"{name}_count" not in shown and f"{name}_bucket" not in shown
    } == set()


def _shown() -> set[str]:
    class Writing:
        rows = batches = refused_rows = lost_records = 0
        batch_seconds = 0.0
        store_away = False

        def lag(self) -> dict[tuple[str, int], int]:
            return {("tidegate.metered", 0): 3}

    worker = WorkerMetrics("sink")
    worker.sink(Writing())
    tally = Tally(restarts={"crash": 1}, seconds={"phi": 1.0}, detectors={"phi": "1"})
    tally.outcomes["scored"] = tally.findings["phi", "PERSON"] = 1
    worker.guardrails(lambda: told(tally), lambda: {("tidegate.content", 0): 3})
    worker.stopped = lambda: 0
    worker.notifier = lambda: {"incidents": {}, "waiting": 0, "sent": 0, "failed": 0, "given_up": 0, "problem": None}
    worker.refusals = Refusals(None)
    worker.refusals.wrote([CrossRegion("st-anne", "eu-west-1", "us-east-1")])
    worker.events.labels("events").inc()
    node = Metrics(lambda: {"totals": {}, "store_away": False, "log_away": False, "meter_lag_records": 0})
    page = worker.render()[0].decode() + node.render()[0].decode()
    return set(re.findall(r"^([a-z_]+)", page, re.MULTILINE))


def test_every_file_and_every_link_leads_somewhere() -> None:
    files = {one for one in QUOTED if re.fullmatch(r"[a-z_./-]+\.(?:py|yml|yaml|json)|tests/[a-z]+", one) and "/" in one}
    links = re.findall(r"\]\(([^)]+)\)", PAGE)

    assert files
    assert links
    for name in files:
        assert (ROOT / name).exists(), name
    for link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / "docs" / path if path else ROOT / "docs" / "operations.md"
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target.read_text()), link


def _anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_runbook_has_a_place_for_every_alert_and_for_no_other() -> None:
    alerts = [rule["alert"] for group in read(ROOT / "deploy/prometheus/rules.yml")["groups"] for rule in group["rules"]]

    assert re.findall(r'\| <a id="(\w+)"></a>(\w+) \|', PAGE) == [(name, name) for name in alerts]


def test_the_benches_and_the_tables_it_refers_to_are_there() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    named = re.findall(r"`python -m bench ([a-z ]+)`", PAGE)

    assert named
    assert {name for names in named for name in names.split()} <= set(BENCHES)
    assert "Events a second on one core" in (ROOT / "bench" / "distributed.py").read_text()
    assert "## The store" in benchmarks
    assert "Rows a second into `calls`" in benchmarks
    assert "## Many scopes" in benchmarks


def test_what_stays_for_how_long_is_as_planned() -> None:
    days = {planned.topic.name: int(planned.config.get("retention.ms", "0")) / 86_400_000 for planned in plan()}
    told = {name: cells[1] for cells in rows("Disk") for name in re.findall(r"`(tidegate\.[a-z_.]+)`", cells[0])}

    assert told.keys() >= {"tidegate.calls", "tidegate.metered", "tidegate.dead_letters"}
    for name, words in told.items():
        if days[name]:
            assert words == ("for ever" if days[name] < 0 else f"{days[name]:.0f} day{'' if days[name] == 1 else 's'}")


# what is measured


def _zstd(*parts: bytes) -> int:
    """Bytes of one record batch, with its head of 61."""
    return len(bytes(cramjam.zstd.compress(b"".join(parts), 3))) + 61


@pytest.mark.parametrize(("an_envelope", "a_flush"), [(100, 1_000), (20, 200), (5, 25)])
def test_the_bytes_an_event_are_as_measured(an_envelope: int, a_flush: int) -> None:
    (told,) = [
        [int(cell.replace(",", "")) for cell in cells[1:]]
        for cells in rows("Disk")
        if f"envelopes of {an_envelope}, flushes of {a_flush:,}" in cells[0]
    ]

    memory = changelog.Memory()
    state = MeterState(0, UsageState(ScopeSets(DEFAULT_SCOPE_SETS)), SeriesState({}, memory.scopes.get))
    state.series.watch(series_of(read_policies(ROOT / "docs/examples/policies.yaml").policies))
    book, sent = PriceBook.load(None), envelopes(lines(calls(6_000)), an_envelope)
    found, events, step = [0, 0, 0, 0], 0, a_flush // an_envelope
    for first in range(0, len(sent), step):
        flush = sent[first : first + step]
        # Fifty calls a second, as they were simulated.
        records = [
            CallRecord(number, round(START.timestamp() * 1_000) + number * an_envelope * 20, one.value, one.headers(), _passed)
            for number, one in enumerate(flush, first)
        ]
        _, outputs = meter(state, records, book, 86_400.0)
        written, heard = changelog.changes(state, memory)
        changelog.flushed(state, memory)
        if first * an_envelope < 2_000:
            continue  # scopes are new only once
        events += a_flush
        found[0] += sum(_zstd(one.value, orjson.dumps(one.headers())) for one in flush)
        found[1] += _zstd(*(value for _, value in outputs.metered))
        found[2] += _zstd(*(key + (value or b"") for key, value in written))
        found[3] += _zstd(encode_block(heard)) if heard else 0

    assert [each / events for each in found] == pytest.approx(told, rel=0.15)


def _passed() -> None:
    pass


def test_a_live_scope_takes_no_more_memory_than_told() -> None:
    told = [int(cells[1].removeprefix("≤ ").replace(",", "")) for cells in rows("Memory")]
    budget = Policy(
        name="budget",
        scope=("tenant", "user"),
        measure="cost_usd",
        window={"rolling": 86_400},
        limit=25,
        actions=[{"do": "block"}],
    )
    scopes, buckets, now = 3_000, 6, START.timestamp()

    gc.collect()
    tracemalloc.start()
    try:
        before = _traced()
        memory = changelog.Memory()
        series = SeriesState(series_of([budget]), memory.scopes.get)
        for _ in range(buckets):
            for number in range(scopes):
                event = {"event": "response", "call_id": "a", "started_at": START, "request_model": "gpt-4o"}
                event |= {"tenant": f"tenant-{number % 100:03}", "user": f"user-{number:06}"}
                series.response(decode_event(orjson.dumps(event)), now, 1_234_567, False, now)
            # As a flush does: see changelog.changes.
            for key, value in series.records():
                memory.scopes[key] = value
            series.flushed()
            now += 86_400 / 60
        event, key, value = {}, b"", b""
        counted = _traced()
        heard = PoliciesMemory(1, share_of(0, 1))
        enforcement = Enforcement(heard, 1, now, unit_prices=heard.prices, share=heard.share)
        enforcement.enforce(PolicySet(policies=(budget,), version="1"), now)
        for partition, key, value in heard.take(block_headers(0, 1), encode_block(memory.scopes.items()), 0):
            enforcement.hear(partition, key, value, now)
        publication = enforcement.judge(heard.marks, now)
        assert publication is not None
        heard.said(publication.records)
        enforcement.published(publication)
        spoken = len(publication.records)
        publication = None
        judged = _traced()
    finally:
        tracemalloc.stop()

    assert spoken > scopes
    assert len(heard.scopes) == len(memory.scopes) == scopes
    assert (counted - before) / scopes <= told[0]
    assert (judged - counted) / scopes <= told[1]


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


# what is to be done


@pytest.fixture
def on_broker(kafka_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Runs a command of Kafka's from the page in a namespace of this test."""
    monkeypatch.setitem(
        kafka_commands._TOOLS, "kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    )
    address = KafkaAddress.parse(kafka_url)

    def run(command: str) -> str:
        here = command.replace("$BROKERS", address.bootstrap).replace("tidegate.", f"{address.namespace}.")
        return kafka_commands.run_kafka_command(here)

    return run


@pytest.mark.slow
@needs_broker
def test_partitions_are_added_as_told_and_all_is_as_planned(on_broker: Callable[[str], str], kafka_url: str) -> None:
    settings = Settings(url=kafka_url)
    asyncio.run(create_topics(settings, partitions=8))
    loop = re.search(r"for topic in ([^;]+); do\n(.*?)\ndone", section("Adding partitions"), re.DOTALL)
    assert loop is not None
    names = loop[1].split()

    for name in names:
        on_broker(loop[2].strip().replace("$topic", name))

    # Calls last: a meter must never find a partition without a memory.
    assert names == [topic.name.removeprefix("tidegate.") for topic in (*LIKE_CALLS, CALLS)]
    name_of = KafkaAddress.parse(kafka_url).topic
    problems = asyncio.run(check_topics(settings))
    assert [problem for problem in problems if not problem.topic.startswith("broker")] == []
    assert asyncio.run(_partitions(settings, name_of(CALLS))) == 16


async def _partitions(settings: Settings, topic: str) -> int:
    async with kafka_admin(settings) as admin:
        found, _ = await topics_of(admin)
        return found[topic].partitions


@pytest.mark.slow
@needs_broker
def test_the_sinks_place_is_noted_and_found_again_as_told(
    on_broker: Callable[[str], str], kafka_url: str, tmp_path: Path
) -> None:
    settings, address = Settings(url=kafka_url), KafkaAddress.parse(kafka_url)
    asyncio.run(create_topics(settings, partitions=1))
    tp = TopicPartition(address.topic(METERED), 0)
    note, go_back, to_end, to_start = [line for line in LINES if "--group tidegate.sink" in line]
    command, _, file = note.partition(" > ")
    asyncio.run(_rows_and_place(settings, tp, 3, 2))
    place = tmp_path / file
    place.write_text(on_broker(command))

    on_broker(to_end)
    at_end = asyncio.run(_place(settings, tp))
    on_broker(go_back.replace(file, str(place)))
    back = asyncio.run(_place(settings, tp))
    on_broker(to_start)
    others = [asyncio.run(_place(settings, TopicPartition(address.topic(topic), 0))) for topic in (DEAD_LETTERS, ALERTS)]

    # The marks go with a reset: only the offset is written.
    assert (at_end, back, others) == ((3, ""), (2, ""), [(0, ""), (0, "")])


async def _rows_and_place(settings: Settings, tp: TopicPartition, rows: int, place: int) -> None:
    """So many records, of which the sink has had the first."""
    options = client_options(settings)
    async with AIOKafkaProducer(**options) as producer:
        for _ in range(rows):
            await producer.send_and_wait(tp.topic, b"{}", partition=tp.partition)
    async with AIOKafkaConsumer(
        **options, group_id=KafkaAddress.parse(settings.url).group("sink"), enable_auto_commit=False
    ) as consumer:
        consumer.assign([tp])
        await consumer.commit({tp: (place, '{"marks":{"0":1}}')})


async def _place(settings: Settings, tp: TopicPartition) -> tuple[int, str]:
    async with kafka_admin(settings) as admin:
        found = await admin.list_consumer_group_offsets(KafkaAddress.parse(settings.url).group("sink"))
        return found[tp].offset, found[tp].metadata
