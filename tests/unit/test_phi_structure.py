"""Names, places and numbers that a form tells: HL7, JSON, XML, tables and labelled lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi import structure
from tidegate.processors.guardrails.phi.detector import PhiDetector

NAME, PLACE, DAY, MRN = "PERSON", "LOCATION", "DATE_TIME", "MEDICAL_RECORD_NUMBER"

# What it is → the text, and all that has to be found in it. The names are words of every day, so that only the form tells.
TOLD = {
    "an HL7 patient": (
        "MSH|^~\\&|ADT|HARBOR|LAB|HARBOR|20210314||ADT^A01|77|P|2.5\r"
        "PID|1||44881^^^HARBOR^MR||ROSE^WILL^M||19650314|M|GRANT^HOPE|2106-3|3 May Way^Apt 2^Mobile^AL^36602"
        "||5550199|||||X771|536228817\r"
        "NK1|1|Summer^June|MTH\rPV1|1|I|2W||||8812^Day^Earl",
        [
            (DAY, "20210314"),
            (MRN, "44881"),
            (NAME, "ROSE"),
            (NAME, "WILL"),
            (NAME, "M"),
            (DAY, "19650314"),
            (NAME, "GRANT"),
            (NAME, "HOPE"),
            (PLACE, "3 May Way"),
            (PLACE, "Apt 2"),
            (PLACE, "Mobile"),
            (PLACE, "36602"),
            ("PHONE_NUMBER", "5550199"),
            ("ACCOUNT_NUMBER", "X771"),
            ("US_SSN", "536228817"),
            (NAME, "Summer"),
            (NAME, "June"),
            ("UNIQUE_ID", "8812"),
            (NAME, "Day"),
            (NAME, "Earl"),
        ],
    ),
    "HL7 in a log line": (
        'received "PID|1||9931||Rose^Will\\rNK1|1|Grant^Hope|FTH" in 4 ms',
        [(MRN, "9931"), (NAME, "Rose"), (NAME, "Will"), (NAME, "Grant"), (NAME, "Hope")],
    ),
    "an X12 claim": (
        "NM1*IL*1*ROSE*WILL*M***MI*W5512009~N3*3 MAY WAY*APT 2~N4*MOBILE*AL*36602~DMG*D8*19550202*F~REF*SY*536228817~"
        "PER*IC*JOY CHASE*TE*4065550190*EM*j@x.example~NM1*85*2*HARBOR*****XX*1234567893~CLM*A771*500***11:B:1~"
        "DTP*472*D8*20230101~SV1*HC:99213*100~HI*ABK:I10~",
        [
            (NAME, "ROSE"),
            (NAME, "WILL"),
            (NAME, "M"),
            ("US_HEALTH_INSURANCE_MEMBER_ID", "W5512009"),
            (PLACE, "3 MAY WAY"),
            (PLACE, "APT 2"),
            (PLACE, "MOBILE"),
            (PLACE, "36602"),
            (DAY, "19550202"),
            ("US_SSN", "536228817"),
            (NAME, "JOY CHASE"),
            ("PHONE_NUMBER", "4065550190"),
            ("EMAIL_ADDRESS", "j@x.example"),
            ("US_NPI", "1234567893"),
            ("ACCOUNT_NUMBER", "A771"),
            (DAY, "20230101"),
        ],
    ),
    "a FHIR patient": (
        '{"resourceType":"Patient","identifier":[{"type":{"coding":[{"code":"MR"}]},"value":"4488"}],"name":[{"family":"Rose",'
        '"given":["Will","June"]}],"telecom":[{"system":"phone","value":"555-0199"}],"birthDate":"1965-03-14",'
        '"address":[{"line":["3 May Way"],"city":"Mobile","state":"AL","postalCode":"36602"}]}',
        [
            (MRN, "4488"),
            (NAME, "Rose"),
            (NAME, "Will"),
            (NAME, "June"),
            ("PHONE_NUMBER", "555-0199"),
            (DAY, "1965-03-14"),
            (PLACE, "3 May Way"),
            (PLACE, "Mobile"),
            (PLACE, "36602"),
        ],
    ),
    "FHIR in XML": (
        '<Patient><identifier><value value="4488"/></identifier><name><family value="Rose"/><given value="Will"/></name>'
        '<birthDate value="1965-03-14"/><address><line value="3 May Way"/><city value="Mobile"/></address></Patient>',
        [("UNIQUE_ID", "4488"), (NAME, "Rose"), (NAME, "Will"), (DAY, "1965-03-14"), (PLACE, "3 May Way"), (PLACE, "Mobile")],
    ),
    "C-CDA": (
        '<patientRole><id extension="99899" root="2.16.840"/><addr><streetAddressLine>3 May Way</streetAddressLine>'
        "<city>Mobile</city>"
        "<postalCode>36602</postalCode></addr><patient><name><given>Will</given><family>Rose</family></name>"
        '<birthTime value="19650314"/></patient></patientRole>',
        [
            ("UNIQUE_ID", "99899"),
            (PLACE, "3 May Way"),
            (PLACE, "Mobile"),
            (PLACE, "36602"),
            (NAME, "Will"),
            (NAME, "Rose"),
            (DAY, "19650314"),
        ],
    ),
    "JSON within JSON": (
        '{"arguments": "{\\"firstName\\": \\"will\\", \\"lastName\\": \\"rose\\"}"}',
        [(NAME, "will"), (NAME, "rose")],
    ),
    "what Python prints": (
        "{'first_name': 'will', 'last_name': \"O'Rose\", 'zip': '36602'}",
        [(NAME, "will"), (NAME, "O'Rose"), (PLACE, "36602")],
    ),
    "a name of its owner": ('{"patient": {"name": "Zxq Vard", "id": "p-8812"}}', [(NAME, "Zxq Vard"), ("UNIQUE_ID", "p-8812")]),
    "an INSERT of SQL": (
        "INSERT INTO p (first_name, last_name, dob) VALUES ('Hope', 'Van', '1955-05-05'), ('Mark','May','1956-06-06');",
        [(NAME, "Hope"), (NAME, "Van"), (DAY, "1955-05-05"), (NAME, "Mark"), (NAME, "May"), (DAY, "1956-06-06")],
    ),
    "CSV": (
        'last,first,dob,mrn,phone\nRose,Will,1/2/80,123,5550199\n"Grant","Hope",3/4/81,456,5550188',
        [
            (NAME, "Rose"),
            (NAME, "Will"),
            (DAY, "1/2/80"),
            (MRN, "123"),
            ("PHONE_NUMBER", "5550199"),
            (NAME, "Grant"),
            (NAME, "Hope"),
            (DAY, "3/4/81"),
            (MRN, "456"),
            ("PHONE_NUMBER", "5550188"),
        ],
    ),
    "CSV with commas in an address": (
        "first_name,address,phone\nHope,12 Oak St, Apt 4, Mobile,5550199",
        [(NAME, "Hope"), (PLACE, "12 Oak St, Apt 4, Mobile"), ("PHONE_NUMBER", "5550199")],
    ),
    "tabs": (
        "Patient\tMember ID\tEmail\nwill rose\tZ77\thope@x.example\nGrant, Hope\tZ78\tg@x.example",
        [
            (NAME, "will rose"),
            ("US_HEALTH_INSURANCE_MEMBER_ID", "Z77"),
            ("EMAIL_ADDRESS", "hope@x.example"),
            (NAME, "Grant, Hope"),
            ("US_HEALTH_INSURANCE_MEMBER_ID", "Z78"),
            ("EMAIL_ADDRESS", "g@x.example"),
        ],
    ),
    "Markdown": (
        "| **Patient** | DOB | Dose |\n|---|:--|---|\n| will rose | 1965 | 5 mg |\n| Hope Grant | 3/4/1981 | 5 mg |",
        [(NAME, "will rose"), (NAME, "Hope Grant"), (DAY, "3/4/1981")],
    ),
    "columns of blanks": (
        "Name          DOB        MRN\nWill Rose     1/2/80     123\nHope Grant    3/4/81     456",
        [(NAME, "Will Rose"), (DAY, "1/2/80"), (MRN, "123"), (NAME, "Hope Grant"), (DAY, "3/4/81"), (MRN, "456")],
    ),
    "HTML": (
        "<table><tr><th>Patient</th><th>Dose</th></tr><tr><td>will rose</td><td>5 mg</td></tr></table>",
        [(NAME, "will rose")],
    ),
    "a record on its side": ("Patient Name,Will Rose\nDOB,1/2/80\nDiagnosis,Asthma", [(NAME, "Will Rose"), (DAY, "1/2/80")]),
    "labelled lines": (
        "First Name: will\nLast Name: rose\nCity: mobile\nAddress: 12 Oak\nMother's maiden name: hope",
        [(NAME, "will"), (NAME, "rose"), (PLACE, "mobile"), (PLACE, "12 Oak"), (NAME, "hope")],
    ),
    "labels on one line": (
        "Patient Name: Will Rose DOB: 1/2/80 Attending: Hope Grant MD",
        [(NAME, "Will Rose"), (NAME, "Hope Grant MD")],
    ),
    "a reference": ("see Patient/84619", [("UNIQUE_ID", "84619")]),
}

NOBODY = {
    "tools": '{"type":"function","function":{"name":"Search","description":"a drug","parameters":{"name":"get_dose"}}}',
    "drugs": '{"patient":{"mrn":null},"medications":[{"name":"Lisinopril"},{"name":"Metformin 500 mg"}]}',
    "codes": '{"code":{"coding":[{"code":"38341003","display":"Essential hypertension"}],"text":"Hypertension"}}',
    "a site of a body": '{"bodySite":[{"text":"Colon"}],"display":"block"}',
    "a table of doses": "name,dose\nMetformin,500\nLasix,20\nWarfarin,5",
    "a table of readings": "| Name | Value | Patient |\n|---|---|---|\n| Sodium | 140 | stable |\n| Potassium | 4 | unknown |",
    "an INSERT of drugs": "INSERT INTO meds (name, dose) VALUES ('Lasix', '20 mg'), ('Heparin','5000')",
    "a claim of nobody": "ISA*00*ZZ~NM1*85*2*HARBOR CLINIC~N4**AL~DMG*D8**F~PER*IC~SV1*HC:99213*100~HI*ABK:I10~",
    "a dialogue": "Patient: Will do.\nDoctor: May I see?\nGuest_family: Good! He hates it.\nPatient: Hope so.",
    "styles": "body { font-family: Arial; display: block; content: none }",
    "an empty form": "Full Name:\nAddress:\nCity:\nState:\nZip:",
    "pages": '{"first": 1, "last": 20, "name": null, "patient": true, "dob": "1970"}',
    "placeholders": '{"firstName": "string", "lastName": "string", "phone": "unknown", "mrn": "n/a"}',
    "prose": "Please give your name, address\nand phone, if you like, to us",
}


def found(text: str) -> set[tuple[str, str]]:
    return {(span.type, text[span.start : span.end]) for span in structure.find(text)}


@pytest.mark.parametrize("case", TOLD)
def test_what_a_form_tells_is_found(case: str) -> None:
    text, expected = TOLD[case]

    spans = found(text)

    assert spans == set(expected)


@pytest.mark.parametrize("case", NOBODY)
def test_a_form_that_tells_of_nobody_is_let_stand(case: str) -> None:
    text = NOBODY[case]

    spans = found(text)

    assert spans == set()


def test_the_detector_reads_forms_and_prose_as_one() -> None:
    text = 'Summarise for Rosa Martinez: {"given": ["Will"], "family": "Rose", "note": "call 617-555-0199"}'

    (spans,) = PhiDetector.load().find([text])

    assert [(span.type, text[span.start : span.end]) for span in spans] == [
        (NAME, "Rosa Martinez"),
        (NAME, "Will"),
        (NAME, "Rose"),
        ("PHONE_NUMBER", "617-555-0199"),
    ]


PARTS = st.sampled_from(
    [
        '{"name":',
        '"Will"',
        "'",
        '"',
        "\\",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\n",
        "|",
        "\t",
        "<name>",
        "</name>",
        "<",
        "/>",
        "PID|1||",
        "NM1*IL*1*",
        "(dob) VALUES (",
        "Rose^Will",
        "first,last",
        "Name: ",
        "City: ",
        "First Name = ",
        "12 Oak",
        "a",
        " ",
        "é",
        "\r",
        "dob",
        ";",
        "<td>",
    ]
)


@given(parts=st.lists(PARTS, max_size=40))
def test_broken_forms_are_read_without_harm(parts: list[str]) -> None:
    text = "".join(parts)

    spans = list(structure.find(text))

    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(text[span.start].strip() and text[span.end - 1].strip() for span in spans)
