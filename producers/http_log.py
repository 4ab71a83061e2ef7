"""The emitter's backend over HTTP: one POST an envelope to a node's ingest, calls and content each at their own door.

What the node says decides what becomes of the envelope:

    202 (any 2xx)                  it is durable
    400 409 411 413 414 415 422    never: this envelope is wrong → `EnvelopeRefused`
    everything else, or silence    not now → `LogUnavailable`, the emitter spools and retries

401, 403 and 404 are "not now" on purpose: a rotated token, a proxy in mid-deployment or a mistyped address is mended
by a person, and what was measured until then should not be gone.
"""

from __future__ import annotations

import email.utils
import gzip
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError

from ..schemas.envelope import CONTENT_SCHEMA, SCHEMA, Envelope
from ..schemas.errors import EnvelopeRefused, LogUnavailable, UsageError
from .ports import Position

# Within a data centre a connection takes milliseconds; a node that takes longer is away, and the spool is faster.
CONNECT_TIMEOUT_S: Final = 3.0
# The node answers after one commit to disk. Its own lock waits end after ten seconds.
READ_TIMEOUT_S: Final = 15.0
# Below this, compressing saves less than a packet.
_GZIP_FROM_BYTES: Final = 1_024
# Level 1 takes a third of the time of the default level and NDJSON shrinks eightfold all the same.
_GZIP_LEVEL: Final = 1

_REFUSALS: Final = {
    400: "the node could not read it; are node and producer of the same version?",
    409: "the node holds other events under these numbers; does another process use this producer_id?",
    411: "a proxy wants a Content-Length; let it pass request bodies through",
    413: "it is too large; raise TIDEGATE_MAX_BODY_BYTES on the node, or the body limit of the proxy before it",
    414: "the address is too long; check TIDEGATE_URL",
    415: "the node does not take gzipped NDJSON; is TIDEGATE_URL a Tidegate node?",
    422: "the node could not read it; are node and producer of the same version?",
}
_HINTS: Final = {
    401: "set TIDEGATE_TOKEN to the node's token",
    403: "the token may not write here; check TIDEGATE_TOKEN",
    404: "is TIDEGATE_URL the address of a Tidegate node, without a path of its own?",
    429: "the node is busy",
    503: "the node is busy or starting",
}
# Of a node that knows no content yet: 404 means not now, so what was sealed waits for its upgrade.
_DOORS: Final = {SCHEMA: "/v1/events", CONTENT_SCHEMA: "/v1/content"}
# A person has to act: asking again every few seconds only fills the node's access log.
_PATIENCE_S: Final = {401: 30.0, 403: 30.0, 404: 30.0}


class HttpLog:
    """`Log` over HTTP. Certificates are verified against the system's authorities. Opens on first use, again after `close`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.node = node_address(url, token)
        self._token = token
        self._timeout = urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s)
        self._now = now
        self._pool: urllib3.PoolManager | None = None

    def append(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        """One request each, in order; returns when the node has made all of them durable."""
        return [self._post(envelope) for envelope in envelopes]

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()

    def _post(self, envelope: Envelope) -> Position | None:
        if self._pool is None:
            self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, cert_reqs="CERT_REQUIRED", retries=False)
        body = envelope.value
        address = f"{self.node}{_DOORS[envelope.schema]}"
        headers = {
            "Content-Type": "application/x-ndjson",
            "X-Tidegate-Producer": envelope.producer,
            "X-Tidegate-Seq": str(envelope.seq),
            "X-Tidegate-Count": str(envelope.count),
        }
        if envelope.dropped:
            headers["X-Tidegate-Dropped"] = str(envelope.dropped)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if len(body) >= _GZIP_FROM_BYTES:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        try:
            # A redirect is not followed: it would carry the token and the events to somebody else.
            response = self._pool.request("POST", address, body=body, headers=headers, timeout=self._timeout, redirect=False)
        except (HTTPError, OSError, UnicodeError) as error:
            raise LogUnavailable(f"{address} cannot be reached ({type(error).__name__})") from error
        self._judge(address, response.status, response.headers)
        return _position(response.headers)

    def _judge(self, address: str, status: int, headers: Mapping[str, str]) -> None:
        if 200 <= status < 300:
            return
        if status in _REFUSALS:
            raise EnvelopeRefused(f"{address} answered {status}: {_REFUSALS[status]}")
        hint = f": {_HINTS[status]}" if status in _HINTS else ""
        told = retry_after_s(headers.get("Retry-After"), self._now())
        raise LogUnavailable(f"{address} answered {status}{hint}", told if told is not None else _PATIENCE_S.get(status))


def _position(headers: Mapping[str, str]) -> Position | None:
    partition, offset = headers.get("X-Tidegate-Partition", ""), headers.get("X-Tidegate-Offset", "")
    if all(text.isascii() and text.isdigit() and len(text) <= 19 for text in (partition, offset)):
        return Position(int(partition), int(offset))
    return None


def node_address(url: str, token: str | None) -> str:
    """The base address of a node. Raises `UsageError` when the url or the token cannot be one."""
    try:
        parsed = urllib3.util.parse_url(url)
    except LocationParseError:
        parsed = urllib3.util.Url()
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.auth or parsed.query or parsed.fragment:
        raise UsageError(
            "TIDEGATE_URL must look like https://node.example:8400, without a user, query or fragment; "
            "the token goes into TIDEGATE_TOKEN"
        )
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise UsageError("TIDEGATE_TOKEN must be visible ASCII without spaces or line ends")
    return f"{parsed.scheme}://{parsed.netloc}{(parsed.path or '').rstrip('/')}"


def retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None when it says nothing sensible."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 8:
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - now)
