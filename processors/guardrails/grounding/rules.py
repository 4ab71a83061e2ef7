"""The guideline rules as a file: read, checked, and merged with a site's own. The form is told in `guidelines.yaml`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from .facts import UNITS

SHIPPED: Final = Path(__file__).with_name("guidelines.yaml")
_DOSE_UNITS: Final = ("mcg", "mg", "g", "unit")
_KEYS: Final = {
    "doses": ({"id", "names", "unit", "severity", "source"}, {"single", "daily", "per_day_of_daily_use"}),
    "contraindications": ({"id", "drugs", "with", "severity", "source"}, {"when"}),
    "allergies": ({"id", "group", "severity", "source"}, {"also"}),
}

# "egfr < 30", "< 19 years old": a name, and what its number must be.
NUMBERED: Final = re.compile(r"(?:(?P<before><|>=) (?P<most>\d+) )?(?P<name>[^<>]+?)(?: (?P<after><|>=) (?P<least>\d+))?\Z")


class GuidelineError(ValueError):
    """A file of rules that cannot be used: says which line, and what to do."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path.name}, line {line}: {problem}")


@dataclass(frozen=True, slots=True)
class Dose:
    """No more than `single` at once and `daily` in a day, in milligrams (or units); None is no limit. With `weekly_only` the
    daily limit is for a drug taken every day: this one is not."""

    id: str
    names: tuple[str, ...]
    dimension: str  # mass, or units
    single: float | None
    daily: float | None
    weekly_only: bool
    severity: float
    source: str


@dataclass(frozen=True, slots=True)
class Contraindication:
    """Not `drugs` where any of `reasons` is so, and any of `when`, if it has some."""

    id: str
    drugs: frozenset[str]
    reasons: frozenset[str]
    when: frozenset[str]
    severity: float
    source: str


@dataclass(frozen=True, slots=True)
class Allergy:
    """Whoever is allergic to one of `drugs`, or to a name in `also`, is given none of `drugs`."""

    id: str
    drugs: frozenset[str]
    also: frozenset[str]
    severity: float
    source: str


@dataclass(slots=True)
class Rules:
    """Every rule, by its id."""

    doses: dict[str, Dose] = field(default_factory=dict)
    contraindications: dict[str, Contraindication] = field(default_factory=dict)
    allergies: dict[str, Allergy] = field(default_factory=dict)
    sha256: str = ""


def read_rules(extra: Path | None = None) -> Rules:
    """The shipped rules, and those of `extra`, which may use the shipped groups and take the place of a shipped id. Raises
    `GuidelineError`."""
    rules, groups = Rules(), dict[str, frozenset[str]]()
    digest = hashlib.sha256()
    for path in (SHIPPED, extra):
        if path is not None:
            digest.update(_read(path, rules, groups))
    rules.sha256 = digest.hexdigest()
    return rules


