"""What holding a claim against a source yields: a `Reading`, with its `Doubt`s and the features that are weighed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .claims import Claim

FEATURES: Final = (
    "absent_part",  # of the claim's weight, what the source does not have
    "absent_terms",
    "absent_named",
    "absent_proper",  # of what is written with a capital and is in no list: a name, or an abbreviation
    "absent_alone",  # one thing is absent where the rest of the claim is not
    "absent_word",  # and it is a word of no kind
    "absent_swapped",  # and where the claim belongs the source names another thing of its kind
    "scattered",  # of what the source has, the part that its best lines do not
    "new_pairs",
    "number_absent",
    "number_differs",
    "number_elsewhere",
    "negation",
    "negation_named",
    "negation_near",  # in the very line that speaks of it
    "side",
    "opposite",
    "sex",
    "relative",
    "far",  # 1 - cosine with the nearest line; 0 without an encoder
)


class Doubt(NamedTuple):
    """What the source does not bear out (`absent_…`), or says otherwise, at `[start, end)` of the response."""

    type: str
    start: int
    end: int
    strength: float


@dataclass(slots=True)
class Reading:
    """One claim held against the source."""

    claim: Claim
    copied: bool = False  # word for word
    spoken: bool = False  # the source is a conversation
    support: list[float] = field(default_factory=list)  # of each term
    lines: list[int] = field(default_factory=list)  # the best first
    doubts: list[Doubt] = field(default_factory=list)
    features: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FEATURES, 0.0))
