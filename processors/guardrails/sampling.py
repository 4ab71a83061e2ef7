"""Which calls are scored: those at risk always and first, of the others a share, and none of them once scoring is behind.

    at risk    named by `guard_always` (a tenant, say), watched by a policy on findings that is not at ease, or new: a prompt
               version or a model first seen within `guard_new_h`
    ordinary   by a keyed hash of the call id: the same calls in any process, and nobody outside can choose

Pure: time is the log's own, and what was seen is given and kept by the engine.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from ...schemas.content import ContentEvent

# Names are anybody's. A tenant's prompt that has more versions than this in a day is not new each time, and a memory of
# twenty thousand names is some megabytes.
_MOST_NEW_VERSIONS: Final = 50
MOST_NAMES: Final = 20_000
# A name that is still in use is kept again this often, so that an engine may let go of what it was told before `FORGOTTEN_MS`.
_KEPT_AGAIN_MS: Final = 5 * 86_400_000
FORGOTTEN_MS: Final = 30 * 86_400_000

Name = tuple[str, ...]


class Sighting(NamedTuple):
    """When a name was first seen, and when it was last kept, by the log's clock."""

    first_ms: int
    kept_ms: int


class Choice(Enum):
    """What becomes of a call's text."""

    AT_RISK = 0  # scored, and before others
    ORDINARY = 1
    LEFT_OUT = 2


@dataclass(slots=True)
class Sampling:
    """The rules, and what was seen when."""

    share: float = 1.0
    always: Mapping[str, Sequence[str]] = field(default_factory=dict)
    new_for_ms: int = 86_400_000
    watched: Sequence[Mapping[str, str | None]] = ()
    seen: OrderedDict[Name, Sighting] = field(default_factory=OrderedDict)
    # For the engine to keep: what is new since it was last asked, and what should not be forgotten.
    fresh: dict[Name, Sighting] = field(default_factory=dict)
    # Prompt → since when its new versions are counted, and how many there were.
    _counts: OrderedDict[Name, tuple[int, int]] = field(default_factory=OrderedDict, repr=False)

    def choose(self, event: ContentEvent, key: bytes, now_ms: int, *, behind: bool, far_behind: bool = False) -> Choice:
        """What becomes of this call; notes that it was seen. `key` is the ring's, for fingerprints. What is merely new is
        left out as well once scoring is `far_behind`: on the first day everything is."""
        new = self._is_new(event, now_ms)
        if (new and not far_behind) or self._named(event) or self._is_watched(event):
            return Choice.AT_RISK
        if behind or draw(key, event.call_id) >= self.share:
            return Choice.LEFT_OUT
        return Choice.ORDINARY

    def restore(self, kept: Iterable[tuple[Name, Sighting]]) -> None:
        """What was kept, by us or by another of our kind, oldest first. Twice or late changes nothing."""
        for name, sighting in kept:
            known = self.seen.get(name)
            if known is None and name[:1] == ("version",):
                self._count(("versions", *name[1:3]), 1, sighting.first_ms)
            if known is not None:
                sighting = Sighting(min(known.first_ms, sighting.first_ms), max(known.kept_ms, sighting.kept_ms))
            self._note(name, sighting)

    def _named(self, event: ContentEvent) -> bool:
        return any(getattr(event, name, None) in values for name, values in self.always.items())

    def _is_watched(self, event: ContentEvent) -> bool:
        model = event.response_model or event.request_model
        return any(
            all((model if name == "model" else getattr(event, name, None)) == value for name, value in scope.items())
            for scope in self.watched
        )

    def _is_new(self, event: ContentEvent, now_ms: int) -> bool:
        new = False
        if model := event.response_model or event.request_model:
            new = self._first_seen(("model", model), now_ms)
        if event.prompt_name is not None and event.prompt_version is not None:
            prompt = ("versions", event.tenant or "", event.prompt_name)
            version = ("version", event.tenant or "", event.prompt_name, event.prompt_version)
            known = version in self.seen
            if self._first_seen(version, now_ms):
                # Versions that are made up for each call are no news.
                new = new or self._count(prompt, 0 if known else 1, now_ms) <= _MOST_NEW_VERSIONS
        return new

    def _first_seen(self, name: Name, now_ms: int) -> bool:
        """Whether a name was first seen lately."""
        found = self.seen.get(name, Sighting(now_ms, 0))
        # Partitions are not read in step: what comes later may have been there earlier.
        if now_ms < found.first_ms or now_ms - found.kept_ms >= _KEPT_AGAIN_MS:
            found = self.fresh[name] = Sighting(min(found.first_ms, now_ms), max(found.kept_ms, now_ms))
        self._note(name, found)
        return now_ms - found.first_ms < self.new_for_ms

    def _note(self, name: Name, sighting: Sighting) -> None:
        self.seen[name] = sighting
        self.seen.move_to_end(name)
        while len(self.seen) > MOST_NAMES:
            self.seen.popitem(last=False)

    def _count(self, prompt: Name, more: int, now_ms: int) -> int:
        """How many versions of a prompt were new since the count was begun, a window ago at most."""
        began, count = self._counts.get(prompt, (now_ms, 0))
        if now_ms - began >= self.new_for_ms:
            began, count = now_ms, 0
        self._counts[prompt] = began, count + more
        while len(self._counts) > MOST_NAMES:
            self._counts.popitem(last=False)
        return count + more


def draw(key: bytes, call_id: str) -> float:
    """A number in [0, 1) for a call, the same wherever the key is."""
    digest = hmac.digest(key, b"sample\n" + call_id.encode(errors="surrogatepass"), "sha256")
    return int.from_bytes(digest[:8], "big") / 2**64
