"""Who may see and do what in the console: five roles, four rights.

    role        look   calls   transcripts   act        comes from
    (nobody)    *      –       –             –          * where the node has no TIDEGATE_TOKEN, on this machine
    viewer      ✓      –       –             –          tidegate access grant --role viewer: a wall
    oncall      ✓      –       –             ✓          … --role oncall
    analyst     ✓      ✓       –             –          … --role analyst, or TIDEGATE_TOKEN
    compliance  ✓      ✓       ✓             –          … --role compliance
    operator    ✓      ✓       ✓             ✓          the node's own token, or its one-time link

`look`: sums, budgets, incidents, without persons. `calls`: single calls and what was found in them. `transcripts`: redacted
texts. `act`: acknowledge, resolve, silence. On a ClickHouse server (docs/access.md) roles of these names read the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ..schemas.call import SCOPE_FIELDS
from .incident_words import Veil, veiled_by

Role = Literal["viewer", "oncall", "analyst", "compliance", "operator"]
Right = Literal["look", "calls", "transcripts", "act"]

RIGHTS: Final[dict[Role, tuple[Right, ...]]] = {
    "viewer": ("look",),
    "oncall": ("look", "act"),
    "analyst": ("look", "calls"),
    "compliance": ("look", "calls", "transcripts"),
    "operator": ("look", "calls", "transcripts", "act"),
}
# Who sees users' ids; everybody else sees digests, which tell them apart and no more.
NAMES_USERS: Final[frozenset[Role | None]] = frozenset({"analyst", "operator"})
# A user is a person; a label is whatever a service wrote into it. What else a scope or a silence names is nobody.
_PLAIN: Final = (frozenset(SCOPE_FIELDS) - {"user"}) | {"kind", "policy", "severity"}


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody at the console. `name` is what incidents say; `actor` what the audit log says."""

    role: Role | None
    rights: tuple[Right, ...]
    name: str = ""
    actor: str = ""

    @classmethod
    def of(cls, role: Role, name: str, actor: str) -> Who:
        return cls(role, RIGHTS[role], name, actor)

    def may(self, right: Right) -> bool:
        return right in self.rights


class Digests:
    """Short keyed digests of what may name a person, as pages have them (`incident_words`): the same for the same value, and
    nothing to be had back from them without the key."""

    def __init__(self, key: bytes) -> None:
        self.veil: Veil = veiled_by(key)

    def of(self, user: str) -> str:
        return self.veil("user", user)

    def scope(self, scope: Mapping[str, str | None]) -> dict[str, str | None]:
        """A scope, or what a silence matches, without what may name a person."""
        return {name: value if name in _PLAIN or not value else self.veil(name, value) for name, value in scope.items()}
