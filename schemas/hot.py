"""The hot path's decoder, derived from the public schema: typed decode and validation in one pass of msgspec.

`decode_event(line)` accepts exactly the bytes that `EVENT_ADAPTER.validate_json` accepts (a property test holds it) and
raises `InvalidEvent` with a reason that names the field and the bound, never the value.

The one thing msgspec is slow at is a pattern on every string. JSON can carry a control character only behind a
backslash (or as DEL), so the printable pattern is left out of the derived types, and a line with either byte is
judged by the public schema itself.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .call import PRINTABLE, RejectedEvent, RequestEvent, ResponseEvent, RetrievedChunk, check_response
from .errors import InvalidEvent
from .event import EVENT_ADAPTER
from .finding import ScoredEvent

_SCALAR: Final = int | float | str | bool | None
# What `Any` is in a provider's usage object. One level deeper than `check_response` lets pass, and no deeper: pydantic's
# parser gives up at 200 levels, and would do so even for a key that is given again.
_JSON: Any = _SCALAR
for _ in range(5):
    _JSON = Union[_SCALAR, list[_JSON], dict[str, _JSON]]  # noqa: UP007 — built at run time

_CONSTRAINTS: Final = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")


def _meta(metadata: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _meta(tuple(item.metadata))
        for name in _CONSTRAINTS:
            if (value := getattr(item, name, None)) is not None:
                found[name] = value
    return found


def _hot_type(annotation: Any, metadata: tuple[Any, ...] = ()) -> Any:
    """The msgspec spelling of a pydantic annotation, constraints included."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _hot_type(args[0], args[1:] + metadata)
    if origin in (Union, types.UnionType):
        inner = [_hot_type(arg, metadata if arg is not type(None) else ()) for arg in args]
        return Union[tuple(inner)]  # noqa: UP007 — built at run time
    if annotation is Any:
        return _JSON
    if annotation is datetime:
        return Annotated[datetime, msgspec.Meta(tz=True)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return derive(annotation)
    if origin in (list, dict):
        annotation = origin[tuple(_hot_type(arg) for arg in args)]
    constraints = _meta(metadata)
    if constraints.get("pattern") == PRINTABLE:
        del constraints["pattern"]
    return Annotated[annotation, msgspec.Meta(**constraints)] if constraints else annotation


def derive(model: type[BaseModel], check: Callable[[Any], None] | None = None) -> type[msgspec.Struct]:
    """A frozen msgspec Struct with the model's fields, bounds and defaults; `check` runs after decoding."""
    tag: str | None = None
    fields: list[Any] = []
    for name, info in model.model_fields.items():
        if name == "event" and get_origin(info.annotation) is Literal:
            tag = get_args(info.annotation)[0]
            continue
        hot = _hot_type(info.annotation, tuple(info.metadata))
        # An empty list or dict, as a default, is made anew each time; msgspec sees to that.
        fields.append((name, hot) if info.is_required() else (name, hot, info.get_default(call_default_factory=True)))
    return msgspec.defstruct(
        f"Hot{model.__name__}",
        fields,
        namespace={"__post_init__": check} if check else {},
        tag_field="event" if tag else None,
        tag=tag,
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
        omit_defaults=True,
        gc=False,
    )


if TYPE_CHECKING:  # the derived types have the fields of the models they come from
    HotRequest = RequestEvent
    HotResponse = ResponseEvent
    HotRejected = RejectedEvent
    HotScored = ScoredEvent
else:
    HotRequest = derive(RequestEvent)
    HotResponse = derive(ResponseEvent, check_response)
    HotRejected = derive(RejectedEvent)
    HotScored = derive(ScoredEvent)

_decoder: Final = msgspec.json.Decoder(HotRequest | HotResponse | HotRejected | HotScored)
_FIELDS: Final = frozenset(
    name for model in (RequestEvent, ResponseEvent, RejectedEvent, ScoredEvent, RetrievedChunk) for name in model.model_fields
)


def decode_event(line: bytes) -> RequestEvent | ResponseEvent | RejectedEvent | ScoredEvent:
    """One validated event from one line of JSON; a hot struct with the public model's fields. Raises `InvalidEvent`."""
    try:
        event = _decoder.decode(line)
    except msgspec.ValidationError as error:
        return _second_opinion(line, _without_values(str(error)))
    except UnicodeDecodeError:
        return _second_opinion(line, "not valid JSON: it is not UTF-8")
    except msgspec.DecodeError as error:
        return _second_opinion(line, f"not valid JSON: {error}"[:256])
    except RecursionError:
        raise InvalidEvent("nested too deeply") from None
    # Asked by number: for bytes in bytes, Python first tries an integer and drops the error, ten times the search.
    if 0x5C in line or 0x7F in line:
        try:
            EVENT_ADAPTER.validate_json(line)
        except ValidationError as error:
            raise InvalidEvent(_first_problem(error)) from None
    return event  # type: ignore[no-any-return]  # the decoder's union is built at run time


def _second_opinion(line: bytes, reason: str) -> RequestEvent | ResponseEvent | RejectedEvent | ScoredEvent:
    """What the public schema makes of a line that msgspec refused for `reason`.

    Of a key given twice the last counts, there as here; but msgspec also judges the ones before it.
    """
    try:
        event = EVENT_ADAPTER.validate_json(line)
    except ValidationError:
        raise InvalidEvent(reason) from None
    return msgspec.convert(event.model_dump(), HotRequest | HotResponse | HotRejected | HotScored)


def _without_values(message: str) -> str:
    """msgspec's reason without anything the sender wrote: an unknown field, tag or value may hold text, even a false path."""
    found = re.search(r" - at `\$\.(\w+)(?:\[[^`]*\])?`\Z", message)
    at = f" - at `$.{found[1]}`" if found and found[1] in _FIELDS else ""
    if message.startswith("Object contains unknown field"):
        return f"unknown field; a metering event takes the schema's fields only, and free text never{at}"
    if message.startswith("Invalid "):
        return f"not one of the allowed values{at}"
    return message[:256]


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    at = "".join(f" - at `$.{part}`" for part in first["loc"][1:2] if part in _FIELDS)
    # Only a tag's message repeats what the sender wrote.
    return f"not one of the allowed values{at}" if first["type"] == "union_tag_invalid" else f"{first['msg']}{at}"[:256]
