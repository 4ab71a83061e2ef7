"""The console's doors: the page, what it is made of, who looks at it, and what it shows.

    GET  /                                  the page; it holds no figure, so anybody may have it
    GET  /console/assets/{name}             its scripts and styles
    GET|POST|DELETE /console/session        who I am; signing in with {"token"}; out
    GET  /console/enter?code=…              signing in by a link of this node's, once
    POST /console/code                      such a link, for the node's own token
    GET  /console/definitions               boards, panels, variables
    GET  /console/choices/{variable}        what there is to choose in a range
    GET  /console/live?board=…&range=…      server-sent events (`console_live`)
    GET  /console/budgets                   burn-downs (`console_budgets`)
    …    /console/incidents, /silences      `console_incidents`
    GET  /console/calls, /findings, /transcripts    `console_calls`

Rights are `console_access`'s. Whatever changes something must come from the console's own pages.
"""

from __future__ import annotations

import hashlib
import mimetypes
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from importlib import resources
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ...dashboards.definitions import chosen, definitions, variable
from ...dashboards.ranges import Range, iso
from ...producers.audit_log import AuditLog
from ...schemas.errors import Backpressure, TidegateError
from ...schemas.settings import Settings
from ..console_access import Digests, Right, Who
from ..tenant_tokens import TenantTokens
from ..transcript_reads import TranscriptReads
from .backend import Backend
from .body import Bodies, NoRoom, TooLarge
from .console_budgets import ConsoleBudgets
from .console_calls import ConsoleCalls
from .console_hub import Source
from .console_incidents import WORDS, ConsoleIncidents
from .console_live import ConsoleLive
from .console_session import Session, Sessions, SignInRefused, address, cookie_of, from_own_pages

# The page is its own scripts and styles and nothing else, whatever a model is named.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PRIVATE: Final = _HEADERS | {"Cache-Control": "no-store"}
_KINDS: Final = frozenset({".html", ".js", ".css", ".svg"})
# A token, or a few words on a silence.
_MOST_BYTES: Final = 16 << 10

Handler = Callable[[Request], Awaitable[Response]]


class Assets:
    """The page's files, read once, with a hash of each."""

    def __init__(self) -> None:
        folder = resources.files("tidegate.dashboards.console")
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for file in folder.iterdir():
            suffix = "." + file.name.rpartition(".")[2]
            if suffix in _KINDS and file.is_file():
                content = file.read_bytes()
                kind = "text/javascript" if suffix == ".js" else mimetypes.guess_type(file.name)[0] or "text/plain"
                self._files[file.name] = (content, kind, hashlib.sha256(content).hexdigest()[:16])

    def answer(self, name: str, request: Request) -> Response:
        """A file; one that is asked for by its hash may be kept for ever, every other is looked at again."""
        if name not in self._files:
            return problem(404, f"the console has no {name[:60]}")
        content, kind, digest = self._files[name]
        kept = "public, max-age=31536000, immutable" if request.query_params.get("v") == digest else "no-cache"
        headers = _HEADERS | {"ETag": f'"{digest}"', "Cache-Control": kept}
        if digest in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)


