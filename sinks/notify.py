"""Sends a message to where people look: any Apprise URL, or an Alertmanager.

A message may be sent again when nobody knows whether it arrived. Receivers that can tell are told by what: PagerDuty and
Opsgenie by the group (PagerDuty closes it when it is over, Opsgenie is left to a person), webhooks by the header
`Idempotency-Key`, mail by `X-Tidegate-Message`, Alertmanager by the labels.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import apprise
import orjson
import urllib3
from msgspec.structs import replace

from ..schemas.errors import NotDelivered, UsageError
from ..schemas.notice import Entry, Message

# Who is told may be slow, but a page that takes longer than this is tried anew: not sooner, or a receiver that takes it after
# all has it twice. Nobody else waits meanwhile.
_CONNECT_S, _READ_S = 4, 30
_TIMEOUT: Final = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
# Alertmanager lets go of what it has not heard of for five minutes, unless it is told until when it goes on. We say ourselves
# when it is over.
_GOES_ON_S: Final = 30 * 86_400
# By these parameters a receiver knows what belongs together, or what it has had.
_BY_GROUP: Final = {"pagerduty": "dedup", "opsgenie": "alias"}
_BY_ID: Final = {
    **dict.fromkeys(("json", "jsons", "xml", "xmls", "form", "forms"), "+Idempotency-Key"),
    **dict.fromkeys(("mailto", "mailtos"), "+X-Tidegate-Message"),
}


# These answers speak of the address, or of how things stand there (409, 423), not of the message: whoever mends it has that
# long from the first of them, and what came meanwhile arrives. After it what waits behind goes on: it may be this message
# alone that is not let in.
_NOT_ABOUT_THE_MESSAGE: Final = frozenset({401, 402, 403, 404, 405, 407, 409, 410, 421, 423})
_MENDED_WITHIN_S: Final = 3_600.0
# All others of 400 to 499 say that this message is not wanted, however often it is sent; but for these, which mean "later".
_LATER: Final = frozenset({408, 425, 429})


def answered(status: int) -> NotDelivered:
    """What an HTTP answer other than thanks means for the message."""
    if status in _NOT_ABOUT_THE_MESSAGE:
        return NotDelivered(f"it answered {status}", _MENDED_WITHIN_S)
    if 400 <= status < 500 and status not in _LATER:
        return NotDelivered(f"it refused the message, by {status}", 0.0)
    return NotDelivered(f"it answered {status}")


def deliver(address: str, message: Message, *, alertmanager: bool = False) -> None:
    """Send it. Raises `NotDelivered` when it may be tried again, `UsageError` when the address must be mended first."""
    (send_to_alertmanager if alertmanager else send)(address, message)


def check(address: str) -> None:
    """Whether an Apprise URL can be used at all. Raises `UsageError` without telling it."""
    if apprise.Apprise.instantiate(address, suppress_exceptions=True) is None:
        scheme = address.partition("://")[0] if "://" in address else ""
        raise UsageError(
            f"{scheme or 'this'}:// is no address that Apprise knows, or lacks a part; see Apprise's list of services"
        )


def send(address: str, message: Message) -> None:
    """Send by Apprise. Raises `NotDelivered`, and `UsageError` when the address cannot be used."""
    check(address)
    if message.is_end and not message.over and address.partition("://")[0].lower() in _BY_GROUP:
        return  # to these any word but the last would open it again
    service = apprise.Apprise.instantiate(_known_by(address, message), suppress_exceptions=True)
    if service is None:
        raise UsageError("the address cannot be used")
    kind = apprise.NotifyType.SUCCESS if message.over else _KINDS[message.severity]
    _HEARD.begin()
    try:
        taken = service.notify(body=message.body, title=message.title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
    except Exception as error:  # noqa: BLE001 — a plug-in's own: whatever it is, the message has not arrived
        raise NotDelivered(f"it failed ({type(error).__name__})") from None
    if not taken:
        raise _HEARD.verdict()


_KINDS: Final = {"warning": apprise.NotifyType.WARNING, "critical": apprise.NotifyType.FAILURE}


class _Heard(logging.Filter):
    """What went wrong Apprise says to its log alone, with the address, and that is a secret: the log is kept from all, and
    of what it says only the status of answers is remembered, by thread."""

    _STATUS: Final = re.compile(r"\berror=(\d{3})\b")

    def __init__(self) -> None:
        super().__init__()
        self._of = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            found = self._STATUS.search(record.getMessage())
            self._of.answers = [*getattr(self._of, "answers", []), int(found[1]) if found else None]
        return False

    def begin(self) -> None:
        self._of.answers = []

    def verdict(self) -> NotDelivered:
        """Of all answers since `begin` the most hopeful: a service may have several rooms to post to."""
        answers = self._of.answers
        if not answers or None in answers:
            return NotDelivered("it did not take the message")
        verdicts = [answered(status) for status in answers]
        return max(verdicts, key=lambda verdict: float("inf") if verdict.patience_s is None else verdict.patience_s)


_HEARD: Final = _Heard()
logging.getLogger("apprise").addFilter(_HEARD)


def _known_by(address: str, message: Message) -> str:
    scheme = address.partition("://")[0].lower()
    if "rto=" not in address:  # Apprise gives up after four seconds
        address += f"{'&' if '?' in address else '?'}rto={_READ_S}&cto={_CONNECT_S}"
    joint = "&" if "?" in address else "?"
    if name := _BY_GROUP.get(scheme):
        return f"{address}{joint}action=map&{name}={hashlib.sha256(message.group.encode()).hexdigest()[:32]}"
    if name := _BY_ID.get(scheme):
        return f"{address}{joint}{name}={quote(message.id, safe='')}"
    return address


def send_to_alertmanager(base: str, message: Message, http: urllib3.PoolManager | None = None) -> None:
    """Send to an Alertmanager's API v2, an alert for each incident. Raises `NotDelivered`, `UsageError`."""
    http = http or urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
    body = orjson.dumps([alert for entry in message.entries for alert in _alerts(entry, message)])
    try:
        answer = http.request(
            "POST",
            base.rstrip("/") + "/api/v2/alerts",
            body=body,
            headers={"Content-Type": "application/json"},
            timeout=_TIMEOUT,
        )
    except urllib3.exceptions.LocationParseError:
        raise UsageError("the address of Alertmanager is no URL; write it as http://host:9093") from None
    except urllib3.exceptions.HTTPError as error:
        raise NotDelivered(f"it does not answer ({type(error).__name__})") from None
    if answer.status != 200:
        raise answered(answer.status)


def _alerts(entry: Entry, message: Message) -> Iterator[dict[str, object]]:
    """The alert; and where it was told as worse or better before, the end of that: to Alertmanager labels are who it is."""
    yield _alert(entry, message)
    for severity in entry.was:
        yield _alert(replace(entry, labels={**entry.labels, "severity": severity}, over=True), message)


def _alert(entry: Entry, message: Message) -> dict[str, object]:
    ends_at = message.at if entry.over else message.at + _GOES_ON_S
    return {
        "labels": entry.labels,
        "annotations": {"summary": entry.summary, **({"runbook_url": entry.runbook} if entry.runbook else {})},
        "startsAt": _stamp(entry.starts_at),
        "endsAt": _stamp(max(ends_at, entry.starts_at + 0.001)),
    }


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
