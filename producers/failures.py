"""What went wrong, in one `error_type` and a short code: from an exception, or from a line of a log. No message is kept.

Told without importing any of them: by status code, by the provider's own code, by the names of the classes.

    openai, anthropic, mistral   .status_code   .code / .type / .body["error"]["type"]
    google                       .code          .status ("RESOURCE_EXHAUSTED")
    botocore                     .response["Error"]["Code"]   .response["ResponseMetadata"]["HTTPStatusCode"]
    httpx, requests              .response.status_code
    aiohttp, urllib              .status / .code
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

# Parts of codes and class names, lower case without punctuation. Order matters: the first hit decides.
_BY_NAME: Final = (
    ("context_length", ("contextlength", "contextwindow", "prompttoolong", "stringabovemaxlength")),
    ("content_filter", ("contentfilter", "contentpolicy", "safety", "guardrail", "moderation", "blockedprompt")),
    ("rate_limit", ("ratelimit", "throttl", "quota", "toomanyrequests", "resourceexhausted")),
    ("timeout", ("timeout", "timedout", "deadline")),
    ("overloaded", ("overloaded", "unavailable", "notready", "capacityexceeded")),
    ("cancelled", ("cancelled", "canceled", "aborted", "keyboardinterrupt", "systemexit", "generatorexit")),
    ("authentication", ("authenticat", "unauthorized", "apikey", "expiredtoken")),
    ("permission", ("permissiondenied", "permissionerror", "accessdenied", "forbidden")),
    ("not_found", ("notfound",)),
    ("invalid_request", ("invalidrequest", "badrequest", "validationexception", "invalidargument", "unprocessable")),
    ("connection", ("connect", "network", "socket", "econn", "readerror", "writeerror", "protocolerror", "gaierror", "dns")),
    ("server_error", ("internal", "servererror", "modelerror", "apierror")),
)
_BY_STATUS: Final = {
    401: "authentication",
    403: "permission",
    404: "not_found",
    408: "timeout",
    429: "rate_limit",
    499: "cancelled",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
# Providers that have no code for it say it in the message.
_TOO_LONG: Final = ("context length", "context window", "prompt is too long", "input is too long", "maximum context")
_CODE: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}\Z")


def classify(error: BaseException) -> tuple[str, str | None]:
    """`(error_type, error_code)` of an exception that ended a call; an unknown one is a `failure`."""
    if isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError | KeyboardInterrupt | SystemExit):
        return "cancelled", None
    if isinstance(error, GeneratorExit):
        return "cancelled", None
    status = _status(error)
    codes = list(_codes(error))
    code = next((code for code in codes if _CODE.match(code) and not code.isdigit()), None) or (status and str(status))
    kind = next((found for code in codes if (found := type_of_code(code))), None)
    if kind is None or kind == "invalid_request":
        if status is not None and status >= 400:
            kind = type_of_status(status)
        kind = kind or _by_class(error)
    if kind == "invalid_request" and says_too_long(str(error)):
        kind = "context_length"
    return kind, code or None


def _by_class(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    for kind in type(error).__mro__:
        if kind in (Exception, BaseException, object, RuntimeError, ValueError, OSError):
            continue
        if found := type_of_code(kind.__name__):
            return found
    return "failure"


def type_of_code(code: str) -> str | None:
    """The error type that a provider's code, or a class's name, speaks of."""
    squeezed = re.sub(r"[^a-z0-9]", "", code[:256].lower())
    return next((kind for kind, parts in _BY_NAME if any(part in squeezed for part in parts)), None)


def type_of_status(status: int | None) -> str:
    """The error type of an HTTP status; a `failure` where that is no error or not known."""
    if status is None or status < 400:
        return "failure"
    return _BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")


def says_too_long(message: str) -> bool:
    """Whether an error's message says that the prompt did not fit. The message is looked at, not kept."""
    return any(said in message[:2_000].lower() for said in _TOO_LONG)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata") if isinstance(response, Mapping) else None
    found = [getattr(error, name, None) for name in ("status_code", "code", "status", "http_status")]
    found.append(getattr(response, "status_code", None))
    found.append(metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None)
    for value in found:
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return int(value)
    return None


def _codes(error: BaseException) -> Iterator[str]:
    """What the provider calls it, most precise first."""
    response, body = getattr(error, "response", None), getattr(error, "body", None)
    for holder in (_inner(response, "Error"), _inner(body, "error"), body):
        if isinstance(holder, Mapping):
            yield from (value for name in ("Code", "code", "type", "status") if isinstance(value := holder.get(name), str))
    for name in ("code", "type", "status"):
        value = getattr(error, name, None)
        if isinstance(value, str):
            yield value
        elif isinstance(found := getattr(value, "name", None), str):  # an enum, such as gRPC's StatusCode
            yield found


def _inner(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
