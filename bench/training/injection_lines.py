"""Lines of our own for the injection head: short attacks in many wordings and tongues, and harmless texts that look alike.

They stand in `injection_lines.yaml`, and in `injection_frames.yaml` where they have slots: names in braces, filled with the
lines under them.
"""

from __future__ import annotations

import random
from typing import Final

from .own_lines import drawn, every, read

_LINES: Final = "injection_lines.yaml"
_FRAMES: Final = "injection_frames.yaml"
# Fillings that are drawn of each frame.
_FILLINGS: Final = 8
# So many orders in documents, one has words before it: it stands in a list, or in what somebody says.
_EVERY: Final = 4


def attacks(seed: int = 6, count: int = 400) -> list[str]:
    """Our own direct attacks: every whole line, and drawn pairs of what to forget and what to do instead."""
    lines, draw = read(_LINES), random.Random(seed)
    forget, instead, between = lines["ignore"], (*lines["then"], ""), (" ", ", ", ". ", " - ")
    pairs = [f"{draw.choice(forget)}{draw.choice(between)}{draw.choice(instead)}".strip() for _ in range(count)]
    after = [f"{draw.choice(lines['harmless'])} {draw.choice(pairs)}" for _ in range(count // 4)]
    return [*lines["attacks"] * 2, *pairs, *after, *_filled("attacks")]


def planted() -> list[str]:
    """Orders to the model that stand in documents."""
    filled, leads = _filled("planted"), read(_FRAMES)["lead"]
    led = [f"{leads[place // _EVERY % len(leads)]} {filled[place]}" for place in range(0, len(filled), _EVERY)]
    return [*read(_LINES)["planted"], *filled, *led]


def harmless() -> list[str]:
    """Our own harmless prompts and sentences of documents."""
    lines = read(_LINES)
    whole = [*lines["harmless"] * 2, *lines["asked"] * 2, *lines["documents"], *every(lines["played"], lines)]
    return [*whole, *_filled("harmless"), *_filled("documents")]


def orders(lot: str) -> list[str]:
    """Orders to patients and of patients, which are none to a model: `lot` is "train" or "test", which share no sentence."""
    return list(every(read(_LINES)[f"orders {lot}"], read(_LINES)))


def _filled(lot: str, seed: int = 6) -> list[str]:
    """Every frame of `lot` in a few fillings of its slots, none of them twice."""
    frames, draw = read(_FRAMES), random.Random(seed)
    return list(dict.fromkeys(drawn(frame, frames, draw) for frame in frames[lot] for _ in range(_FILLINGS)))
