"""`tidegate alerts`: the incidents that are open; seen, silenced and ended by people; and whether they can be told at all."""

from __future__ import annotations

import secrets
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors import incident_desk
from tidegate.processors.incident_desk import Desk
from tidegate.processors.incident_words import runbook_of, summary, trial_message
from tidegate.processors.incidents import Incident, Window
from tidegate.processors.on_call_file import MAINTENANCE, read_on_call
from tidegate.producers.audit_log import operator
from tidegate.producers.folder_audit import audit_of
from tidegate.schemas.errors import TidegateError, UsageError
from tidegate.schemas.policy import parse_duration
from tidegate.schemas.settings import Settings

alerts_app = typer.Typer(
    name="alerts",
    help="What is wrong now: incidents that budgets, breakers, guardrails and the pipeline have opened, who has seen them, and"
    " who is told. They lie in a data folder, or on Kafka where TIDEGATE_URL says so.",
    no_args_is_help=True,
)
out = Console()

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="WHO", help="Who says so. Default: the user this command runs as")
]
Numbers = Annotated[list[str], typer.Argument(metavar="NUMBER...", help="As `tidegate alerts list` shows them")]

# Nobody is asleep for longer; what should be still for longer is a policy to be changed.
_LONGEST_SILENCE_S: Final = 31 * 86_400
_STYLES: Final = {"critical": "bold red", "warning": "yellow"}


@alerts_app.command(name="list")
def list_open(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON")] = False,
) -> None:
    """Show the open incidents, the silences, and the messages that have not reached anybody yet."""
    with closing(desk_of(data)) as desk:
        incidents, windows, deliveries, where = desk.incidents(), desk.windows(), desk.deliveries(), desk.where
        given_up = desk.given_up()
    if as_json:
        sys.stdout.buffer.write(b"".join(msgspec.json.encode(incident) + b"\n" for incident in incidents))
        return
    if incidents:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for name in ("#", "since", "severity", "phase", "what"):
            table.add_column(name, no_wrap=name != "what", overflow="fold")
        for incident in incidents:
            table.add_row(
                str(incident.number),
                _clock(incident.opened_at),
                Text(incident.severity, style=_STYLES[incident.severity]),
                _phase(incident),
                Text(plain(summary(incident.alert))),
            )
        out.print(table)
    _say(f"{_count(len(incidents), 'incident')} open in {plain(where)}")
    for window in windows:
        _say(f"silenced until {_clock(window.until)}: {plain(_match(window))} ({plain(window.id)}{_by(window)})")
    for delivery in deliveries[:20]:
        why = f": {delivery.problem}" if delivery.problem else ""
        _say(f"not yet told to {plain(delivery.destination)}: {plain(delivery.message.title)}{plain(why)}")
    for gone in given_up:
        more = f" ({gone.count} such messages)" if gone.count > 1 else ""
        _say(f"never told to {plain(gone.destination)}: {plain(gone.title)}: {plain(gone.problem)}, {_clock(gone.at)}{more}")


@alerts_app.command()
def show(number: Annotated[str, typer.Argument(metavar="NUMBER")], data: DataOption = None) -> None:
    """Show all that is known of one incident, with its scope in full."""
    with closing(desk_of(data)) as desk:
        incident = incident_desk.find(desk.incidents(), number)
    alert = incident.alert
    facts: dict[str, Any] = {
        "incident": f"#{incident.number} {incident.key}",
        "state": f"{incident.severity}, {_phase(incident)}",
        "since": _clock(incident.opened_at),
        "last heard": _clock(incident.heard_at),
        "told": f"{_count(incident.times_told, 'time')}, last {_clock(incident.told_at)}" if incident.told_at else "not yet",
        "what": alert.title,
        "scope": ", ".join(f"{name}={value}" for name, value in alert.scope.items()),
        "resets": _clock(alert.resets_at) if alert.resets_at else "",
        "exhausted": _clock(alert.exhausted_at) if alert.exhausted_at else "",
        "most by": ", ".join(f"{value}" for one in alert.contributors for value in one.scope.values()),
        "owner": alert.owner or "",
        "runbook": runbook_of(alert, ""),
    }
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        if value:
            out.print(Text.assemble((f"{name:<{width}}", "dim"), plain(str(value))), soft_wrap=True)


@alerts_app.command()
def ack(numbers: Numbers, data: DataOption = None, by: ByOption = None) -> None:
    """Say that somebody has seen them: they are not told again, unless they get worse."""
    _each(numbers, data, by, incident_desk.acknowledged, "acknowledged")


@alerts_app.command()
def resolve(numbers: Numbers, data: DataOption = None, by: ByOption = None) -> None:
    """Say that they are over. The next bad word of the same opens a new one."""
    _each(numbers, data, by, incident_desk.resolved, "resolved")


def _each(numbers: list[str], data: Path | None, by: str | None, word: Any, done: str) -> None:
    who = by or operator()
    with closing(desk_of(data)) as desk:
        known = desk.incidents()
        found = [incident_desk.find(known, number) for number in numbers]
        _audit(data, f"incident.{done}", {"incidents": [incident.number for incident in found], "by": who})
        for incident in found:
            desk.say(word(incident, who, max(time.time(), incident.heard_at)))
    _say(f"{', '.join(f'#{incident.number}' for incident in found)} {done} by {plain(who)}")


