"""Who is at the console: tokens for sessions, sessions for cookies.

    POST /console/session {"token"} ─► token known? ─► audit ─► session in memory, its id in a cookie
    GET  /console/enter?code=…      ─► a code of this node, once ─► the same, as operator

A session lives in the node's memory, and ends after a while, with the node, or when its token is revoked. The cookie holds 256
random bits and never the token. Scripts cannot read it, and no other site's request carries it; whatever changes something must
come from the console's own pages all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request

from ...producers.audit_log import AuditLog, operator
from ...schemas.errors import UsageError
from ..console_access import Role, Who
from ..listening import is_at_home
from ..tenant_tokens import TenantTokens
from .tenant_door import Quota

log = structlog.get_logger("tidegate.console")

# A working day; the screen on the wall looks on for a month.
_LASTS_S: Final[dict[Role, float]] = {"viewer": 30 * 86_400.0}
_USUALLY_LASTS_S: Final = 12 * 3_600.0
# Time to walk from a terminal to a browser.
CODE_LASTS: Final = timedelta(minutes=10)
_MOST_SESSIONS: Final = 10_000
_MOST_CODES: Final = 100
# Wrong tokens of one address: some slips of the hand, then one in ten seconds.
_SLIPS: Final = 10
_SLIPS_PER_S: Final = 0.1


class SignInRefused(UsageError):
    """`status` is HTTP's."""

    def __init__(self, status: int, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Session:
    who: Who
    ends_at: float
    # The personal token it came from; without it, it is over.
    token_id: str | None = None


class Sessions:
    """Those of one node. From its event loop, or threads: each step is one of a dict's own."""

    def __init__(
        self,
        own_token: str,
        token: str | None,
        tokens: TenantTokens,
        audit: AuditLog,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_token = own_token
        self._token = token
        self._tokens = tokens
        self._audit = audit
        self._monotonic = monotonic
        self._open: dict[str, Session] = {}
        self._codes: dict[str, float] = {}
        self._quota = Quota(_SLIPS, _SLIPS_PER_S, monotonic)

    def who(self, request: Request) -> Who:
        """Whoever sends this request: by its cookie, by a token as bearer, or nobody in particular. Raises `SignInRefused`
        where a bearer's token is none."""
        session = self._open.get(_hash(request.cookies.get(cookie_of(request), "")))
        if session is not None and self._holds(session):
            return session.who
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._known(given.strip(), address(request))[0]
        at_home = self._token is None and is_at_home(request.headers.get("host", ""), request.headers)
        return Who(None, ("look",) if at_home else ())

    def sign_in(self, token: str, client: str) -> tuple[str, Session]:
        """A session's id and the session. Raises `SignInRefused`, and `UsageError` where it cannot be written down."""
        who, token_id = self._known(token, client)
        return self._begin(who, client, token_id)

    def code(self) -> str:
        """What signs the node's operator in, once and soon."""
        now = self._monotonic()
        self._codes = {code: ends for code, ends in list(self._codes.items())[-_MOST_CODES:] if ends > now}
        code = secrets.token_urlsafe(24)
        self._codes[_hash(code)] = now + CODE_LASTS.total_seconds()
        return code

    def enter(self, code: str, client: str) -> tuple[str, Session]:
        """The session that a code opens. Raises `SignInRefused`."""
        ends_at = self._codes.pop(_hash(code), None)
        if ends_at is None or self._monotonic() >= ends_at:
            # Not counted among wrong tokens: any site's page can make a browser follow such a link, and nobody guesses one.
            raise SignInRefused(401, "this link was used or is too old; `tidegate console` makes another")
        return self._begin(self._operator(), client, None)

    def sign_out(self, request: Request) -> None:
        session = self._open.pop(_hash(request.cookies.get(cookie_of(request), "")), None)
        if session is not None:
            self._audit.append("console.signed_out", details={"role": session.who.role}, actor=session.who.actor)

    def _known(self, token: str, client: str) -> tuple[Who, str | None]:
        """Whose token it is, and the id of a personal one."""
        if token and hmac.compare_digest(token.encode(), self._own_token.encode()):
            return self._operator(), None
        grant = self._tokens.grant_of(token)
        if grant is None:
            # The others are too long to be guessed; this one is whatever a person has chosen.
            if self._quota.wait_s(client, counts=False):
                raise SignInRefused(429, "too many wrong tokens; try again in a moment", int(1 / _SLIPS_PER_S))
            if token and self._token and hmac.compare_digest(token.encode(), self._token.encode()):
                return Who.of("analyst", "token", "token"), None
            self._quota.wait_s(client)
            log.warning("console_token_refused", client=client)
            raise SignInRefused(401, "that is no token of this node; `tidegate access grant --role …` makes one")
        if grant.role is None:
            raise SignInRefused(401, "that is a tenant's token: it opens views at the ClickHouse interface, not the console")
        if grant.has_expired(self._tokens.now()):
            raise SignInRefused(401, f"this token ended on {grant.expires_at:%Y-%m-%d}; ask for another")
        self._tokens.used(grant, client)
        return Who.of(grant.role, grant.name, f"token:{grant.id}"), grant.id

    @staticmethod
    def _operator() -> Who:
        return Who.of("operator", operator(), operator())

    def _begin(self, who: Who, client: str, token_id: str | None) -> tuple[str, Session]:
        told: dict[str, Any] = {"role": who.role, "client": client} | ({"token": token_id} if token_id else {})
        self._audit.append("console.signed_in", details=told, actor=who.actor)
        assert who.role is not None  # noqa: S101  # whoever signs in has one
        session = Session(who, self._monotonic() + _LASTS_S.get(who.role, _USUALLY_LASTS_S), token_id)
        now = self._monotonic()
        if len(self._open) >= _MOST_SESSIONS:
            for key in [key for key, one in list(self._open.items()) if one.ends_at <= now] or list(self._open)[:1]:
                self._open.pop(key, None)
        session_id = secrets.token_urlsafe(32)
        self._open[_hash(session_id)] = session
        return session_id, session

    def _holds(self, session: Session) -> bool:
        if self._monotonic() >= session.ends_at:
            return False
        if session.token_id is None:
            return True
        grant = self._tokens.grant_with(session.token_id)
        return grant is not None and not grant.has_expired(self._tokens.now())


def cookie_of(request: Request) -> str:
    """A name for each port, for cookies do not tell ports apart: two nodes on one machine would sign each other out."""
    try:
        port = urlsplit(f"//{request.headers.get('host', '')}").port
    except ValueError:
        port = None
    return f"tidegate_console_{port or (443 if request.scope['scheme'] == 'https' else 80)}"


def from_own_pages(request: Request) -> bool:
    """Whether what changes something comes from the console itself, or from no browser at all."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host", "")


def address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
