"""Lines over time as SVG that stands by itself, as `bars` does: light and dark as its reader is. Nothing to install.

What is not known is a gap in the line, never zero. Marks are moments worth seeing beside the line: when an incident began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

# Told apart also by those who see no red or no green (Okabe and Ito).
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLE: Final = """<style>
text{font:12px system-ui,sans-serif;fill:#17252b}.dim{fill:#5b6b72}.axis{stroke:#d8e0e3}
.mark{stroke:#b3541e;stroke-dasharray:3 3}path{fill:none;stroke-width:1.8}
@media(prefers-color-scheme:dark){text{fill:#e4ecee}.dim{fill:#93a4ab}.axis{stroke:#2b3a40}.mark{stroke:#f0a36b}}
</style>"""
_WIDTH: Final = 900
_LEFT: Final = 70
_TOP: Final = 12
_PLOT: Final = 180
_GROUND: Final = _TOP + _PLOT
# Of a legend, and of what can be told apart.
MOST: Final = len(_COLOURS)

Point = tuple[float, float | None]


def lines(
    title: str, series: Mapping[str, Sequence[Point]], since: float, until: float, marks: Sequence[float] = (), unit: str = ""
) -> str:
    """The first `MOST` series, over [since, until); moments are seconds since 1970. A point alone between gaps is a dot."""
    shown = dict(list(series.items())[:MOST])
    most = max((value for points in shown.values() for _, value in points if value is not None), default=0.0) or 1.0
    span = max(until - since, 1e-9)

    def x(at: float) -> float:
        return _LEFT + (at - since) / span * (_WIDTH - _LEFT - 10)

    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>' for y in (_TOP, _GROUND)]
    parts.append(f'<text class="dim" x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{_number(most)}</text>')
    parts.append(f'<text class="dim" x="{_LEFT - 6}" y="{_GROUND + 4}" text-anchor="end">0 {escape(unit)}</text>')
    for share in (0.0, 0.5, 1.0):
        at = since + share * span
        anchor = ("start", "middle", "end")[round(share * 2)]
        parts.append(f'<text class="dim" x="{x(at):.1f}" y="{_GROUND + 18}" text-anchor="{anchor}">{_clock(at)}</text>')
    parts += [
        f"<g><title>{_clock(mark)}</title>"
        f'<line class="mark" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{_TOP}" y2="{_GROUND}"/></g>'
        for mark in marks
        if since <= mark < until
    ]
    for place, (name, points) in enumerate(shown.items()):
        colour = _COLOURS[place]
        for stretch in _stretches(points):
            spots = [(x(at), _GROUND - value / most * _PLOT) for at, value in stretch]
            if len(spots) == 1:
                parts.append(f'<circle cx="{spots[0][0]:.1f}" cy="{spots[0][1]:.1f}" r="2" fill="{colour}"/>')
            else:
                way = "L".join(f"{left:.1f},{top:.1f}" for left, top in spots)
                parts.append(f'<path stroke="{colour}" d="M{way}"><title>{escape(name)}</title></path>')
        left, top = _LEFT + place % 3 * 270, _GROUND + 38 + place // 3 * 18
        parts.append(f'<rect x="{left}" y="{top - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 16}" y="{top}">{escape(name[:40])}</text>')
    height = _GROUND + 48 + (len(shown) - 1) // 3 * 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{_STYLE}{''.join(parts)}</svg>"
    )


def _stretches(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """What is between the gaps."""
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            found.append([])
        else:
            found[-1].append((at, value))
    return [stretch for stretch in found if stretch]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%m-%d %H:%M}"
