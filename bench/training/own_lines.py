"""Lines of our own for training, in YAML beside the modules that use them, and frames in which each slot has many fillings."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import yaml

_SLOT: Final = re.compile(r"\{([\w ]+)\}")
Slots = Mapping[str, tuple[str, ...]]


@cache
def read(name: str) -> Slots:
    """Title → its lines, of a file in this folder."""
    found = yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))
    return {title: tuple(lines) for title, lines in found.items()}


def drawn(frame: str, slots: Slots, draw: random.Random) -> str:
    """`frame` with something drawn for each of its slots."""
    return _SLOT.sub(lambda slot: draw.choice(slots[slot.group(1)]), frame)


def every(frames: Sequence[str], slots: Slots) -> Iterator[str]:
    """Each frame in all fillings of its slots."""
    for frame in frames:
        wanted = list(dict.fromkeys(_SLOT.findall(frame)))
        for filling in itertools.product(*(slots[name] for name in wanted)):
            yield frame.format(**dict(zip(wanted, filling, strict=True)))
