"""The calls that every bench works on: the project's own simulated clinics, the same for the same seed.

calls       as simulated: a thousand calls have some 280 finest usage keys (tenant, team, user, prompt, model)
dense       four hundred times as many in the same time, by the same users: what a cluster is for
scattered   the same calls of many users and prompts: nearly every call has a key of its own, the worst for sums
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import orjson
from tidegate.producers.simulate import generate
from tidegate.schemas.envelope import Envelope

START: Final = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
SEED: Final = 7
# A minute then holds 3,000 calls; a bench's whole run spans a few minutes.
_RATE_PER_S: Final = 50.0
_DENSE_PER_S: Final = 20_000.0
_USERS: Final = 1_000
_PROMPTS: Final = 40


def calls(count: int) -> list[dict[str, Any]]:
    """`count` response events in the order in which they ended."""
    return list(islice(generate(SEED, START, rate_per_s=_RATE_PER_S, diurnal=False), count))


def dense(count: int) -> list[dict[str, Any]]:
    """Calls as many clinics as a cluster is for make them: twenty thousand a second, so that a flush is of one minute."""
    return list(islice(generate(SEED, START, rate_per_s=_DENSE_PER_S, diurnal=False), count))


def scattered(count: int) -> list[dict[str, Any]]:
    """The same calls, each by one of a thousand users of its tenant, with one of forty prompts."""
    rng = random.Random(SEED)
    return [
        call | {"user": f"user-{rng.randrange(_USERS):04}", "prompt_name": f"prompt-{rng.randrange(_PROMPTS)}"}
        for call in calls(count)
    ]


def lines(events: list[dict[str, Any]]) -> list[bytes]:
    """Events as a producer encodes them."""
    return [orjson.dumps(event) for event in events]


def envelopes(encoded: list[bytes], size: int, producer: str = "bench") -> list[Envelope]:
    """Envelopes of `size` events (the last may hold fewer), numbered from 0."""
    return [Envelope.of(producer, first, encoded[first : first + size]) for first in range(0, len(encoded), size)]
