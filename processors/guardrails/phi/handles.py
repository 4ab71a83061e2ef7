"""What somebody goes by online: "@thea.larkin_88" beside the name of a network, "username: tlarkin"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .spans import Span

_NETWORKS: Final = (
    "instagram|insta|ig|twitter|tweet(?:s|ed)?|tiktok|tik tok|facebook|fb|snap(?:chat)?|threads|mastodon|bluesky|youtube|twitch"
    "|discord|telegram|signal|venmo|cash\\s?app|paypal|zelle|linkedin|pinterest|tumblr|reddit|github|skype|wechat|kik|x\\.com"
)
_CUES: Final = re.compile(
    rf"(?<![\w@])(?:{_NETWORKS}|handles?|user\s?names?|screen\s?names?|follow(?:s|ed|ing)?|dm(?:s|ed)?|tag(?:s|ged)|social\s+media"
    r"|profile|account|posts?|posted|messaged?)(?!\w)",
    re.IGNORECASE,
)
_AT: Final = re.compile(r"(?<![\w@.\-/])@[A-Za-z_](?:[\w.-]{0,38}\w)?(?![\w@(])")
_REDDIT: Final = re.compile(r"(?<![\w/.])/?u/[\w-]{3,20}(?!\w)")
_NAMED: Final = re.compile(
    rf"(?<![\w@])(?:(?P<narrow>user[\s_-]?(?:name|id)|screen[\s_-]?name|gamer\s?tag)"
    rf"|(?:{_NETWORKS})(?:\s+(?:id|name|user|account|profile|handle))?|handle|log[\s-]?in(?:\s+(?:id|name))?|user)(?![A-Za-z0-9])"
    r"[\"']?\s*(?P<sure>[:=]|\b(?:is|was)\b)?\s*[\"'“]?(?P<value>"
    r"(?!(?:user|screen)?[ _-]?(?:names?|id|account|profile|handles?)\b)@?[A-Za-z0-9_](?:[\w.-]{1,38}\w))(?![\w@])",
    re.IGNORECASE,
)
# What they begin with; looking for strings is quick, for a pattern of so many alternatives it is not.
_BEGINS: Final = (
    *("user", "screen", "gamer", "handle", "log", "insta", "twitter", "tweet", "tik", "facebook", "snap", "threads"),
    *("mastodon", "bluesky", "youtube", "twitch", "discord", "telegram", "signal", "venmo", "cash", "paypal", "zelle"),
    *("linkedin", "pinterest", "tumblr", "reddit", "github", "skype", "wechat", "kik", "x.com"),
)
_BEGINS_SHORT: Final = re.compile(r"[iIfF](?<![\w@].)[gGbB](?![A-Za-z0-9])")
# A name made up for a service, not a word: it holds letters, and a digit or a sign among them.
_MADE_UP: Final = re.compile(r"(?=.*[A-Za-z])(?:.*\d|.+_.)")
# Nobody's: times and places that are written behind an @, and what is said of a user name in general.
_NO_NAME: Final = frozenset(
    """bedtime breakfast lunch dinner supper noon midnight night home clinic rest hs work school baseline discharge admission
    unknown none null undefined required invalid missing empty string true false admin root guest user username""".split()  # noqa: SIM905
)
_BEFORE, _BEHIND = 48, 32


def find(text: str) -> Iterator[Span]:
    """Names of accounts, each where a word beside it says so: "@bedtime" is none."""
    if "@" in text:
        for match in _AT.finditer(text):
            start, end = match.span()
            told = _CUES.search(text, max(0, start - _BEFORE), start) or _CUES.search(text, end, end + _BEHIND)
            if told and match.group()[1:].casefold() not in _NO_NAME:
                yield Span(start, end, "USERNAME", 0.8)
    lower = text.casefold()
    if "u/" in text and "reddit" in lower:
        for match in _REDDIT.finditer(text):
            yield Span(match.start(), match.end(), "USERNAME", 0.8)
    if any(word in lower for word in _BEGINS) or _BEGINS_SHORT.search(text) is not None:
        for match in _NAMED.finditer(text):
            value = match["value"]
            if _MADE_UP.match(value) is not None:
                yield Span(*match.span("value"), "USERNAME", 0.8)
            elif match["narrow"] and match["sure"] in (":", "=") and value.casefold() not in _NO_NAME:
                yield Span(*match.span("value"), "USERNAME", 0.6)
