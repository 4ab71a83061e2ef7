"""A page for whoever opens the node's address in a browser: what came in, what became of it, where to go next."""

from __future__ import annotations

from html import escape
from typing import Any, Final

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#17252b;--dim:#5b6b72;--line:#d8e0e3;--paper:#fbfcfc;--tide:#0b7285;--warn:#b3541e}
@media(prefers-color-scheme:dark){
:root{--ink:#e4ecee;--dim:#93a4ab;--line:#2b3a40;--paper:#11191c;--tide:#4fc3d9;--warn:#f0a36b}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:3rem auto;padding:0 1.5rem}
h1{font-size:1.4rem;margin:0}h1 b{color:var(--tide)}h2{font-size:1rem;color:var(--dim);font-weight:500;margin:2rem 0 .5rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(45%,15rem),1fr));gap:1rem;margin:1.5rem 0}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem}
.card b{display:block;font-size:1.5rem;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.card span{color:var(--dim);font-size:.85rem}.bad b{color:var(--warn)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto}td.none{color:var(--dim)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td:first-child{overflow-wrap:anywhere;min-width:12rem}td.n{white-space:nowrap}code{font-size:.9em;overflow-wrap:anywhere}a{color:var(--tide)}
"""


def render(status: dict[str, Any]) -> str:
    """The page, drawn on the server; it fetches nothing and reloads itself every two seconds."""
    totals = status["totals"]
    bad = totals.get("rejected", 0) + totals.get("dead_letters", 0) + totals.get("bad_envelopes", 0)
    cards = [
        ("calls", totals.get("responses", 0), ""),
        ("USD, newest day", f"{status['today']['cost_nano_usd'] / 1e9:,.4f}", ""),
        ("tokens, newest day", status["today"]["input_tokens"] + status["today"]["output_tokens"], ""),
        ("dead letters", bad, "bad" if bad else ""),
        ("duplicates skipped", totals.get("duplicates", 0), ""),
        ("waiting, records", status["meter_lag_records"] + status["sink_lag_records"], ""),
    ]
    shown = "".join(
        f'<div class="card {kind}"><b>{_number(value)}</b><span>{label}</span></div>' for label, value, kind in cards
    )
    day = status["today"]["day"]
    title = f"Models, {escape(day)} (UTC day of the newest call)" if day else "Models"
    rows = "".join(map(_row, status["today"]["models"])) or "<tr><td colspan=6 class=none>no calls yet</td></tr>"
    return f"""<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<meta http-equiv=refresh content=2><title>Tidegate</title><style>{_STYLE}</style>
<h1><b>Tidegate</b> node</h1><div class=cards>{shown}</div>
<h2>{title}</h2>
<div class=wide><table>
<tr><th>model<th class=n>calls<th class=n>errors<th class=n>tokens<th class=n>USD<th class=n>unpriced</tr>
{rows}</table></div>
<h2>Ask it</h2><p><code>tidegate query "SELECT model, count(), sum(cost_usd) FROM calls GROUP BY model"</code></p>
<p>Send it <code>POST /v1/events</code> · watch <a href=/metrics>/metrics</a> · <a href=/readyz>/readyz</a></p></html>"""


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _row(row: dict[str, Any]) -> str:
    # A model without a price has cost an unknown amount, not nothing.
    spent = f"{row['cost_nano_usd'] / 1e9:,.6f}" if row["unpriced"] < row["requests"] else "–"
    numbers = (f"{row['requests']:,}", f"{row['errors']:,}", f"{row['tokens']:,}", spent, f"{row['unpriced']:,}")
    return f"<tr><td>{escape(row['model'])}</td>{''.join(f'<td class=n>{number}</td>' for number in numbers)}</tr>"
