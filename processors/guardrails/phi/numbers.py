"""Numbers that stand for a person: found by their shape, their check digit, or by what is written beside them.

token or shape ─► label beside it? ─► validator ─► span
                     │ CODE: a clinical code, not a person's
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from . import check_digits, phones, spoken, zones
from .check_digits import digits_of
from .labels import LABEL, LINK
from .ner import Span
from .prefilter import labels as label_matches
from .zones import Zones, matches

# How far before a number its label may stand: "Medicare beneficiary identifier on the card is: …" takes some 50 characters.
_BEFORE: Final = 72
_AFTER: Final = 40

_SSN: Final = re.compile(
    r"(?<![\w-])(?:\d{3}|[xX*#•]{3})\s?(?P<s>[-–. ])\s?(?:\d{2}|[xX*#•]{2})\s?(?P=s)\s?\d{4}(?![\w-]|\.\d)"
)
_LAST_FOUR: Final = re.compile(
    r"\b(?:last|final)\s+(?:four|4)(?:\s+(?:digits|numbers|of))*(?:\s+(?:on|of|for|my|his|her|their|the|your|patient'?s?"
    r"|file|social|security|ssn|card|credit|number|account|no)\b\.?)*"
    r"[\s:=(#]*(?:is|are|as|:)?[\s:(#]*(?P<value>\d{4})(?!\d|[-/]\d)",
    re.IGNORECASE,
)
_CARD: Final = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){11,18}(?![\w-]|\.\d)")
# Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Maestro by prefix and length.
_CARD_OF: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|6(?:011|5\d\d"
    r"|4[4-9]\d)\d{12}|35\d{14}"
    r"|62\d{14,17}|(?:50|5[6-9]|6[0-9])\d{10,17}|1800\d{11}|2131\d{11}"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,34}")
_MBI: Final = re.compile(
    r"(?<![A-Za-z0-9-])[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d[- ]?[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d[- ]?"
    r"[AC-HJKMNP-RT-Y]{2}\d{2}(?![A-Za-z0-9-])",
    re.IGNORECASE,
)
_UDI: Final = re.compile(
    r"\(01\)\s?\d{14}(?:\s?\((?:10|11|17|21|30|240)\)\s?[A-Za-z0-9/.-]+)*|\+[A-Z]\d{3}[A-Z0-9]{1,18}\d/?[A-Z0-9$+/]*"
    r"(?=\s|$|[,.;)])"
)
_PICTURE: Final = re.compile(
    r"(?<![\w/\\@.-])(?P<name>[\w()-]{1,80}(?:\.[\w()-]{1,40}){0,3})\.(?:jpe?g|png|heic|heif|gif|bmp|tiff?|webp|dcm|cr2"
    r"|nef)\b(?!\.\w)",
    re.IGNORECASE,
)
_PICTURE_ENDING: Final = re.compile(r"\.(?:jpe?g|png|heic|heif|gif|bmp|tiff?|webp|dcm|cr2|nef)\b", re.IGNORECASE)
_PICTURED: Final = re.compile(
    r"face|photo|patient|portrait|headshot|selfie|picture|mugshot|img|dsc|scan|wound|dicom", re.IGNORECASE
)
_CRYPTO: Final = re.compile(r"(?<!\w)(?:bc1[a-z0-9]{25,59}|[13][a-km-zA-HJ-NP-Z1-9]{25,34}|0x[0-9a-fA-F]{40})(?!\w)")
_UUID: Final = re.compile(r"(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w-])", re.IGNORECASE)
_TOKEN: Final = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z0-9*]+(?:[-_./*·][A-Za-z0-9*]+)*)(?![A-Za-z0-9])")
_HAS_DIGIT: Final = re.compile(r"\d")
# Parts of one number written apart: "943 476 5919", "ABC 1234".
_LEADING: Final = re.compile(r"(?<![A-Za-z0-9-])[A-Z]{1,4}[ -]\Z")
_TRAILING: Final = re.compile(r"(?: (?:\d{2,5}|[A-Z]{1,3}\d{1,6}|\d{1,6}[A-Z]{1,3}|[A-Z]{1,3}(?= \d)))(?![\w-]|[.,/]\d)")
_MORE: Final = re.compile(r" \d{2}")
_SPEAKS_OF: Final = re.compile(
    r"[\s\-–,;(:]{0,4}(?:(?:is|was|as|being)\s+)?(?:(?:the|my|his|her|their|your|our|a|an|for|on|patient'?s?)\s+){0,3}",
    re.IGNORECASE,
)
# A clinical code may stand further from its word: "LOINC code for hemoglobin A1c is 4548-4".
_CODE_LINK: Final = re.compile(r"(?:(?![.?!]\s)[^\n;]){0,60}\Z")
_DOSE: Final = re.compile(
    r"\s?-?(?:mg|mcg|µg|ug|gm?|kg|ml|cc|dl|l|meq|mmol|iu|units?|mm|cm|bpm|percent|%|tablets?|tabs?|capsules?|puffs?"
    r"|doses?|cells?|copies|steps|calories|"
    r"kcal|hours?|days?|weeks?|months?|years?|patients|people|participants|times|dollars|usd|per|mmhg|k/ul|/ul|ng|pg"
    r"|msec|hz)(?![A-Za-z])|/(?:mm|ul|µl|ml|l|dl|cu)",
    re.IGNORECASE,
)
# What dates know better, but for old record numbers ("12-34-56").
_LIKE_A_DAY: Final = re.compile(r"\d{1,2}([-/.])\d{1,2}\1(?:\d{2}|\d{4})|\d{4}-\d{2}-\d{2}")
_ZIP: Final = re.compile(r"\d{5}(?:-\d{4})?")
_COMPACT_DAY: Final = re.compile(r"(?:19[2-9]|20[0-4])\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_FAXED: Final = re.compile(r"\b(?P<label>fax(?:es|ed)?|facsimile)\b[^.\d\n;]{0,60}\Z", re.IGNORECASE)
_YEARLIKE: Final = re.compile(r"(?:19|20)\d{2}\Z")
_STREET: Final = re.compile(r"(?:\s|,\s)?(?:[NSEW]\.?\s)?[A-Z][\w.'-]*[a-z](?![\w:])")
_SURE_LINK: Final = re.compile(r"[#:]|number|no\.|\bid\b|\bis\b", re.IGNORECASE)

# Numbers that carry their name: "MRN-448812", "ACC2024118". What is not here waits for a label.
_PREFIXES: Final = {
    "MRN": "MEDICAL_RECORD_NUMBER",
    "MR": "MEDICAL_RECORD_NUMBER",
    "PAT": "MEDICAL_RECORD_NUMBER",
    "PT": "MEDICAL_RECORD_NUMBER",
    "PID": "MEDICAL_RECORD_NUMBER",
    "EMR": "MEDICAL_RECORD_NUMBER",
    "CHART": "MEDICAL_RECORD_NUMBER",
    "ACC": "ACCESSION_NUMBER",
    "ACCN": "ACCESSION_NUMBER",
    "SPEC": "ACCESSION_NUMBER",
    "LAB": "ACCESSION_NUMBER",
    "RAD": "ACCESSION_NUMBER",
    "ACCT": "ACCOUNT_NUMBER",
    "ACT": "ACCOUNT_NUMBER",
    "HAR": "ACCOUNT_NUMBER",
    "CSN": "ACCOUNT_NUMBER",
    "FIN": "ACCOUNT_NUMBER",
    "INV": "ACCOUNT_NUMBER",
    "SN": "DEVICE_ID",
    "SER": "DEVICE_ID",
    "DEV": "DEVICE_ID",
    "IMEI": "DEVICE_ID",
    "RX": "US_PRESCRIPTION_NUMBER",
    "CLM": "US_CLAIM_NUMBER",
    "REF": "US_REFERRAL_NUMBER",
    "AUTH": "US_PRIOR_AUTHORIZATION_NUMBER",
    "MBR": "US_HEALTH_INSURANCE_MEMBER_ID",
    "MEM": "US_HEALTH_INSURANCE_MEMBER_ID",
    "SUB": "US_HEALTH_INSURANCE_MEMBER_ID",
    "POL": "US_HEALTH_INSURANCE_MEMBER_ID",
    "GRP": "US_HEALTH_INSURANCE_MEMBER_ID",
    "HP": "US_HEALTH_INSURANCE_MEMBER_ID",
    "FP": "BIOMETRIC_ID",
    "BIO": "BIOMETRIC_ID",
    "IMG": "PHOTO_ID",
    "PHOTO": "PHOTO_ID",
    "DL": "US_DRIVER_LICENSE",
}
_PREFIXED: Final = re.compile(r"([A-Za-z]{2,5})[-_.#:]?(?=[A-Z0-9-]*\d{3})[A-Z0-9-]+\Z")
# Trial registrations, variants and literature are public, G2P1001 counts children, and J45.909 is of ICD-10.
_PUBLIC: Final = re.compile(
    r"(?:nct|(?-i:rs)|pmid|pmc|doi|isrctn|eudract|grch|hg|chr|nm_|np_|enst|ensg)\d|10\.\d{4,}/|g\d{1,2}p\d|(?-i:[A-TV-Z]\d[\dAB]\.[\dA-Z]{1,4}\Z)",
    re.IGNORECASE,
)

# The fewest digits that a label makes a number of, where not `_FEW`.
_FEW: Final = 4
_LEAST_DIGITS: Final = {
    "PHONE_NUMBER": 6,
    "FAX_NUMBER": 6,
    "CREDIT_CARD": 4,
    "US_SSN": 4,
    "UNIQUE_ID": 4,
    "LICENSE_PLATE": 1,
    "IBAN_CODE": 8,
    "ABA_ROUTING_NUMBER": 8,
    "DEVICE_ID": 3,
    "MEDICAL_RECORD_NUMBER": 4,
    "BIOMETRIC_ID": 3,
    "PHOTO_ID": 3,
    "US_DRIVER_LICENSE": 4,
    "US_HEALTH_INSURANCE_MEMBER_ID": 4,
}
_AND: Final = re.compile(r"\s?(?:,|;|/|&|and|or|,\s?and|,\s?or)\s?")
# The score of what a label makes of a number.
_LABELLED: Final = 0.86
_WEAK: Final = frozenset({"UNIQUE_ID", "PHONE_NUMBER", "CERTIFICATE_NUMBER"})

# Characters of an IBAN by country.
_IBAN_LENGTHS: Final = {
    entry[:2]: int(entry[2:])
    for entry in """AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24
    FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22
    SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20""".split()  # noqa: SIM905 — it is read by country
}


class _Shape(NamedTuple):
    start: int
    end: int
    type: str | None  # None: only a label makes it something
    score: float
    sure: bool = False  # its check digit holds: no label says otherwise


def find(text: str, within: Zones | None = None) -> Iterator[Span]:
    """Identifiers of one text; they may overlap. Scores: .95 and more by a check digit, .86 by a label, less by shape."""
    within = zones.of(text) if within is None else within
    if within:
        last: Span | None = None
        for shape in _shapes(text, within):
            spans = list(_judged(shape, text))
            if last is not None and all(span.type == "UNIQUE_ID" for span in spans) and _goes_on(last, shape, text):
                spans = [Span(shape.start, shape.end, last.type, last.score)]
            yield from spans
            last = spans[0] if spans and spans[0].score == _LABELLED else last
        for match in matches(_LAST_FOUR, text, within):
            card = re.search(r"card|account", match.group(), re.IGNORECASE) or re.search(
                r"card", text[max(0, match.start() - 30) : match.start()]
            )
            yield Span(*match.span("value"), "CREDIT_CARD" if card else "US_SSN", 0.7)
    if _PICTURE_ENDING.search(text) is not None:
        for match in _PICTURE.finditer(text):
            if (start := _picture_start(match, text)) is not None:
                yield Span(start, match.end(), "PHOTO_ID", 0.86)
    for said in spoken.find(text):
        label = _label_before(text, said.start)
        if label is None or label.type not in ("CODE", "UNIQUE_ID"):
            yield Span(said.start, said.end, label.type if label else "PHONE_NUMBER", 0.7)


def _goes_on(last: Span, shape: _Shape, text: str) -> bool:
    """ "MRNs 448812 and 448913": the second has the label of the first, and its length."""
    alike = abs((shape.end - shape.start) - (last.end - last.start)) <= 1
    return alike and shape.end - shape.start >= 5 and not shape.sure and _AND.fullmatch(text, last.end, shape.start) is not None


def _shapes(text: str, within: Zones) -> Iterator[_Shape]:
    for match in matches(_SSN, text, within):
        yield _Shape(match.start(), match.end(), *_ssn_or_itin(match.group()))
    for match in matches(_CARD, text, within):
        digits = digits_of(match.group())
        sure = _CARD_OF.fullmatch(digits) is not None and check_digits.luhn(digits)
        shaped = len(digits) == 16 and not match.group().isdigit()
        yield _Shape(match.start(), match.end(), "CREDIT_CARD" if sure or shaped else None, 0.95 if sure else 0.5, sure)
    for match in matches(_IBAN, text, within):
        if (shape := _iban(match)) is not None:
            yield shape
    for match in matches(_MBI, text, within):
        yield _Shape(match.start(), match.end(), "US_MBI", 0.95, True)
    for match in matches(_UDI, text, within):
        device = re.match(r"\(01\)\s?(\d{14})", match.group())
        yield _Shape(match.start(), match.end(), "DEVICE_ID", 0.97 if device and check_digits.gs1(device[1]) else 0.9, True)
    for match in matches(_CRYPTO, text, within):
        if _HAS_DIGIT.search(match.group()) and any(letter.isupper() for letter in match.group()) | match.group().startswith(
            ("bc1", "0x")
        ):
            yield _Shape(match.start(), match.end(), "CRYPTO", 0.8, True)
    for match in matches(_UUID, text, within):
        yield _Shape(match.start(), match.end(), "UUID", 0.5)
    for span in phones.find(text, within):
        yield _Shape(span.start, span.end, span.type, span.score)
    for match in matches(_TOKEN, text, within):
        written = match.group()
        # Most numbers are counts, doses and years: three digits that stand alone are nobody's, whatever is said of them.
        alone = (
            len(written) <= 3
            and written.isdigit()
            and _MORE.match(text, match.end()) is None
            and _LEADING.search(text, max(0, match.start() - 5), match.start()) is None
        )
        if not alone and _HAS_DIGIT.search(written) and not _PUBLIC.match(written):
            yield _token(match)


def _ssn_or_itin(written: str) -> tuple[str, float]:
    digits = digits_of(written)
    if len(digits) < 9:
        return "US_SSN", 0.85  # masked but for the last four
    if digits[0] == "9":
        return "US_ITIN", 0.8
    issued = digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000"
    return "US_SSN", 0.85 if issued else 0.45


def _iban(match: re.Match[str]) -> _Shape | None:
    """As many characters as its country has; the greedy match may have run into the next word."""
    length = _IBAN_LENGTHS.get(match.group()[:2].upper())
    if length is None:
        return None
    seen = 0
    for place, character in enumerate(match.group()):
        seen += character.isalnum()
        if seen == length:
            written, end = match.group()[: place + 1], match.start() + place + 1
            following = match.string[end : end + 1]
            sure = check_digits.iban(written)
            if not sure and (following.isalnum() or sum(map(str.isdigit, written)) < 10 or written != written.upper()):
                return None
            return _Shape(match.start(), end, "IBAN_CODE", 0.99 if sure else 0.6, sure)
    return None


def _token(match: re.Match[str]) -> _Shape:
    written, start, end = match.group(), match.start(), match.end()
    if written.startswith("**") and written.endswith("**"):  # bold, not masked
        start, end = start + 2, end - 2
        written = written[2:-2]
    bare = written.replace("-", "")
    digits = sum(map(str.isdigit, written))
    if len(written) == 17 and written.isalnum() and not written.isdigit() and check_digits.vin(written):
        return _Shape(start, end, "VEHICLE_ID", 0.97, True)
    if re.fullmatch(r"[A-HJ-NPR-Z0-9]{17}", written) and digits >= 5 and not written.isdigit():
        return _Shape(start, end, "VEHICLE_ID", 0.6)
    if re.fullmatch(r"[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}", written) and check_digits.dea(written):
        return _Shape(start, end, "MEDICAL_LICENSE", 0.9)
    if written.isdigit() and len(written) == 10 and check_digits.npi(written):
        return _Shape(start, end, "US_NPI", 0.6)
    if _COMPACT_DAY.fullmatch(written):
        return _Shape(start, end, "DATE_TIME", 0.45)
    prefixed = _PREFIXED.match(written)
    if prefixed is not None and (kind := _PREFIXES.get(prefixed[1].upper())) and digits >= 3:
        return _Shape(start, end, kind, 0.75)
    if bare.isdigit() and "-" not in written and 8 <= len(bare) <= 20:
        return _Shape(start, end, "UNIQUE_ID", 0.4)
    if bare.isalnum() and written.upper() == written and digits >= 5 and len(bare) >= 7 and not bare.isdigit():
        return _Shape(start, end, "UNIQUE_ID", 0.4)
    return _Shape(start, end, None, 0.0)


class _Label(NamedTuple):
    type: str
    start: int
    end: int


def _picture_start(match: re.Match[str], text: str) -> int | None:
    """Pictures of somebody: a numbered or speaking name, or one that the words before call a photograph. Not "logo.png"."""
    if _HAS_DIGIT.search(match["name"]) or _PICTURED.search(text, max(0, match.start() - 40), match.end("name")):
        return match.start()
    return None


def _labels_before(text: str, start: int) -> list[_Label]:
    """What the number at `start` may be said to be, likeliest first: labels that lead up to it, the nearest first, narrow ones
    before vague ones. A clinical code's word ends the list."""
    window = max(0, start - _BEFORE)
    narrow: list[_Label] = []
    vague: list[_Label] = []
    labels = [_Label(str(match.lastgroup), match.start(), match.end()) for match in label_matches(text, window, start)]
    for label in reversed(labels):
        if label.type == "CODE" and _CODE_LINK.match(text, label.end, start):
            return [*narrow, *vague] or [label]
        if LINK.match(text, label.end, start) is not None and not _ends_the_line_above(text, label, start):
            (vague if label.type in _WEAK else narrow).append(label)
    return [*narrow, *vague]


