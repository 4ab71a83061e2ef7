"""The plan of the topics on Kafka, who may use them, and what is told about how they are."""

from __future__ import annotations

import os
import shlex
import ssl
from pathlib import Path

import pytest
from tidegate.processors.distributed.acls import ROLES, acl_hints
from tidegate.processors.distributed.kafka_admin import FoundTopic
from tidegate.processors.distributed.topic_check import Problem, TopicCheck
from tidegate.processors.distributed.topic_plan import LIKE_CALLS, SINGLE, PlannedTopic, Rule, in_sync, plan
from tidegate.processors.topology import STEPS
from tidegate.producers.kafka_client import client_options
from tidegate.schemas.envelope import MAX_ENVELOPE_BYTES
from tidegate.schemas.errors import UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import (
    CALLS,
    GATES,
    GUARDRAILS_NAMES,
    INCIDENTS,
    METER_CHANGELOG,
    METERED,
    QUARANTINE,
    REFUSED,
    SIGNALS,
    TOPICS,
    USAGE,
    Topic,
)
from tidegate.topics_cli import topics_app
from typer.testing import CliRunner

URL = "kafka://broker-1:9092,broker-2/acme"


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def planned(topic: Topic, **numbers: int) -> PlannedTopic:
    return next(found for found in plan(**numbers) if found.topic == topic)


# the plan


def test_every_topic_of_the_pipeline_is_planned_once() -> None:
    names = [found.topic.name for found in plan()]

    assert sorted(names) == sorted([*TOPICS, METER_CHANGELOG.name, GUARDRAILS_NAMES.name])
    assert names[0] == CALLS.name


def test_what_a_meter_writes_has_the_partitions_of_what_it_reads() -> None:
    counts = {found.topic: found.partitions for found in plan(partitions=12, policy_partitions=3)}

    assert {topic for topic, count in counts.items() if count == 12} == {CALLS, *LIKE_CALLS}
    assert counts[USAGE] == 3
    assert {topic for topic, count in counts.items() if count == 1} == set(SINGLE)


def test_a_topic_is_compacted_when_its_last_word_must_stay() -> None:
    policies = {found.topic.name: found.config["cleanup.policy"] for found in plan()}

    assert policies.pop(METER_CHANGELOG.name) == "compact"
    assert policies.pop(SIGNALS.name) == "compact"
    assert policies.pop(INCIDENTS.name) == "compact"
    assert policies.pop(GATES.name) == "compact,delete"
    assert policies.pop(GUARDRAILS_NAMES.name) == "compact,delete"
    assert policies.pop(REFUSED.name) == "compact,delete"
    assert set(policies.values()) == {"delete"}


def test_nothing_goes_earlier_than_the_embedded_log_would_let_it_go() -> None:
    for found in plan():
        kept = found.config.get("retention.ms")
        if kept is not None and found.topic.retention_s is not None:
            assert int(kept) >= found.topic.retention_s * 1000, found.topic.name


def test_only_what_waits_sealed_for_a_person_is_bounded_in_bytes() -> None:
    bounded = {found.topic for found in plan() if found.config.get("retention.bytes", "-1") != "-1"}
    [rule] = [rule for rule in planned(QUARANTINE).rules if rule.name == "retention.bytes"]

    assert bounded == {QUARANTINE, REFUSED}
    assert rule.holds(str(1 << 20))
    assert not rule.holds("-1")


def test_an_envelope_its_rows_and_a_flush_fit_into_their_topics() -> None:
    sizes = {found.topic: int(found.config.get("max.message.bytes", 1_048_588)) for found in plan()}

    assert sizes[CALLS] >= 2 * MAX_ENVELOPE_BYTES
    assert sizes[METERED] >= 8 * MAX_ENVELOPE_BYTES
    assert int(planned(METER_CHANGELOG).config["segment.bytes"]) >= sizes[METER_CHANGELOG]


