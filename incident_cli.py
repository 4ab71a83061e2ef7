"""`tidegate incident`: what a stretch of time looked like, for the post-mortem."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text
from tidegate.alerts_cli import desk_of
from tidegate.audit_cli import worker_logs
from tidegate.dashboards.terminal import plain
from tidegate.processors.folder import FolderLock, own_or_find
from tidegate.processors.folder_mark import kafka_of
from tidegate.processors.incident_desk import find
from tidegate.producers.folder_audit import audit_of
from tidegate.producers.key_source import FolderKeys, key_source
from tidegate.query_cli import asked, must_exist, write_whole
from tidegate.running import moment, progress_bar
from tidegate.schemas.errors import TidegateError, UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from tidegate.processors.audit_check import Ask
    from tidegate.processors.incident_facts import Names
    from tidegate.processors.incidents import Incident
    from tidegate.schemas.audit import Entry
    from tidegate.schemas.policy import PolicySet

incident_app = typer.Typer(
    name="incident",
    help="What happened, gathered for the post-mortem without a text or a user's name in it.",
    no_args_is_help=True,
)
out = Console()
err = Console(stderr=True)

# What led to an incident began before it.
_LEAD_S: Final = 900.0
_PACKAGES: Final = (
    *("tidegate", "aiokafka", "chdb", "clickhouse-connect", "faust-streaming", "genai-prices", "granian", "msgspec"),
    *("onnxruntime", "orjson", "presidio-analyzer", "pydantic", "starlette"),
)
# Of a status: numbers and states. Names in it are of policies' scopes and of destinations.
_STATUS: Final = (
    *("totals", "meter_lag_records", "guardrails_lag_records", "sink_lag_records", "backlog_bytes", "meters_stopped"),
    *("store_away", "log_away", "healthy", "quarantine", "dead_letters", "price_book"),
)
_GUARDRAILS: Final = (
    "state",
    "held_back",
    "outcomes",
    "findings",
    "failed",
    "restarts",
    "quarantined",
    "lost_records",
    "detectors",
)
_NOTIFIER: Final = ("incidents", "waiting", "sent", "failed", "given_up")


@incident_app.callback()
def _group() -> None:
    """One command so far, and a name that more of them will share."""


@incident_app.command()
def bundle(
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="incident.zip")],
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="3h, a day, or a time; needless with --incident")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="As --since. Default: now")] = None,
    incident: Annotated[
        str | None, typer.Option("--incident", metavar="NUMBER", help="Of this open incident alone, and of what was around it")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data"),
    ] = None,
) -> None:
    """Gather a redacted timeline: incidents, policies, costs, errors, findings, lags, versions and the audit log's proof.

    Holds no text of a call; people are keyed digests. Works while a node runs, while none does, and of a ClickHouse server.
    """
    from tidegate.dashboards.incident_bundle import About, archive, files, series_of
    from tidegate.processors.incident_facts import QUESTIONS, Names, facts, without_people

    if since is None and incident is None:
        raise UsageError("say from when on: --since 3h, or --incident NUMBER")
    if to.suffix != ".zip":
        raise UsageError(f"--out {plain(str(to))}: end its name with .zip")
    settings, now = Settings.read(data_dir=data), time.time()
    open_now, only = _open_now(data, settings), None
    if incident is not None:
        only = find(open_now, incident)
    start = moment("--since", since, now) if since is not None else (only.opened_at if only else now) - _LEAD_S
    end = moment("--until", until, now) if until is not None else now
    if not start < end:
        raise UsageError("--since must be before --until")
    key, lasting = _key(settings)
    names = Names(key)
    audit = audit_of(settings.data_dir, settings)
    file, file_problem = _policy_file(settings)
    with progress_bar() as bar, _ask(settings, catch_up=file_problem is None) as (ask, status):
        task = bar.add_task("asking the store", total=None)
        task_total = len(QUESTIONS) + 11

        def done(what: str) -> None:
            bar.update(task, total=task_total, advance=1, description=f"asked for {what.replace('_', ' ')}")

        proof, entries = _audited(settings, data, ask, start, end)
        found = facts(ask, names, start, end, entries, open_now, only.key if only else None, done)
        series = series_of(ask, start, end, done)
        about = About(
            made_at=datetime.fromtimestamp(now, UTC),
            where="a ClickHouse server" if settings.store else "a data folder",
            status=_status(status),
            versions={**_versions(), "clickhouse": ask("SELECT version() AS v").decode().split('"')[3]},
            policies=_policies(settings, names, entries, end, file) | {"file_problem": file_problem},
            policy_file=without_people(file, names) if file is not None else None,
            proof=proof,
            lasting_digests=lasting,
        )
    made = files(found, series, about)
    whole = archive(made)
    audit.append(
        "incident.exported",
        details={"since": round(start), "until": round(end), "sha256": hashlib.sha256(whole).hexdigest(), "files": len(made)},
    )
    write_whole(to, whole)
    _say(
        f"{len(found.episodes):,} incidents, {len(found.timeline):,} lines of timeline, {len(made):,} files in {plain(str(to))}"
    )


@contextmanager
def _ask(settings: Settings, *, catch_up: bool) -> Iterator[tuple[Ask, Callable[[], dict[str, Any]] | None]]:
    """A way to ask the store, and its status where somebody can tell it.

    Without `catch_up` a folder that no node has is asked as it stands: what its log holds is not judged without policies.
    """
    if settings.store is not None and not _is_folder(settings):
        from tidegate.sinks.clickhouse import Store

        with Store.open(dsn=settings.store, cluster=settings.store_cluster) as store:
            yield (lambda sql: store.query_bytes(sql, "JSONEachRow")), None
        return
    must_exist(settings)
    if not catch_up and isinstance(found := own_or_find(settings.data_dir), FolderLock):
        from tidegate.sinks.clickhouse import Store

        err.print(Text("of the store as it stands: what waits in the log is not in it", style="yellow"), soft_wrap=True)
        path = None if settings.store else settings.data_dir / "store"
        with found, Store.open(path=path, dsn=settings.store, cluster=settings.store_cluster) as store:
            yield (lambda sql: store.query_bytes(sql, "JSONEachRow")), None
        return
    with asked(settings) as folder:
        yield (lambda sql: folder.query(sql, "JSONEachRow")), folder.status


def _is_folder(settings: Settings) -> bool:
    return (settings.data_dir / "log.sqlite").exists() or kafka_of(settings.data_dir) is not None


def _open_now(data: Path | None, settings: Settings) -> list[Incident]:
    """Incidents that are open, for their numbers; none where they cannot be asked, which is said."""
    if settings.store is not None and not _is_folder(settings) and not settings.url.lower().startswith("kafka://"):
        return []
    try:
        with closing(desk_of(data)) as desk:
            return desk.incidents()
    except TidegateError as error:
        err.print(Text(f"without numbers of incidents: {plain(str(error))}", style="yellow"), soft_wrap=True)
        return []


def _key(settings: Settings) -> tuple[bytes, bool]:
    """What digests are keyed with, and whether it is the ring's own. Another one is made for this bundle and forgotten."""
    try:
        source = key_source(settings, settings.data_dir)
        if source is not None and not (isinstance(source, FolderKeys) and not source.path.exists()):
            return source.ring().fingerprint_key, True
    except UsageError as error:
        err.print(Text(f"digests of this bundle alone: {plain(str(error))}", style="yellow"), soft_wrap=True)
    return secrets.token_bytes(32), False


