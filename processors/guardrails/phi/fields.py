"""What the name of a field says of its value: "patientName", "Date of Birth", `postalCode`, whatever the form it stands in.

name of a field ─► letters alone ─► whose it is taken off ("guarantor", "home") ─► type ─► can the value be one? ─► span
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from . import clinical
from .ner_words import read_lists
from .spans import Span

_SURE: Final = 0.9
# Longer values are prose, in which others look.
_LONGEST: Final = 160
_MOST_WORDS: Final = 6

# Type → names of fields, in letters alone.
_FIELDS: Final = {
    kind: names.split()
    for kind, names in {
        "PERSON": """firstname lastname middlename fullname givenname familyname surname forename fname lname
            maidenname displayname nickname preferredname legalname lastfirst
            lastnamefirstname firstnamelastname namelastfirst nameoninsurance""",
        "DATE_TIME": """dob birthdate dateofbirth birthday birthtime bdate birth dod dateofdeath deathdate deceaseddatetime
            admissiondate admitdate dateofadmission dischargedate dateofdischarge visitdate dateofservice servicedate dos
            appointmentdate encounterdate""",
        "AGE": "age ageyears ageinyears",
        "PHONE_NUMBER": """phone phonenumber phoneno tel telephone telephonenumber mobile mobilephone mobilenumber cell
            cellphone cellnumber homephone workphone contactnumber daytimephone eveningphone pager""",
        "FAX_NUMBER": "fax faxnumber faxno",
        "EMAIL_ADDRESS": "email emailaddress mail emails",
        "LOCATION": """address addr street streetaddress streetname streetaddressline addressline addresslineone
            addresslinetwo city town village county district zip zipcode postalcode postcode residence placeofbirth
            birthplace neighborhood hometown precinct cityname""",
        "MEDICAL_RECORD_NUMBER": """mrn mrns mrnumber medicalrecordnumber medicalrecordno medrecno medicalrecord recordnumber
            patientid patientidentifier patientno patientnumber patid ptid chartnumber chartno chartid chart hospitalnumber
            unitnumber empi mpi epicid""",
        "US_SSN": "ssn socialsecurity socialsecuritynumber socialsecurityno social",
        "US_HEALTH_INSURANCE_MEMBER_ID": """memberid membernumber memberno subscriberid subscribernumber policynumber policyno
            policyid insuranceid insurancenumber insurancepolicy groupnumber groupid healthplanid medicaidid medicaidnumber
            beneficiaryid planid""",
        "US_MBI": "mbi medicareid medicarenumber medicare hicn",
        "ACCOUNT_NUMBER": """account accountnumber accountno acct acctnumber acctno accountid encounterid encounternumber
            visitnumber visitid visitno csn har invoicenumber guarantorid guarantornumber""",
        "US_NPI": "npi npinumber",
        "MEDICAL_LICENSE": "dea deanumber medicallicense",
        "US_DRIVER_LICENSE": "driverslicense driverlicense driverslicensenumber driverlicensenumber dl dlnumber dln",
        "US_PASSPORT": "passport passportnumber passportno",
        "VEHICLE_ID": "vin vehicleid",
        "LICENSE_PLATE": "licenseplate plate platenumber platenum",
        "DEVICE_ID": "deviceid serialnumber serialno deviceserial deviceserialnumber udi imei",
        "ACCESSION_NUMBER": "accession accessionnumber accessionno accessionid specimenid",
        "US_CLAIM_NUMBER": "claimnumber claimid claimno",
        "BIOMETRIC_ID": "biometricid fingerprintid",
        "UNIQUE_ID": "employeeid employeenumber badgenumber studentid nationalid caseid subjectid participantid studyid",
    }.items()
}
_TYPES: Final = {name: kind for kind, names in _FIELDS.items() for name in names}
# Who it is of, or which of several; what is left of "mother's maiden name", "home phone", "address line 2" says what it is.
_WHOSE: Final = re.compile(
    r"(?:emergencycontact|nextofkin|patient|pt|member|subscriber|policyholder|guarantor|insured|contact|mother|father|parent"
    r"|spouse|husband|wife|guardian|caregiver|nok|provider|physician|doctor|attending|referring|ordering|surgeon|nurse|employee"
    r"|client|candidate|customer|caller|resident|participant|subject|person|home|work|mailing|billing|primary|secondary|permanent|current"
    r"|legal|alternate|other|s(?=name|mrn|dob|phone|address|email|maidenname))"
)
# These alone are somebody, or a form to fill in: their values have to look like names.
_PERHAPS: Final = frozenset(
    """name names given family first last middle maiden alias aka initials patient pt patients member subscriber
    policyholder guarantor insured mother father spouse husband wife guardian caregiver nextofkin nok emergencycontact
    provider physician doctor attending referring referringphysician attendingphysician surgeon nurse client resident
    participant contact attn re display text seenby author pcp primarycarephysician primarycareprovider
    orderingprovider""".split()  # noqa: SIM905
)
_NUMBERED: Final = frozenset(_TYPES.values()) - {"PERSON", "LOCATION", "DATE_TIME", "EMAIL_ADDRESS", "AGE"}
_LEAST_DIGITS: Final = {"PHONE_NUMBER": 6, "FAX_NUMBER": 6, "US_SSN": 4, "US_MBI": 3}
# Words in place of a value, and what is said of a person without naming one.
_NOBODY: Final = frozenset(
    """none null nil na nan unknown anonymous undefined true false yes no other self same male female string redacted test
    todo tbd pending deceased confidential withheld declined refused private public default required optional varchar text
    char int integer date number object array boolean""".split()  # noqa: SIM905
)
_NAME: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[.'’‘`-])*+(?:,?[ \t]+[^\W\d_(\"](?:[^\W\d_]|[.'’‘`)\"-])*+){0,5}")
_ESCAPE: Final = re.compile(r"\\{1,4}u[0-9a-fA-F]{4}")
_ORGANISATION: Final = re.compile(
    r"\b(?:inc|llc|ltd|corp|company|hospital|clinic|center|centre|university|health|medical|group|pharmacy)\b", re.IGNORECASE
)
CREDENTIALS: Final = frozenset("md do rn np pa phd dds dpm lpn msw jr sr ii iii iv".split())  # noqa: SIM905
# Fields that only a record of somebody has.
_PERSONAL: Final = frozenset(
    "PERSON DATE_TIME AGE PHONE_NUMBER EMAIL_ADDRESS MEDICAL_RECORD_NUMBER US_SSN US_HEALTH_INSURANCE_MEMBER_ID US_MBI".split()  # noqa: SIM905
)
_PAIRS: Final = ({"first", "last"}, {"given", "family"})
_LETTERS: Final = re.compile(r"[^a-z]+")


class Field(NamedTuple):
    """`type` of its values; `sure` where the name of the field alone says so."""

    type: str
    sure: bool


@lru_cache(maxsize=4_096)
def named(name: str) -> Field | None:
    """What a field of this name holds; None where it tells of nobody."""
    left = letters(name)
    owned = False
    while left:
        if left in _TYPES:
            return Field(_TYPES[left], True)
        if left == "name" and owned:
            return Field("PERSON", True)
        if left in _PERHAPS:
            return Field("PERSON", False)
        whose = _WHOSE.match(left)
        if whose is None:
            return None
        left, owned = left[whose.end() :], True
    return None


def letters(name: str) -> str:
    """What is left of the name of a field however it is written."""
    return _LETTERS.sub("", name.lower()[:60])


def of_people(names: Iterable[str]) -> bool:
    """Whether fields of these names, side by side, are those of people."""
    names = set(map(letters, names))
    known = [field for name in names if (field := named(name)) is not None]
    return any(field.sure and field.type in _PERSONAL for field in known) or any(pair <= names for pair in _PAIRS)


def span(text: str, start: int, end: int, field: Field, *, among_people: bool = False, in_column: bool = False) -> Span | None:
    """The value at `[start, end)` as a finding, or None where it can be none. `among_people`: other fields beside it are of a
    person, so that a name need not be one that a list knows; `in_column`: nothing but values stands there, so that two words
    of every day that are names ("will rose") are one."""
    while start < end and (text[start].isspace() or text[start] in "\"'`*"):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in "\"'`*"):
        end -= 1
    written = text[start:end]
    if not written or len(written) > _LONGEST or written.lower().rstrip(".") in _NOBODY:
        return None
    kind = _kind(written, field, among_people, in_column)
    if kind is None:
        return None
    found = Span(start, end, kind, _SURE)
    return None if kind == "PERSON" and _is_nobody(text, found) else found


def _kind(written: str, field: Field, among_people: bool, in_column: bool) -> str | None:
    digits = sum(map(str.isdigit, written))
    if "@" in written:
        return "EMAIL_ADDRESS" if " " not in written and field.type in {"EMAIL_ADDRESS", "PERSON", "PHONE_NUMBER"} else None
    if field.type == "PERSON":
        return "PERSON" if _names_somebody(written, field.sure, among_people, in_column) else None
    if field.type == "AGE":
        return "AGE" if written.isdecimal() and 90 <= int(written[:4]) < 140 else None
    if field.type == "DATE_TIME":
        return "DATE_TIME" if len(written) <= 40 and digits >= 3 and not (digits == len(written) == 4) else None
    if field.type == "LOCATION":
        return "LOCATION" if "://" not in written and any(map(str.isalnum, written)) and len(written) > 1 else None
    if field.type in _NUMBERED and len(written) <= 40 and digits >= _LEAST_DIGITS.get(field.type, 2):
        return field.type
    return None


def _names_somebody(written: str, sure: bool, among_people: bool, in_column: bool) -> bool:
    written = _ESCAPE.sub("x", written)
    if _NAME.fullmatch(written) is None or len(written.split()) > _MOST_WORDS:
        return False
    if sure:
        return True
    words = [word.strip(".,'’()\"-") for word in written.split()]
    lists = read_lists()
    known = [
        lists.names(word) or len(word) <= 1 or word.lower() in lists.words["title"] or word.lower() in CREDENTIALS
        for word in words
    ]
    if among_people:
        return all(known) or all(not word[:1].islower() for word in words)
    if not all(known):
        return False
    common = lists.words["common"]
    rare = any(len(word) > 1 and word.lower() not in common and word.lower() not in lists.places for word in words)
    return rare or (in_column and len(words) > 1)


def _is_nobody(text: str, found: Span) -> bool:
    written = text[found.start : found.end]
    words = written.lower().split()
    return (
        all(word.strip(".,") in _NOBODY for word in words)
        or (len(words) > 1 and _ORGANISATION.search(written) is not None)
        or clinical.is_medicine(text, found)
    )
