"""`tidegate query` and `tidegate shell`: the store, asked in SQL; one statement, or a conversation."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
from rich.console import Console
from rich.text import Text
from tidegate.dashboards.terminal import Answer, plain
from tidegate.processors.folder_mark import kafka_of
from tidegate.running import log_to_stderr, progress_bar
from tidegate.schemas.errors import MeterStopped, TidegateError, UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from tidegate.processors.embedded.client import Folder

out = Console()
err = Console(stderr=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]


class Form(StrEnum):
    """How an answer is printed or written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    MARKDOWN = "markdown"
    PARQUET = "parquet"
    ARROW = "arrow"


# As texts: a Decimal or a 64-bit number read as JSON's would lose its last digits.
_WIRE: Final = {
    Form.TABLE: "JSONCompactStrings",
    Form.JSON: "JSONEachRow",
    Form.CSV: "CSVWithNames",
    Form.TSV: "TabSeparatedWithNames",
    Form.MARKDOWN: "Markdown",
    Form.PARQUET: "Parquet",
    Form.ARROW: "Arrow",
}
_BINARY: Final = frozenset({Form.PARQUET, Form.ARROW})


def query(
    sql: Annotated[
        str,
        typer.Argument(
            help='One read-only statement, e.g. "SELECT model, sum(cost_usd) FROM calls GROUP BY model"; - reads it from'
            " standard input"
        ),
    ],
    data: DataOption = None,
    form: Annotated[Form, typer.Option("--format", "-f", help="How to give the answer")] = Form.TABLE,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the answer to a file, whole or not at all")
    ] = None,
) -> None:
    """Ask the store in SQL. Works the same while a node runs and while none does."""
    settings = Settings.read(data_dir=data)
    must_exist(settings)
    if to is not None and form is Form.TABLE:
        raise UsageError("a table is for people; give --out together with --format csv, json, tsv, markdown, parquet or arrow")
    if to is None and form in _BINARY and sys.stdout.isatty():
        raise UsageError(f"{form.value} is not for a terminal; give --out FILE, or pipe it on")
    statement = sys.stdin.read() if sql == "-" else sql
    with asked(settings) as folder:
        found = folder.query(statement, _WIRE[form])
    if to is not None:
        write_whole(to, found)
        err.print(f"{len(found):,} bytes in {plain(str(to))}", style="dim", highlight=False, markup=False)
    else:
        _show(found, form)


def shell(data: DataOption = None) -> None:
    """Talk SQL with the store: history, completion of names, several lines up to the semicolon. \\? helps, Ctrl-D ends.

    From a pipe it answers one statement after another.
    """
    settings = Settings.read(data_dir=data)
    must_exist(settings)
    with asked(settings) as folder:
        talk = _Talk(folder)
        if not sys.stdin.isatty():
            failed = 0
            for statement in _statements(sys.stdin.read()):
                failed += not talk.answer(statement)
            if failed:
                raise UsageError(f"{failed} of the statements could not be answered")
            return
        if _is_own(folder):
            out.print("No node runs here: until this shell ends, none can start on the folder.", style="dim")
        out.print("One statement up to its semicolon; \\? helps, Ctrl-D ends.", style="dim", highlight=False)
        for statement in _typed(settings.data_dir, folder):
            if not talk.command(statement):
                talk.answer(statement)


def must_exist(settings: Settings) -> None:
    """Raise `UsageError` where there is no data folder to ask."""
    if not (settings.data_dir / "log.sqlite").exists() and kafka_of(settings.data_dir) is None:
        raise UsageError(f"{settings.data_dir} holds no Tidegate data; give --data DIR, or start with `tidegate up`")


@contextmanager
def asked(settings: Settings) -> Iterator[Folder]:
    """The folder, with everything that waits in its log brought into the store first."""
    from tidegate.processors.embedded.client import OwnFolder, opened

    # What the meter says meanwhile must not stand among the answer's rows.
    log_to_stderr()
    with opened(settings.data_dir, settings) as folder:
        if isinstance(folder, OwnFolder):
            with progress_bar() as bar:
                task = bar.add_task("catching up", total=None)
                try:
                    folder.settle(
                        lambda meter, sink: bar.update(task, description=f"catching up, {meter + sink} records to go")
                    )
                except MeterStopped as stopped:
                    # What is in the store can be asked all the same.
                    err.print(Text(str(stopped), style="yellow"), soft_wrap=True)
        yield folder


def _is_own(folder: Folder) -> bool:
    from tidegate.processors.embedded.client import OwnFolder

    return isinstance(folder, OwnFolder)


