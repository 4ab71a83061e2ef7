"""Lines as SVG: to scale, with gaps where nothing is known, and no name taken for markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from tidegate.dashboards.lines import MOST, lines

SVG = "{http://www.w3.org/2000/svg}"


def drawn(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)


def test_a_line_is_to_scale_and_what_is_unknown_is_a_gap_in_it() -> None:
    points = [(0.0, 0.0), (25.0, 5.0), (50.0, None), (75.0, 10.0), (100.0, 10.0)]

    found = drawn(lines("Calls", {"a": points}, 0.0, 100.0))

    ways = [path.get("d") or "" for path in found.iter(f"{SVG}path")]
    spots = [[tuple(map(float, spot.split(","))) for spot in way.removeprefix("M").split("L")] for way in ways]
    assert [len(way) for way in spots] == [2, 2]
    (first, second), (third, fourth) = spots
    assert second[0] - first[0] == pytest.approx((fourth[0] - first[0]) / 4, abs=0.1)
    assert first[1] - second[1] == pytest.approx((first[1] - third[1]) / 2, abs=0.1)
    assert third[1] == fourth[1]


def test_a_point_alone_is_a_dot_and_a_mark_outside_is_not_drawn() -> None:
    found = drawn(lines("Calls", {"a": [(10.0, None), (20.0, 3.0), (30.0, None)]}, 0.0, 100.0, [50.0, 500.0]))

    assert len(list(found.iter(f"{SVG}circle"))) == 1
    assert len([line for line in found.iter(f"{SVG}line") if line.get("class") == "mark"]) == 1


@pytest.mark.parametrize("series", [{}, {"a": []}, {"a": [(1.0, None)]}, {"a": [(1.0, 0.0), (2.0, 0.0)]}])
def test_nothing_and_zeros_are_drawn_all_the_same(series: dict[str, list[tuple[float, float | None]]]) -> None:
    assert drawn(lines("Calls", series, 0.0, 100.0)).tag == f"{SVG}svg"


def test_names_are_text_and_there_are_no_more_than_can_be_told_apart() -> None:
    series = {f"<b>{number}</b>": [(0.0, 1.0), (1.0, 2.0)] for number in range(MOST + 3)}

    picture = lines("<i>", series, 0.0, 10.0)

    assert len(re.findall("<path", picture)) == MOST
    assert "<b>" not in picture
    assert drawn(picture).get("aria-label") == "<i>"
