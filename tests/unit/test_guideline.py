"""Guidelines: doses and contraindications are flagged where given, and nowhere else."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from tidegate.processors.guardrails.grounding.guideline import GuidelineDetector
from tidegate.processors.guardrails.grounding.rules import GuidelineError, read_rules
from tidegate.processors.guardrails.ports import Batch, Finding, Sample

NOTES = (
    Path(os.environ.get("TIDEGATE_DEV_DATA") or Path(__file__).parents[3] / "shared" / "data" / "dev") / "mts_dialog_val.csv"
)
DOSE, AGAINST = "GUIDELINE_DOSE", "GUIDELINE_CONTRAINDICATION"

FLAGGED = [
    (DOSE, "Take acetaminophen 1500 mg every 8 hours.", None, "acetaminophen 1500 mg"),
    (DOSE, "Take Tylenol 1 g every 4 hours.", None, "Tylenol 1 g"),
    (DOSE, "The maximum daily dose of acetaminophen is 8 g.", None, "acetaminophen is 8 g"),
    (DOSE, "Give digoxin 2.5 mg daily.", None, "digoxin 2.5 mg"),
    (DOSE, "Start levothyroxine 100 mg once a day.", None, "levothyroxine 100 mg"),
    (DOSE, "She may take 2000 mg of ibuprofen at once.", None, "2000 mg of ibuprofen"),
    (DOSE, "Methotrexate 15 mg daily for her arthritis.", None, "Methotrexate 15 mg"),
    (AGAINST, "You can take ibuprofen 400 mg for the pain.", "I'm on warfarin. What about my knee?", "ibuprofen"),
    (AGAINST, "I recommend lisinopril 10 mg daily.", "She is 12 weeks pregnant.", "lisinopril"),
    (AGAINST, "Start amoxicillin 500 mg three times a day.", "Patient is allergic to penicillin.", "amoxicillin"),
    (AGAINST, "Use sumatriptan 50 mg at onset.", "History of heart attack in 2019.", "sumatriptan"),
    (AGAINST, "Take ibuprofen 400 mg for the pain.", "I am in my third trimester.", "ibuprofen"),
    (AGAINST, "Take ibuprofen 400 mg for the pain.", "I am 34 weeks pregnant.", "ibuprofen"),
    (AGAINST, "Take aspirin 325 mg daily.", "I take warfarin.", "aspirin"),
    (AGAINST, "Give aspirin 300 mg for the fever.", "The child has chickenpox.", "aspirin"),
    (AGAINST, "Give aspirin 300 mg for the fever.", "The patient is an 8-year-old boy. He has the flu.", "aspirin"),
    (AGAINST, "Continue metformin 500 mg twice daily.", "His eGFR is 22.", "metformin"),
    (AGAINST, "Continue metformin 500 mg twice daily.", "eGFR: 28 mL/min/1.73 m2, creatinine 2.4", "metformin"),
    (AGAINST, "Take amoxicillin 500 mg even though you are allergic to penicillin.", None, "amoxicillin"),
    (AGAINST, "Despite your penicillin allergy, you can take amoxicillin.", None, "amoxicillin"),
]
FINE = [
    ("Take acetaminophen 650 mg every 4 to 6 hours.", None),
    ("Do not exceed 4 g of acetaminophen per day.", None),
    ("Taking more than 10 g of acetaminophen is toxic.", None),
    ("Do not take ibuprofen with warfarin.", "I'm on warfarin."),
    ("You can take ibuprofen 400 mg.", "My mother takes warfarin."),
    ("I recommend lisinopril 10 mg daily.", "She is not pregnant."),
    ("Start amoxicillin 500 mg three times a day.", "No known allergies to penicillin."),
    ("Methotrexate 15 mg weekly.", None),
    ("Amoxicillin 45 mg/kg/day in children.", None),
    ("Amoxicillin 250 mg/5 mL suspension.", None),
    ("Do not take ibuprofen in the third trimester.", "I am in my third trimester."),
    ("Take ibuprofen 400 mg for the pain.", "I am 8 weeks pregnant."),
    ("Do not take aspirin with warfarin.", "I take warfarin."),
    ("Never give aspirin to a child with the flu.", "The child has the flu."),
    ("Take aspirin 300 mg.", "I am 60 years old and have the flu."),
    ("Metformin is contraindicated at an eGFR of 22.", "His eGFR is 22."),
    ("Continue metformin 500 mg twice daily.", "His eGFR is 65."),
    ("Continue metformin 500 mg twice daily.", "His eGFR rose from 22 to 65."),
    ("Continue metformin 500 mg twice daily.", "eGFR normal, potassium 4."),
    ("Do not take amoxicillin, even though you took it before; you are allergic to penicillin.", None),
    ("Although you are allergic to penicillin, avoid only amoxicillin.", None),
    ("Take azithromycin 500 mg even though you are allergic to penicillin.", None),
    ("Stop ibuprofen, and take acetaminophen 500 mg.", "She takes apixaban."),
]


def flagged(response: str, prompt: str | None, detector: GuidelineDetector | None = None) -> list[Finding]:
    detector = detector or GuidelineDetector.load()
    return detector.assess(Batch([Sample("one", prompt, response)]))[0].findings


@pytest.mark.parametrize("place", range(len(FLAGGED)))
def test_what_a_label_forbids_is_flagged_where_it_stands(place: int) -> None:
    kind, response, prompt, covered = FLAGGED[place]

    found = flagged(response, prompt)

    assert [(one.type, response[one.start : one.end]) for one in found] == [(kind, covered)]


def test_each_finding_names_the_rule_that_it_goes_by() -> None:
    said = {
        "dose-acetaminophen": ("Take acetaminophen 1500 mg every 8 hours.", None),
        "triptan-coronary": ("Use sumatriptan 50 mg at onset.", "History of heart attack in 2019."),
        "allergy-penicillin": ("Start amoxicillin 500 mg three times a day.", "Patient is allergic to penicillin."),
        "allergy": ("Start azithromycin 500 mg daily.", "Patient is allergic to azithromycin."),
    }

    found = {rule: [one.rule for one in flagged(*texts)] for rule, texts in said.items()}

    assert found == {rule: [rule] for rule in said}


@pytest.mark.parametrize("place", range(len(FINE)))
def test_what_is_in_range_warned_of_or_someone_elses_is_not_flagged(place: int) -> None:
    response, prompt = FINE[place]

    found = flagged(response, prompt)

    assert found == []


def test_the_context_speaks_of_the_patient_too() -> None:
    sample = Sample("one", None, "Metformin 500 mg twice daily may be continued.", ("Problem list: ESRD on dialysis.",))

    verdict = GuidelineDetector.load().assess(Batch([sample]))[0]

    assert [one.type for one in verdict.findings] == [AGAINST]


def test_the_notes_of_clinicians_are_not_flagged() -> None:
    if not NOTES.is_file():
        pytest.skip("mts_dialog_val.csv is absent; name its folder in TIDEGATE_DEV_DATA")
    with NOTES.open(newline="", encoding="utf-8") as file:
        samples = [Sample(row["ID"], None, row["section_text"], (row["dialogue"],)) for row in csv.DictReader(file)]

    verdicts = GuidelineDetector.load().assess(Batch(samples))

    assert len(samples) == 100
    assert [sample.id for sample, verdict in zip(samples, verdicts, strict=True) if verdict.findings] == []


def test_every_shipped_rule_names_its_source_and_year() -> None:
    rules = read_rules()

    sources = [rule.source for kind in (rules.doses, rules.contraindications, rules.allergies) for rule in kind.values()]

    assert len(sources) > 80
    assert [source for source in sources if not any(f"({year})" in source for year in range(2000, 2027))] == []


def test_a_site_adds_rules_and_replaces_shipped_ones_by_id(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "groups:\n  local: [zortamine]\n"
        "doses:\n"
        "  - {id: dose-acetaminophen, names: [acetaminophen], unit: g, daily: 3, severity: 0.5, source: House rule (2026)}\n"
        "contraindications:\n"
        "  - {id: zortamine-asthma, drugs: [local], with: [asthma], severity: 0.4, source: House rule (2026)}\n"
    )

    detector = GuidelineDetector.load(own)

    assert [one.score for one in flagged("Take acetaminophen 1 g every 6 hours.", None, detector)] == [0.5]
    assert [one.score for one in flagged("Start zortamine.", "She has asthma.", detector)] == [0.4]
    assert detector.version != GuidelineDetector.load().version


DOSE_LINE = "- {id: a, names: [b], unit: mg, daily: 3, severity: 0.5, source: S (2026)}\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("doses:\n" + DOSE_LINE.replace("unit: mg", "unit: ml"), r"line 2: unknown unit 'ml'; use mcg, mg, g or units"),
        ("doses:\n" + DOSE_LINE.replace("daily: 3, ", ""), r"line 2: a dose without a limit; give `single`, `daily` or both"),
        ("doses:\n" + DOSE_LINE.replace(", source: S (2026)", ""), r"line 2: a rule of doses lacks `source`"),
        ("doses:\n" + DOSE_LINE.replace("daily: 3", "daily: much"), r"line 2: must be a number above 0"),
        (
            "doses:\n" + DOSE_LINE.replace("[b]", '["egfr <30"]'),
            r"line 2: cannot read 'egfr <30'; write a name with a number as",
        ),
        ("doses:\n" + DOSE_LINE + DOSE_LINE, r"line 3: a second rule with the id 'a'"),
        ("doses:\n" + DOSE_LINE.replace("daily:", "dialy:"), r"line 2: unknown `dialy`"),
        ("dozes:\n" + DOSE_LINE, r"line 2: unknown section 'dozes'; use groups"),
        ("doses: [\n", r"line 2: is not YAML"),
        ("allergies:\n- {id: a, group: nobody, severity: 1, source: S}\n", r"line 2: unknown group 'nobody'"),
        ("- a\n", r"line 1: the file must be a mapping"),
    ],
)
def test_a_file_that_cannot_be_used_says_the_line_and_what_to_do(tmp_path: Path, text: str, complaint: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)

    with pytest.raises(GuidelineError, match=complaint):
        GuidelineDetector.load(own)
