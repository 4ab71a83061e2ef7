"""The command line, and the place where the rooms are put together."""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from tidegate.access_cli import access_app
from tidegate.alerts_cli import alerts_app
from tidegate.audit_cli import audit_app
from tidegate.console_cli import console, open_in_browser
from tidegate.dashboards.terminal import plain
from tidegate.db_cli import db_app
from tidegate.dlq_cli import dlq_app
from tidegate.evaluate_cli import evaluate
from tidegate.forget_cli import forget
from tidegate.guard_cli import score
from tidegate.incident_cli import incident_app
from tidegate.keys_cli import keys_app
from tidegate.models_cli import models_app
from tidegate.policy_cli import policy_app, signals_app
from tidegate.quarantine_cli import quarantine_app
from tidegate.query_cli import must_exist, query, shell
from tidegate.reconcile_cli import reconcile
from tidegate.reprice_cli import reprice
from tidegate.residency_cli import residency_app
from tidegate.running import Stopping, log_to_stderr, progress_bar
from tidegate.schemas.errors import TidegateError, UsageError
from tidegate.schemas.settings import Settings
from tidegate.topics_cli import topics_app
from tidegate.worker_cli import worker

if TYPE_CHECKING:
    from tidegate.processors.embedded.node import Node
    from tidegate.producers.emitter import Emitter
    from tidegate.producers.gate import Gate

app = typer.Typer(
    name="tidegate",
    help="Telemetry and guardrails for LLM applications: meter every call, ask ClickHouse, obey budgets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(access_app, name="access")
app.add_typer(alerts_app, name="alerts")
app.add_typer(audit_app, name="audit")
app.add_typer(db_app, name="db")
app.add_typer(incident_app, name="incident")
app.add_typer(keys_app, name="keys")
app.add_typer(policy_app, name="policy")
app.add_typer(signals_app, name="signals")
app.add_typer(topics_app, name="topics")
app.add_typer(models_app, name="models")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(dlq_app, name="dlq")
app.add_typer(residency_app, name="residency")
out = Console()
err = Console(stderr=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="URL", help="Send to a running node instead, e.g. http://host:8400")
]


class Shape(StrEnum):
    """How the status is shown: to a person, or to a program."""

    TABLE = "table"
    JSON = "json"


def main() -> NoReturn:
    """The console script: errors on purpose are one line and exit code 2."""
    try:
        app()
    except TidegateError as error:
        # What went wrong may hold brackets, a statement's or a file's: it is text, not markup.
        err.print("[bold red]tidegate:[/] " + escape(plain(str(error))), highlight=False, soft_wrap=True)
        sys.exit(2)
    sys.exit(0)


@app.command()
def up(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback needs TIDEGATE_TOKEN")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one")] = None,
    policies: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Policies to hold. Default: TIDEGATE_POLICY_FILE, or none")
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Also make simulated clinic traffic")] = False,
    rate: Annotated[float, typer.Option(help="Simulated calls a second")] = 20.0,
    open_: Annotated[
        bool, typer.Option("--open", help="Open the console in a browser; without a display, print its link")
    ] = False,
) -> None:
    """Run the node: take events, meter and price them, keep them in ClickHouse. Ctrl-C stops it.

    With TIDEGATE_URL=kafka://… the log is Kafka and workers do the metering (`tidegate worker`); the node takes events over
    HTTP, serves gates and people, and writes the store in its data folder, or leaves a server's (TIDEGATE_STORE) to workers.
    """
    log_to_stderr()
    settings = Settings.read(data_dir=data, host=host, port=port, policy_file=policies)
    if policies is not None and _on_kafka(settings):
        raise UsageError(
            "on Kafka the policies workers hold the policies: leave --policies out, and run"
            f" TIDEGATE_POLICY_FILE={policies} tidegate worker --role policies"
        )
    from tidegate.processors.undumped import leave_no_core

    if settings.guard:
        # The key ring is in here.
        leave_no_core()
    stopping = Stopping.on_signals()
    node = open_node(settings)
    traffic: threading.Thread | None = None
    try:
        with err.status("starting the node …"):
            node.start()
        where = escape(str(settings.data_dir))
        log = f", log {escape(settings.url)}" if _on_kafka(settings) else ""
        out.print(f"Tidegate listens on [bold]{node.url}[/], data in {where}{log}", highlight=False, soft_wrap=True)
        _show_console(node, open_, fresh=simulate)
        gates: list[Gate] = []
        if simulate:
            traffic = threading.Thread(target=_traffic, args=(settings, rate, stopping, gates), name="tidegate-traffic")
            traffic.start()
        _watch(node, stopping, gates)
    finally:
        stopping.set()
        if traffic is not None:
            traffic.join()
        with err.status("stopping: bringing what was accepted into the store …"):
            node.stop()
    if node.failure is not None:
        raise node.failure
    out.print("Stopped. Nothing accepted was lost; `tidegate up` carries on.", highlight=False)


