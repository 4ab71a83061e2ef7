"""`tidegate topics`: the topics on Kafka, as planned, made, held against the plan, and who may use them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.distributed import acls as roles
from tidegate.processors.distributed import topic_plan
from tidegate.schemas.errors import UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS

topics_app = typer.Typer(
    name="topics",
    help="The topics on Kafka: what is planned and why, make them, check them, and who needs which rights."
    " Where Kafka is says TIDEGATE_URL, such as kafka://broker:9092; TIDEGATE_KAFKA_* say how to get in.",
    no_args_is_help=True,
)
out = Console()
err = Console(stderr=True)

PartitionsOption = Annotated[
    int | None,
    typer.Option(
        "--partitions",
        "-p",
        metavar="N",
        help="Of calls and what is derived from it: the most meters and sinks that can share the work. They can be added"
        f" later, never taken away. Default: {topic_plan.PARTITIONS}",
    ),
]
PolicyPartitionsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help=f"Of usage: the most policies workers that can share the work. Default: {topic_plan.POLICY_PARTITIONS}",
    ),
]
ReplicationOption = Annotated[
    int | None,
    typer.Option(metavar="N", help=f"Copies of each record. Default: {topic_plan.REPLICATION}, or one a broker"),
]

_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1))
_MIB: Final = 1_048_576
_DIRECTIONS: Final = {"exactly": "", "at least": "≥ ", "at most": "≤ "}


@topics_app.command()
def plan(
    partitions: PartitionsOption = None, policy_partitions: PolicyPartitionsOption = None, replication: ReplicationOption = None
) -> None:
    """Show every topic as it should be, with the reason for each number. Asks no broker."""
    address = KafkaAddress.parse(Settings.read().url)
    planned = topic_plan.plan(
        partitions or topic_plan.PARTITIONS,
        policy_partitions or topic_plan.POLICY_PARTITIONS,
        replication or topic_plan.REPLICATION,
    )
    everywhere = set(planned[0].rules).intersection(*(topic.rules for topic in planned))
    for topic in planned:
        out.print(
            Text.assemble(
                (address.topic(topic.topic), "bold cyan"),
                f"  {_many_partitions(topic.partitions)}  ",
                (topic.role, "dim"),
            )
        )
        out.print(_rules(rule for rule in topic.rules if rule not in everywhere))
    out.print(Text("every topic", style="bold cyan"))
    out.print(_rules(rule for rule in planned[0].rules if rule in everywhere))
    out.print(Text("every broker", style="bold cyan"))
    out.print(_rules(topic_plan.BROKER_RULES))


def _rules(rules: Any) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(style="dim", overflow="fold")
    for rule in rules:
        table.add_row(f"  {rule.name}", _readable(rule), rule.why)
    return table


def _readable(rule: topic_plan.Rule) -> str:
    """A number with its unit, in the largest that divides it."""
    if not rule.value.lstrip("-").isdigit():
        return rule.value
    number, text = int(rule.value), rule.value
    if number == -1:
        return "no bound"
    if rule.name.endswith(".ms") and number:
        unit, size = next((unit, size) for unit, size in _UNITS if number % size == 0)
        text = f"{number // size} {unit}"
    elif rule.name.endswith(".bytes") and number % _MIB == 0:
        text = f"{number // _MIB} MiB"
    return _DIRECTIONS[rule.bound] + text


@topics_app.command()
def create(
    partitions: PartitionsOption = None, policy_partitions: PolicyPartitionsOption = None, replication: ReplicationOption = None
) -> None:
    """Make the topics that are missing, and leave the others as they are. Harmless when there is nothing to do."""
    settings, topics = Settings.read(), _topics()
    address = KafkaAddress.parse(settings.url)
    with err.status("making topics …"):
        made = _run(topics.create_topics(settings, partitions, policy_partitions, replication))
    for topic in made:
        out.print(Text.assemble("made ", (address.topic(topic.topic), "cyan"), f"  {_many_partitions(topic.partitions)}"))
    if not made:
        out.print(f"Every topic of {address.namespace} exists already; none was changed.", highlight=False, markup=False)
    asked = partitions is not None and not any(topic.topic == CALLS for topic in made)
    out.print(
        "`tidegate topics check` tells whether they are as planned."
        + (" A topic that exists keeps its partitions: docs/operations.md tells how to add some." if asked else ""),
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


@topics_app.command()
def check() -> None:
    """Is everything as planned? Every difference that loses, stops or slows something, and its remedy. Exit code 1 then."""
    settings, topics = Settings.read(), _topics()
    with err.status("looking at topics …"):
        problems = _run(topics.check_topics(settings))
    if not problems:
        out.print(f"All topics of {KafkaAddress.parse(settings.url).namespace} are as planned.", style="green", highlight=False)
        return
    name = None
    for problem in problems:
        if problem.topic != name:
            name = problem.topic
            out.print(Text(plain(name), style="bold cyan"))
        out.print(Text(f"  {plain(problem.what)}"), soft_wrap=True)
        out.print(Text(f"    {plain(problem.remedy)}", style="green"), soft_wrap=True)
    out.print(f"\n{len(problems)} thing{'' if len(problems) == 1 else 's'} to look at.", style="yellow", highlight=False)
    raise typer.Exit(1)


@topics_app.command()
def acls(
    principal: Annotated[
        str, typer.Option(metavar="USER", help="Who gets the rights; {role} stands for the role's name")
    ] = roles.PRINCIPAL,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help=f"Only this one of {', '.join(roles.ROLES)}")] = None,
) -> None:
    """Print the kafka-acls commands that give each role what it needs, and no more. Changes nothing by itself."""
    settings = Settings.read()
    for hint in roles.acl_hints(settings, principal, role or ()):
        out.print(Text(f"# {hint.role}: {hint.principal}", style="dim"), soft_wrap=True)
        for command in hint.commands:
            # To be copied or piped: no line of it may be broken or coloured.
            out.print(command, highlight=False, markup=False, soft_wrap=True)


def _many_partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _topics() -> Any:
    try:
        from tidegate.processors.distributed import topics
    except ModuleNotFoundError as error:
        raise UsageError(f"Kafka needs {error.name}: pip install 'tidegate[kafka]'") from None
    return topics


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    # What its log says of an address that does not answer is in our own error.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    return asyncio.run(work)