def _label_before(text: str, start: int) -> _Label | None:
    labels = _labels_before(text, start)
    return labels[0] if labels else None


def _ends_the_line_above(text: str, label: _Label, start: int) -> bool:
    """ "555-0142 fax" on the line above speaks of that line's number."""
    link = text[label.end : start]
    return "\n" in link and ":" not in link and text[max(0, label.start - 3) : label.start].rstrip(" -(")[-1:].isdigit()


def _label_after(text: str, end: int) -> _Label | None:
    lead = _SPEAKS_OF.match(text, end, min(len(text), end + _AFTER))
    if lead is None or not lead.group():
        return None
    if "\n" in lead.group():
        return None
    match = LABEL.match(text, lead.end(), min(len(text), end + _AFTER))
    said = re.search(r"\b(?:is|was|as)\b|[(–-]", lead.group())
    return _Label(str(match.lastgroup), match.start(), match.end()) if match is not None and said is not None else None


def _judged(shape: _Shape, text: str) -> Iterator[Span]:
    if shape.sure:
        yield Span(shape.start, shape.end, str(shape.type), shape.score)
        return
    start, end = shape.start, shape.end
    labels = _labels_before(text, start)
    label = labels[0] if labels else None
    if label is None and shape.type is None and (lead := _LEADING.search(text, max(0, start - 5), start)) is not None:
        label = _label_before(text, lead.start())
        if label is not None and label.type != "CODE":
            start = lead.start()
    if label is not None and label.type == "CODE":
        return
    if (
        shape.type == "PHONE_NUMBER"
        and shape.score < 0.3
        and (label is None or label.type not in ("PHONE_NUMBER", "FAX_NUMBER"))
    ):
        return  # digits in groups of any length are only what they are called
    if shape.type == "PHONE_NUMBER" and shape.score >= 0.55:
        label = _of_a_phone(label, text, start)
    if label is None or (label.type in _WEAK and shape.type is None):
        label = _after if (_after := _label_after(text, end)) is not None and _after.type != "CODE" else label
    written = text[start:end]
    if label is not None:
        if shape.type is None:
            start, end = _whole(text, start, end, label)
            written = text[start:end]
        kind = _labelled(label, shape, written, text, end)
        for other in labels[1:] if kind is None and shape.type in (None, "UNIQUE_ID") else ():
            kind = kind or _labelled(other, shape, written, text, end)
        if kind is not None:
            if kind == "MEDICAL_RECORD_NUMBER" or _LIKE_A_DAY.fullmatch(written) is None:
                yield Span(start, end, kind, _LABELLED)
            return
    if shape.type is not None and shape.score >= 0.4 and not _DOSE.match(text, end):
        yield Span(shape.start, shape.end, shape.type, shape.score)


