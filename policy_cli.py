"""`tidegate policy` and `tidegate signals`: check policies, see what they say and why, and try them on past calls."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import orjson
import typer
from rich.console import Console
from rich.text import Text
from tidegate.running import moment
from tidegate.schemas.errors import UsageError
from tidegate.schemas.policy import POLICY_FIELDS, Policy, PolicySet, State, did_you_mean
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import POLICIES_KEY, decode_signal
from tidegate.schemas.topics import SIGNALS

policy_app = typer.Typer(
    name="policy",
    help="Budgets, rate limits, breakers and SLAs: check the file, see what is in force and why, try it on past calls.",
    no_args_is_help=True,
)
signals_app = typer.Typer(
    name="signals", help="What policies say now: ok, warn, throttle, downgrade, block.", no_args_is_help=True
)
out = Console()
err = Console(stderr=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file: YAML or TOML (docs/policies.md)")]

_SIGNAL: Final = b"signal|"
# The node looks for news this often, too: a person sees a block when a gate does.
_LOOK_S: Final = 0.2
_PAGE_ROWS: Final = 50_000


class Form(StrEnum):
    """How a dry run is told."""

    TABLE = "table"
    JSON = "json"


# policy check


@policy_app.command()
def check(file: FileArgument) -> None:
    """Is this file right, and what does each policy mean? Exit code 2 and every error with its line when it is not.

    Also tells what is allowed and yet may not be meant: a model nobody knows, a counter that tenants would share.
    """
    from tidegate.dashboards.policy_tables import meanings
    from tidegate.processors.policy_advice import advice
    from tidegate.processors.policy_file import read_policies
    from tidegate.processors.pricing import PriceBook

    found = read_policies(file)
    out.print(meanings(found))
    book, now = PriceBook.load(Settings.read().price_file), datetime.now(UTC)

    def has_price(model: str) -> bool:
        return book.price(None, None, None, model, None, now, 1, 1).status != "unpriced"

    listed = list(advice(found, has_price))
    if listed:
        out.print("\nLook at this again:", style="yellow")
        for name, sentence in listed:
            out.print(Text.assemble("  ", (name, "cyan"), f": {sentence}"), soft_wrap=True)
    out.print(
        f"\n{file} is valid: {_many(len(found.policies), 'policy', 'policies')},"
        f" {_many(len(found.request_limits), 'request limit', 'request limits')}, version {found.version}.",
        style="green",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


# policy list, policy explain


@policy_app.command("list")
def list_(data: DataOption = None) -> None:
    """The policies in force, and how many scopes each has in which state. Works with and without a running node."""
    from tidegate.dashboards.policy_tables import in_force

    with _Told(data) as told:
        states: dict[str, dict[State, int]] = {}
        for signal in told.signals:
            counts = states.setdefault(signal.policy, {})
            counts[signal.state] = counts.get(signal.state, 0) + 1
        if not told.policies.policies and not told.policies.request_limits:
            out.print("No policies are in force. Name a file in TIDEGATE_POLICY_FILE; docs/examples/policies.yaml shows how.")
            return
        out.print(in_force(told.policies, states))
        out.print(f"\nversion {told.policies.version}", style="dim", highlight=False)


@policy_app.command()
def explain(
    of: Annotated[
        str,
        typer.Argument(
            metavar="SCOPE|POLICY", help="A scope such as tenant=harbor-health,team=pharmacy, or the name of a policy"
        ),
    ],
    data: DataOption = None,
) -> None:
    """Why is this scope blocked, or how close is it? Rule, window, spend, limit, who spent it, forecast, reset.

    With a scope: every policy that speaks of its calls, harshest first. With a policy: all of its scopes.
    """
    with _Told(data) as told:
        if "=" in of:
            _explain_scope(told, _scope(of))
        else:
            _explain_policy(told, of)


def _scope(text: str) -> dict[str, str | None]:
    scope: dict[str, str | None] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in POLICY_FIELDS and not name.startswith("label."):
            raise UsageError(f"{part.strip()}: unknown field {name!r}; {did_you_mean(name, (*POLICY_FIELDS, 'label.<key>'))}")
        scope[name] = value or None
    return scope


def _explain_scope(told: _Told, scope: dict[str, str | None]) -> None:
    from tidegate.dashboards.policy_tables import explained, scopes
    from tidegate.dashboards.policy_words import limit_text, scope_text
    from tidegate.schemas.policy import SEVERITY

    def concerns(policy: Policy | None) -> bool:
        match = policy.match if policy else {}
        return all(scope[name] in values for name, values in match.items() if name in scope)

    candidates = [signal for signal in told.signals if concerns(told.by_name.get(signal.policy))]
    on_it = [signal for signal in candidates if signal.scope.items() <= scope.items()]
    below = [
        signal
        for signal in candidates
        if signal not in on_it
        and signal.state != "ok"
        and all(signal.scope.get(name, value) == value for name, value in scope.items())
        and scope.keys() & signal.scope.keys()
    ]
    for signal in sorted(on_it, key=lambda signal: -SEVERITY[signal.state]):
        out.print(explained(signal, told.by_name.get(signal.policy), time.time()))
    heard = {signal.policy for signal in on_it}
    for policy in told.policies.policies:
        if policy.name not in heard and set(policy.scope) <= scope.keys() and concerns(policy):
            limit = limit_text(policy, policy.limit_of(tuple(scope[name] for name in policy.scope)))
            out.print(Text.assemble((policy.name, "cyan"), f" has not spoken of it yet: nothing counted, limit {limit}"))
    if not on_it:
        out.print(Text(f"No policy has said anything about {scope_text(scope)}; its calls go.", style="green"))
    if below:
        out.print(Text(f"\nWithin {scope_text(scope)}, not fine:"))
        out.print(scopes(below, told.by_name))


def _explain_policy(told: _Told, name: str) -> None:
    from tidegate.dashboards.policy_tables import explained, scopes
    from tidegate.dashboards.policy_words import meaning, request_meaning

    bounds = {limit.name: limit for limit in told.policies.request_limits}
    policy = told.by_name.get(name)
    if policy is None and name not in bounds:
        known = [*told.by_name, *bounds]
        if not known:
            raise UsageError(f"no policies are in force, so none is called {name}; name a file in TIDEGATE_POLICY_FILE")
        raise UsageError(f"no policy in force is called {name}; {did_you_mean(name, known)}")
    if policy is None:
        out.print(Text.assemble((name, "cyan"), f"  {request_meaning(bounds[name])}"))
        return
    out.print(Text.assemble((name, "cyan"), f"  {meaning(policy)}"))
    signals = [signal for signal in told.signals if signal.policy == name]
    if not signals:
        out.print("It has not spoken of any scope yet: nothing that it counts has come.")
    elif len(signals) == 1:
        out.print(explained(signals[0], policy, time.time()))
    else:
        out.print(scopes(signals, told.by_name))


class _Told:
    """What the policies of a data folder have said: the set in force, and the last word on each scope."""

    def __init__(self, data: Path | None) -> None:
        self._log = _log(data)

    def __enter__(self) -> _Told:
        word = self._log.last(SIGNALS.name, 0, POLICIES_KEY)
        self.policies = PolicySet.model_validate_json(word.value) if word and word.value else PolicySet()
        self.by_name = {policy.name: policy for policy in self.policies.policies}
        self.signals = [decode_signal(record.value) for record in self._log.keyed(SIGNALS.name, 0, _SIGNAL) if record.value]
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()


def _log(data: Path | None) -> Any:
    from tidegate.producers.sqlite_log import SqliteLog

    settings = Settings.read(data_dir=data)
    if not SqliteLog.exists(settings.data_dir):
        raise UsageError(f"{settings.data_dir} holds no Tidegate data; give --data DIR, or start with `tidegate up`")
    return SqliteLog(settings.data_dir)


# policy dry-run


@policy_app.command("dry-run")
def dry_run(
    file: FileArgument,
    since: Annotated[
        str, typer.Option(help="How far back: 7d, 12h, or a day or time such as 2026-11-02 (UTC without a zone)")
    ] = "7d",
    until: Annotated[str | None, typer.Option(help="Up to when, written likewise. Default: now")] = None,
    data: DataOption = None,
    form: Annotated[Form, typer.Option("--format", "-f", help="table, or json with every change")] = Form.TABLE,
) -> None:
    """What would these policies have done with the calls you have? Warned, throttled, downgraded, blocked, reset, saved.

    Runs the node's own steps over the stored calls in the order of their time. A call that comes while its scope is
    blocked is refused: it is saved, and not counted. Nothing is written.
    """
    from tidegate.dashboards.policy_tables import dry_run as story
    from tidegate.dashboards.policy_tables import dry_run_json
    from tidegate.processors.dry_run import DryRun, StoredVerdict
    from tidegate.processors.embedded.client import OwnFolder, opened
    from tidegate.processors.policy_file import read_policies

    policies = read_policies(file)
    now = time.time()
    end = now if until is None else moment("--until", until, now)
    run = DryRun(policies, moment("--since", since, now))
    if run.since >= end:
        raise UsageError("--since must be before --until")
    settings = Settings.read(data_dir=data)
    _log(data).close()
    with opened(settings.data_dir, settings) as folder, err.status("reading calls …") as status:
        if isinstance(folder, OwnFolder):
            folder.settle(lambda meter, sink: status.update(f"catching up, {meter + sink} records to go"))
        made = _stored_calls(folder, run.reads_from, end)
        heard = _stored_verdicts(folder, run.reads_from, end) if run.wants_verdicts else iter(())
        for count, found in enumerate(heapq.merge(made, heard, key=attrgetter("heard_s"))):
            if isinstance(found, StoredVerdict):
                run.hear(found)
            else:
                run.feed(found)
            if count % 10_000 == 0:
                status.update(f"{count:,} calls, now at {datetime.fromtimestamp(found.heard_s, UTC):%Y-%m-%d %H:%M}")
    run.finish(end)
    if form is Form.JSON:
        sys.stdout.buffer.write(orjson.dumps(dry_run_json(run, policies, end), option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
        return
    out.print(story(run, policies, end))


_WORDS: Final = tuple(name for name in POLICY_FIELDS if name != "model")


def _stored_calls(folder: Any, since: float, until: float) -> Iterator[Any]:
    """The store's calls that started in [since, until), in the order of time, a page at a time."""
    from tidegate.processors.dry_run import StoredCall

    columns = [*map(_word, (*_WORDS, "response_model", "error_type")), "request_model", "labels"]
    columns += ["input_tokens", "output_tokens", "latency_s", "cost_nano_usd", "price_status"]
    return _rows(folder, StoredCall, "calls", "started_at", columns, since, until)


