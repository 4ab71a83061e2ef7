"""Sentences with PHI in known places, and clinical ones without: what the PHI detector is measured on.

Every value is drawn from the lists below by a seeded generator; no person is meant. The templates of `HELD_OUT` were
written after the first rules and by the same hand; no rule was written for one of them, but what they showed to be missing
was mended since, so they are a floor and no blind test. `filled` also fills the slots of Microsoft's presidio-research
templates, which are of another hand and stay outside the repository.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Identifiers that have a form; the others are names and places in running text.
STRUCTURED: Final = frozenset(
    {
        "PHONE_NUMBER",
        "FAX_NUMBER",
        "EMAIL_ADDRESS",
        "US_SSN",
        "MEDICAL_RECORD_NUMBER",
        "US_HEALTH_INSURANCE_MEMBER_ID",
        "US_MBI",
        "ACCOUNT_NUMBER",
        "US_DRIVER_LICENSE",
        "US_NPI",
        "MEDICAL_LICENSE",
        "VEHICLE_ID",
        "LICENSE_PLATE",
        "DEVICE_ID",
        "URL",
        "IP_ADDRESS",
        "BIOMETRIC_ID",
        "PHOTO_ID",
        "ACCESSION_NUMBER",
        "CREDIT_CARD",
        "IBAN_CODE",
        "US_PASSPORT",
        "AGE",
        "DATE_TIME",
    }
)


@dataclass(frozen=True, slots=True)
class Gold:
    """`[start, end)` of the text is `type`. `optional`: a finding there is neither right nor wrong."""

    start: int
    end: int
    type: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    golds: tuple[Gold, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIVEN: Final = _words(
    """James Mary Wei Fatima Carlos Ingrid Kwame Priya Oluwaseun Yuki Sofia Lars Aisha Dmitri Chiara Mateo Noor
    Anneke Tomasz Siobhan Rahul Keiko Emeka Linh Abdullah Beatriz Gunnar Ximena Hye-jin Zainab Pieter Maeve
    Arjun Chidi Leila Bogdan Esperanza Thabo Mei Jamal Katarzyna Santiago Amara Henrik Nadia Giorgos Ravi
    Camille Tariq Solveig Malik Ioana Hiroshi Paloma Kofi Rosa Walter Doris Ethel Brandon"""
)
FAMILY: Final = _words(
    """Smith Nguyen Garcia Okafor Petrov Kowalski Yamamoto Haddad Lindqvist O'Brien Patel Hernandez Kim Rossi
    Dubois Schneider Van-Dyke Mbeki Andersen Papadopoulos Chen Silva Ivanova Abebe Castillo Johansson Ferrari
    Nakamura Osei Rahman McAllister Delgado Novak Tanaka Weber Adeyemi Moreau Santos Larsen Kapoor Baptiste
    Whitfield Ramsey Thornton Gutierrez Fitzgerald Popescu Hassan Bergstrom Washington"""
)
CITIES: Final = _words(
    """Springfield Denver Boise Savannah Portland Tucson Milwaukee Lyon Leeds Hamburg Osaka Nairobi Mumbai Toronto
    Recife Uppsala Krakow Valencia Galway Perth Utrecht Lagos Monterrey Busan Charlotte Albuquerque Worcester
    Spokane Duluth Macon"""
)
COUNTRIES: Final = (
    "France",
    "Brazil",
    "Nigeria",
    "Japan",
    "Canada",
    "Germany",
    "India",
    "Mexico",
    "Sweden",
    "Poland",
    "Kenya",
    "Vietnam",
    "New Zealand",
    "Argentina",
    "South Korea",
    "Ireland",
)
NATIONALITIES: Final = _words(
    """French Brazilian Nigerian Japanese Canadian German Indian Mexican Swedish Polish Kenyan Vietnamese Irish
    American"""
)
STREETS: Final = (
    "Maple",
    "Oak Hill",
    "Washington",
    "Elm",
    "Sunset",
    "Martin Luther King Jr.",
    "Church",
    "Mill",
    "Highland",
    "Cedar Creek",
    "Lakeview",
    "Third",
    "Harbor",
)
SUFFIXES: Final = (
    "Street",
    "St",
    "Avenue",
    "Ave",
    "Road",
    "Rd",
    "Lane",
    "Drive",
    "Dr.",
    "Blvd",
    "Court",
    "Way",
    "Place",
    "Terrace",
)
STATES: Final = _words(
    """AL AK AZ CA CO CT FL GA IA ID IL KS MA MD ME MI MN MO MT NC NE NH NJ NM NY OH OR PA TX UT VA VT WA WI WY"""
)
FIRMS: Final = (
    "Acme",
    "Globex",
    "Initech",
    "Northwind Traders",
    "Umbrella Logistics",
    "Stark Industries",
    "Blue Harbor",
    "Contoso",
    "Vandelay Imports",
    "Summit Ridge",
)
JOBS: Final = (
    "accountant",
    "civil engineer",
    "teacher",
    "data analyst",
    "librarian",
    "electrician",
    "Sales Manager",
    "Product designer",
)
BRITISH: Final = ("Leeds LS1 4AP", "London SW1A 2AA", "York YO1 7HH")
MONTHS: Final = _words("""January February March April May June July August September October November December""")

Maker = Callable[[random.Random], str]


def _digits(rng: random.Random, count: int) -> str:
    return str(rng.randint(1, 9)) + "".join(rng.choices(string.digits, k=count - 1))


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=count))


def _form(rng: random.Random, form: str) -> str:
    """`#` a digit, `%` a digit from 1, `?` a capital; anything else itself."""
    drawn = {"#": lambda: rng.choice(string.digits), "%": lambda: rng.choice("123456789"), "?": lambda: _letters(rng, 1)}
    return "".join(drawn[character]() if character in drawn else character for character in form)


def _one_of(*forms: str) -> Maker:
    return lambda rng: _form(rng, rng.choice(forms))


def _luhn_digit(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (1 if place % 2 else 2)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def _card(rng: random.Random) -> str:
    prefix, length = rng.choice(
        (("4", 16), ("51", 16), ("55", 16), ("37", 15), ("34", 15), ("6011", 16), ("2221", 16), ("3528", 16), ("305", 14))
    )
    body = prefix + "".join(rng.choices(string.digits, k=length - len(prefix) - 1))
    number = body + _luhn_digit(body)
    if length != 16 or rng.random() < 0.5:
        return number
    return rng.choice(" -").join(number[place : place + 4] for place in range(0, 16, 4))


def _iban(rng: random.Random) -> str:
    country, form = rng.choice(
        (
            ("DE", "#" * 18),
            ("FR", "#" * 23),
            ("GB", "????" + "#" * 14),
            ("NL", "????" + "#" * 10),
            ("ES", "#" * 20),
            ("CH", "#" * 17),
        )
    )
    body = _form(rng, form)
    remainder = int("".join(str(int(character, 36)) for character in body + country + "00")) % 97
    number = f"{country}{98 - remainder:02d}{body}"
    return number if rng.random() < 0.6 else " ".join(number[place : place + 4] for place in range(0, len(number), 4))


def _npi(rng: random.Random) -> str:
    body = rng.choice("12") + "".join(rng.choices(string.digits, k=8))
    return body + _luhn_digit("80840" + body)


def _dea(rng: random.Random) -> str:
    digits = [rng.randint(0, 9) for _ in range(6)]
    check = (digits[0] + digits[2] + digits[4] + 2 * (digits[1] + digits[3] + digits[5])) % 10
    return rng.choice("ABFGM") + _letters(rng, 1) + "".join(map(str, digits)) + str(check)


def _vin(rng: random.Random) -> str:
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
    values = dict(
        zip("ABCDEFGHJKLMNPRSTUVWXYZ", (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9), strict=True)
    )
    body = [
        rng.choice("12345JKWSV"),
        *rng.choices(letters, k=7),
        "0",
        *rng.choices(letters, k=2),
        *rng.choices(string.digits, k=6),
    ]
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    total = sum(
        (values.get(character) or int(character) if not character.isdigit() else int(character)) * weight
        for character, weight in zip(body, weights, strict=True)
    )
    body[8] = "0123456789X"[total % 11]
    return "".join(body)


def _mbi(rng: random.Random) -> str:
    letter, either = "ACDEFGHJKMNPQRTUVWXY", "ACDEFGHJKMNPQRTUVWXY0123456789"
    parts = [
        rng.choice("123456789"),
        rng.choice(letter),
        rng.choice(either),
        rng.choice(string.digits),
        rng.choice(letter),
        rng.choice(either),
    ]
    parts += [rng.choice(string.digits), rng.choice(letter), rng.choice(letter), *rng.choices(string.digits, k=2)]
    number = "".join(parts)
    return number if rng.random() < 0.5 else f"{number[:4]}-{number[4:7]}-{number[7:]}"


def _ssn(rng: random.Random) -> str:
    area = rng.choice([number for number in range(1, 899) if number != 666])
    parts = (f"{area:03d}", f"{rng.randint(1, 99):02d}", f"{rng.randint(1, 9999):04d}")
    return rng.choice(("-", "-", "-", " ", ".")).join(parts)


def _phone(rng: random.Random) -> str:
    form = rng.choice(
        (
            "(%##) %##-####",
            "%##-%##-####",
            "%##.%##.####",
            "+1 %## %## ####",
            "+1-%##-%##-####",
            "1-%##-%##-####",
            "%##-%##-#### ext. ##",
            "+44 20 #### ####",
            "+49 30 ########",
            "+33 6 ## ## ## ##",
            "+91 %#### #####",
            "07### ######",
            "(0%) #### ####",
            "0%.##.##.##.##",
            "001-%##-%##-####x###",
            "(%##)%##-####",
        )
    )
    return _form(rng, form)


def _us_phone(rng: random.Random) -> str:
    return _form(rng, rng.choice(("(%##) %##-####", "%##-%##-####", "%##.%##.####", "1-%##-%##-####")))


def _email(rng: random.Random) -> str:
    given, family = rng.choice(GIVEN).lower(), rng.choice(FAMILY).lower().replace("'", "")
    domain = rng.choice(
        ("gmail.com", "yahoo.co.uk", "example.org", "mail.harborview.edu", "outlook.com", "proton.me", "web.de")
    )
    user = rng.choice((f"{given}.{family}", f"{given[0]}{family}", f"{given}{rng.randint(1, 99)}", f"{family}_{given}"))
    return f"{user}@{domain}"


def _spoken_email(rng: random.Random) -> str:
    given, family = rng.choice(GIVEN).lower(), rng.choice(FAMILY).lower().replace("'", "")
    dot, at = rng.choice(((" dot ", " at "), (" [dot] ", " [at] "), (" dot ", " (at) ")))
    return f"{given[0]}{dot}{family}{at}{rng.choice(('example', 'gmail', 'mailhost'))}{dot}{rng.choice(('com', 'org', 'net'))}"


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(1931, 2026), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    ordinal = f"{day}{'th' if 10 <= day <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
    return rng.choice(
        (
            f"{month:02d}/{day:02d}/{year}",
            f"{month}/{day}/{year % 100:02d}",
            f"{year}-{month:02d}-{day:02d}",
            f"{name} {day}, {year}",
            f"{name[:3]} {day}, {year}",
            f"{day} {name} {year}",
            f"{ordinal} of {name}",
            f"{name} {ordinal}",
            f"{name} {year}",
            f"{day:02d}-{name[:3].upper()}-{year}",
            f"{month:02d}-{day:02d}-{year}",
            f"{day:02d}.{month:02d}.{year}",
        )
    )


def _exact_date(rng: random.Random) -> str:
    year, month, day = rng.randint(1931, 2026), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    return rng.choice(
        (f"{month:02d}/{day:02d}/{year}", f"{year}-{month:02d}-{day:02d}", f"{name} {day}, {year}", f"{day} {name[:3]} {year}")
    )


def _person(rng: random.Random) -> str:
    given, family = rng.choice(GIVEN), rng.choice(FAMILY)
    return rng.choice((f"{given} {family}", f"{given} {family}", f"{given} {rng.choice(string.ascii_uppercase)}. {family}"))


def _chart_person(rng: random.Random) -> str:
    """As charts have it."""
    given, family = rng.choice(GIVEN), rng.choice(FAMILY)
    return rng.choice(
        (f"{family.upper()}, {given.upper()}", f"{family}, {given}", f"{family}, {given} {rng.choice(string.ascii_uppercase)}.")
    )


def _street(rng: random.Random) -> str:
    return f"{rng.randint(1, 9999)} {rng.choice(STREETS)} {rng.choice(SUFFIXES)}"


def _address(rng: random.Random) -> str:
    unit = rng.choice(("", "", f" Apt {rng.randint(1, 99)}", f", Suite {rng.randint(100, 990)}"))
    us = f"{_street(rng)}{unit}, {rng.choice(CITIES)}, {rng.choice(STATES)} {_form(rng, '#####')}"
    return rng.choice(
        (
            us,
            us,
            f"{_street(rng)}{unit}\n {rng.choice(CITIES)}\n {rng.choice(STATES)} {_form(rng, '#####-####')}",
            f"P.O. Box {rng.randint(10, 9999)}, {rng.choice(CITIES)}, {rng.choice(STATES)} {_form(rng, '#####')}",
            f"Lindenstraße {rng.randint(1, 99)}, {_form(rng, '%####')} {rng.choice(('Hamburg', 'Köln', 'Leipzig'))}",
            f"{rng.randint(1, 99)} rue de la Paix, {_form(rng, '75###')} Paris",
            f"{rng.randint(1, 99)} {rng.choice(STREETS)} Road, {rng.choice(BRITISH)}",
        )
    )


def _url(rng: random.Random) -> str:
    site = rng.choice(("janedoediary", "harborview-portal", "smithfamily", "mychart-north", "runnersblog"))
    return rng.choice(
        (
            f"https://www.{site}.com/p/{_digits(rng, 6)}",
            f"http://{site}.net/",
            f"www.{site}.org",
            f"https://{site}.example/u?id={_digits(rng, 5)}",
            f"{site}.com",
        )
    )


def _ip(rng: random.Random) -> str:
    if rng.random() < 0.75:
        return ".".join(str(rng.randint(1, 254)) for _ in range(4))
    return rng.choice((f"2001:db8::{rng.randint(1, 65535):x}", ":".join(f"{rng.randint(0, 65535):x}" for _ in range(8))))


def _udi(rng: random.Random) -> str:
    body = "00" + _digits(rng, 11)
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return f"(01){body}{-total % 10}(17){_form(rng, '2#0%1%')}(21){_form(rng, '??#####')}"


# Slot → (type, maker). A slot that is not PHI has no type.
MAKERS: Final[dict[str, tuple[str | None, Maker]]] = {
    "person": ("PERSON", _person),
    "chart_person": ("PERSON", _chart_person),
    "name": ("PERSON", _person),
    "name_male": ("PERSON", _person),
    "name_female": ("PERSON", _person),
    "first_name": ("PERSON", lambda rng: rng.choice(GIVEN)),
    "first_name_male": ("PERSON", lambda rng: rng.choice(GIVEN)),
    "first_name_female": ("PERSON", lambda rng: rng.choice(GIVEN)),
    "first_name_nonbinary": ("PERSON", lambda rng: rng.choice(GIVEN)),
    "last_name": ("PERSON", lambda rng: rng.choice(FAMILY)),
    "last_name_male": ("PERSON", lambda rng: rng.choice(FAMILY)),
    "last_name_female": ("PERSON", lambda rng: rng.choice(FAMILY)),
    "address": ("LOCATION", _address),
    "street": ("LOCATION", _street),
    "city": ("LOCATION", lambda rng: rng.choice(CITIES)),
    "country": ("LOCATION", lambda rng: rng.choice(COUNTRIES)),
    "street_name": ("LOCATION", lambda rng: f"{rng.choice(STREETS)} {rng.choice(SUFFIXES)}"),
    "zipcode": ("LOCATION", _one_of("#####", "#####-####")),
    "postcode": ("LOCATION", _one_of("#####", "####", "?## %??")),
    "state_abbr": ("LOCATION", lambda rng: rng.choice(STATES)),
    "building_number": ("LOCATION", lambda rng: str(rng.randint(1, 9999))),
    "secondary_address": ("LOCATION", lambda rng: f"{rng.choice(('Apt.', 'Suite', 'Unit'))} {rng.randint(1, 999)}"),
    "organization": ("ORGANIZATION", lambda rng: f"{rng.choice(FIRMS)}{rng.choice((' Inc', ' LLC', ' Group', ' Ltd', ''))}"),
    "nationality": ("NRP", lambda rng: rng.choice(NATIONALITIES)),
    "nation_woman": ("NRP", lambda rng: rng.choice(NATIONALITIES)),
    "nation_plural": ("NRP", lambda rng: rng.choice(("Germans", "Canadians", "Mexicans", "Swedes", "Nigerians"))),
    "phone_number": ("PHONE_NUMBER", _phone),
    "us_phone": ("PHONE_NUMBER", _us_phone),
    "fax": ("FAX_NUMBER", _us_phone),
    "email": ("EMAIL_ADDRESS", _email),
    "spoken_email": ("EMAIL_ADDRESS", _spoken_email),
    "ssn": ("US_SSN", _ssn),
    "ssn_last": ("US_SSN", _one_of("####")),
    "credit_card_number": ("CREDIT_CARD", _card),
    "iban": ("IBAN_CODE", _iban),
    "mrn": (
        "MEDICAL_RECORD_NUMBER",
        _one_of("########", "%######", "MRN-######", "??######", "##-##-##", "%####-###", "E%######", "H%#########"),
    ),
    "member": (
        "US_HEALTH_INSURANCE_MEMBER_ID",
        _one_of("???%########", "?########", "%#########", "W####-#####", "???####???##", "%##-####-##"),
    ),
    "mbi": ("US_MBI", _mbi),
    "account": ("ACCOUNT_NUMBER", _one_of("%#######", "%###########", "A-######", "ACCT######", "####-######-##")),
    "license": ("US_DRIVER_LICENSE", _one_of("?#######", "?%##-####-####", "%########", "??######", "?############")),
    "us_driver_license": ("US_DRIVER_LICENSE", _one_of("?#######", "%########", "??######", "?###-####-####")),
    "npi": ("US_NPI", _npi),
    "dea": ("MEDICAL_LICENSE", _dea),
    "med_license": ("MEDICAL_LICENSE", _one_of("MD######", "?#####", "%#####", "RN-######")),
    "passport": ("US_PASSPORT", _one_of("%########", "?########")),
    "vin": ("VEHICLE_ID", _vin),
    "plate": ("LICENSE_PLATE", _one_of("???-####", "%???###", "??? ###", "???%##", "?##-???")),
    "serial": ("DEVICE_ID", _one_of("SN######", "???-######", "%########", "?##-?####", "PM######S")),
    "udi": ("DEVICE_ID", _udi),
    "url": ("URL", _url),
    "ip_address": ("IP_ADDRESS", _ip),
    "biometric": ("BIOMETRIC_ID", _one_of("FP-######", "BIO######", "?#?#?###", "########")),
    "photo": ("PHOTO_ID", _one_of("IMG_####.jpg", "face_####.png", "photo-######.jpeg", "DSC#####.JPG")),
    "accession": ("ACCESSION_NUMBER", _one_of("A##-#####", "S-####-#####", "%########", "##?######", "ACC-########")),
    "date_of_birth": ("DATE_TIME", _exact_date),
    "date_time": ("DATE_TIME", _date),
    "date": ("DATE_TIME", _date),
    "exact_date": ("DATE_TIME", _exact_date),
    "day_of_week": (
        "DATE_TIME",
        lambda rng: rng.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")),
    ),
    "old_age": ("AGE", lambda rng: str(rng.randint(90, 108))),
    # What templates say and Safe Harbor does not ask for.
    "age": (None, lambda rng: str(rng.randint(18, 89))),
    "year": (None, lambda rng: str(rng.randint(1930, 2025))),
    "job": (None, lambda rng: rng.choice(JOBS)),
    "prefix": (None, lambda rng: rng.choice(("Mr.", "Mrs.", "Ms.", "Dr.", "Prof."))),
    "prefix_male": (None, lambda rng: rng.choice(("Mr.", "Dr."))),
    "prefix_female": (None, lambda rng: rng.choice(("Mrs.", "Ms.", "Dr."))),
}

DEVELOPMENT: Final = (
    "Patient {{person}} (MRN: {{mrn}}) was admitted on {{date}}.",
    "{{chart_person}}  DOB {{exact_date}}  MRN {{mrn}}  SSN {{ssn}}",
    "Please fax the records to {{fax}} or call {{us_phone}}.",
    "My name is {{person}} and my member ID is {{member}}.",
    "Medicare number {{mbi}} was verified for {{person}}.",
    "The pacemaker serial number is {{serial}}, implanted {{date}}.",
    "Device UDI {{udi}} was recalled.",
    "She drives a sedan, VIN {{vin}}, license plate {{plate}}.",
    "Her driver's license number is {{license}}.",
    "Ordering provider NPI {{npi}}, DEA {{dea}}.",
    "Medical license number {{med_license}} expires {{exact_date}}.",
    "Account number {{account}} has a balance of $45.20.",
    "Accession number {{accession}} was collected on {{date}}.",
    "Email me at {{email}} or {{spoken_email}}.",
    "The last four digits of his SSN are {{ssn_last}}.",
    "Fingerprint ID {{biometric}} is on file.",
    "The photo {{photo}} shows the wound and her face.",
    "He is a {{old_age}}-year-old man from {{city}}.",
    "Login came from {{ip_address}}; see {{url}}.",
    "Her passport number is {{passport}}.",
    "Bill card {{credit_card_number}} for the copay.",
    "I live at {{address}}.",
    "Dr. {{last_name}} will see {{first_name}} on {{day_of_week}}.",
    "Discharge summary for {{person}}, seen {{date}} at 10:30.",
)

HELD_OUT: Final = (
    "pt {{person}}, med rec # {{mrn}}, called re: refill",
    "Chart no. {{mrn}} belongs to {{person}}.",
    "Could you pull up the record? It's under medical record number {{mrn}}.",
    "{{mrn}} is her MRN.",
    "RE: {{chart_person}} | Hospital # {{mrn}} | Acct: {{account}}",
    "His insurance policy number is {{member}} and the group is through work.",
    "Subscriber: {{person}}, Subscriber ID: {{member}}",
    "We verified Medicaid ID {{member}} this morning.",
    "The beneficiary's MBI reads {{mbi}}.",
    "SSN on file: {{ssn}}",
    "social security # is {{ssn}} if you need it",
    "I only remember the last 4 of my social, {{ssn_last}}",
    "Reach the daughter at {{phone_number}} after 5 pm.",
    "Tel. {{us_phone}} / Fax {{fax}}",
    "Send the prior records by facsimile to {{fax}}, attention medical records.",
    "you can write to {{email}} with the results",
    "my email is {{spoken_email}} all lowercase",
    "guarantor acct # {{account}} was sent to collections",
    "Please charge visa {{credit_card_number}}",
    "Refund to IBAN {{iban}} please",
    "NPI: {{npi}}",
    "The prescriber's DEA number, {{dea}}, is on the script.",
    "RN license {{med_license}} verified with the board",
    "DL# {{license}}, state of Ohio",
    "Passport {{passport}} was copied at intake.",
    "The ambulance report lists VIN: {{vin}}",
    "He was hit by a truck with plate number {{plate}}.",
    "Vehicle registration {{plate}} was left in our garage",
    "Insulin pump S/N {{serial}} stopped working",
    "ICD implanted {{exact_date}}, serial # {{serial}}",
    "Implant label: {{udi}}",
    "Portal access from IP {{ip_address}} at midnight",
    "She posts about her illness on {{url}}",
    "Voiceprint template {{biometric}} was enrolled.",
    "Retinal scan reference: {{biometric}}",
    "See attached headshot {{photo}} for identification",
    "Specimen {{accession}} was mislabeled",
    "Pathology case # {{accession}}: adenocarcinoma",
    "my grandmother, aged {{old_age}}, fell yesterday",
    "{{old_age}} y/o female with hip fracture",
    "DOB: {{exact_date}}",
    "She was last seen here on {{date}} and is doing well.",
    "Surgery is scheduled for {{exact_date}} with Dr. {{last_name}}.",
    "Symptoms began {{date}}.",
    "Date of death {{exact_date}}.",
    "{{person}} lives at {{address}} with two cats.",
    "Mail it to {{address}}, care of {{person}}",
    "ZIP {{zipcode}}",
    "Mother: {{person}}, works for {{organization}}",
    "Signed, {{person}}, MD",
    "{{first_name}} was brought in by her son {{first_name}}.",
    "Hi, this is {{person}}, date of birth {{exact_date}}, calling about my bill.",
)

CLINICAL: Final = (
    "Take metformin {{dose}} mg by mouth twice daily for {{small}} days.",
    "BP {{sys}}/{{dia}}, HR {{pulse}}, RR {{resp}}, SpO2 {{sat}}% on room air, temp {{temp}} F.",
    "Assessment: type 2 diabetes (E11.{{one}}), hypertension (I10), stage {{one}} CKD.",
    "ICD-10 code {{icd}} was billed with CPT {{cpt}}.",
    "HCPCS J{{four}} was administered, modifier 25.",
    "NDC {{ndc}} was dispensed, quantity {{small}}.",
    "LOINC {{loinc}} hemoglobin A1c was {{temp1}}%.",
    "SNOMED CT {{snomed}} means the condition is chronic.",
    "The SNOMED code for this finding is {{snomed}}.",
    "Parkinson's disease was diagnosed and carbidopa-levodopa 25-100 mg started.",
    "History of Crohn's disease and Hodgkin lymphoma in remission.",
    "Graves disease with a TSH of 0.0{{one}} mIU/L.",
    "Positive Babinski and Romberg signs; negative Murphy sign.",
    "Patient denies chest pain, shortness of breath or fever.",
    "WBC {{temp1}}, Hgb 13.{{one}}, Plt {{plt}}, Na 13{{one}}, K 4.{{one}}, Cr 1.{{one}}, glucose {{sys}}.",
    "Pain is {{one}}/10 today and was 8/10 last week.",
    "Follow up in {{small}} weeks, sooner if symptoms worsen.",
    "Strength is 5/5 in all extremities, reflexes 2+, 2/6 systolic murmur.",
    "Start lisinopril {{small}} mg daily; recheck BMP in 2 weeks.",
    "The patient is a {{age}}-year-old woman with a {{small}}-year history of asthma.",
    "Give amoxicillin {{dose}} mg every 8 hours for 10 days.",
    "Insulin glargine {{small}} units at bedtime, lispro per sliding scale.",
    "Coumadin was held; INR 3.{{one}} on arrival.",
    "MRI of L4-L5 shows disc protrusion at L5-S1.",
    "EKG shows normal sinus rhythm at {{pulse}} bpm, QTc {{plt}} ms.",
    "She quit smoking {{small}} years ago after a {{small}} pack-year history.",
    "Apgar scores were 8 and 9; birth weight {{four}} grams.",
    "Ejection fraction 55-60%, mild mitral regurgitation.",
    "Tylenol and Advil are safe together for short periods.",
    "What is the maximum daily dose of acetaminophen for an adult?",
    "COVID-19 and influenza A/B were negative.",
    "BRCA1 and HLA-B27 were negative; CA 19-9 was {{small}}.",
    "Colonoscopy every 10 years starting at age 45 is recommended.",
    "Trial NCT0{{four}}{{three}} enrolled {{plt}} participants.",
    "Wells score {{one}}, D-dimer {{plt}} ng/mL.",
    "Vitamin D 25-OH was {{small}} ng/mL; take 2,000 units daily.",
    "DSM-5 criteria for major depressive disorder are met; PHQ-9 score {{small}}.",
    "Foley catheter 16 Fr placed with 10 mL balloon.",
    "Administer 1,000 mL normal saline at 125 mL/hr.",
    "The Glasgow Coma Scale was 15 and the Apgar 9.",
)


def _clinical_value(slot: str, rng: random.Random) -> str:
    forms = {
        "dose": lambda: str(rng.choice((250, 500, 850, 875, 1000))),
        "small": lambda: str(rng.randint(2, 40)),
        "one": lambda: str(rng.randint(1, 9)),
        "three": lambda: _digits(rng, 3),
        "four": lambda: _digits(rng, 4),
        "sys": lambda: str(rng.randint(96, 180)),
        "dia": lambda: str(rng.randint(55, 99)),
        "pulse": lambda: str(rng.randint(52, 118)),
        "resp": lambda: str(rng.randint(12, 24)),
        "sat": lambda: str(rng.randint(88, 100)),
        "temp": lambda: f"{rng.uniform(97, 102):.1f}",
        "temp1": lambda: f"{rng.uniform(4, 12):.1f}",
        "plt": lambda: str(rng.randint(120, 480)),
        "icd": lambda: f"{rng.choice('ABCEFGIJKLMNRSZ')}{rng.randint(10, 99)}.{rng.randint(0, 999)}",
        "cpt": lambda: _digits(rng, 5),
        "ndc": lambda: _form(rng, rng.choice(("#####-####-##", "####-####-##", "#####-###-##", "###########"))),
        "loinc": lambda: _form(rng, rng.choice(("####-#", "#####-#"))),
        "snomed": lambda: _digits(rng, rng.choice((6, 7, 8, 9, 15))),
        "age": lambda: str(rng.randint(18, 89)),
    }
    return forms[slot]()


_SLOT: Final = re.compile(r"\{\{(\w+)\}\}")


def filled(template: str, rng: random.Random) -> Sentence:
    """The template with a value in each slot, and where the values are. `\\n` of a template is a line break."""
    template = template.replace("\\n", "\n").replace("\\,", ",")
    parts: list[str] = []
    golds: list[Gold] = []
    length = place = 0
    for match in _SLOT.finditer(template):
        kind, make = MAKERS[match[1]]
        value = make(rng)
        before = template[place : match.start()]
        parts += (before, value)
        start = length + len(before)
        golds.append(Gold(start, start + len(value), kind or "OTHER", optional=kind is None))
        length, place = start + len(value), match.end()
    parts.append(template[place:])
    return Sentence("".join(parts), tuple(golds))


def sentences(templates: Sequence[str], count: int, seed: int) -> list[Sentence]:
    """`count` sentences, the templates in turn."""
    rng = random.Random(seed)
    return [filled(templates[number % len(templates)], rng) for number in range(count)]


def clinical_negatives(count: int, seed: int) -> list[str]:
    """Clinical sentences with codes, doses, readings and eponyms, and nothing that Safe Harbor names."""
    rng = random.Random(seed)
    return [
        _SLOT.sub(lambda match: _clinical_value(match[1], rng), CLINICAL[number % len(CLINICAL)]) for number in range(count)
    ]


def presidio_templates(path: Path) -> Iterator[str]:
    """The templates of presidio-research whose slots we can fill."""
    for line in path.read_text("utf-8", "replace").splitlines():
        if line.strip() and all(slot in MAKERS for slot in _SLOT.findall(line)):
            yield line