@pytest.mark.parametrize(("replication", "copies"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_a_record_is_on_two_disks_where_three_copies_are_kept(replication: int, copies: str) -> None:
    assert {found.config["min.insync.replicas"] for found in plan(replication=replication)} == {copies}


def test_every_number_has_its_reason() -> None:
    for found in plan():
        assert len({rule.name for rule in found.rules}) == len(found.rules), "a setting is there twice"
        assert all(len(rule.why) > 20 for rule in found.rules)


@pytest.mark.parametrize(
    ("bound", "value", "found", "holds"),
    [
        ("exactly", "compact,delete", "delete,compact", True),
        ("exactly", "compact", "delete", False),
        ("at least", "1000", "1000", True),
        ("at least", "1000", "999", False),
        ("at least", "1000", "-1", True),
        ("at least", "-1", "1000000", False),
        ("at least", "-1", "-1", True),
        ("at most", "1000", "1001", False),
        ("at most", "1000", "0", True),
        ("at most", "1000", "-1", False),
    ],
)
def test_a_value_that_is_as_good_is_fine(bound: str, value: str, found: str, holds: bool) -> None:
    assert Rule("retention.ms", value, "", bound).holds(found) is holds  # type: ignore[arg-type]


# the check


def found(partitions: int = 2, copies: int = 1, in_sync: int | None = None, leaderless: int = 0) -> FoundTopic:
    brokers = tuple(range(copies))
    return FoundTopic((brokers,) * partitions, (brokers[: copies if in_sync is None else in_sync],) * partitions, leaderless)


def problems(topic: Topic, config: dict[str, str] | None = None, brokers: int = 1, **topics: FoundTopic) -> list[Problem]:
    """What is said of one topic; `topics` are named without `acme.`, and those that are not given are as planned."""
    address = KafkaAddress.parse(URL)
    all_found = {address.topic(each.topic): found(2 if each.topic in {CALLS, *LIKE_CALLS} else 1) for each in plan(2)}
    all_found |= {f"acme.{name}": one for name, one in topics.items()}
    check = TopicCheck(Settings(url=URL), address, all_found, brokers)
    there = planned(topic, replication=all_found[address.topic(topic)].replication).config | (config or {})
    return list(check.of(planned(topic), there))


@pytest.mark.parametrize("topic", [each.topic for each in plan()], ids=lambda topic: topic.name)
def test_of_a_topic_that_is_as_planned_nothing_is_said(topic: Topic) -> None:
    assert problems(topic) == []


def test_too_few_partitions_are_told_with_the_command_that_adds_some() -> None:
    (problem,) = problems(METERED, calls=found(4))

    assert problem.topic == "acme.metered"
    assert "has 2 partitions, acme.calls has 4" in problem.what
    assert problem.remedy == (
        "kafka-topics.sh --bootstrap-server broker-1:9092,broker-2:9092 --alter --topic acme.metered --partitions 4"
    )


def test_too_many_partitions_are_told_as_harmless() -> None:
    (problem,) = problems(METERED, metered=found(4))

    assert "some will stay empty" in problem.what
    assert problem.remedy.endswith("--alter --topic acme.calls --partitions 4")


def test_a_topic_that_must_have_one_partition_cannot_be_mended_by_a_command() -> None:
    (problem,) = problems(SIGNALS, signals=found(3))

    assert "must have one" in problem.what
    assert "delete the topic" in problem.remedy


def test_a_wrong_setting_is_told_with_its_reason_and_the_command_that_mends_it() -> None:
    (problem,) = problems(GATES, {"cleanup.policy": "delete"})

    assert problem.what.startswith("cleanup.policy is delete, compact,delete is needed: ")
    assert shlex.split(problem.remedy)[-4:] == [
        "--entity-name",
        "acme.gates",
        "--add-config",
        "cleanup.policy=[compact,delete]",
    ]


def test_keeping_calls_longer_than_planned_is_nobodys_business() -> None:
    assert problems(CALLS, {"retention.ms": "-1"}) == []
    assert problems(CALLS, {"retention.ms": "3600000"}) != []


@pytest.mark.parametrize(
    ("copies", "in_sync_config", "brokers", "expected"),
    [
        (1, "1", 1, []),
        (1, "1", 3, ["one lost disk loses events"]),
        (2, "1", 2, []),
        (2, "2", 2, ["stops every write"]),
        (2, "1", 3, ["a second failure during a repair"]),
        (3, "2", 3, []),
        (3, "1", 3, ["at least 2 is needed"]),
        (3, "3", 3, ["stops every write"]),
        (1, "2", 1, ["stops every write"]),
    ],
)
def test_copies_are_enough_for_the_brokers_and_not_too_many_for_a_restart(
    copies: int, in_sync_config: str, brokers: int, expected: list[str]
) -> None:
    told = problems(CALLS, {"min.insync.replicas": in_sync_config}, brokers, calls=found(2, copies))

    assert len(told) == len(expected)
    assert all(words in problem.what for words, problem in zip(expected, told, strict=True))


def test_a_partition_without_a_leader_and_a_copy_that_is_behind_are_told() -> None:
    told = problems(CALLS, brokers=3, calls=found(2, copies=3, in_sync=2, leaderless=1))

    assert [problem.what for problem in told] == [
        "1 of its partitions have no leader",
        "2 of its partitions lack a copy that is in sync",
    ]


def test_a_broker_that_makes_topics_by_itself_is_told() -> None:
    check = TopicCheck(Settings(url=URL), KafkaAddress.parse(URL), {}, 2)
    fine = {"auto.create.topics.enable": "false", "log.cleaner.enable": "true"}

    told = list(check.brokers({"1": fine, "2": fine | {"auto.create.topics.enable": "true"}}, [1, 2]))

    assert [(problem.topic, problem.remedy) for problem in told] == [
        ("broker 2", "set auto.create.topics.enable=false in its server.properties and restart it")
    ]


def test_settings_that_may_not_be_looked_at_are_a_problem_and_not_silence() -> None:
    check = TopicCheck(Settings(url=URL), KafkaAddress.parse(URL), {"acme.calls": found()}, 1)

    of_topic, of_broker = list(check.of(planned(CALLS), None)), list(check.brokers({}, [1]))

    assert [problem.remedy for problem in (*of_topic, *of_broker)] == [
        "grant DescribeConfigs: tidegate topics acls --role operator"
    ] * 2


# who may do what


def test_every_step_may_read_and_write_what_the_topology_says() -> None:
    for step in STEPS:
        grants = ROLES[step.name]
        reads = {topic for grant in grants if "Read" in grant.operations for topic in grant.topics}
        writes = {topic for grant in grants if "Write" in grant.operations for topic in grant.topics}

        assert reads >= set(step.reads)
        assert writes >= set(step.writes)
        assert any(step.name in grant.groups for grant in grants)


def test_a_service_can_only_write_calls_and_a_gate_cannot_speak_for_policies() -> None:
    commands = {hint.role: " ".join(hint.commands) for hint in acl_hints(Settings(url=URL))}

    assert "--operation Write --topic acme.calls" in commands["service"]
    assert "Read" not in commands["service"]
    assert "--operation Write --topic acme.gates" in commands["gate"]
    assert "--operation Write --topic acme.signals" not in commands["gate"]
    assert "acme.calls" not in commands["gate"]


def test_a_principal_is_named_for_its_role_unless_told_otherwise() -> None:
    by_default = acl_hints(Settings(url=URL), roles=["meter"])
    certificate = acl_hints(Settings(url=URL), "User:CN={role},OU=llm", ["sink"])

    assert [hint.principal for hint in by_default] == ["User:tidegate-meter"]
    assert shlex.split(certificate[0].commands[0])[5] == "User:CN=sink,OU=llm"


def test_commands_for_a_cluster_with_logins_say_where_the_operators_is() -> None:
    settings = Settings(url=URL, kafka_security="SASL_SSL", kafka_username="me", kafka_password="s3cret")

    commands = [command for hint in acl_hints(settings) for command in hint.commands]

    assert all("--command-config admin.properties" in command for command in commands)
    assert not any("s3cret" in command for command in commands)


@pytest.mark.parametrize(
    ("principal", "role", "expected"),
    [("User:me", "metre", "no role is called metre; did you mean meter?"), ("me", "meter", "looks like User:tidegate-")],
)
def test_a_role_or_principal_that_is_none_is_told(principal: str, role: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        acl_hints(Settings(url=URL), principal, [role])


# how the brokers are spoken to


def test_a_password_and_a_certificate_reach_the_client(tmp_path: Path) -> None:
    settings = Settings(
        url=URL,
        service="triage",
        kafka_security="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-256",
        kafka_username="me",
        kafka_password="s3cret",
    )

    options = client_options(settings)

    context = options.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert options == {
        "bootstrap_servers": "broker-1:9092,broker-2:9092",
        "client_id": "tidegate-triage",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "me",
        "sasl_plain_password": "s3cret",
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kafka_security": "SASL_SSL"}, "set TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD"),
        ({"kafka_security": "SASL_PLAINTEXT", "kafka_username": "me"}, "TIDEGATE_KAFKA_PASSWORD"),
        ({"kafka_security": "SSL", "kafka_ca_file": "nowhere.pem"}, "TIDEGATE_KAFKA_CA_FILE.*No such file"),
        ({"kafka_security": "SSL", "kafka_ca_file": "empty.pem"}, "TIDEGATE_KAFKA_CA_FILE"),
        ({"kafka_security": "SSL", "kafka_cert_file": "empty.pem"}, "_CERT_FILE"),
        ({"url": "http://node:8400"}, "kafka://broker:9092"),
        ({"url": "kafka://me:s3cret@broker:9092"}, "TIDEGATE_KAFKA_USERNAME"),
    ],
)
def test_what_is_missing_or_wrong_is_named_by_its_setting(settings: dict[str, str], expected: str) -> None:
    Path("empty.pem").touch()

    with pytest.raises(UsageError, match=expected) as caught:
        client_options(Settings.read(**{"url": URL, **settings}))

    assert "s3cret" not in str(caught.value)


# the command line, as far as it asks no broker


def run(*arguments: str, url: str = URL) -> str:
    result = CliRunner().invoke(topics_app, list(arguments), env={"TIDEGATE_URL": url})
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_plan_is_shown_with_names_numbers_and_reasons() -> None:
    shown = " ".join(run("plan", "--partitions", "24", "--replication", "1").split())

    assert "acme.calls 24 partitions" in shown
    assert "retention.ms ≥ 3 d a long weekend" in shown
    assert "max.message.bytes ≥ 64 MiB one flush" in shown
    assert "min.insync.replicas ≥ 1" in shown


def test_the_commands_come_one_a_line_ready_for_a_shell() -> None:
    lines = run("acls", "--role", "service", "--role", "gate", "--principal", "User:{role} of ours").splitlines()

    commands = [shlex.split(line) for line in lines if not line.startswith("# ")]
    assert {command[0] for command in commands} == {"kafka-acls.sh"}
    assert {command[5] for command in commands} == {"User:service of ours", "User:gate of ours"}
    assert len(commands) == 3


def test_a_node_has_no_topics_of_kafka() -> None:
    with pytest.raises(UsageError, match="set TIDEGATE_URL to Kafka's address"):
        run("plan", url="http://node:8400")


def test_in_sync_is_a_rule_that_more_copies_fulfil() -> None:
    assert in_sync(3).holds("3")
    assert not in_sync(3).holds("1")
