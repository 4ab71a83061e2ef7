"""A broker with TLS, passwords and an authoriser: our settings get in, and the printed rights are enough and no more."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition
from kafka_broker import needs_broker
from kafka_commands import run_kafka_command
from support import envelope, response
from tidegate.bench.kafka import broker as launcher
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.brake import GROUP
from tidegate.processors.distributed.acls import ROLES, acl_hints
from tidegate.processors.distributed.letters import KafkaLetters
from tidegate.processors.distributed.log_view import LogView
from tidegate.processors.distributed.quarantine import KafkaQuarantine
from tidegate.processors.distributed.topics import check_topics, create_topics
from tidegate.processors.distributed.wire import Wire
from tidegate.producers.kafka_client import client_options
from tidegate.producers.kafka_log import KafkaLog
from tidegate.schemas.errors import LogUnavailable, UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import GATES_KEY
from tidegate.schemas.topics import (
    ALERTS,
    AUDIT,
    CALLS,
    CONTENT,
    DEAD_LETTERS,
    FINDINGS,
    GATES,
    GUARDRAILS_NAMES,
    INCIDENTS,
    METER_CHANGELOG,
    METERED,
    PRICE_ROWS,
    QUARANTINE,
    REFUSED,
    REQUESTS,
    SIGNAL_ROWS,
    SIGNALS,
    TRANSCRIPTS,
    USAGE,
    USAGE_LEDGER,
    Topic,
)
from tidegate.sinks.clickhouse import Store

pytestmark = [pytest.mark.slow, needs_broker]

ALL: Final = {
    CALLS,
    INCIDENTS,
    CONTENT,
    METERED,
    REQUESTS,
    FINDINGS,
    TRANSCRIPTS,
    USAGE_LEDGER,
    PRICE_ROWS,
    DEAD_LETTERS,
    REFUSED,
    QUARANTINE,
    USAGE,
    METER_CHANGELOG,
    SIGNALS,
    GATES,
    SIGNAL_ROWS,
    ALERTS,
    AUDIT,
    GUARDRAILS_NAMES,
}
READS: Final = {
    "service": set(),
    "gate": {SIGNALS},
    "meter": {CALLS, METER_CHANGELOG, SIGNALS},
    "guardrails": {CONTENT, SIGNALS, GUARDRAILS_NAMES},
    "policies": {USAGE, GATES, METER_CHANGELOG, SIGNALS},
    "sink": {METERED, REQUESTS, FINDINGS, TRANSCRIPTS, DEAD_LETTERS, USAGE_LEDGER, PRICE_ROWS, SIGNAL_ROWS, ALERTS, AUDIT},
    "node": {SIGNALS, METER_CHANGELOG, INCIDENTS},
    "reviewer": {QUARANTINE},
    "mender": {CALLS, REFUSED},
    "auditor": {AUDIT},
    "notifier": {ALERTS, INCIDENTS},
    "on-call": {INCIDENTS},
    "operator": set(),
}
WRITES: Final = {
    "service": {CALLS, CONTENT},
    "gate": {GATES},
    "meter": {
        *(METERED, REQUESTS, FINDINGS, DEAD_LETTERS, REFUSED, USAGE_LEDGER, PRICE_ROWS, USAGE),
        *(METER_CHANGELOG, ALERTS, AUDIT),
    },
    "guardrails": {CALLS, TRANSCRIPTS, QUARANTINE, DEAD_LETTERS, ALERTS, GUARDRAILS_NAMES, AUDIT},
    "policies": {SIGNALS, SIGNAL_ROWS, ALERTS, AUDIT},
    "sink": {DEAD_LETTERS, AUDIT},
    "node": {CALLS, CONTENT, GATES, ALERTS},
    "reviewer": {CONTENT},
    "mender": {CALLS, DEAD_LETTERS, REFUSED},
    "auditor": set(),
    "notifier": {INCIDENTS, AUDIT},
    "on-call": {ALERTS},
    "operator": set(),
}
PASSWORD: Final = "correct-horse"
# A client that may not, is told at once; one that may, within a second or two.
PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker whose `outside` listener wants TLS, a name and a password; who comes by its plain one may do all."""

    inside: str
    outside: str
    ca_file: Path
    namespace: str

    def settings(self, user: str, **more: Any) -> Settings:
        return Settings(
            url=f"kafka://{self.outside}/{self.namespace}",
            kafka_security="SASL_SSL",
            kafka_sasl_mechanism="PLAIN",
            kafka_username=user,
            kafka_password=PASSWORD,
            kafka_ca_file=self.ca_file,
        ).model_copy(update=more)

    @property
    def as_operator_inside(self) -> Settings:
        return Settings(url=f"kafka://{self.inside}/{self.namespace}")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """With the topics made by the operator, and the printed rights given to everybody."""
    folder = tmp_path_factory.mktemp("secured")
    (port,) = launcher._free_ports(1)
    plain_properties = launcher._properties

    def properties(data: Path, inside: int, controller: int) -> str:
        return _with_door(plain_properties(data, inside, controller), port, _keystore(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "_properties", properties)
        broker = Broker(folder / "kafka").start()
    try:
        there = Secured(broker.bootstrap, f"127.0.0.1:{port}", folder / "ca.pem", f"test-{uuid4().hex[:8]}")
        hints = acl_hints(there.as_operator_inside)
        commands = [command for hint in hints for command in hint.commands]
        commands.append(_scram_user("tidegate-operator", there))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run_kafka_command, commands))
        asyncio.run(create_topics(there.settings("tidegate-operator"), partitions=1))
        yield there
    finally:
        broker.stop()


