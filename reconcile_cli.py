"""`tidegate reconcile`: a provider's bill beside what was metered, by model and day."""

from __future__ import annotations

import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.dashboards.terminal import plain
from tidegate.processors.invoice import NANO, Amount, Match, compare, read
from tidegate.query_cli import DataOption, asked, must_exist
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

if TYPE_CHECKING:
    from datetime import date

out = Console()
err = Console(stderr=True)

_METERED: Final = """
SELECT toDate(hour) AS day, model, sum(requests) AS requests, sum(requests_without_price) AS unpriced,
    sum(cost_nano_usd) AS cost_nano_usd, sum(requests_without_tokens) AS unknown,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
FROM calls_1h
WHERE hour >= toDateTime('{since}', 'UTC') AND hour < toDateTime('{until}', 'UTC') AND {provider}
GROUP BY day, model
"""


def reconcile(
    invoice: Annotated[str, typer.Argument(metavar="INVOICE.csv", help="The bill, or the usage export; - is standard input")],
    provider: Annotated[
        str | None, typer.Option(help="Only what was metered of this provider_name, e.g. anthropic. Else: of all of them")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Per cent that a model's cost on a day may differ")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each model and day, for programs")] = False,
    data: DataOption = None,
) -> None:
    """Compare a provider's bill with what was metered, by model and UTC day, from the bill's first day to its last.

    Reads the exports of OpenAI (costs, completions) and Anthropic (cost, tokens), and any CSV with a day, a model and a cost,
    tokens or requests. Versions of a model count as one. Ends with 1 where something differs by more than the tolerance.

    Example: tidegate reconcile anthropic-2026-11.csv --provider anthropic
    """
    settings = Settings.read(data_dir=data)
    must_exist(settings)
    billed = _billed(invoice)
    if not billed:
        raise UsageError("the bill has no lines")
    first, last = min(amount.day for amount in billed), max(amount.day for amount in billed)
    with asked(settings) as folder:
        found = folder.query(_question(first, last, provider), "JSONEachRow")
    matches = compare(billed, [_metered(orjson.loads(line)) for line in found.splitlines()])
    apart = [match for match in matches if _differs(match, tolerance)]
    if as_json:
        for match in matches:
            sys.stdout.buffer.write(orjson.dumps(_line(match, match in apart), option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        _show(matches, apart, tolerance)
    raise typer.Exit(1 if apart else 0)


def _billed(invoice: str) -> list[Amount]:
    if invoice == "-":
        return read(sys.stdin)
    try:
        with Path(invoice).open(encoding="utf-8-sig", newline="") as lines:
            return read(lines)
    except UnicodeDecodeError:
        raise UsageError(f"{invoice} is not UTF-8 text; export it as CSV") from None
    except OSError as error:
        raise UsageError(f"{invoice} cannot be read: {error.strerror}") from None


def _question(first: date, last: date, provider: str | None) -> str:
    literal = (provider or "").replace("\\", "\\\\").replace("'", "\\'")
    which = "1" if provider is None else f"provider_name = '{literal}'"
    return _METERED.format(since=first, until=last + timedelta(days=1), provider=which)


def _metered(row: dict[str, Any]) -> Amount:
    requests, unpriced, unknown = (int(row[name]) for name in ("requests", "unpriced", "unknown"))
    tokens = {name: int(row[name]) if unknown < requests else None for name in ("input_tokens", "output_tokens")}
    cost = int(row["cost_nano_usd"]) if unpriced < requests else None
    return Amount(_as_day(row["day"]), row["model"], cost_nano_usd=cost, requests=requests, unpriced=unpriced, **tokens)


def _as_day(text: str) -> date:
    from datetime import date

    return date.fromisoformat(text)


def _differs(match: Match, tolerance: float) -> bool:
    """By cost where the bill tells one, else by tokens, else by requests. What one side alone knows or priced differs."""
    if match.billed is None or match.metered is None:
        return True
    for name in ("cost_nano_usd", "input_tokens", "output_tokens", "requests"):
        billed = getattr(match.billed, name)
        if billed is not None:
            difference = match.difference(name)
            return difference is None or abs(difference) > abs(billed) * tolerance / 100
    return False


def _line(match: Match, apart: bool) -> dict[str, Any]:
    def side(amount: Amount | None) -> dict[str, Any] | None:
        if amount is None:
            return None
        usd = None if amount.cost_nano_usd is None else str(Decimal(amount.cost_nano_usd) / NANO)
        counts = {name: getattr(amount, name) for name in ("requests", "input_tokens", "output_tokens")}
        return {"cost_usd": usd, **counts, "requests_without_price": amount.unpriced}

    sides = {"billed": side(match.billed), "metered": side(match.metered)}
    return {"day": match.day.isoformat(), "model": match.model, **sides, "differs": apart}


def _show(matches: list[Match], apart: list[Match], tolerance: float) -> None:
    table = Table(header_style="bold")
    for column in ("day", "model"):
        table.add_column(column)
    for column in ("billed", "metered", "metered − billed", "%", "tokens, metered − billed"):
        table.add_column(column, justify="right")
    table.add_column("why")
    for match in matches:
        table.add_row(*map(Text, _cells(match)), style="yellow" if match in apart else "")
    out.print(table)
    billed = sum(match.billed.cost_nano_usd or 0 for match in matches if match.billed)
    metered = sum(match.metered.cost_nano_usd or 0 for match in matches if match.metered)
    out.print(f"billed {_usd(billed)}, metered {_usd(metered)}: {_usd(metered - billed, sign=True)}", highlight=False)
    if apart:
        err.print(f"{len(apart)} of {len(matches)} differ by more than {tolerance:g} %", style="yellow", highlight=False)


def _cells(match: Match) -> tuple[str, ...]:
    sides = [None if side is None else side.cost_nano_usd for side in (match.billed, match.metered)]
    difference = match.difference("cost_nano_usd")
    share = f"{100 * difference / sides[0]:+.1f}" if difference is not None and sides[0] else ""
    tokens = [match.difference(name) for name in ("input_tokens", "output_tokens")]
    told = (
        " / ".join("?" if count is None else f"{count:+,}" for count in tokens)
        if any(count is not None for count in tokens)
        else ""
    )
    apart = "" if difference is None else _usd(difference, sign=True)
    return (match.day.isoformat(), plain(match.model), *(_usd(side) for side in sides), apart, share, told, _why(match))


def _why(match: Match) -> str:
    if match.metered is None:
        return "never metered"
    if match.billed is None:
        return "not on the bill"
    return f"{match.metered.unpriced:,} calls without a price" if match.metered.unpriced else ""


def _usd(nano: int | None, sign: bool = False) -> str:
    if nano is None:
        return ""
    return f"{'+' if sign and nano > 0 else ''}{Decimal(nano) / NANO:,.4f} $"
