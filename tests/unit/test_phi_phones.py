"""Telephone numbers: of many countries, hard by other numbers, digit by digit, and spoken; and what only looks like one."""

from __future__ import annotations

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from tidegate.processors.guardrails.phi import spoken
from tidegate.processors.guardrails.phi.detector import structured_spans
from tidegate.processors.guardrails.phi.merge import settle

COUNTRIES = """US CA MX BR AR CL CO PE GB IE FR DE AT CH NL BE ES PT IT SE NO DK FI PL CZ HU RO GR TR RU UA IL SA AE EG ZA NG KE
    IN PK BD CN JP KR HK TW SG TH MY ID PH VN AU NZ""".split()  # noqa: SIM905

# (type, text, value): the ids of the tests are numbers, so that no text is printed.
WRITTEN = [
    ("PHONE_NUMBER", "Ext 4, 617-555-2368 is the ward", "617-555-2368"),
    ("PHONE_NUMBER", "Contacts: 1) 617-555-2368 2) 617-555-2369", "617-555-2368"),
    ("PHONE_NUMBER", "Contacts: 1) 617-555-2368 2) 617-555-2369", "617-555-2369"),
    ("PHONE_NUMBER", "call 617-555-1234/617-555-9876 after five", "617-555-9876"),
    ("PHONE_NUMBER", "03/14/2021 617-555-2368 left message", "617-555-2368"),
    ("PHONE_NUMBER", "pt 7 617-555-2368 ext. 44", "617-555-2368 ext. 44"),
    ("PHONE_NUMBER", "|4|617-555-2368|home|", "617-555-2368"),
    ("PHONE_NUMBER", "x204 / 617.555.2368", "617.555.2368"),
    ("PHONE_NUMBER", "the daughter (512 345 678) was told", "512 345 678"),
    ("PHONE_NUMBER", "call 6 1 7 5 5 5 2 3 6 8 please", "6 1 7 5 5 5 2 3 6 8"),
    ("US_SSN", "SSN: 2 1 9 0 9 9 9 9 9", "2 1 9 0 9 9 9 9 9"),
    ("FAX_NUMBER", "F: 617-555-2369", "617-555-2369"),
    ("PHONE_NUMBER", "her cell: five five five, oh one four two", "five five five, oh one four two"),
    ("PHONE_NUMBER", "it is six one seven, triple five, oh one four two", "six one seven, triple five, oh one four two"),
    ("PHONE_NUMBER", "six one seven 555 twenty-three sixty-eight", "six one seven 555 twenty-three sixty-eight"),
    ("PHONE_NUMBER", "one eight hundred five five five oh one four two", "one eight hundred five five five oh one four two"),
    ("US_SSN", "my social is two one nine, oh nine, nine nine nine nine", "two one nine, oh nine, nine nine nine nine"),
]
NO_NUMBERS = [
    "one, two, three, four, five, six, seven, eight: he counts well",
    "nine eight seven six five four three two one",
    "twenty, thirty and forty; one or two or three tablets, four or five or six times",
    "reflexes 2 2 2 2 2 2 2, and pulses 2+ 2+",
    "Titrate 25-50-75-100 mg, then 30-60-90",
    "Vitals: 98.6 78 16 120/80 99%",
]


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in settle(text, structured_spans(text), ())]


@pytest.mark.parametrize("kind", [PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE], ids=["fixed", "mobile"])
@pytest.mark.parametrize("country", COUNTRIES)
@pytest.mark.parametrize("form", [PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164], ids=["grouped", "together"])
def test_a_number_of_any_country_is_found_in_its_international_form(country: str, kind: int, form: int) -> None:
    example = phonenumbers.example_number_for_type(country, kind)
    assert example is not None
    written = phonenumbers.format_number(example, form)

    values = found(f"her daughter ({written}) was told")

    assert values == [("PHONE_NUMBER", written)]


@pytest.mark.parametrize("country", sorted({*COUNTRIES} - {"IE"}))
def test_a_number_of_any_country_is_found_in_its_own_form_behind_a_word_for_it(country: str) -> None:
    example = phonenumbers.example_number_for_type(country, PhoneNumberType.FIXED_LINE)
    assert example is not None
    written = phonenumbers.format_number(example, PhoneNumberFormat.NATIONAL)

    values = found(f"phone: {written}")

    assert values == [("PHONE_NUMBER", written)]


@pytest.mark.parametrize(("kind", "text", "value"), WRITTEN, ids=[f"{n}" for n in range(len(WRITTEN))])
def test_a_number_is_found_whole_whatever_stands_about_it(kind: str, text: str, value: str) -> None:
    values = found(text)

    assert (kind, value) in values


@pytest.mark.parametrize("text", NO_NUMBERS, ids=[f"{n}" for n in range(len(NO_NUMBERS))])
def test_counting_and_readings_are_no_numbers_of_anybody(text: str) -> None:
    values = found(text)

    assert values == []


def test_what_is_said_is_read_as_digits() -> None:
    said = "six one seven, triple five, double oh forty-two"

    [number] = spoken.find(said)

    assert number == (0, len(said), "6175550042")


def test_words_without_end_are_read_in_time() -> None:
    text = "one two three " + "twenty-two " * 3_000 + "twenty-twos"

    numbers = list(spoken.find(text))

    assert all(len(number.digits) < 60 for number in numbers)
