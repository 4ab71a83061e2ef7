"""`python -m bench.training.cards [--dev FOLDER]`: write docs/models.md, the cards of everything that judges by default.

The words are in cards.md; every number is a card's (written by whoever trained the model) or of `tidegate evaluate --dev`,
which this runs. Without the development data the table of targets on the page is kept as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tidegate.processors.guardrails.evaluation import TASKS, Evaluation
from tidegate.processors.guardrails.evaluation_report import table
from tidegate.processors.guardrails.loading import load_suite
from tidegate.processors.guardrails.phi.ner import WEIGHTS as TAGGER
from tidegate.schemas.settings import Settings

from . import dev_sets
from .dev_sets import GUARDRAILS

# What is written of each model; `@name` stands where a table goes.
WORDS: Final = Path(__file__).with_name("cards.md")
PAGE: Final = Path(__file__).parents[2] / "docs" / "models.md"
BATCH: Final = 64
# What stands between these is measured; the rest of the page is written.
BEGIN: Final = "<!-- targets: python -m bench.training.cards -->"
END: Final = "<!-- end of targets -->"


def measured(dev: Path) -> str:
    """The table of targets, now."""
    settings, evaluation = Settings(), Evaluation()
    suite = load_suite(settings, ["phi", *(task.detector for task in TASKS)])
    lines = [(line, line.sample(number)) for number, line in enumerate(dev_sets.lines(dev))]
    for start in range(0, len(lines), BATCH):
        batch = lines[start : start + BATCH]
        for (line, sample), assessment in zip(batch, suite.assess([sample for _, sample in batch]), strict=True):
            evaluation.add(line, sample, assessment)
    return dev_sets.markdown(dev_sets.targets(evaluation))


def page(targets: str) -> str:
    toxicity = _head(
        "Toxicity",
        "toxicity",
        GUARDRAILS / "heads" / "toxicity.json",
        "a logistic head over the shared embedding, hashed words and letters, and named marks (insults, threats, who is"
        " meant); windows of a text are judged alone, and the worst counts",
        "bench.training.train_toxicity",
    )
    injection = _head(
        "Injection and jailbreak",
        "injection",
        GUARDRAILS / "injection" / "injection.json",
        "families of patterns (`injection/patterns.yaml`) over every way a text can be read (without masks, decoded), and a "
        "logistic head over embedding, hashed words and what the families found",
        "bench.training.train_injection",
    )
    digest = json.loads(TAGGER.with_suffix(".json").read_bytes())["sha256"]
    network = "four layers over word shapes, word lists and neighbours, in NumPy"
    tagger = f"| tagger | {network}; `phi/{TAGGER.name}`, SHA-256 `{digest}` |"
    tables = {"tagger": tagger, "targets": f"{BEGIN}\n{targets.strip()}\n{END}", "toxicity": toxicity, "injection": injection}
    return re.sub(r"^@(\w+)$", lambda match: tables[match[1]], WORDS.read_text("utf-8"), flags=re.MULTILINE)


def _head(title: str, name: str, path: Path, what: str, trainer: str) -> str:
    card: Mapping[str, Any] = json.loads(path.read_bytes())
    files = ", ".join(f"`{file}` ({digest})" for file, digest in card["trained_on"]["files"].items())
    rows = (
        ("what", what),
        ("weights", f"`{path.with_suffix('.npz').relative_to(GUARDRAILS)}`, SHA-256 `{card['sha256']}`"),
        ("trained by", f"`python -m {trainer}`, which writes weights and card"),
        ("trained on", f"{files}; own lines in `{card['trained_on']['own']}`. In brackets: how the file's SHA-256 begins"),
        ("over", f"`{card['encoder']}`; over other vectors its weights mean nothing, and are refused"),
        ("line", f"a finding from a score of {card['threshold']:g}"),
        *((("kept out", card["method"]),) if "method" in card else ()),
        ("licence", card["licence"]),
        ("limits", card["limits"]),
    )
    told = [f"## {title}\n", table(("", ""), rows).replace("---:", "---"), "", "\n\n".join(_numbers(card["numbers"])), ""]
    return "\n".join(told)


def _numbers(numbers: Mapping[str, Any]) -> Iterator[str]:
    unseen = numbers["unseen_source"]
    columns = list(dict.fromkeys(name for each in unseen.values() for name in each))
    yield "On a source that was kept out of training:"
    rows = [(source, *(_told(each.get(name)) for name in columns)) for source, each in unseen.items()]
    yield table(("source", *(name.replace("_", " ") for name in columns)), rows)
    alarms = numbers["false_alarms"]
    lots = list(dict.fromkeys(lot for each in alarms.values() for lot in each))
    yield "Alarms on harmless texts that were not trained on, by which source was kept out:"
    rows = [
        (source.replace("_", " "), *(_share(each[lot]) if lot in each else "–" for lot in lots))
        for source, each in alarms.items()
    ]
    yield table(("head", *(lot.replace("_", " ") for lot in lots)), rows)


def _told(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def kept(text: str) -> str:
    """The table of targets as the page has it."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", type=Path, help="folder of the development data; without it the table of targets is kept")
    chosen = parser.parse_args()
    targets = measured(chosen.dev) if chosen.dev else kept(PAGE.read_text("utf-8"))
    PAGE.write_text(page(targets), "utf-8")
    sys.stdout.write(f"{PAGE} written\n{targets}\n")


if __name__ == "__main__":
    main()
