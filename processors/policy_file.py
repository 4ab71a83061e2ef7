"""The operator's policy file: YAML or TOML in, a checked PolicySet out; and a watch that follows its edits.

    bytes ─ parse (exact decimals, no key twice, lines kept) ─ schemas/policy.py ─ PolicySet, named by what it says
                  └──────────── UsageError: file:line: policy: field: what is wrong; what to do ────────────┘

Every problem that the schema finds is told at once, one a line.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import orjson
import yaml
from pydantic import ValidationError

from ..schemas.errors import UsageError
from ..schemas.policy import Action, CalendarWindow, Policy, PolicySet, RequestLimit, RollingWindow, ScopeLimit, did_you_mean

# Looking at a file is a system call; nobody minds that a saved file counts a second later.
_LOOK_EVERY_S: Final = 1.0
# A table of limits for a hundred thousand users is below it.
_MAX_BYTES: Final = 16 << 20

# Where something stands in the file, from the top: ("policies", 2, "window", "rolling").
Place = tuple[str | int, ...]


def read_policies(path: Path) -> PolicySet:
    """The policies of a file. Raises `UsageError` telling every problem, one a line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path of the policy file") from error
    return parse_policies(path, raw)


def parse_policies(path: Path, raw: bytes) -> PolicySet:
    """The policies in the bytes of a file of this name. Raises `UsageError`."""
    if len(raw) > _MAX_BYTES:
        raise UsageError(f"{path}: is larger than {_MAX_BYTES >> 20} MiB; this is no policy file")
    source = _parse(path, raw)
    if not isinstance(source.data, dict):
        raise UsageError(f"{path}: must hold the lists `policies` and `request_limits`")
    if "version" in source.data:
        raise UsageError(f"{source.at(('version',))}: `version` is told from what the file says; remove it")
    try:
        found = PolicySet.model_validate(source.data)
    except ValidationError as error:
        found_wrong = error.errors(include_url=False)
        # A list of which every entry is wrong is also told as too short.
        within = {problem["loc"][:-1] for problem in found_wrong} | {problem["loc"][:-2] for problem in found_wrong}
        told = [problem for problem in found_wrong if problem["type"] != "too_short" or problem["loc"] not in within]
        problems = dict.fromkeys(_explained(problem, source) for problem in told)
        raise UsageError("\n".join(problems)) from error
    return found.model_copy(update={"version": version_of(found)})


def version_of(policies: PolicySet) -> str:
    """Twelve hex digits for what a set says, however it is written: order, comments and `25` or `25.00` do not matter."""
    said = policies.model_dump(exclude={"version"}, exclude_defaults=True)
    canonical = orjson.dumps(
        {kind: sorted(entries, key=lambda entry: str(entry["name"])) for kind, entries in said.items()},
        option=orjson.OPT_SORT_KEYS,
        default=_plain,
    )
    return hashlib.sha256(canonical).hexdigest()[:12]


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    raise TypeError(type(value).__name__)


class PolicyWatch:
    """Follows a policy file. `current` is the set in force; without a file it is empty.

    A good edit counts at the first look that finds it. One that may be half written (it is bad, or policies are gone)
    must be found the same by two looks in a row. A bad edit keeps the set before it; `problem` says what is wrong with
    the file, for as long as that is so.

    Raises `UsageError` when the file is bad at the start, unless there is `last`, the set in force before, to go on with.
    """

    def __init__(self, path: Path | None, last: PolicySet | None = None) -> None:
        self.path = path
        self.current = _EMPTY
        self.problem: str | None = None
        self._looked_at = float("-inf")
        self._judged = self._doubted = _Content(None)
        # Two looks: a file that was written twice within a tick of its clock is read again at the second.
        self._stamps: tuple[object, object] = ("", "")
        if path is None:
            return
        self._judged = self._doubted = _Content.of(path)
        try:
            self.current = self._judged.policies(path)
        except UsageError as error:
            if last is None:
                raise
            self.current, self.problem = last, str(error)

    def poll(self, now: float) -> PolicySet | None:
        """The new set when the file says something else, or None. Looks at most once a second of `now`."""
        if self.path is None or 0 <= now - self._looked_at < _LOOK_EVERY_S:
            return None
        self._looked_at = now
        stamp = _stamp(self.path)
        if self._stamps == (stamp, stamp) and self._doubted == self._judged:
            return None
        self._stamps = (self._stamps[1], stamp)
        content = _Content.of(self.path)
        if content == self._judged:
            self._doubted = content
            return None
        try:
            found, problem = content.policies(self.path), None
            if content.raw is None:
                problem = f"{self.path}: is gone, and no policy is in force; put it back, or restart without it"
        except UsageError as error:
            found, problem = self.current, str(error)
        if content != self._doubted and (problem or _names(self.current) - _names(found)):
            self._doubted = content
            return None
        self._judged = self._doubted = content
        self.problem = problem
        if found.version == self.current.version:
            return None
        self.current = found
        return found


