"""`tidegate quarantine`: the sealed texts that nobody could judge; listed, looked at, judged again or dropped."""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.quarantine import Held, Place, Quarantine
from tidegate.producers.folder_audit import audit_of
from tidegate.schemas.content import ContentEvent
from tidegate.schemas.errors import Unreadable, UsageError
from tidegate.schemas.settings import Settings

quarantine_app = typer.Typer(
    name="quarantine",
    help="Sealed texts that nobody could judge: a detector of PHI failed on them, they ended the process that judged them, or"
    " they are not what they say. They lie in a data folder, or on Kafka where TIDEGATE_URL says so.",
    no_args_is_help=True,
)
out = Console()

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", "-r", metavar="WHY", help="Only these: phi_failed, crash, timeout, memory, tampered …")
]
TenantOption = Annotated[str | None, typer.Option("--tenant", "-t", metavar="TENANT", help="Only this tenant's")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, or all that --reason and --tenant leave")]
PlacesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[PLACE]...", help="Which, as `tidegate quarantine list` shows them: 0:17")
]

# A person reads so many lines; the rest is told in sums.
_SHOWN: Final = 100
# An audit entry names so many places; of more it tells how many.
_AUDITED_PLACES: Final = 1_000


@quarantine_app.command(name="list")
def list_held(
    data: DataOption = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show at most so many, the latest")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON")] = False,
) -> None:
    """Show what is held: since when, whose, why, and what failed. Never a text, nor anything sealed."""
    with closing(_quarantine(data)) as quarantine:
        reasons: Counter[str] = Counter()
        size = 0
        latest: list[tuple[int, Place, dict[str, Any]]] = []
        for held in _chosen(quarantine, reason, tenant):
            reasons[held.headers.get("reason", "")] += 1
            size += len(held.value)
            heapq.heappush(latest, (held.appended_ms, held.place, _facts(held)))
            if len(latest) > limit:
                heapq.heappop(latest)
        where = quarantine.where
    found = [facts for _, _, facts in sorted(latest, key=lambda one: one[:2])]
    if as_json:
        sys.stdout.buffer.write(b"".join(orjson.dumps(facts) + b"\n" for facts in found))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    names = ("place", "at", "tenant", "producer", "seq", "reason", "detector", "size_bytes")
    for name in names:
        # What a person types again, or looks up, is whole on any terminal.
        whole = name in ("place", "at", "reason", "seq", "size_bytes")
        right = name in ("seq", "size_bytes")
        table.add_column(name.removesuffix("_bytes"), justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for facts in found:
        table.add_row(*(Text(plain(_shown(facts[name]))) for name in names))
    if found:
        out.print(table)
    why = ", ".join(f"{count:,} {plain(name)}" for name, count in reasons.most_common())
    total = sum(reasons.values())
    more = f", the latest {len(found):,} shown" if len(found) < total else ""
    _say(f"{_texts(total)} in quarantine in {plain(where)}, {size:,} bytes{more}{f': {why}' if why else ''}")


@quarantine_app.command()
def show(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="As `tidegate quarantine list` shows it: 0:17")],
    data: DataOption = None,
    opening: Annotated[
        bool, typer.Option("--open", help="Also its texts, in the clear, on standard output; needs the key ring")
    ] = False,
) -> None:
    """Show what is known of one, and its texts where --open asks for them."""
    with closing(_quarantine(data)) as quarantine:
        held = quarantine.find(Place.parse(place))
    if held is None:
        raise UsageError(f"nothing is held at {plain(place)}; `tidegate quarantine list` shows what is")
    event = held.event
    said = {name.removesuffix("_bytes"): _shown(value) for name, value in {**_facts(held), **_of_call(event)}.items()}
    width = max(map(len, said)) + 2
    for name, value in said.items():
        out.print(Text.assemble((f"{name:<{width}}", "dim"), plain(value)), soft_wrap=True)
    if opening:
        _print_texts(held, data)


@quarantine_app.command()
def release(
    places: PlacesArgument = None,
    data: DataOption = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    everything: AllOption = False,
) -> None:
    """Have texts judged again: once a detector is mended, say. Each gets a verdict of its own beside the one it had."""
    with closing(_quarantine(data)) as quarantine:
        asked = _asked(quarantine, places, reason, tenant, everything)
        _tell_audit("quarantine.released", asked, data)
        released = quarantine.release(asked)
        stays = "" if quarantine.lets_go else "; what was held stays until its time is over, and released again is judged again"
    _say(f"{_texts(released)} will be judged again{stays}")
    _all_there(places, released)


