"""Lines of our own for the injection head: short attacks in many wordings and tongues, and harmless texts that look alike.

They stand in `injection_lines.yaml`. Slots in braces are filled with the lines under their names.
"""

from __future__ import annotations

import random
from typing import Final

from .own_lines import every, read

_LINES: Final = "injection_lines.yaml"


def attacks(seed: int = 6, count: int = 400) -> list[str]:
    """Our own direct attacks: every whole line, and drawn pairs of what to forget and what to do instead."""
    lines, draw = read(_LINES), random.Random(seed)
    forget, instead, between = lines["ignore"], (*lines["then"], ""), (" ", ", ", ". ", " - ")
    pairs = [f"{draw.choice(forget)}{draw.choice(between)}{draw.choice(instead)}".strip() for _ in range(count)]
    after = [f"{draw.choice(lines['harmless'])} {draw.choice(pairs)}" for _ in range(count // 4)]
    return [*lines["attacks"] * 2, *pairs, *after]


def planted() -> list[str]:
    """Orders to the model that stand in documents."""
    return list(read(_LINES)["planted"])


def harmless() -> list[str]:
    """Our own harmless prompts and sentences of documents."""
    lines = read(_LINES)
    return [*lines["harmless"] * 2, *lines["asked"] * 2, *lines["documents"], *every(lines["played"], lines)]


def orders(lot: str) -> list[str]:
    """Orders to patients and of patients, which are none to a model: `lot` is "train" or "test", which share no sentence."""
    return list(every(read(_LINES)[f"orders {lot}"], read(_LINES)))
