"""`tidegate models`: what scores, where it is from and whether it is what it was; production models pinned and converted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.guard_files import DetectorsOption, Report, StrictOption, err, names
from tidegate.schemas.settings import Settings

out = Console()

models_app = typer.Typer(
    name="models",
    help="What scores: each detector, with the model or rules behind it, where they are from, and their hash.",
    invoke_without_command=True,
)


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with whole hashes")] = False,
    detectors: DetectorsOption = None,
    strict: StrictOption = False,
) -> None:
    """Load what the settings ask for, and say what it is: detector, backend, version, source, SHA-256, licence, size."""
    if context.invoked_subcommand is not None:
        return
    from tidegate.processors.guardrails.loading import load_suite

    report = Report()
    suite = load_suite(Settings.read(), names(detectors), strict=strict, trouble=lambda trouble: report.trouble((trouble,)))
    parts = [{"detector": each.name, "version": each.version, **each.describe()} for each in suite.detectors]
    if suite.encoder is not None:
        describe = getattr(suite.encoder, "describe", None)
        said: Mapping[str, Any] = {} if describe is None else describe()
        parts.insert(0, {"detector": "(encoder)", "version": suite.encoder.name, **said})
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(parts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE, default=str))
        return
    for part in parts:
        for told in (part, *_inner(part)):
            out.print(Text(plain(str(told["detector"])), style="bold"))
            out.print(_told(told))


def _told(part: Mapping[str, Any]) -> Table:
    """One part in lines of its own: what it is and where it is from can be long."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name in ("backend", "version", "source", "licence"):
        table.add_row(f"  {name}", Text(plain(str(part.get(name) or "·"))))
    pinned = {True: ", pinned", False: ", not pinned"}.get(part.get("pinned"), "")  # type: ignore[arg-type]  # or absent
    table.add_row("  sha256", Text(plain(str(part.get("sha256") or "·")[:16] + pinned)))
    if (size := part.get("size_bytes")) is not None:
        table.add_row("  size", f"{size / 1e6:.1f} MB")
    return table


def _inner(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Models inside a detector: the judge of faithfulness, the names of phi."""
    for name, value in part.items():
        if isinstance(value, Mapping) and "sha256" in value:
            yield {"detector": f"{part['detector']}: {name}", **value}


@models_app.command()
def pin(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model's folder: configuration, tokenizer, safetensors")],
    source: Annotated[str | None, typer.Option(help="Where it is from, for `tidegate models` to say")] = None,
    licence: Annotated[str | None, typer.Option(help="Its licence")] = None,
) -> None:
    """Write down the SHA-256 of a model's files; from then on a file that differs is refused."""
    from tidegate.processors.guardrails.backends import folder as folders

    path = folders.pin(folder, source, licence)
    found = folders.check(folder, str(folder), str(folder))
    out.print(f"{path}: weights {found.sha256[:12]}, {found.size_bytes / 1e6:.1f} MB", highlight=False, soft_wrap=True)


@models_app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A .ckpt of Detoxify, or a pytorch_model.bin")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made new")],
    base: Annotated[
        str | None,
        typer.Option(help="Folder or cached name with its configuration and tokenizer, such as bert-base-uncased"),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where it is from")] = None,
    licence: Annotated[str | None, typer.Option(help="Its licence")] = None,
) -> None:
    """Turn a pickled checkpoint into a folder of safetensors, once and pinned. Only tensors and plain values are unpickled."""
    from tidegate.processors.guardrails.backends.convert import convert as run

    with err.status("converting …"):
        found = run(checkpoint, folder, base, source, licence)
    out.print(
        f"{folder}: weights {found.sha256[:12]}, {found.size_bytes / 1e6:.1f} MB, pinned", highlight=False, soft_wrap=True
    )