def _of_a_phone(label: _Label | None, text: str, start: int) -> _Label | None:
    """What is grouped like a telephone number is one, unless a label plainly says otherwise: not in "fax her chart to …"."""
    if label is not None and label.type not in _WEAK | {"FAX_NUMBER"} and _SURE_LINK.search(text, label.start, start) is None:
        label = None
    if label is None and (fax := _FAXED.search(text, max(0, start - _BEFORE), start)) is not None:
        return _Label("FAX_NUMBER", *fax.span("label"))
    return label


def _whole(text: str, start: int, end: int, label: _Label) -> tuple[int, int]:
    """The number with the groups that follow it, where it is written in short groups."""
    if end - start > 5 or label.type in ("CODE", "UNIQUE_ID"):
        return start, end
    for _ in range(4):
        more = _TRAILING.match(text, end)
        if more is None or _DOSE.match(text, more.end()):
            break
        end = more.end()
    return start, end


def _labelled(label: _Label, shape: _Shape, written: str, text: str, end: int) -> str | None:
    """The type that the label gives, or None where the number cannot be that."""
    digits = sum(map(str.isdigit, written))
    if digits < _LEAST_DIGITS.get(label.type, _FEW):
        return None
    if (
        shape.type is not None
        and label.type in _WEAK
        and not (shape.type in ("UNIQUE_ID", "UUID", "US_NPI", "DATE_TIME") and shape.score <= 0.6)
    ):
        return (
            "PHONE_NUMBER"
            if shape.type is None
            else (shape.type if shape.score >= 0.4 or label.type == "PHONE_NUMBER" else None)
        )
    if label.type == "PHONE_NUMBER" and (any(map(str.isalpha, written)) or digits > 15):
        return None
    if label.type == "FAX_NUMBER" and digits > 15:
        return None
    sure = _SURE_LINK.search(text, label.start, end - len(written)) is not None
    if written.isdigit() and len(written) < 6 and _STREET.match(text, end) and (label.type in _WEAK or not sure):
        return None  # the number of a house
    if label.type == "UNIQUE_ID" and not sure and len(written) < 6:
        return None
    if _ZIP.fullmatch(written) and text[label.start : end - len(written)].rstrip() == "ID":
        return None  # "ID 83702" is Boise's
    if _YEARLIKE.fullmatch(written) and not sure:
        return None
    if written.isdigit() and len(written) < 6 and _DOSE.match(text, end):
        return None
    if label.type == "US_SSN" and digits not in (4, 9):
        return None
    if label.type in ("CREDIT_CARD", "US_NPI", "ABA_ROUTING_NUMBER") and (
        digits > 19 or any(map(str.isalpha, written.strip("xX")))
    ):
        return None
    return label.type