def _keystore(folder: Path) -> Path:
    """A key and a certificate that vouches for itself; the latter goes to clients as ca.pem."""
    keystore = folder / "broker.p12"
    common = ["-alias", "broker", "-keystore", str(keystore), "-storepass", PASSWORD]
    key = ["-keyalg", "EC", "-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1", "-validity", "2", "-storetype", "PKCS12"]
    subprocess.run(["keytool", "-genkeypair", *common, *key], check=True, capture_output=True)
    export = ["keytool", "-exportcert", "-rfc", *common, "-file", str(folder / "ca.pem")]
    subprocess.run(export, check=True, capture_output=True)
    return keystore


def _with_door(properties: str, port: int, keystore: Path) -> str:
    """The broker's properties with one more listener, and an authoriser that lets nobody else do anything."""
    users = " ".join(f'user_tidegate-{role}="{PASSWORD}"' for role in ROLES)
    lines = []
    for line in properties.splitlines():
        if line.startswith(("listeners=", "advertised.listeners=")):
            line += f",OUTSIDE://127.0.0.1:{port}"
        elif line.startswith("listener.security.protocol.map="):
            line += ",OUTSIDE:SASL_SSL"
        lines.append(line)
    outside = "listener.name.outside"
    return "\n".join(
        (
            *lines,
            "inter.broker.listener.name=PLAINTEXT",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            f"{outside}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
            f"{outside}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};",
            f"{outside}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
            f"{outside}.ssl.keystore.type=PKCS12",
            f"{outside}.ssl.keystore.location={keystore}",
            f"{outside}.ssl.keystore.password={PASSWORD}",
            "",
        )
    )


def _scram_user(name: str, there: Secured) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server {there.inside} --alter --entity-type users --entity-name {name}"
        f" --add-config SCRAM-SHA-512=[password={PASSWORD}-scram]"
    )


# getting in


def test_a_password_over_tls_gets_in_and_everything_is_as_planned(secured: Secured) -> None:
    assert asyncio.run(check_topics(secured.settings("tidegate-operator"))) == []


def test_a_scrambled_password_gets_in_as_well(secured: Secured) -> None:
    settings = secured.settings("tidegate-operator", kafka_sasl_mechanism="SCRAM-SHA-512", kafka_password=f"{PASSWORD}-scram")

    assert asyncio.run(check_topics(settings)) == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"kafka_password": "wrong"}, "Authentication failed"),
        ({"kafka_ca_file": None}, "certificate verify failed|CERTIFICATE_VERIFY_FAILED"),
        ({"kafka_security": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT"),
        ({"kafka_security": "SSL"}, "over SSL"),
    ],
    ids=["password", "certificate", "no TLS", "no name"],
)
# aiokafka leaves the connection that a broker closed on it to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_does_not_get_in_is_told_why_and_not_the_password(secured: Secured, wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(LogUnavailable, match=reason) as caught:
        asyncio.run(check_topics(secured.settings("tidegate-operator", **wrong)))

    assert PASSWORD not in str(caught.value)
    assert "TIDEGATE_KAFKA_" in str(caught.value)
    gc.collect()


