"""Sentences that an auditor would try: names that are words, words that are names, and the doctors of medicine's signs."""

from __future__ import annotations

import pytest
from tidegate.processors.guardrails.phi.detector import PhiDetector

P, L, MRN = "PERSON", "LOCATION", "MEDICAL_RECORD_NUMBER"

SOMEBODY = [
    # A word of every day behind a title or a cue.
    ("Mr. Will was here.", [(P, "Will")]),
    ("Dr. May called at noon.", [(P, "May")]),
    ("Nurse Joy gave the dose.", [(P, "Joy")]),
    ("Ms. Young's incision is clean.", [(P, "Young")]),
    ("Mrs. Hope declined the flu shot.", [(P, "Hope")]),
    ("dr. may called back", [(P, "may")]),
    ("mr. grant is in room 4", [(P, "grant")]),
    ("MRS. GRANT WAS ADMITTED", [(P, "GRANT")]),
    ("my name is will rose", [(P, "will rose")]),
    ("spoke with husband grant re: consent", [(P, "grant")]),
    ("her son will is the HCP", [(P, "will")]),
    ("pt's daughter hope is at bedside", [(P, "hope")]),
    ("Contact: Faith (daughter)", [(P, "Faith")]),
    ("daughter-in-law (susan) called", [(P, "susan")]),
    ("spoke w/ wife maria about dc plan", [(P, "maria")]),
    ("Pt reports that sarah and tom came", [(P, "sarah"), (P, "tom")]),
    ("-- \nHope Grant, RN", [(P, "Hope Grant")]),
    ("Sincerely,\nJoy Will", [(P, "Joy Will")]),
    # Parts that belong together.
    ("Lee, Min-ho arrived by ambulance", [(P, "Lee, Min-ho")]),
    ("Patient O'Brien-Smith was admitted", [(P, "O'Brien-Smith")]),
    ("VAN DER BERG, JAN was admitted", [(P, "VAN DER BERG, JAN")]),
    ("Renée Zoë Müller-Lüdenscheidt was seen", [(P, "Renée Zoë Müller-Lüdenscheidt")]),
    ("Rene\u0301e Garci\u0301a was seen", [(P, "Rene\u0301e Garci\u0301a")]),
    ("J. R. R. Tolkien was admitted", [(P, "J. R. R. Tolkien")]),
    ("pt. A.B. was seen today", [(P, "A.B.")]),
    ("Please notify SMITH/JOHN of the result.", [(P, "SMITH/JOHN")]),
    ("Karen Young negative for COVID", [(P, "Karen Young")]),
    ("Baby Boy Martinez is 2 days old.", [(P, "Martinez")]),
    ("Tell Anne-Marie calls are fine", [(P, "Anne-Marie")]),
    # A town that has the name of somebody, and the other way about.
    ("She visited Boston last spring.", [(L, "Boston")]),
    ("The family left Jackson for Charlotte.", [(L, "Jackson"), (L, "Charlotte")]),
    ("Transferred from Austin by helicopter.", [(L, "Austin")]),
    ("moved from phoenix to tucson", [(L, "phoenix"), (L, "tucson")]),
    ("The patient, Virginia, is from Georgia.", [(P, "Virginia"), (L, "Georgia")]),
    ("Ask Chelsea about the form.", [(P, "Chelsea")]),
    # The bearer of a sign's name who is somebody.
    ("Dr. Romberg examined the gait.", [(P, "Romberg")]),
    ("John Foley was seen for a catheter.", [(P, "John Foley")]),
    ("Mrs. Murphy has a negative Murphy sign.", [(P, "Murphy")]),
    ("Referred by James Parkinson, MD.", [(P, "James Parkinson")]),
    ("Patient Weber is here", [(P, "Weber")]),
    ("Kelly surgery tomorrow at 8", [(P, "Kelly")]),
    ("Jones positive for flu", [(P, "Jones")]),
    ("Williams was discharged home", [(P, "Williams")]),
    ("Dr. Whipple performed the operation", [(P, "Whipple")]),
    ("Marcus Gunn called about refill", [(P, "Marcus Gunn")]),
    # An envelope, and names that a list has without their accents.
    ("12 ELM ST", [(L, "12 ELM ST")]),
    ("CHASE GRANT\n12 ELM ST\nBOISE ID 83702", [(P, "CHASE GRANT"), (L, "12 ELM ST\nBOISE ID 83702")]),
    ("| Patient | Ward |\n| --- | --- |\n| Łukasz Wójcik | 4C |", [(P, "Łukasz Wójcik")]),
    ("Spoke to Abd al-Rahman ibn Yusuf al-Khatib.", [(P, "Abd al-Rahman ibn Yusuf al-Khatib")]),
    # A word of every day with a capital, in the midst of a sentence or with what somebody has or does.
    ("I saw Joy at noon. Joy's labs are fine.", [(P, "Joy")]),
    ("Chase presents with cough.", [(P, "Chase")]),
    ("Rose's incision is clean.", [(P, "Rose")]),
    ("Please call May back.", [(P, "May")]),
    ("Spoke with May Rose; she agrees.", [(P, "May Rose")]),
    ("Mr. Grant's daughter, Summer, will bring Joy's pills.", [(P, "Grant"), (P, "Summer"), (P, "Joy")]),
    ("hi im mark and my mom rose fell", [(P, "mark"), (P, "rose")]),
    ("this is doctor joy dictating", [(P, "joy")]),
    # Where letters, mails and notes have names.
    ("Hi Grant,\nYour refill is ready.\n- Hope", [(P, "Grant"), (P, "Hope")]),
    ("Chase Grant <cg@h.example> wrote:", [(P, "Chase Grant"), ("EMAIL_ADDRESS", "cg@h.example")]),
    ("Joy (RN): pt in 12 is asking for Dr May", [(P, "Joy"), (P, "May")]),
    ("Will (45M) with OUD; Grant (husband) and Joy (daughter) wait.", [(P, "Will"), (P, "Grant"), (P, "Joy")]),
    ("Per Joy at the desk, @Mark will come.", [(P, "Joy"), (P, "Mark")]),
    ("[10:02] Rose May: BP is low", [(P, "Rose May")]),
    ("Speaker 1 (Hope): I fell.", [(P, "Hope")]),
    ("PCP Grace; Nurse Joy; Nurse Manager, Oncology", [(P, "Grace"), (P, "Joy")]),
    ("Grace May\nNurse Manager, Oncology", [(P, "Grace May")]),
    ("RE: Ivy RAY, DOB pending", [(P, "Ivy RAY")]),
    ("IVY RAY IS A 44 YEAR OLD FEMALE", [(P, "IVY RAY")]),
    ("ATTN: ROSE GRANT", [(P, "ROSE GRANT")]),
    ("Surgeon: Chase; Anesthesia: Dr. Joy", [(P, "Chase"), (P, "Joy")]),
    ("J.D. is a 34 y/o M with a 45-year-old wife.", [(P, "J.D.")]),
    ("Hope is a 45-year-old woman.", [(P, "Hope")]),
    ("moved from Boston to Normal, IL", [(L, "Boston"), (L, "Normal, IL")]),
    ("lives at 3 Oak Way, Mobile, AL 36602", [(L, "3 Oak Way, Mobile, AL 36602")]),
    ("RE: GRANT, HOPE — DOB pending", [(P, "GRANT, HOPE")]),
    ("Drs. May and Grant agreed; RN Grace is here.", [(P, "May"), (P, "Grant"), (P, "Grace")]),
    ("- **Patient:** Will Summer\n- **Diet:** soft", [(P, "Will Summer")]),
    ("SELECT * FROM visits WHERE last_name = 'Grant';", [(P, "Grant")]),
    ("Name..........: CHASE MARK\nWard..........: 4", [(P, "CHASE MARK")]),
    ("<tr><td>Patient:</td><td>Rose Grant</td></tr><tr><td>MRN:</td><td>88123</td></tr>", [(P, "Rose Grant"), (MRN, "88123")]),
    ("PATIENT: BILL, SUMMER\nATTENDING: JOY HOPE, MD", [(P, "BILL, SUMMER"), (P, "JOY HOPE, MD")]),
]

