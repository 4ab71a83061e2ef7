"""Which English words are common: `python -m bench.training.common_words real_calls.jsonl` writes `grounding/common.txt`.

Counted over the general answers of the development data (those without a retrieved context), lower-case words only, so that no
name gets in. A common word says little about whether an answer rests on its source; grounding weighs it less.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Final

import orjson
from tidegate.processors.guardrails.grounding.lexicon import COMMON_FILE, EMPTY_KEYS
from tidegate.processors.guardrails.grounding.reading import words

# Fewer answers than this have a word by chance of their subject.
LEAST: Final = 8


def counted(path: Path) -> list[tuple[str, int]]:
    """(key, answers that have it), most common first."""
    found: Counter[str] = Counter()
    for line in path.read_bytes().splitlines():
        call = orjson.loads(line)
        if call["retrieved_context"] is None:
            answer = call["response"]["choices"][0]["message"]["content"] or ""
            found.update(
                {word.key for word in words(answer) if word.text.islower() and word.key.isascii() and len(word.key) > 2}
            )
    return sorted(
        ((key, count) for key, count in found.items() if count >= LEAST and key not in EMPTY_KEYS and key.isalpha()),
        key=lambda each: (-each[1], each[0]),
    )


def main(path: Path) -> None:
    counts = counted(path)
    head = (
        "# Common words of general English by their keys, and how many answers have them. "
        "Made by bench.training.common_words.\n"
    )
    COMMON_FILE.write_text(head + "".join(f"{key} {count}\n" for key, count in counts), "utf-8")
    sys.stdout.write(f"{len(counts)} words\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