@dataclass(frozen=True, slots=True)
class _Content:
    """What a look at the file found: its bytes, None without a file, or why it cannot be read."""

    raw: bytes | None
    error: str | None = None

    @classmethod
    def of(cls, path: Path) -> _Content:
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            return cls(None)
        except OSError as error:
            return cls(None, error.strerror)

    def policies(self, path: Path) -> PolicySet:
        if self.error is not None:
            raise UsageError(f"{path}: cannot be read ({self.error}); check the path and the rights of the policy file")
        return _EMPTY if self.raw is None else parse_policies(path, self.raw)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _names(policies: PolicySet) -> set[str]:
    return {policy.name for policy in policies.policies} | {limit.name for limit in policies.request_limits}


_EMPTY: Final = PolicySet(version=version_of(PolicySet()))


# Reading: what the file holds, and where.


@dataclass(frozen=True, slots=True)
class _Source:
    """A file as it was parsed; of YAML, also the nodes, which know their lines."""

    path: Path
    data: Any
    root: yaml.Node | None = None

    def at(self, place: Place) -> str:
        """`file:line` of a place, or of what holds it; `file` where lines are not known."""
        node = self.root
        if node is None:
            return str(self.path)
        line = node.start_mark.line
        for part in place:
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if key.value == part), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = node.start_mark.line
            else:
                break
        return f"{self.path}:{line + 1}"


def _parse(path: Path, raw: bytes) -> _Source:
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise UsageError(f"{path}: name the policy file *.yaml, *.yml or *.toml, after what it holds")
    try:
        text = raw.decode("utf-8-sig")
        if path.suffix == ".toml":
            return _Source(path, tomllib.loads(text, parse_float=Decimal))
        loader = _ExactLoader(text)
        try:
            root = loader.get_single_node()
            return _Source(path, {} if root is None else loader.construct_document(root), root)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"(.*) \(at line (\d+), column \d+\)", str(error))
        where, what = (f"{path}:{found[2]}", found[1]) if found else (str(path), str(error))
        raise UsageError(f"{where}: {what}; correct the TOML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        what = error.problem or error.context or "is not YAML"
        raise UsageError(f"{where}: {what}{'' if ';' in what else '; correct the YAML'}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {str(error).replace(chr(10), ' ')}; correct the YAML") from error
    except RecursionError:
        raise UsageError(f"{path}: is nested too deeply; no policy needs that") from None


class _ExactLoader(yaml.SafeLoader):
    """YAML with exact decimals in place of floats, without the numbers nobody means, that refuses a key given twice."""

    def decimal(self, node: yaml.ScalarNode) -> Decimal:
        try:
            return Decimal(self.construct_scalar(node).replace("_", ""))
        except InvalidOperation:
            raise _refused(node, f"{node.value} is not a decimal number; write one such as 25.50") from None

    def whole(self, node: yaml.ScalarNode) -> int:
        # YAML 1.1 reads 010 as 8, 0x10 as 16 and 1:30 as 90: nobody's budget.
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value):
            raise _refused(node, f"{node.value} is not a plain number; write it in digits, or as text in quotes")
        return int(node.value.replace("_", ""))

    def once(self, node: yaml.MappingNode) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise _refused(key, "a key must be text; put it in quotes")
            if key.value in lines:
                raise _refused(key, f"`{key.value}` is given twice, first in line {lines[key.value]}; keep one")
            lines[key.value] = key.start_mark.line + 1
        return self.construct_mapping(node, deep=True)


