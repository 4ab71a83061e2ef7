"""A provider's bill beside what was metered: read, matched by model and day, and told apart where they differ.

    CSV ──► read ──► Billed lines ──┐
                                    ├──► compare ──► a Match for each model and day
    store ─────► Metered lines ─────┘

Bills name models in their own ways ("Claude Haiku 4.5", "gpt-4o-2024-08-06, input"), so models are matched by the words of
their names, whatever their order, and without the day of a version: versions of one model are one line here.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from ..schemas.errors import UsageError

# A header, in small letters with _ for all else, and what it holds. The first that a file has is read.
_COLUMNS: Final[dict[str, Sequence[str]]] = {
    "day": ("usage_date_utc", "usage_date", "start_time_iso", "date", "day", "start_time", "usage_start_date", "timestamp"),
    "model": ("model_version", "model", "model_name", "line_item", "sku", "sku_description", "model_id"),
    "cost": ("cost_usd", "amount_value", "cost", "amount_usd", "amount", "total_cost", "spend", "unblendedcost"),
    "currency": ("amount_currency", "currency", "currency_code"),
    "requests": ("num_model_requests", "num_requests", "requests", "n_requests"),
    "output_tokens": ("usage_output_tokens", "output_tokens", "n_generated_tokens_total", "completion_tokens"),
}
# All of what goes in: where a bill parts it by what the cache did, the parts are added up.
_INPUT: Final = (
    tuple(f"usage_input_tokens_{part}" for part in ("no_cache", "cache_write_5m", "cache_write_1h", "cache_read")),
    ("input_tokens",),
    ("n_context_tokens_total",),
    ("prompt_tokens",),
)
_VERSION_DAY: Final = re.compile(r"[-@ ](?:20\d{6}|20\d\d-\d\d-\d\d)(?=$|[-:@])|[-@]latest$")
_WORD: Final = re.compile(r"\d+|[a-z]+")
_THOUSANDS: Final = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d*)?\Z")
_UNIX: Final = re.compile(r"\d{10}(?:\.\d+)?\Z")
NANO: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Amount:
    """What one model came to on one UTC day. None: not told."""

    day: date
    model: str
    cost_nano_usd: int | None = None
    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """One model on one day, on both sides. None on a side: it knows nothing of it."""

    day: date
    model: str
    billed: Amount | None
    metered: Amount | None

    def difference(self, name: str) -> int | None:
        """Metered minus billed, where both sides tell; a side that knows nothing of the model counts as 0."""
        billed, metered = (0 if side is None else getattr(side, name) for side in (self.billed, self.metered))
        return None if billed is None or metered is None else metered - billed


def key(model: str) -> str:
    """What names of one model have in common: the words, sorted, without the day of a version or who serves it."""
    plain = model.lower().partition(",")[0].strip().rpartition("/")[2]
    return " ".join(sorted(_WORD.findall(_VERSION_DAY.sub("", plain))))


def read(lines: Iterable[str]) -> list[Amount]:
    """A bill's lines, added up by model and day. Raises `UsageError` with the line that cannot be read, or what is missing."""
    rows = csv.reader(lines)
    header = [re.sub(r"[^a-z0-9]+", "_", name.lower().lstrip("\ufeff")).strip("_") for name in next(rows, [])]
    places = {what: place for what, names in _COLUMNS.items() if (place := _place(header, names)) is not None}
    inputs = next(([header.index(name) for name in names if name in header] for names in _INPUT if names[0] in header), [])
    missing = [what for what in ("day", "model") if what not in places]
    if missing or not (inputs or {"cost", "requests", "output_tokens"} & places.keys()):
        wanted = "".join(f"; no {what}: name a column {', '.join(_COLUMNS[what][:4])}" for what in missing)
        raise UsageError(
            f"the bill's columns are {', '.join(header) or 'none'}{wanted or '; none of them is a cost, tokens or requests'}"
        )
    found = []
    for row in rows:
        if any(cell.strip() for cell in row):
            try:
                found.append(_amount(row, places, inputs))
            except (ValueError, InvalidOperation, IndexError) as error:
                raise UsageError(f"line {rows.line_num} of the bill cannot be read: {_why(error)}") from None
    return _summed(found)


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _why(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "it has fewer columns than the header"
    return "a number is not written as one (1,234.56)" if isinstance(error, InvalidOperation) else str(error)


def _amount(row: Sequence[str], places: dict[str, int], inputs: Sequence[int]) -> Amount:
    if "currency" in places and (currency := row[places["currency"]].strip().upper()) not in ("USD", ""):
        raise ValueError(f"it is in {currency[:3]}; only US dollars can be compared")
    counts = {name: _count(row[places[name]]) for name in ("requests", "output_tokens") if name in places}
    parts = [count for place in inputs if (count := _count(row[place])) is not None]
    return Amount(
        _day(row[places["day"]].strip()),
        row[places["model"]].strip(),
        cost_nano_usd=_nano(row[places["cost"]]) if "cost" in places else None,
        requests=counts.get("requests"),
        input_tokens=sum(parts) if parts else None,
        output_tokens=counts.get("output_tokens"),
    )


def _day(text: str) -> date:
    if _UNIX.match(text):
        return datetime.fromtimestamp(float(text), UTC).date()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a day is written as 2026-03-01, or as an ISO time") from None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()


def _nano(text: str) -> int | None:
    bare = text.strip().upper().removesuffix("USD").replace("$", "").strip()
    return int((_number(bare) * NANO).to_integral_value()) if bare else None


def _count(text: str) -> int | None:
    bare = text.strip()
    return int(_number(bare)) if bare else None


def _number(text: str) -> Decimal:
    """Commas part thousands: one that parts a fraction would make a bill a hundred times as high."""
    number = Decimal(text.replace(",", "") if _THOUSANDS.match(text) else text)
    if not number.is_finite():
        raise InvalidOperation
    return number


def _summed(amounts: Iterable[Amount]) -> list[Amount]:
    """One for each model, as it is named, and day."""
    groups: dict[tuple[date, str], list[Amount]] = defaultdict(list)
    for amount in amounts:
        groups[amount.day, amount.model].append(amount)
    return [_sum(group, group[0].model) for group in groups.values()]


def _sum(group: Sequence[Amount], model: str) -> Amount:
    def total(name: str) -> int | None:
        told = [value for amount in group if (value := getattr(amount, name)) is not None]
        return sum(told) if told else None

    told = {name: total(name) for name in ("cost_nano_usd", "requests", "input_tokens", "output_tokens")}
    return Amount(group[0].day, model, **told, unpriced=sum(amount.unpriced for amount in group))


def compare(billed: Iterable[Amount], metered: Iterable[Amount]) -> list[Match]:
    """Every model and day that either side knows, the largest difference of cost first."""
    sides: dict[tuple[date, str], tuple[list[Amount], list[Amount]]] = defaultdict(lambda: ([], []))
    for place, amounts in enumerate((billed, metered)):
        for amount in amounts:
            sides[amount.day, key(amount.model)][place].append(amount)
    found = []
    for (day, _), (bill, meter) in sides.items():
        model = min((amount.model for amount in meter or bill), key=lambda name: (len(name), name))
        found.append(Match(day, model, _sum(bill, model) if bill else None, _sum(meter, model) if meter else None))
    return sorted(found, key=lambda match: (-abs(match.difference("cost_nano_usd") or 0), match.day, match.model))
