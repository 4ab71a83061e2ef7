"""What a number looks like: forms and check digits, whatever is written beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from . import check_digits, phones
from .check_digits import digits_of
from .zones import Zones, matches

_SSN: Final = re.compile(
    r"[0-9xX*#•](?<![\w-].)(?:(?<=\d)\d\d|(?<!\d)[xX*#•]{2})\s?(?P<s>[-–. ])\s?"
    r"(?:\d{2}|[xX*#•]{2})\s?(?P=s)\s?\d{4}(?![\w-]|\.\d)"
)
_CARD: Final = re.compile(r"[0-9](?<![\w.-].)(?:[ -]?\d){11,18}(?![\w-]|\.\d)")
# Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Maestro by prefix and length.
_CARD_OF: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|6(?:011|5\d\d"
    r"|4[4-9]\d)\d{12}|35\d{14}"
    r"|62\d{14,17}|(?:50|5[6-9]|6[0-9])\d{10,17}|1800\d{11}|2131\d{11}"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,34}")
_MBI: Final = re.compile(
    r"[1-9](?<![A-Za-z0-9-].)[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d[- ]?[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d[- ]?"
    r"[AC-HJKMNP-RT-Y]{2}\d{2}(?![A-Za-z0-9-])",
    re.IGNORECASE,
)
_UDI: Final = re.compile(
    r"\(01\)\s?\d{14}(?:\s?\((?:10|11|17|21|30|240)\)\s?[A-Za-z0-9/.-]+)*|\+[A-Z]\d{3}[A-Z0-9]{1,18}\d/?[A-Z0-9$+/]*"
    r"(?=\s|$|[,.;)])"
)
_CRYPTO: Final = re.compile(
    r"[b013](?<!\w.)(?:(?<=b)c1[a-z0-9]{25,59}|(?<=[13])[a-km-zA-HJ-NP-Z1-9]{25,34}|(?<=0)x[0-9a-fA-F]{40})(?!\w)"
)
_UUID: Final = re.compile(r"[0-9a-fA-F](?<![\w-].)[0-9a-fA-F]{7}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![\w-])")
_DEVICE: Final = re.compile(r"\(01\)\s?(\d{14})")
_VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
_DEA: Final = re.compile(r"[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}")
_TOKEN: Final = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z*_./·-]*[0-9])[A-Za-z0-9*]+(?:[-_./*·][A-Za-z0-9*]+)*(?![A-Za-z0-9])")
# Parts of one number written apart: "943 476 5919", "ABC 1234".
LEADING: Final = re.compile(r"(?<![A-Za-z0-9-])[A-Z]{1,4}[ -]\Z")
_HAS_DIGIT: Final = re.compile(r"\d")
_MORE: Final = re.compile(r" \d{2}")
_COMPACT_DAY: Final = re.compile(r"(?:19[2-9]|20[0-4])\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
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

# Characters of an IBAN by country.
_IBAN_LENGTHS: Final = {
    entry[:2]: int(entry[2:])
    for entry in """AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24
    FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22
    SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20""".split()  # noqa: SIM905 — it is read by country
}


class Shape(NamedTuple):
    start: int
    end: int
    type: str | None  # None: only a label makes it something
    score: float
    sure: bool = False  # its check digit holds: no label says otherwise


def find(text: str, within: Zones) -> Iterator[Shape]:
    for match in matches(_SSN, text, within):
        yield Shape(match.start(), match.end(), *_ssn_or_itin(match.group()))
    for match in matches(_CARD, text, within):
        digits = digits_of(match.group())
        sure = _CARD_OF.fullmatch(digits) is not None and check_digits.luhn(digits)
        shaped = len(digits) == 16 and not match.group().isdigit()
        yield Shape(match.start(), match.end(), "CREDIT_CARD" if sure or shaped else None, 0.95 if sure else 0.5, sure)
    for match in matches(_IBAN, text, within):
        if (shape := _iban(match)) is not None:
            yield shape
    for match in matches(_MBI, text, within):
        yield Shape(match.start(), match.end(), "US_MBI", 0.95, True)
    for match in matches(_UDI, text, within):
        device = _DEVICE.match(match.group())
        yield Shape(match.start(), match.end(), "DEVICE_ID", 0.97 if device and check_digits.gs1(device[1]) else 0.9, True)
    for match in matches(_CRYPTO, text, within):
        if _HAS_DIGIT.search(match.group()) and any(letter.isupper() for letter in match.group()) | match.group().startswith(
            ("bc1", "0x")
        ):
            yield Shape(match.start(), match.end(), "CRYPTO", 0.8, True)
    for match in matches(_UUID, text, within):
        yield Shape(match.start(), match.end(), "UUID", 0.5)
    for span in phones.find(text, within):
        yield Shape(span.start, span.end, span.type, span.score)
    for match in matches(_TOKEN, text, within):
        written = match.group()
        # Most numbers are counts, doses and years: three digits that stand alone are nobody's, whatever is said of them.
        alone = (
            len(written) <= 3
            and written.isdigit()
            and _MORE.match(text, match.end()) is None
            and LEADING.search(text, max(0, match.start() - 5), match.start()) is None
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


def _iban(match: re.Match[str]) -> Shape | None:
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
            return Shape(match.start(), end, "IBAN_CODE", 0.99 if sure else 0.6, sure)
    return None


def _token(match: re.Match[str]) -> Shape:
    written, start, end = match.group(), match.start(), match.end()
    if written.startswith("**") and written.endswith("**"):  # bold, not masked
        start, end = start + 2, end - 2
        written = written[2:-2]
    bare = written.replace("-", "")
    digits = sum(map(str.isdigit, written))
    if len(written) == 17 and written.isalnum() and not written.isdigit() and check_digits.vin(written):
        return Shape(start, end, "VEHICLE_ID", 0.97, True)
    if len(written) == 17 and digits >= 5 and _VIN.fullmatch(written) and not written.isdigit():
        return Shape(start, end, "VEHICLE_ID", 0.6)
    if len(written) == 9 and _DEA.fullmatch(written) and check_digits.dea(written):
        return Shape(start, end, "MEDICAL_LICENSE", 0.9)
    if written.isdigit() and len(written) == 10 and check_digits.npi(written):
        return Shape(start, end, "US_NPI", 0.6)
    if _COMPACT_DAY.fullmatch(written):
        return Shape(start, end, "DATE_TIME", 0.45)
    prefixed = _PREFIXED.match(written)
    if prefixed is not None and (kind := _PREFIXES.get(prefixed[1].upper())) and digits >= 3:
        return Shape(start, end, kind, 0.75)
    if bare.isdigit() and "-" not in written and 8 <= len(bare) <= 20:
        return Shape(start, end, "UNIQUE_ID", 0.4)
    if bare.isalnum() and written.upper() == written and digits >= 5 and len(bare) >= 7 and not bare.isdigit():
        return Shape(start, end, "UNIQUE_ID", 0.4)
    return Shape(start, end, None, 0.0)