def _show_console(node: Node, open_: bool, fresh: bool) -> None:
    """Where the console is, and a way in. A log keeps what it is told: links go to people alone, or to who asked for one.

    `fresh`: traffic begins now, so the console is to look at minutes.
    """
    look = "&range=15m" if fresh else ""
    if open_ and open_in_browser(node.console_link() + look):
        out.print("The console is open in the browser", highlight=False)
    elif open_ or out.is_terminal:
        out.print(Text(f"Console, once within ten minutes: {node.console_link()}{look}"), soft_wrap=True, highlight=False)
    else:
        out.print("`tidegate console` signs in to the console", highlight=False)


def open_node(settings: Settings) -> Node:
    """A node that is not yet started: on Kafka where TIDEGATE_URL is Kafka's address, otherwise on its data folder alone."""
    from tidegate.processors.embedded.node import Node

    if not _on_kafka(settings):
        return Node(settings.data_dir, settings)
    try:
        from tidegate.processors.distributed.node import KafkaBackend
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiokafka":
            raise
        raise UsageError("TIDEGATE_URL begins with kafka://, which needs aiokafka: pip install 'tidegate[kafka]'") from None
    # What it repeats at ERROR while a broker is away, the node says once.
    client_log = logging.getLogger("aiokafka")
    client_log.addHandler(logging.NullHandler())
    client_log.propagate = False
    return Node(settings.data_dir, settings, KafkaBackend)


def _on_kafka(settings: Settings) -> bool:
    return settings.url.lower().startswith("kafka://")


def _watch(node: Node, stopping: Stopping, gates: list[Gate]) -> None:
    """Show the node until it is told to stop or fails; a live panel on a terminal, a line now and then elsewhere. `gates` are
    those of simulated services."""
    from rich.live import Live
    from tidegate.dashboards.terminal import summary

    if not out.is_terminal:
        while not stopping.wait(0.2) and node.failure is None:
            pass
        return
    before, at = node.status()["totals"].get("events", 0), time.monotonic()
    with Live(summary(node.status(), 0.0), console=out, auto_refresh=False, transient=True) as live:
        while not stopping.wait(0.5) and node.failure is None:
            status = node.status()
            events, now = status["totals"].get("events", 0), time.monotonic()
            refused = sum(sum(gate.stats()["refused"].values()) for gate in gates) if gates else None
            live.update(summary(status, (events - before) / (now - at), refused), refresh=True)
            before, at = events, now


def _traffic(settings: Settings, rate: float, stopping: Stopping, gates: list[Gate]) -> None:
    from tidegate.producers.connect import connect
    from tidegate.producers.simulate import simulate

    with connect(settings.url if _on_kafka(settings) else str(settings.data_dir), service="simulated-clinic") as emitter:
        if (gate := emitter.gate) is not None:
            gates.append(gate)
        seed = secrets.randbelow(2**31)
        simulate(emitter, rate_per_s=rate, seed=seed, stop=stopping.is_set, content=True, gate=gate)


app.command()(worker)
app.command()(score)
app.command()(evaluate)


