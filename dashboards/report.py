"""The parts that reports are made of, as Markdown and as HTML that fetches nothing: words, pictures, tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#17252b;--dim:#5b6b72;--line:#d8e0e3;--paper:#fbfcfc;--tide:#0b7285;--warn:#b3541e}
@media(prefers-color-scheme:dark){
:root{--ink:#e4ecee;--dim:#93a4ab;--line:#2b3a40;--paper:#11191c;--tide:#4fc3d9;--warn:#f0a36b}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:2.5rem auto;padding:0 1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .4rem;color:var(--tide)}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
p{margin:.4rem 0}.dim{color:var(--dim)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.8rem;margin:1.2rem 0}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .9rem}.card b{display:block;font-size:1.4rem}
.card span{color:var(--dim);font-size:.85rem}.card.bad b{color:var(--warn)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td{overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block;margin:.5rem 0}
@media print{body{margin:0;max-width:none}h2,h3{break-after:avoid}tr,.card{break-inside:avoid}}
"""
_PIPES: Final = re.compile(r"([\\|`*_<\[])")


@dataclass(frozen=True, slots=True)
class Table:
    """`numbers`: the columns that are read from the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """`level` is 2 or 3; `picture` is SVG, or nothing."""

    title: str
    words: str = ""
    picture: str = ""
    table: Table | None = None
    level: int = 2


def html_section(section: Section) -> str:
    words = f"<p>{escape(section.words)}</p>" if section.words else ""
    table = html_table(section.table) if section.table is not None and section.table.rows else ""
    return f"<h{section.level}>{escape(section.title)}</h{section.level}>{words}{section.picture}{table}"


def html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        told = "".join(
            f"<{tag}{' class=n' if index in table.numbers else ''}>{escape(cell)}</{tag}>" for index, cell in enumerate(cells)
        )
        return f"<tr>{told}</tr>"

    return (
        f'<div class="wide"><table>{row(table.columns, "th")}{"".join(row(cells, "td") for cells in table.rows)}</table></div>'
    )


def md_table(table: Table) -> str:
    lines = ["| " + " | ".join(map(md, table.columns)) + " |"]
    lines.append("|" + "|".join("---:" if index in table.numbers else "---" for index in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(map(md, cells)) + " |" for cells in table.rows]
    return "\n".join(lines)


def md(text: str) -> str:
    return _PIPES.sub(r"\\\1", text.replace("\n", " "))
