"""Where somebody is reached but by telephone: e-mail (also spelled out), web and network addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from . import zones
from .ner import Span
from .zones import Zones, matches

_EMAIL: Final = re.compile(r"[\w!#$%&'*+/=?^`{|}~.-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{2,24}", re.UNICODE)
_SPELLED_EMAIL: Final = re.compile(
    r"""(?<![\w@.])
    [a-z0-9][\w+-]*(?:\ ?(?:\.|\[dot\]|\(dot\)|\ dot\ |\ underscore\ |\ dash\ |\ hyphen\ )\ ?[\w+-]+){0,4}
    \ ?(?:\[\ ?at\ ?\]|\(\ ?at\ ?\)|\{\ ?at\ ?\}|\ at\ |@|\ @\ |<at>)\ ?
    [a-z0-9][\w-]*(?:\ ?(?:\.|\[\ ?dot\ ?\]|\(\ ?dot\ ?\)|\{\ ?dot\ ?\}|\ dot\ |\ ?\.\ ?)\ ?[a-z0-9][\w-]*){0,3}
    (?:\ ?(?:\.|\[\ ?dot\ ?\]|\(\ ?dot\ ?\)|\{\ ?dot\ ?\}|\ dot\ )\ ?(?!(?<=\ dot\ )(?:at|in|it|no)\b))
    (?:com|org|net|edu|gov|mil|io|info|biz|health|co(?:\ ?(?:\.|dot)\ ?uk)?|uk|us|ca|de|fr|it|es|nl|ch|at|au|in|jp|br|mx
        |se|no|dk|fi|ie|eu)\b""",
    re.VERBOSE | re.IGNORECASE,
)
# With the dot written, only a word for it tells an address from "look at example.com".
_CUED_EMAIL: Final = re.compile(
    r"\be-?mail(?:\s+(?:address|id|me|us|him|her|them|is|was|it|to|at))*\s*[:=,]?\s*"
    r"(?P<value>(?!(?:me|us|him|her|them|it|is|was|address|sent|look)\b)[a-z0-9][\w.+-]{1,40}\s(?:at|AT)\s[\w-]+(?:\.[\w-]+){1,3})\b",
    re.IGNORECASE,
)
_MAIL: Final = re.compile(r"[mM]ail|MAIL")
_SPELLED: Final = re.compile(r"\bdot\b|[\[({<] ?at ?[\])}>]| @ ", re.IGNORECASE)
_TLDS: Final = (
    "com|org|net|edu|gov|mil|int|info|biz|name|pro|health|care|clinic|hospital|dental|doctor|io|ai|app|dev|co|me|tv|us|uk|ca|de|fr|it|es|nl|be|ch"
    "|at|au|nz|jp|cn|kr|in|br|mx|ar|cl|se|no|dk|fi|ie|pl|cz|hu|pt|gr|ru|ua|tr|il|za|ng|ke|eg|sg|hk|tw|th|my|ph|id|vn|eu|online|site|store|shop|blog|cloud|tech"
)
_URL: Final = re.compile(
    rf"""(?:\b(?:h(?:tt|xx)ps?|ftps?|sftp|wss?)://[^\s<>"'{{}}|\\^`]+)
    |(?<![\w@.-])(?:www\d?\.)(?:[a-z0-9-]+\.)+[a-z]{{2,24}}(?::\d{{2,5}})?(?:/[^\s<>"'()]*)?
    |(?<![\w@./-])(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+(?:{_TLDS})(?:\.(?:uk|au|nz|br|jp|in|za|mx))?(?::\d{{2,5}})?
        (?:/[^\s<>"'()]*)?(?![\w@]|-\w|\.\w)""",
    re.VERBOSE | re.IGNORECASE,
)
# What an address has and most prose has not; each begins with a literal, for that is quick to look for.
_DOTTED: Final = re.compile(r"\.[a-z]{2}|://", re.IGNORECASE)
_SIGN: Final = re.compile("@")
_BLANK: Final = re.compile(r"\s+")
_COLONS: Final = re.compile(r":[0-9a-f]{0,4}:", re.IGNORECASE)
_SHARED_FOLDER: Final = re.compile(r"(?<!\w)\\\\[\w.$-]+(?:\\[\w.$ -]+)+")
_IPV4: Final = re.compile(r"[0-9](?<![\w.].)\d{0,2}\.(?:\d{1,3}\.){2}\d{1,3}(?:/\d{1,2})?(?::\d{2,5})?(?![\w]|\.\d)")
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?:[0-9a-f]{1,4}:|:(?=:)|::){1,8}[0-9a-f:.]*[0-9a-f:](?:%\w+)?(?:/\d{1,3})?(?![\w:])", re.IGNORECASE
)
_MAC: Final = re.compile(
    r"[0-9a-fA-F]{2}(?:(?<![\w:-]..)(?:[:-][0-9a-fA-F]{2}){5}(?![\w:-])"
    r"|(?<![\w.]..)[0-9a-fA-F]{2}(?:\.[0-9a-fA-F]{4}){2}(?![\w.]))"
)


def find(text: str, within: Zones | None = None) -> Iterator[Span]:
    """E-mail, web and network addresses of one text."""
    within = zones.of(text) if within is None else within
    if "@" in text:
        for match in matches(_EMAIL, text, _about(_SIGN, text)):
            start = match.start()
            while text[start] in ".'&*/=?^`{|}~-":
                start += 1
            if text[start] != "@":
                yield Span(start, match.end(), "EMAIL_ADDRESS", 0.99)
    if _SPELLED.search(text):
        for match in _SPELLED_EMAIL.finditer(text):
            yield Span(match.start(), match.end(), "EMAIL_ADDRESS", 0.9)
    if " at " in text and _MAIL.search(text) is not None:
        for match in _CUED_EMAIL.finditer(text):
            yield Span(*match.span("value"), "EMAIL_ADDRESS", 0.9)
    if _DOTTED.search(text) is not None:
        for match in matches(_URL, text, _about(_DOTTED, text)):
            yield from _url(match, text)
    if within:
        for match in matches(_IPV4, text, within):
            octets = [int(part) for part in re.split(r"[/:]", match.group())[0].split(".")]
            if max(octets) <= 255 and octets[0] not in (0, 127, 255):  # a mask or the machine itself names nobody
                yield Span(match.start(), match.end(), "IP_ADDRESS", 0.9)
    if "\\\\" in text:
        for match in _SHARED_FOLDER.finditer(text):
            yield Span(match.start(), match.end(), "URL", 0.7)
    if within and _COLONS.search(text) is not None:
        for match in _IPV6.finditer(text):
            if match.group().count(":") >= 2 and _is_ipv6(match.group()):
                yield Span(match.start(), match.end(), "IP_ADDRESS", 0.9)
    if within:
        for match in matches(_MAC, text, within):
            yield Span(match.start(), match.end(), "MAC_ADDRESS", 0.9)


def _about(sign: re.Pattern[str], text: str) -> Zones:
    """Each stretch without white space in which `sign` stands: an address has none."""
    found: Zones = []
    end = 0
    for match in sign.finditer(text):
        if match.start() < end:
            continue
        start = end
        for blank in _BLANK.finditer(text, end, match.start()):
            start = blank.end()
        behind = _BLANK.search(text, match.end())
        end = behind.start() if behind is not None else len(text)
        found.append((start, end))
    return found


def _url(match: re.Match[str], text: str) -> Iterator[Span]:
    written = match.group().rstrip(".,;:!?)]}*>")
    host = re.split(r"[/:?#]", written.split("://")[-1])[0]
    if "://" not in written and not written.lower().startswith("www"):
        labels = host.split(".")
        # "fever.No cough", "e.g.in" and "J.Am" are prose without a space; a name of a site is written small, or with a path.
        if any(len(label) < 2 for label in labels) or (len(labels[-2]) < 3 and len(labels) < 3):
            return
        known = labels[-1].lower() in ("com", "org", "net", "edu", "gov", "io", "health")
        if not known and (
            not host.islower()
            or labels[-1] in ("me", "in", "it", "us", "at", "no", "be", "is", "so", "care", "my", "name", "health")
        ):
            return
        if known and host[0].isupper() and labels[-1][0].isupper() and not labels[-1].isupper():
            return
    if len(written) > 4:
        yield Span(match.start(), match.start() + len(written), "URL", 0.9)


def _is_ipv6(written: str) -> bool:
    try:
        address = ipaddress.IPv6Address(re.split(r"[/%]", written)[0])
    except ValueError:
        return False
    return int(address) > 0xFFFF or any(letter.isalpha() for letter in written) or written.count(":") > 2
