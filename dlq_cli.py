"""`tidegate dlq`: the lines that were refused; listed, looked at, mended, metered after all, or dropped."""

from __future__ import annotations

import hashlib
import heapq
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.letters import Keeper, Letter, LetterId, Letters
from tidegate.producers.folder_audit import audit_of
from tidegate.producers.key_source import KeySource, key_source
from tidegate.schemas.audit import EVERYBODY
from tidegate.schemas.errors import Unreadable, UsageError
from tidegate.schemas.residency_file import residency_of
from tidegate.schemas.settings import Settings

dlq_app = typer.Typer(
    name="dlq",
    help="Dead letters: lines that the node's door or the meter refused. They are kept sealed for thirty days where there is a"
    " key ring, in a data folder, or on Kafka where TIDEGATE_URL says so; what became of each is in dead_letter_states.",
    no_args_is_help=True,
)
out = Console()

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", "-r", metavar="TEXT", help="Only those whose reason holds this")]
ProducerOption = Annotated[str | None, typer.Option("--producer", "-p", metavar="NAME", help="Only those of this producer")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, or all that --reason and --producer leave")]
LetterArgument = Annotated[str, typer.Argument(metavar="LETTER", help="As `tidegate dlq list` shows it: 0:17:4")]
LettersArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[LETTER]...", help="Which, as `tidegate dlq list` shows them: 0:17:4")
]

# A person reads so many lines; the rest is told in sums.
_SHOWN: Final = 100
# So many are written down in one audit entry, and held in the clear before they are replayed: 6 MB.
_AT_ONCE: Final = 100


@dlq_app.command(name="list")
def list_kept(
    data: DataOption = None,
    reason: ReasonOption = None,
    producer: ProducerOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show at most so many, the latest")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="As lines of JSON")] = False,
) -> None:
    """Show what is kept: since when, whose, and why it was refused. Nothing of what it says."""
    with closing(_letters(data)) as letters:
        reasons: Counter[str] = Counter()
        latest: list[tuple[int, tuple[int, int, int], dict[str, Any]]] = []
        for letter in _chosen(letters, reason, producer):
            reasons[letter.reason] += 1
            partition, offset, seq = letter.letter_id
            order = (partition, offset, -1 if seq is None else seq)
            heapq.heappush(latest, (letter.appended_ms, order, _facts(letter)))
            if len(latest) > limit:
                heapq.heappop(latest)
        where = letters.where
    found = [facts for _, _, facts in sorted(latest, key=lambda one: one[:2])]
    if as_json:
        sys.stdout.buffer.write(b"".join(orjson.dumps(facts) + b"\n" for facts in found))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    names = ("letter", "at", "stage", "producer", "size_bytes", "reason")
    for name in names:
        table.add_column(name.removesuffix("_bytes"), justify="right" if name == "size_bytes" else "left")
    for facts in found:
        table.add_row(*(Text(plain(_shown(facts[name]))) for name in names))
    if found:
        out.print(table)
    total = sum(reasons.values())
    more = f", the latest {len(found):,} shown" if len(found) < total else ""
    _say(f"{_count(total)} in {plain(where)}{more}")
    for why, count in reasons.most_common(10):
        _say(f"{count:>8,}  {plain(why)}")


@dlq_app.command()
def show(
    letter: LetterArgument,
    data: DataOption = None,
    opening: Annotated[
        bool, typer.Option("--open", help="Also the line, in the clear, on standard output; needs the key ring")
    ] = False,
) -> None:
    """Show what is known of one, and the line itself where --open asks for it."""
    with closing(_letters(data)) as letters:
        found = _found(letters, letter)
    for name, value in _facts(found).items():
        out.print(Text.assemble((f"{name.removesuffix('_bytes'):<10}", "dim"), plain(_shown(value))), soft_wrap=True)
    if opening:
        keys = _plaintext_keys(data)
        line = _opened(found, keys).decode(errors="replace")
        _tell_audit("letters.opened", data, _whose(found, keys), letter=str(found.letter_id))
        out.print()
        out.print(Text("\n".join(plain(part) for part in line.split("\n"))), soft_wrap=True)