def _stored_verdicts(folder: Any, since: float, until: float) -> Iterator[Any]:
    """What was said by `until` of calls that started in [since, until), in the order in which it was said."""
    from tidegate.processors.dry_run import StoredVerdict

    # By the clock of who scored; a verdict is never told before its call began.
    heard = "greatest(scored_at, started_at)"
    columns = [*map(_word, (*_WORDS, "request_model", "response_model")), "outcome", "findings", "more_findings", "detectors"]
    columns += ["failed", f"toUnixTimestamp64Micro({heard}) AS heard_us"]
    return _rows(folder, StoredVerdict, "scored_calls", heard, columns, since, until)


def _word(name: str) -> str:
    return f"nullIf({name}, '') AS {name}"


def _rows(
    folder: Any, kind: type[Any], table: str, order: str, columns: Sequence[str], since: float, until: float
) -> Iterator[Any]:
    """Rows of calls that started in [since, until), as far as they come before `until` in this order, a page at a time."""
    decode = msgspec.json.Decoder(kind, strict=False).decode
    place = f"(toUnixTimestamp64Micro({order}), source_partition, source_offset, seq)"
    first_us, end_us = int(since * 1_000_000), int(until * 1_000_000)
    after: tuple[int, ...] = (first_us - 1, 0, 0, 0)
    shown = ", ".join(columns)
    while True:
        from_us = max(after[0], first_us)
        page = folder.query(
            f"SELECT call_id, toUnixTimestamp64Micro(started_at) AS at_us, source_partition, source_offset, seq, {shown}"
            # The first is what the tables are ordered by.
            f" FROM {table} WHERE started_at >= fromUnixTimestamp64Micro({from_us if order == 'started_at' else first_us})"
            f" AND {order} >= fromUnixTimestamp64Micro({from_us}) AND {order} < fromUnixTimestamp64Micro({end_us})"
            f" AND {place} > {after} ORDER BY {order}, source_partition, source_offset, seq LIMIT {_PAGE_ROWS}",
            "JSONEachRow",
        )
        found = [decode(line) for line in page.splitlines()]
        yield from found
        if len(found) < _PAGE_ROWS:
            return
        after = found[-1].place


