"""The scopes that policies on findings are not at ease with, from the signals topic: their calls are always judged."""

from __future__ import annotations

from typing import Final

import msgspec

from ...schemas.signal import SIGNAL_PREFIX


class _Said(msgspec.Struct):
    """What is looked at of a signal."""

    measure: str
    state: str
    scope: dict[str, str | None]


_signal: Final = msgspec.json.Decoder(_Said)


class WatchedScopes:
    """Follows the topic: of each key the last word counts."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, dict[str, str | None]] = {}

    def hear(self, key: bytes, value: bytes) -> None:
        """One record of the topic; without a value its key is taken back."""
        if not key.startswith(SIGNAL_PREFIX):
            return
        # Of the many signals about money and speed nothing need be decoded.
        if b'"measure":"finding' not in value:
            self._by_key.pop(key, None)
            return
        try:
            said = _signal.decode(value)
        except msgspec.MsgspecError:
            # A record of somebody else: no text waits for it.
            return
        self._by_key.pop(key, None)
        if said.state != "ok":
            self._by_key[key] = said.scope

    def scopes(self) -> list[dict[str, str | None]]:
        return list(self._by_key.values())
