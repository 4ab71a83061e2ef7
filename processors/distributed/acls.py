"""Who may do what, at least: the `kafka-acls` commands for each role, ready to be run.

    service  ─ writes calls, content      policies ─ reads usage, gates, the meters' memory; writes what it says
    gate     ─ reads signals, writes gates    sink     ─ reads what goes to the store, writes dead letters
    meter    ─ reads calls; writes all that is derived from them, and its memory
    guardrails ─ reads content, and nobody else does, and signals; writes verdicts into calls, transcripts, quarantine, dead
                 letters, alerts; reads and writes the names that were met
    node     ─ what services and gates do, for those who come over HTTP; sees how far the steps are; shows incidents, and writes
               what people at its console say of them (with a store in its own folder it is a sink as well: run the sink's
               commands for the node's principal)
    reviewer ─ reads the quarantine, writes what is released into content
    mender   ─ a person with `tidegate dlq`: reads refused, writes calls and what became of a dead letter, lets meters go on
    auditor  ─ a person with `tidegate audit`: reads what the workers, which all write it, have told
    operator ─ makes, looks at and changes this namespace's topics; reads and writes no event

Read and Write bring Describe with them, and a producer that writes to a topic may be idempotent: neither is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...schemas.errors import UsageError
from ...schemas.kafka_url import KafkaAddress
from ...schemas.policy import did_you_mean
from ...schemas.settings import Settings
from ...schemas.topics import (
    ALERTS,
    AUDIT,
    CALLS,
    CONTENT,
    DEAD_LETTERS,
    GATES,
    GUARDRAILS_NAMES,
    INCIDENTS,
    METER_CHANGELOG,
    QUARANTINE,
    REFUSED,
    SIGNAL_ROWS,
    SIGNALS,
    TRANSCRIPTS,
    USAGE,
    Topic,
)
from ..brake import GROUP as BRAKE
from ..topology import GUARDRAILS, METER, NOTIFIER, POLICIES, SINK
from .kafka_tools import kafka_command

PRINCIPAL: Final = "User:tidegate-{role}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Operations on resources of one kind: topics, groups (both by full name), the namespace's topics or groups by its
    beginning, or the cluster."""

    operations: tuple[str, ...]
    topics: tuple[Topic, ...] = ()
    groups: tuple[str, ...] = ()
    whole_namespace: tuple[str, ...] = ()
    cluster: bool = False


@dataclass(frozen=True, slots=True)
class RoleCommands:
    """What one role needs, as commands for a person with the right to grant."""

    role: str
    principal: str
    commands: tuple[str, ...]


# Which step, or helper in a service, touches what; the roles that run as a step have the step's name.
ROLES: Final[dict[str, tuple[Grant, ...]]] = {
    "service": (Grant(("Write",), topics=(CALLS, CONTENT)),),
    "gate": (Grant(("Read",), topics=(SIGNALS,)), Grant(("Write",), topics=(GATES,))),
    METER.name: (
        Grant(("Read",), topics=(CALLS, METER_CHANGELOG, SIGNALS)),
        Grant(("Write",), topics=(*METER.writes, METER_CHANGELOG, AUDIT)),
        Grant(("Read",), groups=(METER.name,)),
        # Whether a person lets it go on.
        Grant(("Describe",), groups=(BRAKE,)),
    ),
    GUARDRAILS.name: (
        Grant(("Read",), topics=(CONTENT, SIGNALS, GUARDRAILS_NAMES)),
        Grant(("Write",), topics=(CALLS, TRANSCRIPTS, QUARANTINE, DEAD_LETTERS, ALERTS, GUARDRAILS_NAMES, AUDIT)),
        Grant(("Read",), groups=(GUARDRAILS.name,)),
    ),
    POLICIES.name: (
        Grant(("Read",), topics=(USAGE, GATES, METER_CHANGELOG, SIGNALS)),
        Grant(("Write",), topics=(SIGNALS, SIGNAL_ROWS, ALERTS, AUDIT)),
        # How many meters' memories there are.
        Grant(("Describe",), topics=(CALLS,)),
        Grant(("Read",), groups=(POLICIES.name,)),
    ),
    SINK.name: (
        Grant(("Read",), topics=SINK.reads),
        Grant(("Write",), topics=(DEAD_LETTERS, AUDIT)),
        Grant(("Read",), groups=(SINK.name,)),
    ),
    NOTIFIER.name: (
        Grant(("Read",), topics=(ALERTS, INCIDENTS)),
        Grant(("Write",), topics=(INCIDENTS, AUDIT)),
        Grant(("Read",), groups=(NOTIFIER.name,)),
    ),
    "on-call": (
        Grant(("Read",), topics=(INCIDENTS,)),
        Grant(("Write",), topics=(ALERTS,)),
    ),
    "node": (
        Grant(("Write",), topics=(CALLS, CONTENT, GATES, ALERTS)),
        Grant(("Read",), topics=(SIGNALS, METER_CHANGELOG, INCIDENTS)),
        Grant(("Describe",), topics=(USAGE, REFUSED, QUARANTINE, *SINK.reads)),
        Grant(("Describe",), groups=(METER.name, GUARDRAILS.name, POLICIES.name, SINK.name)),
    ),
    "reviewer": (
        Grant(("Read",), topics=(QUARANTINE,)),
        Grant(("Write",), topics=(CONTENT,)),
    ),
    "mender": (
        # To commit how far the meters may go is to read.
        Grant(("Read",), topics=(CALLS, REFUSED)),
        Grant(("Write",), topics=(CALLS, DEAD_LETTERS, REFUSED)),
        Grant(("Describe",), groups=(METER.name,)),
        Grant(("Read",), groups=(BRAKE,)),
    ),
    "auditor": (Grant(("Read",), topics=(AUDIT,)),),
    "operator": (
        Grant(("Create", "Describe", "DescribeConfigs", "Alter", "AlterConfigs"), whole_namespace=("topic",)),
        Grant(("Describe",), whole_namespace=("group",)),
        Grant(("Describe", "DescribeConfigs"), cluster=True),
    ),
}


def acl_hints(settings: Settings, principal: str = PRINCIPAL, roles: Sequence[str] = ()) -> list[RoleCommands]:
    """The commands for these roles, or for all. `{role}` in the principal stands for the role's name.

    Raises `UsageError` when a role is unknown, or the principal is none of Kafka's (`User:name`).
    """
    for role in roles:
        if role not in ROLES:
            raise UsageError(f"no role is called {role}; {did_you_mean(role, list(ROLES))}")
    kind, found, name = principal.partition(":")
    if not (kind and found and name):
        raise UsageError(f"a principal of Kafka looks like {PRINCIPAL}, not {principal}")
    address = KafkaAddress.parse(settings.url)
    hints = []
    for role in roles or ROLES:
        who = principal.replace("{role}", role)
        hints.append(RoleCommands(role, who, tuple(_command(settings, address, who, grant) for grant in ROLES[role])))
    return hints


def _command(settings: Settings, address: KafkaAddress, principal: str, grant: Grant) -> str:
    arguments = ["--add", "--allow-principal", principal]
    for operation in grant.operations:
        arguments += ["--operation", operation]
    for topic in grant.topics:
        arguments += ["--topic", address.topic(topic)]
    for step in grant.groups:
        arguments += ["--group", address.group(step)]
    for kind in grant.whole_namespace:
        # With the dot, so that `tide` does not get what is `tidegate`'s.
        arguments += ["--resource-pattern-type", "prefixed", f"--{kind}", f"{address.namespace}."]
    if grant.cluster:
        arguments += ["--cluster"]
    return kafka_command(settings, "kafka-acls", arguments)
