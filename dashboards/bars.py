"""Bars as SVG that stands by itself: light and dark as its reader is, a bar's value under the pointer. Nothing to install.

What is not known is drawn as a hollow dashed bar, never as none.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_STYLE: Final = """<style>
text{font:12px system-ui,sans-serif;fill:#17252b}.dim{fill:#5b6b72}.bar{fill:#b3541e}.of{fill:#0b7285;opacity:.25}
.unknown{fill:none;stroke:#5b6b72;stroke-dasharray:3 3}.axis{stroke:#d8e0e3}
@media(prefers-color-scheme:dark){text{fill:#e4ecee}.dim{fill:#93a4ab}.bar{fill:#f0a36b}.of{fill:#4fc3d9;opacity:.3}
.unknown{stroke:#93a4ab}.axis{stroke:#2b3a40}}
</style>"""
_WIDTH: Final = 900
_ROW: Final = 24
_NAME: Final = 240
_PLOT: Final = 180
_LEFT: Final = 46
_LONGEST: Final = 32


class Bar(NamedTuple):
    """One bar. `value` None: not known. `note` is shown beside it, or under the pointer."""

    name: str
    value: float | None
    note: str


def rows(title: str, bars: Sequence[Bar]) -> str:
    """Bars that lie, one below the other."""
    top = max((bar.value or 0 for bar in bars), default=0) or 1
    room = _WIDTH - _NAME - 160
    parts = []
    for index, bar in enumerate(bars):
        y, width = index * _ROW, (bar.value or 0) / top * room
        shape = (
            f'<rect class="unknown" x="{_NAME}" y="{y + 4}" width="40" height="15"/>'
            if bar.value is None
            else f'<rect class="bar" x="{_NAME}" y="{y + 4}" width="{width:.1f}" height="15" rx="2"/>'
        )
        name = bar.name if len(bar.name) <= _LONGEST else f"{bar.name[: _LONGEST - 1]}…"
        beside = _NAME + (46 if bar.value is None else width) + 8
        parts.append(
            f"<g><title>{escape(f'{bar.name}: {bar.note}')}</title>"
            f'<text x="{_NAME - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>{shape}'
            f'<text class="dim" x="{beside:.1f}" y="{y + 16}">{escape(bar.note)}</text></g>'
        )
    return _svg(title, max(len(bars), 1) * _ROW + 4, "".join(parts))


def columns(title: str, bars: Sequence[Bar]) -> str:
    """Bars that stand, one beside the other: days."""
    top = max((bar.value or 0 for bar in bars), default=0) or 1
    step = (_WIDTH - _LEFT) / max(len(bars), 1)
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{_PLOT + 10}" y2="{_PLOT + 10}"/>',
        f'<text class="dim" x="{_LEFT - 6}" y="18" text-anchor="end">{top:,.0f}</text>',
        f'<text class="dim" x="{_LEFT - 6}" y="{_PLOT + 14}" text-anchor="end">0</text>',
    ]
    ground = _PLOT + 10
    for index, bar in enumerate(bars):
        x, wide, height = _LEFT + (index + 0.15) * step, 0.7 * step, (bar.value or 0) / top * (_PLOT - 4)
        shape = (
            f'<rect class="unknown" x="{x:.1f}" y="{_PLOT - 20}" width="{wide:.1f}" height="30"/>'
            if bar.value is None
            else f'<rect class="bar" x="{x:.1f}" y="{ground - height:.1f}" width="{wide:.1f}" height="{height:.1f}" rx="2"/>'
        )
        parts.append(
            f"<g><title>{escape(f'{bar.name}: {bar.note}')}</title>"
            f'<rect x="{x:.1f}" y="10" width="{wide:.1f}" height="{_PLOT}" fill="transparent"/>{shape}'
            f'<text class="dim" x="{x + wide / 2:.1f}" y="{_PLOT + 26}" text-anchor="middle">{escape(bar.name[-2:])}</text></g>'
        )
    return _svg(title, _PLOT + 34, "".join(parts))


def _svg(title: str, height: int, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{_STYLE}{content}</svg>"
    )
