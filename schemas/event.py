"""Every event of the calls topic, as one union: what services say of calls, and what the guardrails say of content."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from .call import RejectedEvent, RequestEvent, ResponseEvent
from .finding import ScoredEvent

Event = Annotated[RequestEvent | ResponseEvent | RejectedEvent | ScoredEvent, Field(discriminator="event")]
EVENT_ADAPTER: Final[TypeAdapter[RequestEvent | ResponseEvent | RejectedEvent | ScoredEvent]] = TypeAdapter(Event)
