"""Where on earth: latitude and longitude, in degrees of either kind, which name a house more exactly than its address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .spans import Span
from .zones import Zones, matches

_DEGREES: Final = r"\.\d{3,12}\s?°?(?:\s?[NSEW]\b)?"
_PAIR: Final = re.compile(
    rf"(?P<lat>[-+0-9](?<![\w.+-].)(?:(?<=\d)\d{{0,2}}|(?<!\d)\d{{1,3}}){_DEGREES})\s?[,;/ ]\s?"
    rf"(?P<lon>[-+]?\d{{1,3}}{_DEGREES})(?![\w%]|\.\d)"
)
_MINUTES: Final = re.compile(
    r"(?<![\w.])\d{1,2}\s?°\s?\d{1,2}(?:\.\d+)?\s?['’′](?:\s?\d{1,2}(?:\.\d+)?\s?(?:\"|″|''|’’|”))?\s?[NS]\b[,;\s/]{0,3}"
    r"\d{1,3}\s?°\s?\d{1,2}(?:\.\d+)?\s?['’′](?:\s?\d{1,2}(?:\.\d+)?\s?(?:\"|″|''|’’|”))?\s?[EW]\b"
)
_DECIMALS: Final = re.compile(r"\.[0-9]{3}")
_CALLED: Final = re.compile(
    r"[lL](?<![A-Za-z].)(?i:at(?:itude)?|on(?:g(?:itude)?)?|ng)[\"']?\s{0,2}[:=]?\s{0,2}"
    r"(?P<value>(?<![\w.+-])[-+]?\d{1,3}\.\d{2,12}(?![\w%]|\.\d))"
)
_PLACED: Final = re.compile(r"\b(?:gps|coord\w*|geo\w*|lat\w*|location|located|map|found at|position|pin)\b", re.IGNORECASE)
# Four decimals are ten metres; with as many and two digits before, no pair of results is likely.
_EXACT: Final = re.compile(r"\.\d{4}")
_BEFORE: Final = 40


def find(text: str, within: Zones) -> Iterator[Span]:
    """Coordinates of one text: a pair where it is exact or called so, one number where it is called latitude or longitude."""
    for match in matches(_PAIR, text, within) if _DECIMALS.search(text) is not None else ():
        lat, lon = (float(match[name].rstrip(" °NSEW")) for name in ("lat", "lon"))
        exact = all(_EXACT.search(match[name]) for name in ("lat", "lon")) and max(abs(lat), abs(lon)) >= 10
        told = "°" in match.group() or _PLACED.search(text, max(0, match.start() - _BEFORE), match.start()) is not None
        if abs(lat) <= 90 and abs(lon) <= 180 and (exact or told):
            yield Span(match.start(), match.end(), "LOCATION", 0.85)
    for match in matches(_MINUTES, text, within) if "°" in text else ():
        yield Span(match.start(), match.end(), "LOCATION", 0.9)
    for match in matches(_CALLED, text, within):
        yield Span(*match.span("value"), "LOCATION", 0.9)