# signals follow


@signals_app.command()
def follow(
    data: DataOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also the words that change no state: the spend of every busy scope, as it grows")
    ] = False,
) -> None:
    """Watch policies change their minds, live: first every scope that is not fine, then each change. Ctrl-C ends it."""
    log = _log(data)
    try:
        for line in _told_lines(_records(log), every):
            out.print(line, soft_wrap=True)
    except KeyboardInterrupt:
        pass
    finally:
        log.close()


def _records(log: Any) -> Iterator[Any]:
    """The signals topic from its start on, for ever."""
    position = 0
    while True:
        for record in log.read(SIGNALS.name, 0, position):
            position = record.offset + 1
            yield record
        _pause(_LOOK_S)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _told_lines(records: Iterable[Any], every: bool) -> Iterator[Text]:
    """One line for each word that is news."""
    from tidegate.dashboards.policy_tables import told

    states: dict[bytes, tuple[State, float | None]] = {}
    policies: dict[str, Policy] = {}
    version: str | None = None
    for record in records:
        key = record.key or b""
        if key == POLICIES_KEY and record.value:
            found = PolicySet.model_validate_json(record.value)
            policies = {policy.name: policy for policy in found.policies}
            if found.version != version:
                version = found.version
                yield Text(f"{_many(len(policies), 'policy', 'policies')} in force, version {version}", style="dim")
        elif key.startswith(_SIGNAL) and not record.value:
            if states.pop(key, ("ok", None))[0] != "ok":
                yield Text(f"taken back: {key[len(_SIGNAL) :].decode()}", style="dim")
        elif key.startswith(_SIGNAL):
            signal = decode_signal(record.value)
            previous, since = states.get(key, (None, None))
            states[key] = signal.state, signal.since
            # The same state anew is a further step: a warning at 80 % after the one at 50 %.
            if every or signal.state != (previous or "ok") or (signal.state != "ok" and signal.since != since):
                yield told(signal, previous or signal.state, policies.get(signal.policy))


def _many(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