@dlq_app.command()
def fix(
    letter: LetterArgument,
    data: DataOption = None,
    put: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Put a field in, or another value: JSON, or text")
    ] = None,
    taken: Annotated[list[str] | None, typer.Option("--unset", metavar="FIELD", help="Take a field out")] = None,
    anew: Annotated[
        Path | None, typer.Option("--with", metavar="FILE", help="The event as it should be, a line each; - is standard input")
    ] = None,
) -> None:
    """Mend one, in its place and sealed again. Only what the meter would take is a mend; `tidegate dlq replay` meters it."""
    from tidegate.processors.mending import changed, lines_of

    if (anew is None) == (not put and not taken):
        raise UsageError("say what is to change: --set FIELD=VALUE, --unset FIELD, or --with FILE for all of it")
    keys = _plaintext_keys(data)
    with closing(_letters(data)) as letters:
        found = _found(letters, letter)
        line = changed(_opened(found, keys), put or (), taken or ()) if anew is None else _content(anew)
        lines = lines_of(line)
        if wrong := _Judge(Settings.read(data_dir=data)).wrong(lines):
            raise UsageError(f"nothing was changed, it would be refused again: {wrong}")
        line = b"\n".join(lines)
        sealed = Keeper(keys).seal(line)
        if sealed is None:
            raise UsageError("it cannot be sealed again: it is too large, or the key ring does not seal (tidegate keys check)")
        mended = replace(found, size_bytes=len(line), sha256=hashlib.sha256(line).hexdigest(), sealed=sealed)
        _tell_audit("letters.fixed", data, _whose(mended, keys), letter=str(mended.letter_id))
        if not letters.fix(mended):
            raise UsageError(f"nothing is kept at {plain(letter)} any more")
    _say(f"{letter} is mended; `tidegate dlq replay {letter}` meters it")


@dlq_app.command()
def replay(
    chosen: LettersArgument = None,
    data: DataOption = None,
    reason: ReasonOption = None,
    producer: ProducerOption = None,
    everything: AllOption = False,
) -> None:
    """Meter them after all: those the meter takes now. Each counts once, however often it is replayed."""
    from tidegate.processors.mending import lines_of

    keys, judge = _plaintext_keys(data), _Judge(Settings.read(data_dir=data))
    replayed, wrong, whole = 0, Counter[str](), set[str]()

    def content(letter: Letter) -> list[bytes]:
        lines = lines_of(_opened(letter, keys))
        if (why := judge.wrong(lines)) is not None:
            raise UsageError(why)
        # Sent again, an envelope whose numbers cannot be read is a letter again: nobody else can tell the two apart.
        if everything and letter.letter_id.seq is None:
            if letter.sha256 in whole:
                raise UsageError("it holds the same bytes as one that was replayed; name it where both count")
            whole.add(letter.sha256)
        return lines

    with closing(_letters(data)) as letters:
        for some in _by_the_hundred(_asked(letters, chosen, reason, producer, everything)):
            taken: list[tuple[Letter, list[bytes]]] = []
            for letter in some:
                try:
                    taken.append((letter, content(letter)))
                except UsageError as error:
                    if chosen and len(chosen) == 1:
                        raise UsageError(f"{letter.letter_id}: {error}; see `tidegate dlq fix`") from None
                    wrong[str(error)] += 1
            if taken:
                _tell_audit("letters.replayed", data, letters=[str(letter.letter_id) for letter, _ in taken])
            replayed += sum(letters.replay(letter, lines) for letter, lines in taken)
    _say(f"{_count(replayed)} will be metered")
    for why, count in wrong.most_common():
        _say(f"{_count(count)} left: {plain(why)}")
    if wrong:
        raise typer.Exit(1)


@dlq_app.command()
def drop(
    chosen: LettersArgument = None,
    data: DataOption = None,
    reason: ReasonOption = None,
    producer: ProducerOption = None,
    everything: AllOption = False,
) -> None:
    """Let them go, for good. The rows that say why they were refused stay."""
    with closing(_letters(data)) as letters:
        dropped = 0
        for some in _by_the_hundred(_asked(letters, chosen, reason, producer, everything)):
            _tell_audit("letters.dropped", data, letters=[str(letter.letter_id) for letter in some])
            dropped += sum(map(letters.drop, some))
    _say(f"{_count(dropped)} dropped")


@dlq_app.command()
def resume(data: DataOption = None) -> None:
    """Let a meter go on that has stopped because it refused most lines: what waits now is metered, or becomes dead letters."""
    with closing(_letters(data)) as letters:
        _tell_audit("meter.resumed", data)
        waiting = letters.resume()
    _say(f"the meters go on; {waiting:,} records wait for them")