def _refused(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_ExactLoader.add_constructor("tag:yaml.org,2002:float", _ExactLoader.decimal)
_ExactLoader.add_constructor("tag:yaml.org,2002:int", _ExactLoader.whole)
_ExactLoader.add_constructor("tag:yaml.org,2002:map", _ExactLoader.once)


# Explaining: what the schema refused, in the words of the file.

_DURATIONS: Final = {"rolling", "hold", "stale_after", "probe_every"}
_ENTRIES: Final = {"policies": "policy", "request_limits": "request limit"}
# What holds a key, by the names on the way to it, and the keys it may have.
_HOLDERS: Final[dict[tuple[str, ...], tuple[str, tuple[str, ...]]]] = {
    (): ("a policy file", ("policies", "request_limits")),
    ("policies",): ("a policy", (*Policy.model_fields, "action")),
    ("policies", "window"): ("a window", (*RollingWindow.model_fields, *CalendarWindow.model_fields)),
    ("policies", "action"): ("an action", tuple(Action.model_fields)),
    ("policies", "actions"): ("an action", tuple(Action.model_fields)),
    ("policies", "limits"): ("a row of limits", tuple(ScopeLimit.model_fields)),
    ("request_limits",): ("a request limit", tuple(RequestLimit.model_fields)),
}
_MISSING: Final = {
    "actions": "missing; say what happens at the limit, such as `action: block`",
    "window": "missing; say over what is counted: `rolling: 24h`, or `calendar: day` with a `time_zone`",
    "measure": "missing; say what is counted, such as cost_usd or requests",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be above"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be below"),
}
_KINDS: Final = {
    "decimal": "must be a number such as 25.50",
    "float": "must be a number such as 0.8",
    "int": "must be a whole number",
    "tuple": "must be a list",
    "dict": "must be a mapping of keys to values",
    "model": "must be a mapping of keys to values",
    "string": "must be text; put it in quotes",
}


def _explained(problem: Any, source: _Source) -> str:
    """`file:line: policy name: field: what is wrong; what to do`."""
    place = _as_written(problem["loc"], source.data)
    who, field = "", place
    if len(place) > 1 and place[0] in _ENTRIES:
        entry = source.data[place[0]][place[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        who = f"{_ENTRIES[str(place[0])]} {name}" if isinstance(name, str) else f"{place[0]}[{place[1]}]"
        field = place[2:]
    spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in field).lstrip(".")
    return ": ".join(part for part in (source.at(place), who, spelled, _what_is_wrong(problem, place)) if part)


def _as_written(loc: Place, data: Any) -> Place:
    """Where the schema's error stands in the file: without the schema's names for kinds of windows, and with shorthands."""
    if len(loc) > 3 and loc[2] == "window":
        loc = (*loc[:3], *loc[4:])
    place: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and isinstance(part, str):
            part = "action" if part == "actions" and "action" in data else part
            place.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            place.append(part)
            data = data[part]
    return tuple(place)


def _what_is_wrong(problem: Any, place: Place) -> str:
    kind, given, context = str(problem["type"]), problem["input"], problem.get("ctx", {})
    named = str(place[-1]) if place else ""
    if kind == "extra_forbidden":
        what, keys = _HOLDERS[tuple(part for part in place[:-1] if isinstance(part, str))]
        return f"not a key of {what}; {did_you_mean(named, keys)}"
    if kind == "missing":
        return _MISSING.get(named, "missing; add it")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"{given!s} is not known; {did_you_mean(str(given), known)}"
    if kind == "string_pattern_mismatch":
        of_name = context["pattern"].startswith("^[A-Z")
        return "may hold letters, digits and _ . : / - only" if of_name else "must be one line without control characters"
    if kind == "too_short":
        return _MISSING.get(named, "is empty; add to it, or leave it out").replace("missing", "is empty")
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {duration_text(context[key]) if named in _DURATIONS else context[key]}"
    for prefix, words in _KINDS.items():
        if kind in (f"{prefix}_type", f"{prefix}_parsing", f"{prefix}_from_float"):
            return words
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must")


def duration_text(seconds: int) -> str:
    """Seconds as a policy file writes them: `90s`, `15m`, `24h`, `31d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size and seconds % size == 0 and not (unit == "d" and seconds == size):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
