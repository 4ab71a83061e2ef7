"""Canaries: strings that a prompt holds and no answer may. They are secrets, and nothing here shows one.

TIDEGATE_GUARD_CANARIES      as JSON: a list, or {"*": [...], "tenant=harbor-health": [...], "service=triage": [...]}
TIDEGATE_GUARD_CANARY_FILE   the same in a file, or one canary a line
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ....schemas.errors import UsageError
from ....schemas.settings import Settings

# Shorter than this, a canary is found by chance.
MIN_CHARS: Final = 6
EVERYWHERE: Final = "*"
# By what of a call they may be given: what a detector is told of it.
FIELDS: Final = ("tenant", "service", "task_type", "prompt_name", "request_model")


@dataclass(frozen=True, slots=True)
class Canaries:
    """Scope (`*`, or `field=value`) → its canaries. Its repr shows none of them."""

    by_scope: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def of_settings(cls, settings: Settings) -> Canaries:
        """Those of both settings. Raises `UsageError`, which says where and never what."""
        found: dict[str, tuple[str, ...]] = {}
        for name, text in _given(settings):
            for scope, values in _parsed(text, name).items():
                found[scope] = (*found.get(scope, ()), *values)
        return cls(found)

    def of_call(self, known: Mapping[str, str]) -> tuple[str, ...]:
        """Those that no answer to this call may hold."""
        scopes = (EVERYWHERE, *(f"{name}={known[name]}" for name in FIELDS if name in known))
        return tuple(dict.fromkeys(value for scope in scopes for value in self.by_scope.get(scope, ())))


NONE: Final = Canaries()


def _given(settings: Settings) -> list[tuple[str, str]]:
    given: list[tuple[str, str]] = []
    if settings.guard_canaries is not None:
        given.append(("TIDEGATE_GUARD_CANARIES", settings.guard_canaries.get_secret_value()))
    if settings.guard_canary_file is not None:
        path = settings.guard_canary_file
        try:
            given.append((str(path), path.read_text("utf-8-sig")))  # some editors begin a file with a mark
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"the canaries in {path} cannot be read") from None
    return given


def _parsed(text: str, name: str) -> dict[str, tuple[str, ...]]:
    if text.lstrip()[:1] not in ("[", "{"):
        return {EVERYWHERE: _checked([line for line in text.splitlines() if line.strip()], name)}
    try:
        read = json.loads(text)
    except ValueError:
        # The error would quote the text.
        raise UsageError(f"{name}: not valid JSON; give a list of canaries, or lists by scope") from None
    by_scope = {EVERYWHERE: read} if isinstance(read, list) else read
    for scope in by_scope:
        if scope != EVERYWHERE and scope.partition("=")[0] not in FIELDS:
            raise UsageError(f"{name}: a scope is * or FIELD=VALUE, with FIELD one of {', '.join(FIELDS)}")
    return {scope: _checked(values, name) for scope, values in by_scope.items()}


def _checked(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise UsageError(f"{name}: the canaries of a scope are a list")
    for place, value in enumerate(values, 1):
        if not isinstance(value, str) or len(value.strip()) < MIN_CHARS or len(value.splitlines()) != 1:
            raise UsageError(f"{name}: canary {place} is no string of one line and {MIN_CHARS} characters or more")
    return tuple(value.strip() for value in values)
