"""Identifiers that have a form, a check digit or a label; and clinical numbers that are none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi import check_digits
from tidegate.processors.guardrails.phi.detector import structured_spans
from tidegate.processors.guardrails.phi.merge import settle

from bench.training import phi_eval, phi_sentences


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in settle(text, structured_spans(text), ())]


# (type, text, value): ids of the tests are the types, so that no text is printed.
SAID = [
    ("MEDICAL_RECORD_NUMBER", "Please look up MRN#1122334 for me", "1122334"),
    ("MEDICAL_RECORD_NUMBER", "Chart no. 77-1029 was misfiled", "77-1029"),
    ("MEDICAL_RECORD_NUMBER", "88172635 is her MRN.", "88172635"),
    ("MEDICAL_RECORD_NUMBER", "Doctor: What's your MRN?\nPatient: It's 5512345.", "5512345"),
    ("MEDICAL_RECORD_NUMBER", "NHS number 943 476 5919", "943 476 5919"),
    ("US_HEALTH_INSURANCE_MEMBER_ID", "I think my member ID is XH4482913.", "XH4482913"),
    ("US_HEALTH_INSURANCE_MEMBER_ID", "health plan beneficiary number HPB-4432-9981", "HPB-4432-9981"),
    ("US_MBI", "card shows 1EG4-TE5-MK73 on it", "1EG4-TE5-MK73"),
    ("ACCOUNT_NUMBER", "guarantor acct # 5521-8891", "5521-8891"),
    ("US_BANK_NUMBER", "checking account 000123456789", "000123456789"),
    ("ABA_ROUTING_NUMBER", "routing number 011401533", "011401533"),
    ("US_DRIVER_LICENSE", "DL# S123-4567-8901, state of Ohio", "S123-4567-8901"),
    ("MEDICAL_LICENSE", "prescriber BJ6125341 signed", "BJ6125341"),
    ("MEDICAL_LICENSE", "Nursing license RN-445512", "RN-445512"),
    ("US_NPI", "NPI 1245319599", "1245319599"),
    ("CERTIFICATE_NUMBER", "birth certificate number C-889123", "C-889123"),
    ("VEHICLE_ID", "hit by a truck, 1HGCM82633A004352", "1HGCM82633A004352"),
    ("LICENSE_PLATE", "plate # KLM 4821", "KLM 4821"),
    ("DEVICE_ID", "pacemaker model 5076 serial PJN123456", "PJN123456"),
    ("DEVICE_ID", "label (01)00844588003288(17)141120(21)10987654d321", "(01)00844588003288(17)141120(21)10987654d321"),
    ("MAC_ADDRESS", "monitor at 00:1B:44:11:3A:B7", "00:1B:44:11:3A:B7"),
    ("BIOMETRIC_ID", "fingerprint template #A7F3-22B1", "A7F3-22B1"),
    ("PHOTO_ID", "photo file jdoe_face.jpg", "jdoe_face.jpg"),
    ("ACCESSION_NUMBER", "Pathology case # S-2024-00912", "S-2024-00912"),
    ("US_SSN", "ssn 219099999", "219099999"),
    ("US_SSN", "the last four of my social are 6789", "6789"),
    ("US_SSN", "on file as ***-**-6789", "***-**-6789"),
    ("PHONE_NUMBER", "my number's 2125550187", "2125550187"),
    ("PHONE_NUMBER", "ring +44 20 7946 0958 please", "+44 20 7946 0958"),
    ("PHONE_NUMBER", "it's six one seven five five five oh one nine nine", "six one seven five five five oh one nine nine"),
    ("FAX_NUMBER", "Fax# 312-555-0100", "312-555-0100"),
    ("EMAIL_ADDRESS", "write to jane_doe99@hospital.example.org today", "jane_doe99@hospital.example.org"),
    ("EMAIL_ADDRESS", "it is j dot doe at example dot com", "j dot doe at example dot com"),
    ("EMAIL_ADDRESS", "jane [at] example [dot] org", "jane [at] example [dot] org"),
    ("URL", "she posts on www.janesblog.example.com/me daily", "www.janesblog.example.com/me"),
    ("URL", "see facebook.com/jane.doe.12", "facebook.com/jane.doe.12"),
    ("IP_ADDRESS", "from 2001:0db8:85a3::8a2e:0370:7334 yesterday", "2001:0db8:85a3::8a2e:0370:7334"),
    ("IP_ADDRESS", "from 73.162.10.4", "73.162.10.4"),
    ("CREDIT_CARD", "charge 4111 1111 1111 1111 for the copay", "4111 1111 1111 1111"),
    ("IBAN_CODE", "refund GB29 NWBK 6016 1331 9268 19 please", "GB29 NWBK 6016 1331 9268 19"),
    ("LOCATION", "zip: 02139-4307", "02139-4307"),
    ("US_CLAIM_NUMBER", "Claim ID 20240091", "20240091"),
    ("US_PRESCRIPTION_NUMBER", "Rx number 0441827", "0441827"),
    ("UNIQUE_ID", "Trial participant P-00432", "P-00432"),
]

CLINICAL = [
    "ICD-10 E11.9 and CPT 99213, NDC 0002-8215-01, LOINC 4548-4, SNOMED CT 44054006.",
    "The SNOMED code for this finding is 44054006.",
    "NDC 00093-7424-56 was dispensed; HCPCS J0129 was billed.",
    "BP 120/80, HR 88, SpO2 97%, T 98.6 F, A1c 7.2%, platelets 250,000, WBC 12.5 x 10^9",
    "Take 500 mg every 8 hours for 10 days, then 1,000 units weekly for 2 months.",
    "Strength 3/5, 2/6 systolic murmur, pain 7/10, vision 20/20, started 2 weeks ago.",
    "Trial NCT01234567 of rs1801133; HLA-B27 and CA 19-9 were negative.",
    "There is no fever.No cough.e.g. see version 1.2.3 of section 4.5.6",
    "Order 1000 mL of saline at 125 mL/hr, plan 30 minutes of exercise, group 3 of 4.",
    "She may 2 hours later march 10 miles at 12:30:45.",
]


@pytest.mark.parametrize(("kind", "text", "value"), SAID, ids=[f"{number}-{kind}" for number, (kind, _, _) in enumerate(SAID)])
def test_an_identifier_is_found_whole_and_by_its_type(kind: str, text: str, value: str) -> None:
    expected = (kind, value)

    spans = found(text)

    assert spans == [expected]


@pytest.mark.parametrize("text", CLINICAL, ids=[str(number) for number in range(len(CLINICAL))])
def test_codes_doses_and_readings_are_nobodys(text: str) -> None:
    spans = found(text)

    assert spans == []


def test_identifiers_of_templates_that_were_held_out_are_found() -> None:
    sentences = phi_sentences.sentences(phi_sentences.HELD_OUT, 520, seed=11)

    tally = phi_eval.tally(sentences, phi_eval.forms()([sentence.text for sentence in sentences]))

    asked = [kind for kind in tally.gold if kind in phi_sentences.STRUCTURED]
    assert sum(tally.typed[kind] for kind in asked) >= 0.98 * sum(tally.gold[kind] for kind in asked)


def test_clinical_sentences_are_let_stand() -> None:
    texts = phi_sentences.clinical_negatives(400, seed=12)

    flagged = sum(bool(spans) for spans in phi_eval.forms()(texts))

    assert flagged <= 0.01 * len(texts)


@given(body=st.text("0123456789", min_size=9, max_size=18), place=st.integers(0, 18), other=st.integers(1, 9))
def test_a_luhn_sum_notices_one_wrong_digit(body: str, place: int, other: int) -> None:
    number = next(body + digit for digit in "0123456789" if check_digits.luhn(body + digit) or len(set(body)) == 1)
    place %= len(number)

    wrong = number[:place] + str((int(number[place]) + other) % 10) + number[place + 1 :]

    assert len(set(number)) < 2 or not check_digits.luhn(wrong) or len(set(body)) == 1


@pytest.mark.parametrize("kind", ["npi", "dea", "vin", "iban"])
def test_check_digits_hold_for_what_is_made_by_the_rule_and_fail_for_most_of_the_rest(kind: str) -> None:
    rng = random.Random(5)
    holds = getattr(check_digits, kind)
    made = [phi_sentences.MAKERS[kind][1](rng) for _ in range(200)]

    broken = [number[:-1] + ("0" if number[-1] != "0" else "7") for number in made]

    assert all(map(holds, made))
    assert sum(map(holds, broken)) <= 20


def test_device_identifiers_check() -> None:
    right = check_digits.gs1("00844588003288")

    wrong = check_digits.gs1("00844588003289")

    assert (right, wrong) == (True, False)