def _read(path: Path, rules: Rules, groups: dict[str, frozenset[str]]) -> bytes:
    try:
        read = path.read_bytes()
        root = yaml.compose(read.decode("utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise GuidelineError(path, 0, f"cannot be read ({error.strerror}); name a file that this process may read") from error
    except UnicodeDecodeError as error:
        raise GuidelineError(path, 0, "is not UTF-8; save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise GuidelineError(path, line, f"is not YAML ({error.problem}); check its indentation and quotes") from error
    file = _Checked(path, groups)
    for section, node in file.mapping(root, "the file").items():
        if section == "version":
            continue
        if section == "groups":
            for name, members in file.mapping(node, "groups").items():
                groups[name] = frozenset(file.names(members))
        elif section in _KEYS:
            for item in file.items(node, section):
                file.add(rules, section, item)
        else:
            raise GuidelineError(path, file.line(node), f"unknown section {section!r}; use groups, {', '.join(_KEYS)}")
    return read


class _Checked:
    """One file, while it is read; every complaint bears its line."""

    def __init__(self, path: Path, groups: Mapping[str, frozenset[str]]) -> None:
        self.path, self.groups, self._ids = path, groups, set[str]()

    def line(self, node: yaml.Node | None) -> int:
        return node.start_mark.line + 1 if node is not None else 1

    def fail(self, node: yaml.Node | None, problem: str) -> GuidelineError:
        return GuidelineError(self.path, self.line(node), problem)

    def mapping(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} must be a mapping, `key: value`")
        return {str(key.value): value for key, value in node.value}

    def items(self, node: yaml.Node, section: str) -> Sequence[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.fail(node, f"{section} must be a list of rules, each beginning with `- `")
        return list(node.value)

    def names(self, node: yaml.Node) -> list[str]:
        if isinstance(node, yaml.SequenceNode) and node.value and all(isinstance(each, yaml.ScalarNode) for each in node.value):
            names = [str(each.value).lower() for each in node.value]
            for name, each in zip(names, node.value, strict=True):
                if not NUMBERED.match(name):
                    raise self.fail(
                        each, f"cannot read {name!r}; write a name with a number as `egfr < 30` or `>= 20 weeks pregnant`"
                    )
            return names
        raise self.fail(node, "must be a list of names, `[one, other]`, with at least one")

    def add(self, rules: Rules, section: str, node: yaml.Node) -> None:
        given = self.mapping(node, "a rule")
        needed, allowed = _KEYS[section]
        for key in sorted(needed - set(given)):
            raise self.fail(node, f"a rule of {section} lacks `{key}`; every rule has {', '.join(sorted(needed))}")
        for key in given:
            if key not in needed | allowed:
                raise self.fail(
                    given[key], f"unknown `{key}`; a rule of {section} may have {', '.join(sorted(needed | allowed))}"
                )
        name, source = str(given["id"].value), str(given["source"].value).strip()
        if name in self._ids:
            raise self.fail(given["id"], f"a second rule with the id {name!r}; give each its own")
        if not source:
            raise self.fail(given["source"], "an empty source; name the label or guideline, and its year")
        self._ids.add(name)
        severity = self.amount(given["severity"], 1.0)
        if section == "doses":
            rules.doses[name] = self._dose(name, given, severity, source)
        elif section == "contraindications":
            drugs, reasons = self.grouped(given["drugs"]), self.grouped(given["with"])
            when = self.grouped(given["when"]) if "when" in given else frozenset[str]()
            rules.contraindications[name] = Contraindication(name, drugs, reasons, when, severity, source)
        else:
            group = str(given["group"].value).lower()
            if group not in self.groups:
                raise self.fail(given["group"], f"unknown group {group!r}; define it under `groups`")
            also = frozenset(self.names(given["also"])) if "also" in given else frozenset[str]()
            rules.allergies[name] = Allergy(name, self.groups[group], also, severity, source)

    def _dose(self, name: str, given: Mapping[str, yaml.Node], severity: float, source: str) -> Dose:
        unit = str(given["unit"].value).lower().removesuffix("s") if given["unit"].value != "units" else "unit"
        if unit not in _DOSE_UNITS:
            raise self.fail(given["unit"], f"unknown unit {unit!r}; use mcg, mg, g or units")
        if "single" not in given and "daily" not in given:
            raise self.fail(given["id"], "a dose without a limit; give `single`, `daily` or both")
        dimension, factor = UNITS[unit]
        limits = [factor * self.amount(given[key], 1e9) if key in given else None for key in ("single", "daily")]
        weekly = str(given["per_day_of_daily_use"].value).lower() == "true" if "per_day_of_daily_use" in given else False
        return Dose(name, tuple(self.names(given["names"])), dimension, limits[0], limits[1], weekly, severity, source)

    def grouped(self, node: yaml.Node) -> frozenset[str]:
        names = self.names(node)
        return frozenset(each for name in names for each in (self.groups.get(name) or (name,)))

    def amount(self, node: yaml.Node, most: float) -> float:
        try:
            value = float(node.value)
        except (TypeError, ValueError):
            value = -1.0
        if not 0 < value <= most:
            raise self.fail(node, f"must be a number above 0 and at most {most:g}")
        return value
