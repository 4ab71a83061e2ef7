"""The thread that content leaves by: seals what callers have left, and sees it into the log or onto disk.

    queue ─ Plain ─ clean ─ seal or fingerprint ─ number ─► Shipper ─► log, or spool while it is away
                      └ no key, too large, not valid: counted, and gone

Plain text waits in memory only, in the queue; what the shipper holds, and its spool on disk, is sealed already.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import ValidationError

from ..schemas.content import CALL_FIELDS, CONTENT_ADAPTER, MAX_CHUNKS, ContentMode, OfCall, Texts
from ..schemas.envelope import CONTENT_SCHEMA
from ..schemas.errors import UsageError
from .key_source import KeySource
from .ports import Settled
from .pump import Pump
from .sealing import TextsTooLarge, fingerprint_id, fingerprints, seal

# Of a call's fields, what a content event may say; and the two that it must.
_NEEDED: Final = ("call_id", "started_at")
# What a queue entry takes beside its texts.
_OVERHEAD_BYTES: Final = 512


class Plain:
    """The texts of one call, in the clear, on their way to this thread. Its repr says nothing of them."""

    __slots__ = ("context", "fields", "mode", "prompt", "response", "size")

    def __init__(
        self,
        mode: ContentMode,
        fields: Mapping[str, Any],
        prompt: str | None,
        response: str | None,
        context: Sequence[str],
    ) -> None:
        self.mode = mode
        self.fields = {name: value for name in (*_NEEDED, *CALL_FIELDS) if (value := fields.get(name)) is not None}
        self.prompt = prompt
        self.response = response
        self.context = context
        self.size = _OVERHEAD_BYTES + sum(map(sys.getsizeof, (prompt, response, *context)))

    def __len__(self) -> int:
        return self.size


class ContentPump(Pump):
    """A `Pump` whose queue holds `Plain`. `keys` are asked for on its thread only."""

    # Sealing a long prompt takes a millisecond: a look at the log, at whoever closes and at other threads in between.
    take = 64
    yield_every = 1
    voice = "content_"

    def __init__(self, keys: KeySource, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, schema=CONTENT_SCHEMA)
        self._keys = keys
        self._lost: Counter[str] = Counter()

    def dropped_after(self) -> Counter[str]:
        return super().dropped_after() + self._lost

    def _prepare(self) -> None:
        """A vault's client may take seconds; a closer that cannot have the state lock for so long would lose everything."""
        with contextlib.suppress(UsageError):  # told with the first text that needs it
            self._keys.ring()

    def _take_in(self, item: Plain, settled: Settled | None) -> None:
        """Seal one call's texts. What cannot be is gone: it may be plain text, so nothing of it goes anywhere else."""
        try:
            self.shipper.add(self._line(item))
        except UsageError as error:
            self._lost["no_key"] += 1
            self._warn("refused reason=no_key hint=%s", error)
        except TextsTooLarge:
            self._lost["too_large"] += 1
        except ValidationError as error:
            self._lost["invalid"] += 1
            self._warn("refused reason=invalid fields=%s", ",".join(sorted(_named(error))) or "none")
        except Exception as error:  # noqa: BLE001 — the emitter's door: its text may quote what was to be sealed
            self._lost["invalid"] += 1
            self._errors.bump()
            self._warn("seal_failed error=%s", type(error).__name__)

    def _line(self, item: Plain) -> bytes:
        texts = _texts(item)
        fields = self._fields(item.fields)
        event: dict[str, Any] = {"event": "content", **fields, "mode": item.mode}
        if item.mode == "sealed":
            key = self._keys.sealing(fields.get("tenant"))
            event["key_id"] = key.key_id
            event["sealed"] = seal(texts, str(fields["call_id"]), key)
        else:
            secret = self._keys.ring().fingerprint_key
            event["key_id"] = fingerprint_id(secret)
            event["fingerprints"] = fingerprints(secret, texts)
        CONTENT_ADAPTER.validate_python(event)
        return orjson.dumps(event, option=orjson.OPT_UTC_Z)

    def _fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """As with calls: a scope that the schema refuses is left out, so that the rest is not lost with it; and before
        anything is sealed, so that no key is ever made for a name that is none."""
        try:
            OfCall.model_validate(fields)
            return fields
        except ValidationError as error:
            wrong = _named(error)
            if not wrong or not wrong <= set(CALL_FIELDS):
                raise
        fields = {name: value for name, value in fields.items() if name not in wrong}
        OfCall.model_validate(fields)
        self._warn("fields_left_out fields=%s", ",".join(sorted(wrong)))
        return fields


def _texts(item: Plain) -> Texts:
    context = [_clean(chunk) for chunk in item.context]
    if len(context) > MAX_CHUNKS:  # nothing of it goes unjudged
        context[MAX_CHUNKS - 1 :] = ["\n\n".join(context[MAX_CHUNKS - 1 :])]
    return Texts(
        prompt=None if item.prompt is None else _clean(item.prompt),
        response=None if item.response is None else _clean(item.response),
        context=context,
    )


def _clean(text: str) -> str:
    """Half a surrogate pair is no text: a question mark stands for it, so that every place in the text stays."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _named(error: ValidationError) -> set[str]:
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return {str(problem["loc"][0]) for problem in found if problem["loc"]} & {*_NEEDED, *CALL_FIELDS}
