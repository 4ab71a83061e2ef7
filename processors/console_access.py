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

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Literal

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
# Fields of a scope that hold ids of persons.
PERSONAL: Final = frozenset({"user"})


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
    """Short keyed digests of persons' ids: the same for the same id, and nothing to be had back from them without the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, user: str) -> str:
        return f"user-{hmac.new(self._key, user.encode(), hashlib.sha256).hexdigest()[:8]}"

    def scope(self, scope: dict[str, str | None]) -> dict[str, str | None]:
        """A scope without ids of persons."""
        return {name: self.of(value) if value and name in PERSONAL else value for name, value in scope.items()}
