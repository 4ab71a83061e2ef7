"""Data residency: one decision, asked at every door; of what is refused nothing stays but whose it was and its fingerprint."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog
from support import NOW_MS, NOW_S, LogRecord, envelope, line, rejected, request, response, scored
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.distributed.call_record import CallRecord
from tidegate.processors.distributed.meter_partition import MeterPartition
from tidegate.processors.distributed.wire import Wire
from tidegate.processors.distributed.worker_doors import WorkerMetrics
from tidegate.processors.embedded.content_door import allowed_here
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.ingest import judge
from tidegate.processors.guardrails.alerting import Alerting
from tidegate.processors.guardrails.sampling import Sampling
from tidegate.processors.guardrails.step import Partition
from tidegate.processors.letters import Keeper
from tidegate.processors.meter import MeterOutputs, MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.processors.residency_alerts import AGAIN_MS, MOST_INCIDENTS, Refusals
from tidegate.producers.connect import connect
from tidegate.producers.emitter import Emitter
from tidegate.producers.key_source import FolderKeys, GivenKeys
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sealing import seal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.call import RequestEvent, ResponseEvent
from tidegate.schemas.content import Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.errors import UsageError
from tidegate.schemas.hot import decode_event
from tidegate.schemas.residency import OTHER, UNTAGGED, CrossRegion, Residency, ResidencyMap
from tidegate.schemas.residency_file import read_map, residency_of, residency_of_service
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS, DEAD_LETTERS, METERED, REFUSED, REQUESTS, Topic

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
CANARY = "Rosa-Martinez-MRN-4711"
BOOK = PriceBook.load()
US, EU, UK = "us-east-1", "eu-west-1", "uk-south-1"
MAP = ResidencyMap(regions=(US, EU, UK), default=(US,), tenants={"nordkyst-klinik": (EU, UK)}, hosts={"kafka.eu.example": EU})
HERE = Residency(MAP, US)
KEY = Key("k-1", None, b"k" * 32, NOW)
RING = KeyRing([KEY], b"f" * 32)

FILE = f"""
regions = ["{US}", "{EU}", "{UK}"]
default = ["{US}"]

[tenants]
nordkyst-klinik = ["{EU}", "{UK}"]