class ConsoleDoor:
    """The console of one node. Used from its event loop."""

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        own_token: str,
        status: Callable[[], dict[str, Any]],
        audit: AuditLog,
        tokens: TenantTokens,
        reads: TranscriptReads,
    ) -> None:
        self._assets = Assets()
        self._bodies = Bodies(_MOST_BYTES)
        self._own_token = own_token
        self._digests = Digests(secrets.token_bytes(32))
        self._started = datetime.now(UTC)
        self._monotonic = time.monotonic()
        self.sessions = Sessions(own_token, settings.token, tokens, audit)
        self.live_streams = ConsoleLive(lambda: backend.store, status, self._digests)
        self._budgets = ConsoleBudgets(backend.feed, self.live_streams.ask, self._digests)
        self._incidents = ConsoleIncidents(backend.desk, audit, self._digests)
        self._calls = ConsoleCalls(lambda: backend.store, reads, self._digests)

    def routes(self) -> list[Route]:
        look, calls, act = self._for("look"), self._for("calls"), self._for("act")
        return [
            Route("/console/assets/{name}", self.asset),
            Route("/console/session", told(self.session)),
            Route("/console/session", told(self.sign_in), methods=["POST"]),
            Route("/console/session", told(self.sign_out), methods=["DELETE"]),
            Route("/console/enter", told(self.enter)),
            Route("/console/code", told(self.code), methods=["POST"]),
            Route("/console/definitions", look(self.definitions)),
            Route("/console/choices/{variable}", look(self.choices)),
            Route("/console/live", look(self.live)),
            Route("/console/budgets", look(self.budgets)),
            Route("/console/incidents", look(self.incidents)),
            Route("/console/incidents/{number}/{word}", act(self.say), methods=["POST"]),
            Route("/console/silences", act(self.silence), methods=["POST"]),
            Route("/console/silences/{id}", act(self.unsilence), methods=["DELETE"]),
            Route("/console/calls", calls(self.calls)),
            Route("/console/calls/{call_id:path}", calls(self.call)),
            Route("/console/findings", calls(self.findings)),
            Route("/console/transcripts/{call_id:path}", self._for("transcripts")(self.transcript)),
        ]

    def end_streams(self) -> None:
        self.live_streams.closing = True

    def close(self) -> None:
        self.live_streams.close()
        self._incidents.close()
        self._calls.close()

    def page(self, request: Request) -> Response:
        """The page itself."""
        return self._assets.answer("index.html", request)

    async def asset(self, request: Request) -> Response:
        return self._assets.answer(request.path_params["name"], request)

    # who

    async def session(self, request: Request) -> Response:
        return private(self._told_of(self.sessions.who(request)))

    async def sign_in(self, request: Request) -> Response:
        token = (await self.asked(request)).get("token")
        if not isinstance(token, str) or not token:
            return problem(400, 'send {"token": "…"}')
        session_id, session = await run_in_threadpool(self.sessions.sign_in, token.strip(), address(request))
        return self._with_cookie(private(self._told_of(session.who)), request, session_id, session)

    async def sign_out(self, request: Request) -> Response:
        if not from_own_pages(request):
            return _foreign()
        await run_in_threadpool(self.sessions.sign_out, request)
        answer = private({"role": None})
        answer.delete_cookie(cookie_of(request), path="/", httponly=True, samesite="strict")
        return answer

    async def enter(self, request: Request) -> Response:
        """Sign in by a link, and go on to the page with the rest of the query."""
        if request.method == "HEAD":
            return problem(405, "this link works once: open it")
        if request.headers.get("sec-purpose", "").startswith("prefetch"):
            return problem(425, "this link works once: open it")
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "code"]
        session_id, session = await run_in_threadpool(
            self.sessions.enter, request.query_params.get("code", ""), address(request)
        )
        answer = RedirectResponse("/" + (f"?{urlencode(rest)}" if rest else ""), 303, _PRIVATE)
        return self._with_cookie(answer, request, session_id, session)

    async def code(self, request: Request) -> Response:
        if self.sessions.who(request).role != "operator":
            return problem(401, "links are made for the node's own token, which is in the data folder's node.json")
        return private({"path": self.entrance()}) if from_own_pages(request) else _foreign()

    def entrance(self) -> str:
        """The path of a link that signs the operator in, once."""
        return f"/console/enter?code={self.sessions.code()}"

    # what is shown

    async def definitions(self, _request: Request, _who: Who) -> Response:
        return private(definitions())

    async def choices(self, request: Request, _who: Who) -> Response:
        asked = variable(request.path_params["variable"])
        since, until = Range.read(request.query_params).bounds(datetime.now(UTC))
        parameters = chosen(request.query_params) | {"since": iso(since), "until": iso(until)}
        found, _ = await self.live_streams.ask(str(asked.choices), parameters)
        return private({"choices": [row[0] for row in found.rows]})

    async def live(self, request: Request, _who: Who) -> Response:
        def beside(board: str, tenant: str) -> Sequence[Source]:
            return (self._incidents.source, *((self._budgets.source(tenant),) if board == "budgets" else ()))

        return self.live_streams.stream(request, beside, lambda: self._still_may_look(request))

    def _still_may_look(self, request: Request) -> bool:
        try:
            return self.sessions.who(request).may("look")
        except TidegateError:
            return False

    async def budgets(self, request: Request, _who: Who) -> Response:
        shown, _ = await self._budgets.shown(chosen(request.query_params)["tenant"])
        return private(shown)

    async def calls(self, request: Request, who: Who) -> Response:
        return private(await self._calls.page(request.query_params, who))

    async def call(self, request: Request, who: Who) -> Response:
        found = await self._calls.one(request.path_params["call_id"], who)
        return private(found) if found is not None else problem(404, "there is no such call in the store")

    async def findings(self, request: Request, _who: Who) -> Response:
        return private(await self._calls.findings(request.query_params))

    async def transcript(self, request: Request, who: Who) -> Response:
        found = await self._calls.transcript(request.path_params["call_id"], who, address(request))
        return private(found) if found is not None else problem(404, "no transcript of this call is kept")

    # what people say

    async def incidents(self, _request: Request, _who: Who) -> Response:
        return private(await self._incidents.shown())

    async def say(self, request: Request, who: Who) -> Response:
        await self.asked(request)
        word = request.path_params["word"]
        if word not in WORDS:
            return problem(404, f"an incident takes {' or '.join(WORDS)}")
        return private(await self._incidents.say(request.path_params["number"], word, who))

    async def silence(self, request: Request, who: Who) -> Response:
        return private(await self._incidents.silence(await self.asked(request), who))

    async def unsilence(self, request: Request, who: Who) -> Response:
        await self.asked(request)
        return private(await self._incidents.unsilence(request.path_params["id"], who))

    # how

    async def asked(self, request: Request) -> dict[str, Any]:
        """The body of a request from the console's own pages. Raises `TidegateError`."""
        if not from_own_pages(request):
            raise SignInRefused(403, "this comes from another site's page")
        try:
            async with self._bodies.read(request) as body:
                found = orjson.loads(body or b"{}")
        except (ClientDisconnect, orjson.JSONDecodeError):
            raise SignInRefused(400, "the body is not JSON") from None
        except TooLarge:
            raise SignInRefused(413, f"a body may have at most {_MOST_BYTES} bytes") from None
        except NoRoom:
            raise Backpressure("too many bodies at once; try again", 1) from None
        if not isinstance(found, dict):
            raise SignInRefused(400, "the body is not an object")
        return found

    def _for(self, right: Right) -> Callable[[Callable[[Request, Who], Awaitable[Response]]], Handler]:
        """What only those may have that have this right."""

        def guarded(handler: Callable[[Request, Who], Awaitable[Response]]) -> Handler:
            @wraps(handler)
            async def asked(request: Request) -> Response:
                # A token's first use is written down, which takes a moment of a disk.
                bears = "authorization" in request.headers
                who = await run_in_threadpool(self.sessions.who, request) if bears else self.sessions.who(request)
                if not who.may(right):
                    return _not_for(who, right)
                return await handler(request, who)

            return told(asked)

        return guarded

    def _told_of(self, who: Who) -> dict[str, Any]:
        node = {
            "version": version("tidegate"),
            "started_at": iso(self._started.replace(microsecond=0)),
            "uptime_s": round(time.monotonic() - self._monotonic),
        }
        return {"role": who.role, "name": who.name or None, "may": list(who.rights), "node": node}

    @staticmethod
    def _with_cookie(answer: Response, request: Request, session_id: str, session: Session) -> Response:
        answer.set_cookie(
            cookie_of(request),
            session_id,
            max_age=int(session.ends_at - time.monotonic()),
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )
        return answer


def told(handler: Handler) -> Handler:
    """Answers with what is wrong, where something is."""

    @wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except SignInRefused as refused:
            return problem(refused.status, str(refused), refused.retry_after_s)
        except Backpressure as error:
            return problem(503, str(error), int(error.retry_after_s or 1))
        except TidegateError as error:
            return problem(400, str(error))

    return answered


def private(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), headers=_PRIVATE, media_type="application/json")


def problem(status: int, error: str, retry_after_s: int | None = None) -> Response:
    headers = _PRIVATE | ({"Retry-After": str(retry_after_s)} if retry_after_s else {})
    return JSONResponse({"error": error}, status, headers)


def _not_for(who: Who, right: Right) -> Response:
    needed: dict[Right, str] = {
        "look": "this node shows its figures to whoever signs in",
        "calls": "single calls need a sign-in as analyst, compliance or operator",
        "transcripts": "transcripts need a sign-in as compliance or operator, and each read is written down",
        "act": "this needs a sign-in as oncall or operator",
    }
    return problem(403 if who.role else 401, needed[right])


def _foreign() -> Response:
    return problem(403, "this comes from another site's page")
