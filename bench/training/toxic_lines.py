"""Lines of our own for the toxicity head: what no source has, and what every source gets wrong.

In `toxic_lines.yaml`, `toxic` and `harmless` are pairs in spirit: the same words, meant and not meant. `clinical` and
`identity` are hard negatives in two lots: the first is trained on, the second only measured. `toxic_talk.yaml` has discussions
and short posts.
"""

from __future__ import annotations

import random
from typing import Final

from .own_lines import drawn, every, read

_LINES: Final = "toxic_lines.yaml"
_TALK: Final = "toxic_talk.yaml"


def own(seed: int = 6, frames: int = 60) -> tuple[list[str], list[int]]:
    """Our own lines and filled frames, with 1 for the toxic ones."""
    lines, draw = read(_LINES), random.Random(seed)
    toxic, harmless = (
        [*lines[kind]] * 3 + [drawn(frame, lines, draw) for frame in lines[f"{kind} frames"] for _ in range(frames)]
        for kind in ("toxic", "harmless")
    )
    return toxic + harmless, [1] * len(toxic) + [0] * len(harmless)


def discussion(seed: int = 6, count: int = 2_000) -> tuple[list[str], list[int]]:
    """Comments of one to six of our lines, with 1 for the toxic ones, which shout, cry out and forget capitals more often."""
    own, talk, draw = read(_LINES), read(_TALK), random.Random(seed)
    harmless, toxic = talk["discussion harmless"], talk["discussion toxic"]
    texts: list[str] = []
    labels = [place % 2 for place in range(count)]
    for label in labels:
        if label:
            size = draw.choice((1, 1, 1, 2, 2, 3))
            lines = [draw.choice(toxic if draw.random() < 0.6 else [*toxic, *own["toxic"]]) for _ in range(size)]
        else:
            size = draw.choice((1, 1, 2, 2, 3, 4, 6))
            lines = [draw.choice(harmless if draw.random() < 0.75 else [*harmless, *own["harmless"]]) for _ in range(size)]
        text = " ".join(lines)
        if draw.random() < (0.1 if label else 0.03):
            text = text.upper()
        if draw.random() < (0.25 if label else 0.08):
            text = text.rstrip(".") + "!" * draw.choice((1, 2, 3, 5))
        if draw.random() < (0.3 if label else 0.15):
            text = text.lower().rstrip(".")
        texts.append(text)
    return texts, labels


def posts(seed: int = 6, count: int = 800) -> tuple[list[str], list[int]]:
    """Short posts, some with a harmless one after them, with 1 for the toxic ones."""
    talk, draw = read(_TALK), random.Random(seed)
    harmless, toxic = talk["posts harmless"], talk["posts toxic"]
    labels = [place % 2 for place in range(count)]
    texts = [
        draw.choice(toxic if label else harmless) + (f" {draw.choice(harmless)}" if draw.random() < 0.3 else "")
        for label in labels
    ]
    return texts, labels


def clinical(lot: str) -> list[str]:
    """Clinical hard negatives: `lot` is "train" or "test"; the lots share slots' words and no sentence."""
    return list(every(read(_LINES)[f"clinical {lot}"], read(_LINES)))


def identity(lot: str) -> list[str]:
    """Harmless mentions of groups: `lot` as in `clinical`."""
    return list(every(read(_LINES)[f"identity {lot}"], read(_LINES)))