def write_whole(path: Path, found: bytes) -> None:
    """Write a file whole or not at all. Raises `UsageError`."""
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.write_bytes(found)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _show(found: bytes, form: Form) -> None:
    if form is not Form.TABLE:
        sys.stdout.buffer.write(found)
        sys.stdout.buffer.flush()
        return
    table = orjson.loads(found)
    out.print(Answer([c["name"] for c in table["meta"]], [c["type"] for c in table["meta"]], table["data"]), crop=False)
    out.print(f"{len(table['data']):,} row{'' if len(table['data']) == 1 else 's'}", style="dim", highlight=False)


# ---- the conversation

_HELP: Final = """\\d            tables and views, and how many rows they have
\\d NAME       the columns of one
\\f FORMAT     print answers as table, json, csv, tsv or markdown
\\q            end, as Ctrl-D does
docs/analysts.md has the views that answer the first questions."""
_TABLES: Final = (
    "SELECT name, engine, total_rows AS rows, formatReadableSize(total_bytes) AS size FROM system.tables"
    " WHERE database = currentDatabase() AND engine != 'MaterializedView' ORDER BY name"
)
_COLUMNS: Final = (
    "SELECT name, type, comment FROM system.columns WHERE database = currentDatabase() AND table = '{name}' ORDER BY position"
)
_NAMES: Final = "SELECT DISTINCT word FROM system.completions ORDER BY word"
_NAME: Final = re.compile(r"\w+\Z", re.ASCII)
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
# What may name a person: strings however they are written, comments, and numbers of some length.
_VALUE: Final = re.compile(
    r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)|`(?:[^`\\]|\\.)*`|(?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z)"
    r"|--[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z)|\b\d[\d.-]{3,}",
    re.DOTALL,
)


def without_values(statement: str) -> str:
    """A statement as a file may keep it: its names in backquotes stay, strings, comments and long numbers go."""
    return _VALUE.sub(lambda match: match[0] if match[0][0] == "`" else "''", statement)


class _Talk:
    """What one conversation has settled on, and how it answers."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._form = Form.TABLE

    def answer(self, statement: str) -> bool:
        """Print the answer, or why there is none; whether there was one."""
        started = time.monotonic()
        try:
            _show(self._folder.query(statement, _WIRE[self._form]), self._form)
        except TidegateError as error:
            err.print(Text(plain(str(error)), style="red"), soft_wrap=True)
            return False
        if self._form is Form.TABLE:
            out.print(f"{time.monotonic() - started:.3f} s", style="dim", highlight=False)
        return True

    def command(self, line: str) -> bool:
        r"""Do what a line that begins with a \ asks; whether it was one."""
        word, _, rest = line.strip().rstrip(";").partition(" ")
        if not word.startswith("\\"):
            return False
        if word == "\\d" and not rest:
            self.answer(_TABLES)
        elif word == "\\d" and _NAME.match(rest.strip()):
            self.answer(_COLUMNS.format(name=rest.strip()))
        elif word == "\\f" and rest.strip() in {form.value for form in Form if form not in _BINARY}:
            self._form = Form(rest.strip())
        else:
            out.print(Text(_HELP))
        return True


def _statements(text: str) -> Iterator[str]:
    """The statements of a text, which end with semicolons outside of quotes and comments."""
    bare = _QUOTED.sub(lambda match: "x" * len(match[0]), text)
    start = 0
    for end in [*(match.start() for match in re.finditer(";", bare)), len(text)]:
        if text[start:end].strip():
            yield text[start:end].strip()
        start = end + 1


def _is_whole(text: str) -> bool:
    """Whether what was typed can be answered: a command, or a statement up to its semicolon."""
    bare = _QUOTED.sub("x", text).strip()
    return not bare or bare.startswith("\\") or bare.endswith(";")


def _typed(data_dir: Path, folder: Folder) -> Iterator[str]:
    """What a person types, whole statements, until they end it."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.lexers import PygmentsLexer
    from pygments.lexers.sql import SqlLexer

    class Bare(FileHistory):
        """A string may name a person: the file, and so the next conversation, has statements without theirs."""

        def store_string(self, string: str) -> None:
            super().store_string(without_values(string))

    history = data_dir / "shell_history"
    os.close(os.open(history, os.O_RDWR | os.O_CREAT, 0o600))
    session: PromptSession[str] = PromptSession(
        history=Bare(str(history)),
        completer=WordCompleter(_names(folder), ignore_case=True, pattern=re.compile(r"\w+")),
        auto_suggest=AutoSuggestFromHistory(),
        complete_while_typing=False,
        lexer=PygmentsLexer(SqlLexer),
        multiline=Condition(lambda: not _is_whole(session.default_buffer.text)),
        prompt_continuation="        … ",
    )
    while True:
        try:
            text = session.prompt("tidegate> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text.strip() == "\\q":
            return
        yield from [text] if text.strip().startswith("\\") else _statements(text)


def _names(folder: Folder) -> list[str]:
    """Every word that can be completed: tables, columns, functions, keywords."""
    return [orjson.loads(line)["word"] for line in folder.query(_NAMES, "JSONEachRow").splitlines()]