class _Judge:
    """What the meter would say now, with the prices and the residency map it has."""

    def __init__(self, settings: Settings) -> None:
        from tidegate.processors.pricing import PriceBook

        self._book, self._max_future_s = PriceBook.load(settings.price_file), settings.max_future_s
        self._residency = residency_of(settings)

    def wrong(self, lines: list[bytes]) -> str | None:
        from tidegate.processors.mending import still_wrong

        return still_wrong(lines, time.time_ns() // 1_000_000, self._book, self._max_future_s, self._residency)


def _on_kafka(settings: Settings, data: Path | None) -> bool:
    return data is None and settings.url.lower().startswith("kafka://")


def _letters(data: Path | None) -> Letters:
    settings = Settings.read(data_dir=data)
    if _on_kafka(settings, data):
        from tidegate.processors.distributed.letters import KafkaLetters

        return KafkaLetters(settings)
    from tidegate.processors.embedded.letters import FolderLetters
    from tidegate.processors.folder_mark import kafka_of

    if (url := kafka_of(settings.data_dir)) is not None:
        raise UsageError(f"the letters of {settings.data_dir} are on Kafka: set TIDEGATE_URL={url}, and leave out --data")
    return FolderLetters(settings.data_dir)


def _keys(data: Path | None) -> KeySource:
    settings = Settings.read(data_dir=data)
    keys = key_source(settings, None if _on_kafka(settings, data) else settings.data_dir)
    if keys is None:
        raise UsageError("no key ring: set TIDEGATE_KEY_FILE")
    return keys


def _plaintext_keys(data: Path | None) -> KeySource:
    """The ring, for a process that leaves nothing behind of what it opens."""
    from tidegate.processors.undumped import leave_no_core

    leave_no_core()
    return _keys(data)


def _opened(letter: Letter, keys: KeySource) -> bytes:
    try:
        return letter.opened(keys)
    except Unreadable as error:
        raise UsageError(f"{error}; `tidegate keys check` says which ring this is") from None


def _content(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from None


def _found(letters: Letters, name: str) -> Letter:
    letter = letters.find(LetterId.parse(name))
    if letter is None:
        raise UsageError(f"nothing is kept at {plain(name)}; `tidegate dlq list` shows what is")
    return letter


def _chosen(letters: Letters, reason: str | None, producer: str | None) -> Iterator[Letter]:
    for letter in letters.kept():
        if (reason is None or reason in letter.reason) and producer in (None, letter.producer):
            yield letter


def _asked(
    letters: Letters, names: list[str] | None, reason: str | None, producer: str | None, everything: bool
) -> Iterator[Letter]:
    """Those that were named, or all that were chosen. Raises `UsageError` before anything is done."""
    if bool(names) == everything:
        raise UsageError("name letters (tidegate dlq list shows them), or give --all, perhaps with --reason or --producer")
    if not names:
        return _chosen(letters, reason, producer)
    if reason is not None or producer is not None:
        raise UsageError("--reason and --producer choose among --all; letters are what they are")
    return iter([_found(letters, name) for name in dict.fromkeys(names)])


def _by_the_hundred(letters: Iterator[Letter]) -> Iterator[list[Letter]]:
    while some := list(islice(letters, _AT_ONCE)):
        yield some


def _whose(letter: Letter, keys: KeySource) -> str:
    """The tenant, by the key: what a refused line says of itself may be anything."""
    return keys.opening(letter.sealed.key_id).tenant or EVERYBODY


def _tell_audit(action: str, data: Path | None, subject: str = "", **details: Any) -> None:
    """Write down what somebody does to dead letters, before it is done."""
    settings = Settings.read(data_dir=data)
    audit_of(settings.data_dir, settings).append(action, subject, details)


def _facts(letter: Letter) -> dict[str, Any]:
    return {
        "letter": str(letter.letter_id),
        "at": letter.at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00"),
        "stage": letter.stage,
        "producer": letter.producer,
        "size_bytes": letter.size_bytes,
        "sha256": letter.sha256,
        "reason": letter.reason,
    }


def _shown(value: Any) -> str:
    return "–" if value is None or value == "" else f"{value:,}" if isinstance(value, int) else str(value)


def _count(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def _say(words: str) -> None:
    out.print(Text(words), soft_wrap=True)