@app.command()
def replay(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Logs of calls, plain or .gz; - reads standard input")],
    data: DataOption = None,
    to: ToOption = None,
    speed: Annotated[str, typer.Option(help="max, or N for N times the recorded pace")] = "max",
    producer: Annotated[
        str | None, typer.Option(help="Producer identity. The default comes from a file's first line, so a file counts once")
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Files are complete: a torn last line is a dead letter, not awaited")
    ] = False,
    content: Annotated[bool, typer.Option(help="Send the lines' texts to the guardrails, as TIDEGATE_CONTENT says")] = True,
) -> None:
    """Publish logs of past calls through the real Emitter. A file replayed again changes nothing.

    Each line may be OpenAI-style, Anthropic-style or native JSON. Lines that cannot be read become dead letters. Prompts,
    answers and retrieved texts leave sealed, or not at all.
    """
    pace = _speed(speed)
    settings = Settings.read(data_dir=data)
    if to is not None and data is not None:
        raise UsageError("give either --data or --to, not both")
    if to is not None:
        from tidegate.producers.connect import connect

        report = _publish(files, lambda identity: connect(to, producer_id=identity), pace, producer, final, content)
        _tell(report, None)
        return

    from tidegate.processors.embedded.client import KafkaNodeFolder, OwnFolder, opened
    from tidegate.producers.connect import connect
    from tidegate.producers.emitter import Emitter
    from tidegate.producers.key_source import key_source
    from tidegate.producers.local_log import LocalLog
    from tidegate.schemas.residency_file import residency_of

    residency = residency_of(settings)
    with opened(settings.data_dir, settings) as folder:
        before = folder.status()["totals"]
        if isinstance(folder, OwnFolder):
            folder.pipeline.start()

        def emitter(identity: str) -> Emitter:
            if isinstance(folder, KafkaNodeFolder):
                return connect(folder.node.url, producer_id=identity, token=folder.node.token)
            return Emitter(
                LocalLog(settings.data_dir, fsync=settings.fsync),
                settings=settings,
                producer_id=identity,
                reopen=lambda: LocalLog(settings.data_dir, fsync=settings.fsync),
                keys=lambda: key_source(settings, settings.data_dir),
                residency=residency,
            )

        report = _publish(files, emitter, pace, producer, final, content)
        with progress_bar() as bar:
            task = bar.add_task("into the store", total=None)
            if isinstance(folder, OwnFolder):
                folder.pipeline.stop()
                if folder.pipeline.failure is not None:
                    raise folder.pipeline.failure
            folder.settle(lambda meter, sink: bar.update(task, description=f"into the store, {meter + sink} records to go"))
        after = folder.status()["totals"]
    _tell(report, {name: after.get(name, 0) - before.get(name, 0) for name in after})


def _speed(text: str) -> Any:
    if text == "max":
        return "max"
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"--speed {text}: give max, or a positive number such as 1 (as recorded) or 60 (a minute a second)")
    return factor


def _publish(
    files: list[str], open_emitter: Callable[[str], Emitter], speed: Any, producer: str | None, final: bool, content: bool
) -> Any:
    from tidegate.producers.replay import ReplayReport, replay, replay_files

    sizes = [Path(file).stat().st_size for file in files if file != "-" and Path(file).is_file()]
    total = sum(sizes) if len(sizes) == len(files) and not any(file.endswith(".gz") for file in files) else None
    with progress_bar() as bar:
        task = bar.add_task("publishing", total=total)

        def progress(report: ReplayReport) -> None:
            bar.update(task, completed=report.bytes, description=f"publishing, {report.lines:,} lines")

        emitters: list[Emitter] = []

        def kept(identity: str) -> Emitter:
            emitters.append(open_emitter(identity))
            return emitters[-1]

        if producer is None:
            report = replay_files(files, kept, speed=speed, progress=progress, final=final, content=content)
        else:
            emitter = kept(producer)
            try:
                report = replay(files, emitter, speed=speed, progress=progress, final=final, content=content)
                if not emitter.flush(60):
                    report.problems.append("the log has not taken everything in 60 s; replay again, nothing is counted twice")
            finally:
                emitter.close()
        _add_content(report, emitters)
        return report