# at work


def at_work(there: Secured, role: str, folder: Path) -> subprocess.Popen[bytes]:
    """A worker that logs in as its role; what it says goes into `folder`."""
    settings = there.settings(f"tidegate-{role}")
    environment = {
        "TIDEGATE_URL": settings.url,
        "TIDEGATE_KAFKA_SECURITY": settings.kafka_security,
        "TIDEGATE_KAFKA_SASL_MECHANISM": settings.kafka_sasl_mechanism,
        "TIDEGATE_KAFKA_USERNAME": f"tidegate-{role}",
        "TIDEGATE_KAFKA_PASSWORD": PASSWORD,
        "TIDEGATE_KAFKA_CA_FILE": str(there.ca_file),
        "TIDEGATE_WORKER_PORT": "0",
        "TIDEGATE_DATA_DIR": str(folder),
    }
    with (folder / f"{role}.out").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tidegate", "worker", "--role", role],
            env=os.environ | environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


async def heard(there: Secured, topic: Topic, key: bytes | None) -> Any:
    """The first record with this key, read by one who may read everything."""
    settings = there.as_operator_inside
    name = KafkaAddress.parse(settings.url).topic(topic)
    consumer = AIOKafkaConsumer(name, **client_options(settings), group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(90):  # three processes import chDB and Faust on a busy machine
            while (record := await consumer.getone()).key != key:
                pass
            return record
    finally:
        await consumer.stop()


def test_a_call_goes_all_the_way_with_every_role_under_its_own_login(secured: Secured, tmp_path: Path) -> None:
    log = KafkaLog(secured.settings("tidegate-service"))
    workers = {role: at_work(secured, role, tmp_path) for role in ("meter", "policies", "sink")}
    said = ""
    try:
        log.append([envelope("triage-1", 0, [response("call-1")])])
        row = json.loads(asyncio.run(heard(secured, METERED, None)).value)
        beat = asyncio.run(heard(secured, SIGNALS, GATES_KEY))
        passed = sink_has_passed(secured)
    finally:
        log.close()
        for worker in workers.values():
            worker.terminate()
        ended = {role: worker.wait(60) for role, worker in workers.items()}
        said = "\n".join((tmp_path / f"{role}.out").read_text() for role in workers)

    assert row["call_id"] == "call-1"
    assert beat.value
    assert passed
    assert ended == {"meter": 0, "policies": 0, "sink": 0}, said
    store = Store.open(path=tmp_path / "store")
    try:
        assert store.query("SELECT call_id FROM calls").rows == [("call-1",)]
    finally:
        store.close()


def sink_has_passed(there: Secured) -> bool:
    """Whether the sink gets to the end of the metered calls, as a node sees it."""
    settings = there.settings("tidegate-node")
    view, metered = LogView(settings), f"{KafkaAddress.parse(settings.url).topic(METERED)}/0"
    deadline = time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            steps = view.look().steps["sink"]
            if all(passed == end for passed, end in steps.values()) and steps[metered][1] > 0:
                return True
            time.sleep(0.2)
    finally:
        view.close()
    return False


# rights


async def allowed(work: Callable[[], Awaitable[Any]]) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await work()
    # The last is what an idempotent producer hears that may not write anywhere.
    except (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError):
        return False
    return True


async def writable(settings: Settings) -> set[Topic]:
    """To which topics this login can write, as an idempotent producer."""
    address, options = KafkaAddress.parse(settings.url), client_options(settings)

    async def write(topic: Topic) -> None:
        producer = AIOKafkaProducer(**options, enable_idempotence=True, acks="all")
        try:
            await producer.start()
            await producer.send_and_wait(address.topic(topic), b"value", key=b"key", partition=0)
        finally:
            await producer.stop()

    return {topic for topic in ALL if await allowed(lambda topic=topic: write(topic))}


async def readable(settings: Settings) -> set[Topic]:
    """From which topics this login can read."""
    address, options = KafkaAddress.parse(settings.url), client_options(settings)

    async def read(topic: Topic) -> None:
        # By name: with `assign`, aiokafka waits for ever for a topic that it may not see.
        consumer = AIOKafkaConsumer(address.topic(topic), **options, group_id=None, auto_offset_reset="earliest")
        try:
            await consumer.start()
            await consumer.getone()
        finally:
            await consumer.stop()

    return {topic for topic in ALL if await allowed(lambda topic=topic: read(topic))}


async def joins(settings: Settings, step: str) -> bool:
    """Whether this login can commit as a member of a step's group."""
    address = KafkaAddress.parse(settings.url)

    async def join() -> None:
        consumer = AIOKafkaConsumer(**client_options(settings), group_id=address.group(step), enable_auto_commit=False)
        try:
            await consumer.start()
            place = TopicPartition(address.topic(CALLS), 0)
            consumer.assign([place])
            await consumer.commit({place: 0})
        finally:
            await consumer.stop()

    return await allowed(join)


@pytest.fixture(scope="module")
def filled(secured: Secured) -> Secured:
    """With one record in every topic."""
    assert asyncio.run(writable(secured.as_operator_inside)) == ALL
    return secured


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_can_write_and_read_what_it_needs_and_nothing_else(filled: Secured, role: str) -> None:
    settings = filled.settings(f"tidegate-{role}")

    assert asyncio.run(writable(settings)) == WRITES[role]
    assert asyncio.run(readable(settings)) == READS[role]


def test_a_reviewer_lists_and_releases_and_others_are_told_which_rights_to_ask_for(filled: Secured) -> None:
    with closing(KafkaQuarantine(filled.settings("tidegate-reviewer"))) as quarantine:
        held = [one.place for one in quarantine.held()]
        released = quarantine.release(held)

    assert held
    assert released == len(held)
    for role in ("service", "node"):
        refused = KafkaQuarantine(filled.settings(f"tidegate-{role}"))
        with closing(refused), pytest.raises(UsageError, match=r"not allowed.*topics acls --role reviewer"):
            list(refused.held())


def test_a_mender_lets_meters_go_on_and_the_meter_hears_it(filled: Secured) -> None:
    with closing(KafkaLetters(filled.settings("tidegate-mender"))) as letters:
        letters.resume()
    others = KafkaLetters(filled.settings("tidegate-service"))
    with closing(others), pytest.raises(UsageError, match=r"not allowed.*topics acls --role mender"):
        list(others.kept())

    async def allowed_and_end() -> tuple[int, int]:
        wire = Wire(filled.settings("tidegate-meter"))
        return await wire.committed(GROUP, CALLS, 0), await wire.end(CALLS, 0)

    allowed, end = asyncio.run(allowed_and_end())
    assert allowed == end > 0


def test_a_step_can_join_its_own_group_and_no_other(filled: Secured) -> None:
    settings = filled.settings("tidegate-meter")

    assert asyncio.run(joins(settings, "meter"))
    assert not asyncio.run(joins(settings, "sink"))


def test_who_may_not_make_topics_is_told_which_rights_to_ask_for(secured: Secured) -> None:
    settings = secured.settings("tidegate-service", url=f"kafka://{secured.outside}/another")

    with pytest.raises(UsageError, match=r"not allowed to make another.*--role operator"):
        asyncio.run(create_topics(settings))


def test_who_may_not_look_at_settings_hears_that_and_not_that_all_is_well(filled: Secured) -> None:
    problems = asyncio.run(check_topics(filled.settings("tidegate-meter")))

    told = {problem.topic.partition(".")[2]: problem.what for problem in problems}
    assert told["calls"] == "its settings may not be looked at"
    assert told["gates"] == "is missing, or may not be seen"


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIDEGATE_") and name != "TIDEGATE_KAFKA_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