@quarantine_app.command()
def drop(
    places: PlacesArgument = None,
    data: DataOption = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    everything: AllOption = False,
) -> None:
    """Let texts go unjudged, for good. Their verdicts, which say why, stay."""
    with closing(_quarantine(data)) as quarantine:
        asked = _asked(quarantine, places, reason, tenant, everything)
        _tell_audit("quarantine.dropped", asked, data)
        dropped = quarantine.drop(asked)
    _say(f"{_texts(dropped)} dropped")
    _all_there(places, dropped)


def _quarantine(data: Path | None) -> Quarantine:
    settings = Settings.read(data_dir=data)
    if data is None and settings.url.lower().startswith("kafka://"):
        from tidegate.processors.distributed.quarantine import KafkaQuarantine

        return KafkaQuarantine(settings)
    from tidegate.processors.embedded.quarantine import FolderQuarantine
    from tidegate.processors.folder_mark import kafka_of

    if (url := kafka_of(settings.data_dir)) is not None:
        raise UsageError(f"the texts of {settings.data_dir} are on Kafka: set TIDEGATE_URL={url}, and leave out --data")
    return FolderQuarantine(settings.data_dir)


def _chosen(quarantine: Quarantine, reason: str | None, tenant: str | None) -> Iterator[Held]:
    for held in quarantine.held():
        if reason is not None and held.headers.get("reason") != reason:
            continue
        if tenant is not None and ((event := held.event) is None or event.tenant != tenant):
            continue
        yield held


def _asked(
    quarantine: Quarantine, places: list[str] | None, reason: str | None, tenant: str | None, everything: bool
) -> list[Place]:
    if bool(places) == everything:
        raise UsageError("name places (tidegate quarantine list shows them), or give --all, perhaps with --reason or --tenant")
    if places:
        if reason is not None or tenant is not None:
            raise UsageError("--reason and --tenant choose among --all; places are what they are")
        return list(dict.fromkeys(Place.parse(place) for place in places))
    return [held.place for held in _chosen(quarantine, reason, tenant)]


def _all_there(places: list[str] | None, found: int) -> None:
    """Exit code 1 where a place that was named is empty."""
    if places and found < len({Place.parse(place) for place in places}):
        _say("the others are not there, or not any more")
        raise typer.Exit(1)


def _facts(held: Held) -> dict[str, Any]:
    event = held.event
    seq = held.headers.get("seq", "")
    return {
        "place": str(held.place),
        "at": held.at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00"),
        "tenant": event.tenant if event is not None else None,
        "producer": held.headers.get("producer", ""),
        "seq": int(seq) if seq.isdecimal() else None,
        "reason": held.headers.get("reason", ""),
        "detector": held.headers.get("detector", ""),
        "size_bytes": len(held.value),
    }


def _of_call(event: ContentEvent | None) -> dict[str, Any]:
    if event is None:
        return {"call": "not read by this version of Tidegate"}
    hidden = {"event", "mode", "sealed", "fingerprints", "tenant"}
    return {
        name: value for name in ContentEvent.model_fields if name not in hidden and (value := getattr(event, name)) is not None
    }


def _tell_audit(action: str, asked: list[Place], data: Path | None) -> None:
    """Write down which places somebody has done something to, before it is done."""
    if asked:
        settings = Settings.read(data_dir=data)
        told = [str(place) for place in asked[:_AUDITED_PLACES]]
        audit_of(settings.data_dir, settings).append(action, details={"texts": len(asked), "places": told})


def _print_texts(held: Held, data: Path | None) -> None:
    from tidegate.processors.undumped import leave_no_core
    from tidegate.producers.key_source import key_source
    from tidegate.producers.sealing import unseal

    leave_no_core()
    settings = Settings.read(data_dir=data)
    event = held.event
    keys = key_source(settings, None if settings.url.lower().startswith("kafka://") and data is None else settings.data_dir)
    if keys is None:
        raise UsageError("no key ring: set TIDEGATE_KEY_FILE")
    if event is None:
        raise UsageError("this version of Tidegate does not read the record")
    try:
        texts = unseal(event, keys)
    except Unreadable as error:
        raise UsageError(f"{error}; `tidegate keys check` says which ring this is") from None
    told = {"place": str(held.place), "call_id": event.call_id}
    audit_of(settings.data_dir, settings).append("quarantine.opened", event.tenant or "", told)
    for name, text in (("prompt", texts.prompt), ("response", texts.response), *(("context", one) for one in texts.context)):
        if text is not None:
            out.print(Text(f"\n{name}", style="bold"))
            out.print(Text(plain(text)), soft_wrap=True)


def _shown(value: Any) -> str:
    return "–" if value is None or value == "" else f"{value:,}" if isinstance(value, int) else str(value)


def _texts(count: int) -> str:
    return "1 text" if count == 1 else f"{count:,} texts"


def _say(words: str) -> None:
    out.print(Text(words), soft_wrap=True)