def _add_content(report: Any, emitters: list[Emitter]) -> None:
    """What became of the lines' texts; those of calls that were known before are sent again, and judged once."""
    stats = [emitter.stats().content for emitter in emitters]
    report.texts = sum(told.appended for told in stats)
    dropped = sum((told.dropped for told in stats), Counter[str]())
    if dropped["no_key"]:
        report.problems.append(
            f"the texts of {dropped.pop('no_key'):,} calls were not sent: no key to seal them with; set TIDEGATE_KEY_FILE,"
            " or give --no-content"
        )
    if dropped.total():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
        report.problems.append(f"the texts of {dropped.total():,} calls were not sent ({reasons})")


def _tell(report: Any, became: dict[str, int] | None) -> None:
    """Account for every line."""
    out.print(
        f"{report.lines:,} lines read, {report.published:,} published, {report.rejected_lines:,} refused", highlight=False
    )
    if report.texts:
        out.print(f"{report.texts:,} calls' texts sent to the guardrails", highlight=False)
    for reason, count in sorted(report.rejected.items(), key=lambda item: -item[1])[:10]:
        out.print(f"  {count:,} × {reason}", highlight=False, markup=False)
    if became is not None:
        known = became.get("duplicates", 0)
        out.print(
            f"{became.get('responses', 0):,} new calls, {became.get('requests', 0):,} requests,"
            f" {became.get('rejected', 0) + became.get('dead_letters', 0):,} dead letters, {known:,} already known",
            highlight=False,
        )
        if known and known == report.lines:
            out.print("Every line was counted before. To count them again, give another --producer.", style="dim")
    for problem in report.problems:
        err.print(Text(plain(problem), style="yellow"), soft_wrap=True)
    if report.dropped:
        raise UsageError(f"{report.dropped:,} lines were dropped on the way; replay again, nothing is counted twice")


@app.command()
def simulate(
    data: DataOption = None,
    to: ToOption = None,
    rate: Annotated[float, typer.Option(help="Calls a second")] = 20.0,
    duration: Annotated[float | None, typer.Option(help="Seconds; without it, until Ctrl-C")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same traffic")] = None,
    content: Annotated[bool, typer.Option(help="Calls also say something, for the guardrails")] = True,
) -> None:
    """Make simulated clinic traffic: tenants, models, prompts, errors and outages, through the real Emitter."""
    from tidegate.producers.connect import connect
    from tidegate.producers.simulate import simulate as run

    if to is not None and data is not None:
        raise UsageError("give either --data or --to, not both")
    settings = Settings.read(data_dir=data)
    stopping = Stopping.on_signals()
    seed = secrets.randbelow(2**31) if seed is None else seed
    with (
        connect(to or str(settings.data_dir), service="simulated-clinic") as emitter,
        err.status(f"simulating {rate:g} calls a second; Ctrl-C stops"),
    ):
        run(emitter, rate_per_s=rate, duration_s=duration, seed=seed, stop=stopping.is_set, content=content)
    stats = emitter.stats()
    out.print(
        f"{stats.emitted:,} events emitted, {stats.appended:,} in the log, {stats.dropped.total():,} dropped", highlight=False
    )


app.command()(console)
app.command()(forget)
app.command()(query)
app.command()(reconcile)
app.command()(reprice)
app.command()(shell)


@app.command()
def status(
    data: DataOption = None,
    form: Annotated[Shape, typer.Option("--format", "-f", help="How to show it")] = Shape.TABLE,
) -> None:
    """Show what came in, what became of it, and what still waits."""
    from tidegate.dashboards.terminal import summary
    from tidegate.processors.embedded.client import opened

    settings = Settings.read(data_dir=data)
    must_exist(settings)
    with opened(settings.data_dir, settings) as folder:
        found = folder.status()
    if form is Shape.JSON:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE))
        return
    if not found["url"]:
        found["url"] = f"no node runs on {settings.data_dir}"
    out.print(summary(found))