def _audited(settings: Settings, data: Path | None, ask: Ask, since: float, until: float) -> tuple[dict[str, Any], list[Entry]]:
    """The audit log's entries, and what shows that they are whole; what cannot be looked at from here is said."""
    from tidegate.processors.audit_check import check
    from tidegate.schemas.audit import Entry

    audit, remarks = audit_of(settings.data_dir, settings), []
    try:
        checked = check(audit, ask, worker_logs(settings, data))
    except TidegateError as error:
        remarks.append(f"the workers' logs were not looked at: {error}")
        checked = check(audit, ask)
    lines = audit.lines()[0] if _is_folder(settings) else []
    entries = [*(entry for line in lines if (entry := Entry.parse(line)) is not None), *checked.workers]
    last = checked.last
    return {
        "log": checked.log,
        "whole": last is not None and not checked.problems,
        "entries": checked.entries,
        "mark": f"{last.seq}:{last.hash}" if last is not None else None,
        "problems": [str(problem) for problem in checked.problems],
        "remarks": [*checked.remarks, *remarks],
    }, entries


def _status(ask: Callable[[], dict[str, Any]] | None) -> dict[str, Any] | None:
    """How it stands now, without names. None where nobody can tell."""
    try:
        told = ask() if ask is not None else None
    except TidegateError:
        return None
    if told is None:
        return None
    found: dict[str, Any] = {name: told[name] for name in _STATUS if name in told}
    for part, known in (("guardrails", _GUARDRAILS), ("notifier", _NOTIFIER)):
        found[part] = {name: told[part][name] for name in known if name in (told.get(part) or {})}
    return found


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _policies(settings: Settings, names: Names, entries: list[Entry], until: float, file: PolicySet | None) -> dict[str, Any]:
    """What was in force when, by its hash, and what is in force now."""
    from tidegate.processors.audit_events import IN_FORCE
    from tidegate.processors.incident_facts import without_people

    known = _in_force(settings, file)
    return {
        "now": without_people(known, names) if known is not None else None,
        "in_force": [
            {"at": entry.at, "actor": entry.actor, "details": entry.details}
            for entry in entries
            if entry.action == IN_FORCE and datetime.fromisoformat(entry.at).timestamp() < until
        ][-100:],
    }


def _in_force(settings: Settings, file: PolicySet | None) -> PolicySet | None:
    """As the folder's log has it, else as the file that the settings name."""
    from tidegate.producers.sqlite_log import SqliteLog
    from tidegate.schemas.policy import PolicySet
    from tidegate.schemas.signal import POLICIES_KEY
    from tidegate.schemas.topics import SIGNALS

    if SqliteLog.exists(settings.data_dir):
        with SqliteLog(settings.data_dir) as log:
            word = log.last(SIGNALS.name, 0, POLICIES_KEY)
        if word is not None and word.value:
            return PolicySet.model_validate_json(word.value)
    return file


def _policy_file(settings: Settings) -> tuple[PolicySet | None, str | None]:
    """What the file says, and which kind of error keeps it from being taken: a node goes on without it, and so does a bundle.

    The whole of the error may quote the file, which names people: it is told here, and not in the bundle.
    """
    from tidegate.processors.policy_file import read_policies

    if settings.policy_file is None:
        return None, None
    try:
        return read_policies(settings.policy_file), None
    except UsageError as error:
        err.print(Text(f"without the policy file: {plain(str(error))}", style="yellow"), soft_wrap=True)
        return None, type(error.__cause__ or error).__name__


def _say(words: str) -> None:
    out.print(Text(words), soft_wrap=True)
