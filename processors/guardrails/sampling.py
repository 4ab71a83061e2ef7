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

# Names are anybody's, and may be made up for each call. So many are news in a day: versions of one prompt; names of all of a
# tenant's prompts and versions, or of all models. What is more is no news and not kept: whoever keeps names has a bounded
# number of them to keep.
_MOST_NEW_VERSIONS: Final = 50
_MOST_NEW: Final = 1_000
_COUNTED_MS: Final = 86_400_000
# A memory of twenty thousand names is some megabytes.
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
    # What names have in common → since when the new ones of it are counted, and how many there were.
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
            if known is None:
                self._is_news(name, sighting.first_ms)
            else:
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
        names: list[Name] = []
        if model := event.response_model or event.request_model:
            names.append(("model", model))
        if event.prompt_name is not None and event.prompt_version is not None:
            names.append(("version", event.tenant or "", event.prompt_name, event.prompt_version))
        known = [name for name in names if name in self.seen or self._is_news(name, now_ms)]
        lately = {self._first_seen(name, now_ms) for name in known}
        return True in lately

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

    def _is_news(self, name: Name, now_ms: int) -> bool:
        """Whether a name that was never seen is not one of too many; counts it."""
        most = {name[:1]: _MOST_NEW} if name[0] == "model" else {name[:2]: _MOST_NEW, name[:3]: _MOST_NEW_VERSIONS}
        too_many = [kind for kind in most if self._count(kind, now_ms) > most[kind]]
        return not too_many

    def _count(self, kind: Name, now_ms: int) -> int:
        """How many names of a kind were new since the count was begun, a day ago at most."""
        began, count = self._counts.get(kind, (now_ms, 0))
        if now_ms - began >= _COUNTED_MS:
            began, count = now_ms, 0
        self._counts[kind] = began, count + 1
        while len(self._counts) > MOST_NAMES:
            self._counts.popitem(last=False)
        return count + 1


def draw(key: bytes, call_id: str) -> float:
    """A number in [0, 1) for a call, the same wherever the key is."""
    digest = hmac.digest(key, b"sample\n" + call_id.encode(errors="surrogatepass"), "sha256")
    return int.from_bytes(digest[:8], "big") / 2**64