[hosts]
"kafka.eu.example" = "{EU}"
"store.us.example" = "{US}"
"node.uk.example" = "{UK}"
"""

# Of another tenant's region, of no region, of one that nobody has listed, and wrong besides.
OF_EU = response("c-eu", tenant="nordkyst-klinik", region=EU, user=CANARY)
UNTOLD = response("c-untold", region=None, user=CANARY)
UNLISTED = response("c-unlisted", region=f"Mars {CANARY}")
WRONG_TOO = response("c-wrong", tenant="nordkyst-klinik", region=EU, user=CANARY, started_at="2199-01-01T00:00:00Z")
FINE = response("c-fine", region=US)
EVENTS = (FINE, OF_EU, UNTOLD, UNLISTED, WRONG_TOO, request("r-eu", tenant="nordkyst-klinik", region=EU, user=CANARY))
REFUSED_CALLS = len(EVENTS) - 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "residency.toml"
    path.write_text(FILE)
    return path


# --- the decision

regions = st.sampled_from(["a", "b", "c"])
some = st.lists(regions, min_size=1, max_size=3, unique=True).map(tuple)
maps = st.builds(
    ResidencyMap,
    regions=st.just(("a", "b", "c")),
    untagged=st.sampled_from(["refuse", "accept"]),
    default=st.none() | some,
    tenants=st.dictionaries(st.sampled_from(["t1", "t2"]), some),
)
tenants = st.none() | st.sampled_from(["t1", "t2", "t3"])


@given(map_=maps, tenant=tenants, region=st.none() | regions | st.just("elsewhere"), here=regions)
def test_data_rests_where_every_region_that_is_known_of_it_is_allowed(
    map_: ResidencyMap, tenant: str | None, region: str | None, here: str
) -> None:
    refusal = Residency(map_, here).refusal(tenant, region)

    if region is None and map_.untagged == "refuse":
        expected = False
    elif tenant in map_.tenants:
        expected = {here, region or here} <= set(map_.tenants[cast(str, tenant)])
    elif map_.default is not None:
        expected = {here, region or here} <= set(map_.default)
    else:
        expected = region in (None, here)
    assert (refusal is None) == expected
    assert refusal in (None, CrossRegion(tenant, OTHER if region == "elsewhere" else region, here))


@given(map_=maps, tenant=tenants, region=st.none() | st.text(min_size=1, max_size=20), here=regions)
def test_reasons_and_labels_hold_no_word_that_the_map_does_not(
    map_: ResidencyMap, tenant: str | None, region: str | None, here: str
) -> None:
    place = Residency(map_, here)
    crossed = CrossRegion(tenant, region, here)
    spelled = place.reason(CrossRegion("another", region if region in map_.regions else "another", here))

    assert set(place.labels(crossed)) <= {*map_.tenants, *map_.regions, OTHER, UNTAGGED}
    assert region is None or place.reason(crossed) == spelled


# --- the file


def test_a_file_says_where_and_its_version_is_of_what_it_says(file: Path) -> None:
    found = read_map(file)
    file.write_text("# moved\n" + FILE.replace(f'"{EU}", "{UK}"]\n\n[hosts]', f'"{EU}", "{UK}"]\n# of machines\n[hosts]'))
    same = read_map(file)
    file.write_text(FILE.replace(f'default = ["{US}"]', f'default = ["{EU}"]'))
    other = read_map(file)

    assert (found.regions, found.untagged, found.default) == ((US, EU, UK), "refuse", (US,))
    assert found.tenants == {"nordkyst-klinik": (EU, UK)}
    assert found.version == same.version != other.version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default = []", "regions: missing"),
        ("regions = ['a']\ndefault = ['b']", "default: b is not one of `regions` (a)"),
        ("regions = ['a']\n[tenants]\nt = ['a', 'a']", "tenants.t: names a region twice"),
        ("regions = ['a']\n[tenants]\nt = []", "tenants.t: "),
        ("regions = ['a']\n[hosts]\nh = 'b'", "hosts.h: b is not one of"),
        ("regions = ['a']\n[hosts]\nNode = 'a'\nnode = 'a'", "hosts: node: named twice"),
        ("regions = ['a']\nuntaged = 'accept'", "untaged: not a key of a residency file"),
        ("regions = ['a']\nuntagged = 'perhaps'", "untagged: "),
        ("regions = ['a', 'other']", "regions: other stands for what is not known"),
        ("regions = ['a']\nversion = '1'", "version: is told from what the file says"),
        ("regions = ['a'", "correct the TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "residency.toml"
    path.write_text(text)

    with pytest.raises(UsageError) as caught:
        read_map(path)

    assert f"{path}: " in str(caught.value)
    assert said in str(caught.value)


def test_without_a_file_nothing_is_asked(tmp_path: Path) -> None:
    assert residency_of(Settings(region="anywhere")) is None
    with pytest.raises(UsageError, match="cannot be read"):
        residency_of(Settings(region=US, residency_file=tmp_path / "nowhere.toml"))


def test_a_node_must_know_its_region_and_write_to_stores_and_brokers_of_that_one(file: Path) -> None:
    def found(region: str | None = US, **settings: Any) -> Residency | None:
        return residency_of(Settings(region=region, residency_file=file, **settings))

    assert found() == Residency(read_map(file), US)
    assert found(store="clickhouse://u:p@store.us.example:8123/t") is not None
    assert found(store="http://localhost:8123", url="kafka://localhost:9092") is not None
    assert found(EU, url="kafka://kafka.eu.example") is not None
    for wrong, said in (
        ({"region": None}, "set TIDEGATE_REGION"),
        ({"region": "mars"}, "is mars, which is not one of"),
        ({"store": "clickhouse://u:p@store.eu.example:8123/t"}, "does not tell the region of the store store.eu.example"),
        ({"region": EU, "store": "clickhouse://u:p@store.us.example/t"}, f"is in {US}, and this process in {EU}"),
        ({"url": "kafka://kafka.eu.example:9092"}, f"Kafka broker kafka.eu.example is in {EU}"),
        ({"url": "kafka://localhost:9092,elsewhere.example"}, "broker elsewhere.example; add it to [hosts]"),
    ):
        with pytest.raises(UsageError) as caught:
            found(**cast(Any, wrong))
        assert said in str(caught.value)
        assert ":p@" not in str(caught.value)


def test_a_service_judges_by_where_it_sends_and_leaves_a_node_that_it_does_not_know_to_judge_itself(file: Path) -> None:
    def here(url: str) -> str | None:
        found = residency_of_service(Settings(region=US, residency_file=file, url=url))
        return None if found is None else found.here

    assert here("./some-folder") == US
    assert here("http://127.0.0.1:8400") == US
    assert here("https://node.uk.example/tidegate") == UK
    assert here("https://node.nowhere.example") is None
    assert here("kafka://kafka.eu.example:9092/ours") == EU
    with pytest.raises(UsageError, match=r"broker b.example; add it to \[hosts\]"):
        here("kafka://kafka.eu.example,b.example")
    with pytest.raises(UsageError, match="several regions"):
        here("kafka://kafka.eu.example,store.us.example")


def test_hosts_are_found_however_map_and_address_write_them(tmp_path: Path) -> None:
    path = tmp_path / "residency.toml"
    path.write_text(FILE.replace("node.uk.example", "Node.UK.example").replace("kafka.eu.example", "Kafka.EU.example"))

    def here(url: str) -> str | None:
        found = residency_of_service(Settings(region=US, residency_file=path, url=url))
        return None if found is None else found.here

    assert here("https://Node.UK.example/tidegate") == here("https://node.uk.example/tidegate") == UK
    assert here("kafka://KAFKA.eu.example:9092") == here("kafka://kafka.eu.example:9092") == EU
    assert here("kafka://LocalHost:9092") == US


# --- the service


def test_an_emitter_sends_word_of_what_it_refuses_in_its_place_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    caplog.set_level(logging.WARNING, "tidegate")
    fields = {name: value for name, value in OF_EU.items() if name != "event"}
    events = [FINE, OF_EU, RequestEvent(event="request", **_of(fields)), ResponseEvent(event="response", **fields)]
    events += [decode_event(line(OF_EU)), UNTOLD, rejected(), decode_event(line(rejected())), FINE | {"call_id": "c-last"}]

    with Emitter(log, settings=Settings(linger_s=0.001), residency=HERE) as emitter:
        taken = [emitter.emit(cast(Any, event)) for event in events]
        assert emitter.flush()
        stats = emitter.stats()

    sent = [orjson.loads(one) for envelope in log.envelopes for one in envelope.lines()]
    assert taken == [True, False, False, False, False, False, True, True, True]
    assert stats.dropped == {"residency": 5}
    assert (stats.emitted, stats.appended, stats.invalid, stats.internal_errors) == (9, 9, 0, 0)
    assert [one["event"] for one in sent] == ["response", *["rejected"] * 7, "response"]
    assert sent[1] == {
        "event": "rejected",
        "rejected_at": sent[1]["rejected_at"],
        "source": "emitter",
        "size_bytes": len(line(OF_EU)),
        "sha256": hashlib.sha256(line(OF_EU)).hexdigest(),
        "reason": HERE.reason(CrossRegion("nordkyst-klinik", EU, US)),
        "tenant": "nordkyst-klinik",
        "region": EU,
        "refused_in": US,
    }
    assert not any(CANARY.encode() in envelope.value for envelope in log.envelopes)
    assert caplog.text.count(f"residency_refused region={EU} log_region={US}") == 1
    assert CANARY not in caplog.text


def _of(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in RequestEvent.model_fields}


def test_a_gates_reservation_hears_of_a_refused_event() -> None:
    class Reservation:
        heard: Sequence[Any] = ()

        def placed(self, position: Any) -> None:
            self.heard = [*self.heard, position]

    reservation = Reservation()
    with Emitter(MemoryLog(), settings=Settings(linger_s=0.001), residency=HERE) as emitter:
        emitter.emit(OF_EU, reservation)

    assert reservation.heard == [None]


def test_texts_do_not_leave_for_a_region_where_they_may_not_rest() -> None:
    content = MemoryLog()
    emitter = Emitter(
        MemoryLog(),
        settings=Settings(linger_s=0.001),
        reopen=lambda: content,
        keys=lambda: GivenKeys(RING.dump().decode()),
        residency=HERE,
    )

    with emitter:
        call = {"started_at": NOW, "request_model": "m"}
        for place in ({"region": US}, {"region": EU}, {"tenant": "nordkyst-klinik", "region": US}, {}):
            emitter.emit_content({"call_id": "c", **call, **place}, {"prompt": CANARY})
        assert emitter.flush()
        stats = emitter.stats().content

    assert stats.dropped == {"residency": 3}
    assert (stats.emitted, stats.appended) == (1, 1)


def test_a_call_in_a_service_goes_on_whatever_becomes_of_its_record(file: Path, tmp_path: Path) -> None:
    with connect(str(tmp_path / "data"), region=US, residency_file=file, gate=False) as tide:
        with tide.call(model="m", tenant="nordkyst-klinik", region=EU) as call:
            call.ask(CANARY)
            call.answer(text="Yes.")
        with tide.call(model="m", tenant="harbor-health"):
            pass
        assert tide.flush()
        stats = tide.stats()

    assert stats.dropped == {"residency": 1}
    assert stats.content.dropped == {"residency": 1}
    with SqliteLog(tmp_path / "data") as log:
        [record] = log.read(CALLS.name, 0, 0)
    assert [orjson.loads(one)["event"] for one in record.value.split(b"\n")] == ["rejected", "response"]


# --- the doors


def test_an_edge_refuses_line_by_line_and_keeps_none_of_them() -> None:
    asked: list[bytes] = []
    lines = [(number, line(event)) for number, event in enumerate((*EVENTS, rejected(), b"not json"), 1)]

    judged = judge(lines, "http", NOW, lambda one: asked.append(one), HERE)

    decoded = [decode_event(one) for one in judged.lines]
    told = [(one.tenant, one.region, one.refused_in) for one in decoded[1:6]]
    assert (judged.accepted, judged.rejected) == (2, REFUSED_CALLS + 1)
    assert [error["line"] for error in judged.errors] == [2, 3, 4, 5, 6, 8]
    assert told[:3] == [("nordkyst-klinik", EU, US), ("harbor-health", None, US), ("harbor-health", OTHER, US)]
    assert asked == [b"not json"]
    assert not any(CANARY.encode() in one for one in judged.lines)


def content(call_id: str = "c1", **fields: Any) -> bytes:
    event = {"event": "content", "call_id": call_id, "started_at": "2026-11-02T08:00:00Z", "mode": "sealed", "key_id": "k-1"}
    return orjson.dumps(event | {"sealed": seal(Texts(prompt=CANARY), call_id, KEY)} | fields)


CONTENT = (content("a", region=US), content("b", region=EU, tenant="nordkyst-klinik", user=CANARY), content("c", user=CANARY))


def test_the_door_for_content_puts_word_of_it_in_the_place_of_what_it_refuses() -> None:
    judged = allowed_here(list(enumerate(CONTENT, 1)), HERE, NOW)

    assert (judged.accepted, judged.rejected) == (1, 2)
    assert judged.lines[0] == CONTENT[0]
    assert [error["line"] for error in judged.errors] == [2, 3]
    assert all(decode_event(one).refused_in == US for one in judged.lines[1:])
    assert not any(b"sealed" in one or CANARY.encode() in one for one in judged.lines[1:])


@pytest.mark.parametrize("at_the_door", [True, False])
def test_guardrails_judge_none_of_it_and_hand_on_who_refused_it_under_its_number(at_the_door: bool) -> None:
    step = Partition(3, ("phi",), "tag", Sampling(), Alerting(), count().__next__, residency=None if at_the_door else HERE)
    lines = allowed_here(list(enumerate(CONTENT, 1)), HERE, NOW).lines if at_the_door else CONTENT

    sent = LogRecord.of(0, Envelope.of("svc", 40, lines[1:], schema=CONTENT_SCHEMA))
    jobs = step.take(sent, RING.opening, RING.fingerprint_key, NOW_S)
    outputs = step.finished(NOW_S)

    assert jobs == []
    assert outputs is not None
    [(headers, value)] = outputs.scored
    assert (headers["seq"], headers["count"]) == ("40", "2")
    found = [decode_event(one) for one in value.split(b"\n")]
    assert [(one.tenant, one.region, one.refused_in) for one in found] == [("nordkyst-klinik", EU, US), (None, None, US)]
    assert [one.sha256 for one in found] == [hashlib.sha256(one).hexdigest() for one in CONTENT[1:]]
    assert (outputs.quarantine, outputs.transcripts, outputs.dead_letters) == ([], [], [])
    assert CANARY.encode() not in value


def test_nobody_takes_a_rejected_event_for_content_but_of_what_was_refused_for_its_region() -> None:
    step = Partition(3, ("phi",), "tag", Sampling(), Alerting(), count().__next__)

    sent = LogRecord.of(0, Envelope.of("svc", 0, [line(rejected(reason=CANARY))], schema=CONTENT_SCHEMA))
    step.take(sent, RING.opening, RING.fingerprint_key, NOW_S)
    outputs = step.finished(NOW_S)

    assert outputs is not None
    assert CANARY.encode() not in outputs.scored[0][1]


# --- the meter


def metered(events: Sequence[Any], residency: Residency | None = HERE) -> tuple[MeterState, MeterOutputs]:
    state = MeterState(0, UsageState(ScopeSets(((), ("tenant",)))))
    return meter(state, [LogRecord.of(0, envelope("svc", 0, events))], BOOK, 86_400.0, residency)


def rows(out: Sequence[tuple[dict[str, str], bytes]]) -> list[dict[str, Any]]:
    return [orjson.loads(one) for _, value in out for one in value.split(b"\n")]


def test_the_meter_counts_nothing_of_what_it_refuses_and_keeps_no_line_of_it(tmp_path: Path) -> None:
    state, outputs = metered(EVENTS)

    letters = rows(outputs.dead_letters)
    assert [row["call_id"] for row in rows(outputs.metered)] == ["c-fine"]
    assert outputs.requests == []
    assert [letter["seq"] for letter in letters] == [1, 2, 3, 4, 5]
    assert all(letter["stage"] == "meter" and letter["reason"].startswith("residency: ") for letter in letters)
    assert CANARY not in str(letters)
    assert state.totals["residency"] == state.totals["dead_letters"] == REFUSED_CALLS
    assert sum(usage.counts[0] for usage in state.usage.live.values()) == sum(
        usage.counts[0] for usage in metered([FINE])[0].usage.live.values()
    )
    assert outputs.crossed[0] == CrossRegion("nordkyst-klinik", EU, US)
    assert not any(refused.line for refused in outputs.refused)
    assert Keeper(FolderKeys(tmp_path)).records(outputs.refused) == []


def test_a_verdict_of_another_region_is_no_finding_here() -> None:
    _, outputs = metered([scored(region=EU), scored(region=US)])

    assert [row["region"] for row in rows(outputs.findings)] == [US]


def test_what_an_edge_has_refused_is_told_of_by_the_meter_also_without_a_map() -> None:
    refused = judge([(1, line(OF_EU))], "http", NOW, residency=HERE).lines

    state, outputs = metered(refused, None)

    [letter] = rows(outputs.dead_letters)
    assert (letter["stage"], letter["source"], letter["sha256"]) == ("edge", "http", hashlib.sha256(line(OF_EU)).hexdigest())
    assert outputs.crossed == [CrossRegion("nordkyst-klinik", EU, US)]
    assert outputs.refused == []
    assert state.totals["residency"] == state.totals["rejected"] == 1


def test_without_a_map_all_is_metered_as_before() -> None:
    _, outputs = metered(EVENTS[:4], None)

    assert [row["call_id"] for row in rows(outputs.metered)] == ["c-fine", "c-eu", "c-untold", "c-unlisted"]
    assert outputs.crossed == []


@pytest.mark.parametrize(("untagged", "kept"), [("refuse", [FINE]), ("accept", [FINE, b"not json", UNTOLD])])
def test_no_dead_letter_is_kept_of_what_may_not_rest_here(tmp_path: Path, untagged: Any, kept: list[Any]) -> None:
    keeper = Keeper(FolderKeys(tmp_path), Residency(MAP.model_copy(update={"untagged": untagged}), US))
    FolderKeys(tmp_path).sealing("harbor-health")

    sealed = [event for event in (*EVENTS, b"not json", b"[1]") if keeper.seal(line(event)) is not None]

    assert [event for event in (FINE, b"not json", UNTOLD) if event in sealed] == kept
    assert OF_EU not in sealed
    assert UNLISTED not in sealed


# --- whoever must know


def test_one_alert_an_hour_tells_of_a_tenant_and_two_regions_and_how_often() -> None:
    refusals = Refusals(HERE)
    eu, untold = CrossRegion("nordkyst-klinik", EU, US), CrossRegion(None, None, US)

    [first, other] = refusals.tell([eu, eu, untold], NOW_MS)
    silent = refusals.tell([eu] * 5, NOW_MS + AGAIN_MS - 1)
    [again] = refusals.tell([eu], NOW_MS + AGAIN_MS)

    assert (first.kind, first.severity, first.key) == ("residency", "critical", f"residency|nordkyst-klinik|{EU}|{US}")
    assert "nordkyst-klinik" in first.title
    assert "(2 times)" in first.title
    assert other.key == f"residency|(none)|{UNTAGGED}|{US}"
    assert silent == []
    assert (again.key, again.at) == (first.key, (NOW_MS + AGAIN_MS) / 1_000)
    assert "(6 times)" in again.title
    assert refusals.counts == {}


def test_what_was_refused_in_the_hour_of_an_incident_that_ended_is_told_behind_it_once() -> None:
    refusals = Refusals(HERE)
    eu = CrossRegion("nordkyst-klinik", EU, US)
    refusals.tell([eu], NOW_MS)
    refusals.tell([eu] * 5, NOW_MS + 1)

    told = [refusals.tell([], NOW_MS + n * AGAIN_MS) for n in (1, 2, 3)]
    [anew] = refusals.tell([eu], NOW_MS + 4 * AGAIN_MS)

    assert [len(alerts) for alerts in told] == [1, 0, 0]
    assert "(5 times)" in told[0][0].title
    assert "(1 times)" in anew.title


def test_a_flush_that_is_tried_again_counts_and_tells_what_was_refused_once(tmp_path: Path, file: Path) -> None:
    settings = Settings(region=US, residency_file=file, fsync="normal")
    with closing(LocalLog(tmp_path, fsync="normal")) as log:
        log.append([envelope("svc", 0, EVENTS)])
    failing = iter([True, True, False])

    def at(step: str) -> None:
        if step == "3 append" and next(failing):
            raise OSError("disk full")

    with closing(MeterEngine(tmp_path, settings, at=at, clock_ms=lambda: NOW_MS)) as engine:
        for _ in range(2):
            with pytest.raises(OSError, match="disk full"):
                engine.run_once()
        assert engine.refusals.status() == []
        engine.run_once()
        refused = sum(one["refused"] for one in engine.refusals.status())
        alerts = rows([({}, one.value) for one in engine.log.read(ALERTS.name, 0, 0)])

    assert refused == REFUSED_CALLS
    assert {alert["title"].rpartition("(")[2] for alert in alerts} == {"1 times)", f"{REFUSED_CALLS - 2} times)"}


def test_what_was_told_and_not_written_is_told_again() -> None:
    refusals = Refusals(HERE)
    crossed = [CrossRegion("nordkyst-klinik", EU, US)]
    refusals.tell(crossed, NOW_MS)

    refusals.forget()
    [again] = refusals.tell(crossed, NOW_MS + 1)

    assert "(1 times)" in again.title


def test_alerts_and_labels_of_made_up_tenants_and_regions_have_an_end() -> None:
    refusals = Refusals(HERE)

    found = [CrossRegion(f"t-{n}", f"r-{n}", US) for n in range(3 * MOST_INCIDENTS)]

    alerts = refusals.tell(found, NOW_MS)
    refusals.wrote(found)

    assert len(alerts) <= MOST_INCIDENTS + 1
    assert refusals.counts == {(OTHER, OTHER, US): 3 * MOST_INCIDENTS}


# --- both engines


class Telling:
    """A wire that acknowledges at once, and remembers the rows."""

    def __init__(self) -> None:
        self.sent: dict[str, list[tuple[dict[str, str], bytes]]] = {}

    async def follow(self, *_: Any, **__: Any) -> Any:
        for nothing in ():
            yield nothing

    async def end(self, *_: Any, **__: Any) -> int:
        return 0

    async def send_rows(self, topic: Topic, _partition: int, records: Sequence[Any], *_: Any) -> list[asyncio.Future[Any]]:
        self.sent.setdefault(topic.name, []).extend(records)
        return []

    async def send_flush(self, *_: Any) -> asyncio.Future[Any]:
        found = asyncio.get_running_loop().create_future()
        found.set_result(type("Sent", (), {"offset": -1}))
        return found


def test_both_engines_refuse_the_same_and_tell_of_it_once(tmp_path: Path, file: Path) -> None:
    settings = Settings(region=US, residency_file=file, fsync="normal")
    sent = [envelope("svc", 0, EVENTS), envelope("svc", len(EVENTS), [OF_EU | {"call_id": "c-again"}])]
    folder = tmp_path / "data"
    with closing(LocalLog(folder, fsync="normal")) as log:
        log.append(sent)

    with closing(MeterEngine(folder, settings, clock_ms=lambda: NOW_MS)) as engine:
        while engine.run_once():
            pass
        status = engine.refusals.status()
    with SqliteLog(folder) as log:
        appended = log.read(CALLS.name, 0, 0)
        topics = (METERED, REQUESTS, DEAD_LETTERS, ALERTS)
        here = {topic.name: rows([({}, one.value) for one in log.read(topic.name, 0, 0)]) for topic in topics}
        kept = log.read(REFUSED.name, 0, 0)

    async def on_kafka() -> tuple[Telling, Refusals]:
        wire, refusals = Telling(), Refusals(residency_of(settings))

        def failed(error: BaseException) -> None:
            raise AssertionError from error

        one = MeterPartition(
            0, cast(Wire, wire), settings, BOOK, 1, WorkerMetrics("meter"), failed=failed, clock_ms=lambda: NOW_MS,
            keeper=Keeper.of(settings, folder), residency=residency_of(settings), refusals=refusals,
        )  # fmt: skip
        await one.load({})
        for record in appended:
            await one.take(CallRecord(record.offset, record.appended_ms, record.value, record.headers, lambda: None))
        await one.drain()
        await one.close()
        return wire, refusals

    wire, refusals = asyncio.run(on_kafka())

    there = {name: rows(wire.sent.get(name, [])) for name in here}
    assert here == there
    assert len(here[DEAD_LETTERS.name]) == REFUSED_CALLS + 1
    assert [alert["key"] for alert in here[ALERTS.name]] == [
        f"residency|nordkyst-klinik|{EU}|{US}",
        f"residency|harbor-health|{UNTAGGED}|{US}",
        f"residency|harbor-health|{OTHER}|{US}",
    ]
    assert kept == []
    assert REFUSED.name not in wire.sent
    assert refusals.status() == status
    assert {(one["tenant"], one["from"]): one["refused"] for one in status} == {
        ("nordkyst-klinik", EU): 4,
        (OTHER, UNTAGGED): 1,
        (OTHER, OTHER): 1,
    }