@alerts_app.command()
def silence(
    match: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE...", help="kind, policy, severity or a scope's field; a value may end in *"),
    ],
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long: 90s, 30m, 2h, 1d")] = "1h",
    why: Annotated[str, typer.Option("--why", metavar="WORDS", help="What the others should know")] = "",
    data: DataOption = None,
    by: ByOption = None,
) -> None:
    """Tell nobody of incidents that fit all of this, for a while. What is still open then is told."""
    wanted = dict(_pair(one) for one in match)
    try:
        seconds = parse_duration(for_)
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
    if not isinstance(seconds, int) or not 0 < seconds <= _LONGEST_SILENCE_S:
        raise UsageError("--for: a silence lasts from a second to 31d")
    who, now, id_ = by or operator(), time.time(), f"silence-{secrets.token_hex(3)}"
    with closing(desk_of(data)) as desk:
        _audit(data, "incident.silenced", {"silence": id_, "fields": sorted(wanted), "for_s": seconds, "by": who})
        desk.say(incident_desk.silenced(id_, wanted, now, now + seconds, who, why))
    _say(f"silent until {_clock(now + seconds)}: {plain(', '.join(match))}; `tidegate alerts unsilence {id_}` takes it back")


@alerts_app.command()
def unsilence(
    silence_id: Annotated[str, typer.Argument(metavar="ID", help="As `tidegate alerts list` shows it")],
    data: DataOption = None,
    by: ByOption = None,
) -> None:
    """Take a silence back."""
    who = by or operator()
    if silence_id.startswith(MAINTENANCE):
        raise UsageError("that window is the on-call file's: take it out there")
    with closing(desk_of(data)) as desk:
        if silence_id not in {window.id for window in desk.windows()}:
            raise UsageError(f"there is no silence {silence_id}; `tidegate alerts list` shows those there are")
        _audit(data, "incident.unsilenced", {"silence": silence_id, "by": who})
        desk.say(incident_desk.unsilenced(silence_id, who, time.time()))
    _say(f"{plain(silence_id)} taken back")


@alerts_app.command(name="test")
def try_destinations(
    destinations: Annotated[
        list[str] | None, typer.Argument(metavar="[DESTINATION]...", help="Of the on-call file. Default: all of them")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="Default: TIDEGATE_ON_CALL_FILE")] = None,
) -> None:
    """Send a test message to destinations of the on-call file, and say which took it. Exit code 1 where one did not."""
    from tidegate.sinks.notify import deliver

    path = file or Settings.read().on_call_file
    if path is None:
        raise UsageError("no on-call file: set TIDEGATE_ON_CALL_FILE, or give --file")
    on_call = read_on_call(path)
    names = destinations or list(on_call.destinations)
    if unknown := [name for name in names if name not in on_call.destinations]:
        raise UsageError(f"{path} has no destination {unknown[0]}; it has {', '.join(on_call.destinations) or 'none'}")
    if not names:
        raise UsageError(f"{path} names no destinations, so nobody is told of anything")
    failed = 0
    for name in names:
        where = on_call.destinations[name]
        try:
            deliver(where.address(), trial_message(name, time.time()), alertmanager=where.alertmanager is not None)
            _say(f"{plain(name)}: taken; look whether it is there")
        except TidegateError as error:
            failed += 1
            _say(f"{plain(name)}: {plain(str(error))}")
    if failed:
        raise typer.Exit(1)


def desk_of(data: Path | None) -> Desk:
    """Where the incidents are. Raises `UsageError` where that is not told."""
    settings = Settings.read(data_dir=data)
    if data is None and settings.url.lower().startswith("kafka://"):
        from tidegate.processors.distributed.incident_desk import KafkaDesk

        return KafkaDesk(settings)
    from tidegate.processors.embedded.incident_desk import FolderDesk
    from tidegate.processors.folder_mark import kafka_of

    if (url := kafka_of(settings.data_dir)) is not None:
        raise UsageError(f"the incidents of {settings.data_dir} are on Kafka: set TIDEGATE_URL={url}, and leave out --data")
    return FolderDesk(settings.data_dir)


def _audit(data: Path | None, action: str, details: dict[str, Any]) -> None:
    settings = Settings.read(data_dir=data)
    audit_of(settings.data_dir, settings).append(action, details=details)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise UsageError(f"{text!r} is no FIELD=VALUE; write one such as tenant=harbor-health or policy=tenant-day")
    return name, value


def _phase(incident: Incident) -> str:
    if incident.phase == "acknowledged":
        return f"acknowledged by {plain(incident.acknowledged_by)}"
    settling = ", settling" if incident.well_since is not None else ""
    return f"{incident.phase}{settling}{', flapping' if incident.flapping else ''}"


def _match(window: Window) -> str:
    return ", ".join(f"{name}={value}" for name, value in window.match.items()) or "everything"


def _by(window: Window) -> str:
    return f", by {window.by}" if window.by else ""


def _clock(at: float | None) -> str:
    return "–" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _say(words: str) -> None:
    out.print(Text(words), soft_wrap=True)