NOBODY = [
    # Signs, scores, operations, tools.
    "Romberg negative.",
    "Kocher incision was made.",
    "Babinski downgoing bilaterally.",
    "Foley placed, draining clear urine.",
    "McBurney point tenderness absent.",
    "Murphy's negative.",
    "Kernig and Brudzinski negative.",
    "Apgars 8 and 9 at 1 and 5 minutes.",
    "Glasgow 15 on arrival.",
    "Hawkins and Neer positive; Yergason negative.",
    "Weber lateralizes left, Rinne negative.",
    "Bishop 6, Friedman II.",
    "Braden 18, Morse 35, Norton 14.",
    "Jackson-Pratt drain removed.",
    "Allis, Babcock and Kocher clamps used.",
    "Mayo stand and Kelly clamps counted.",
    "Hashimoto's, Graves', Addison's.",
    "Barrett's on EGD; Schatzki ring dilated.",
    "Ludwig angina and Vincent angina excluded.",
    "Lactated Ringer's at 125 mL/h, then D5 1/2 NS.",
    "Rh negative; Kell, Duffy and Kidd antibodies absent.",
    "Bochdalek and Morgagni hernias.",
    # Readings, codes and stages.
    "Admitted to unit 4B, K 4.5, Na 140.",
    "pT3 N1b M0, stage IIB.",
    "FAST negative. GCS E4V5M6.",
    "ALT 45 U/L, AST 60, K 4.5, Na 140.",
    "Vent: AC 16/450/5/40%.",
    # A note's own words.
    "Afebrile, vital signs stable.",
    "Gen: WDWN male. HEENT: NCAT. Neck: supple, no LAD, no JVD.",
    "Plan: PT/OT eval, DVT ppx w/ SQH, FEN: NPO, IVF.",
    "EKG: NSR, LAD, LBBB, QTc 440.",
    "S/p R TKA POD#2. WBAT RLE.",
    "Cultures grew E. coli, Klebsiella and S. aureus.",
    "Steri-Strips and Dermabond applied.",
    # Words of every day that are names elsewhere.
    "May need a refill; will call. Hope all is well.",
    "My wife may need surgery and my son will drive.",
    "My mother hopes to come; my father will too.",
    "Dr. will see you now.",
    "Patient may shower. Nurse will remove drain.",
    "Mark the site. Bill the insurer. Grant access.",
    "Drew blood twice. Rich in iron. Frank hematuria.",
    "Rose Bengal stain; Lily allergy; Ivy rash.",
    "The Hope fund closed and the Rose garden opened.",
    "To Grant access, Will you sign? If Hope fades, Chase the beer.",
    "Best practice: wash hands. Best,\nCare Team\n- None",
    "Provider: Mark your pain from zero to ten.",
    # Germs, and words in small letters.
    "Culture: Proteus mirabilis, Candida albicans, Morganella morganii.",
    "mother: diabetes, sister: lupus, brother: healthy",
    "Give Tylenol PM, gel insoles? Not covered.",
    "| Drug | Class |\n|---|---|\n| Metoprolol | beta blocker |",
    "Swan-Ganz in place, Foley out. Bard port accessed.",
    "Koplik spots; Hutchinson teeth; Reed-Sternberg cells seen.",
    "Bactrim DS, Ortho Tri-Cyclen, Depo-Provera; apply Aquaphor.",
    # Abbreviations with full stops, and questions that begin with a name.
    "T.I.D. dosing, not B.I.D.; P.R.N. is as needed.",
    "Step 1: Mark incision. Nurse: May I? Doctor: Will you sign?",
    '<code code="38341003" displayName="Hypertensive disorder" codeSystemName="SNOMED CT"/>',
    '{"code":{"coding":[{"code":"384710033"}],"text":"Crohn disease"},"bodySite":[{"text":"Liver"}]}',
    "Criterion | Met\nAge over 65 | Yes\nFever | No",
    "Bankart lesion, Hill-Sachs defect, SLAP tear.",
    "Congo red negative. Nursing: turned q2h.",
    "**Patient:** Will do!\n**Doctor:** Hope so.\n**Patient:** May I go?",
    # A unit before a range, and a day of every week.
    "OBX|1|NM|718-7^Hemoglobin^LN||9.8|g/dL|12-16|L|||F",
    "Schedule: Monday through Friday, 9 to 5; PRN weekends.",
]


@pytest.fixture(scope="module")
def detector() -> PhiDetector:
    return PhiDetector.load()


@pytest.mark.parametrize(("text", "expected"), SOMEBODY, ids=range(len(SOMEBODY)))
def test_somebody_is_found_whole_and_nothing_else(detector: PhiDetector, text: str, expected: list[tuple[str, str]]) -> None:
    names = set(expected)

    (spans,) = detector.find([text])

    assert {(span.type, text[span.start : span.end]) for span in spans} == names


@pytest.mark.parametrize("text", NOBODY, ids=range(len(NOBODY)))
def test_nobody_is_found_where_medicine_is_spoken_of(detector: PhiDetector, text: str) -> None:
    (spans,) = detector.find([text])

    assert spans == []
