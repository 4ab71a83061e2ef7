"""What people are sent: one message about one group of incidents, to one destination. No value that may name a person."""

from __future__ import annotations

from typing import Literal

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One incident of a message, for receivers that keep count of incidents themselves."""

    number: int
    labels: dict[str, str]
    summary: str
    starts_at: float
    over: bool
    runbook: str = ""
    # As how bad it was told before; for who takes that for another one.
    was: list[str] = []


class Message(msgspec.Struct, frozen=True):
    """`group` is the same for all that is said of one trouble, `over` whether nothing of it is open any more."""

    id: str
    group: str
    severity: Literal["warning", "critical"]
    title: str
    body: str
    entries: list[Entry]
    over: bool
    at: float

    @property
    def is_end(self) -> bool:
        """Whether it tells of ends alone, be it of a part."""
        return all(entry.over for entry in self.entries)


class Delivery(msgspec.Struct, frozen=True):
    """A message on its way to one destination. `order`: nothing later goes before it to the same one."""

    order: int
    destination: str
    message: Message
    made_at: float
    # Whether it is the first of its incidents: that is always told, and of all later words the newest.
    opens: bool = True
    attempts: int = 0
    due_at: float = 0.0
    problem: str = ""
    # Since when it has been answered by nothing but what can be waited for so long and no longer.
    refused_since: float | None = None

    @property
    def id(self) -> str:
        return f"{self.message.id}|{self.destination}"


class GivenUp(msgspec.Struct, frozen=True):
    """The last message that a destination will never get, and how many there were, each within a day of the one before."""

    destination: str
    title: str
    problem: str
    at: float
    count: int = 1
