"""Dates more exact than a year, ages above 89; and what is neither."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi import ages, dates, day_forms
from tidegate.processors.guardrails.phi.merge import settle

DAYS = [
    ("DOB 7/4/1938", "7/4/1938"),
    ("on 14/03/2024 in Leeds", "14/03/2024"),
    ("since 2024-03-14T08:15:00Z", "2024-03-14T08:15:00Z"),
    ("born on the 4th of July 1938", "4th of July 1938"),
    ("on Friday, March 3rd she", "Friday, March 3rd"),
    ("in 03/2024 again", "03/2024"),
    ("05JAN2019 visit", "05JAN2019"),
    ("Jan 5, 2019", "Jan 5, 2019"),
    ("early in May", "May"),
    ("since May 2018", "May 2018"),
    ("my son in August of two thousand eight", "August of two thousand eight"),
    ("on January tenth two thousand nine", "January tenth two thousand nine"),
    ("since the fourth of June, when", "the fourth of June"),
    ("D.O.B.: 19380704", "19380704"),
    ("seen 3/14 for", "3/14"),
    ("the summer of 2020 was", "summer of 2020"),
    ("on Tuesday", "Tuesday"),
    ("he was born in 1931 and", "1931"),
    ("born March 14th '62", "March 14th '62"),
    ("admitted on 20240314 for", "20240314"),
    ("20240314T093000Z was the time", "20240314T093000Z"),
    ("the file scan_20240314 was", "20240314"),
    ("admitted 2024-W11-4", "2024-W11-4"),
    ("DOB: 3.14.62", "3.14.62"),
    ("Follow up 3-14.", "3-14"),
    ("Tues, 3/14 with her", "3/14"),
    ("appointment 3/14 2:30 pm", "3/14"),
    ("MVA in 3/19", "3/19"),
    ("a mid-March visit", "March"),
    ("surgery the 14th", "14th"),
    ("due on the twenty-third", "twenty-third"),
    ("seen on the 3rd.", "3rd"),
    ("on Christmas Day she fell", "Christmas Day"),
    ("worse since Thanksgiving", "Thanksgiving"),
    ("Q3 2022 visit", "Q3 2022"),
    ("the third quarter of 2022", "third quarter of 2022"),
    ("Sat 14 Mar", "Sat 14 Mar"),
]
NO_DAYS = [
    "weekly on Mondays, closed Sundays",
    "in 1984 he immigrated",
    "born in 1958, in school until 1931",
    "for 10 days, every 8 hours, 2 weeks ago, at 10:30",
    "you may 2 tablets, then march 10 miles",
    "strength 3/5, 2/6 systolic murmur, 120/80, pain 5/10",
    "Mar 10 mg",
    "Monday through Friday, every Sunday",
    "version 1.2.20 of the form",
    "for 3/4 of a tablet and 1/2 of the dose, on 3/10 scale, in 3/4 patients and 12/20 cases",
    "3/5-4/5 strength, pain 5/10 at 8 am, vision 20/40 to 20/25, grade 2-3",
    "follow up 3-4 weeks, on 2-3 occasions, for 10-14 days",
    "on the second day, the 10th percentile, the 5th metatarsal, on the 4th, 5th and 6th ribs",
    "for the 14th time, the third trial, on the third attempt, the twelfth nerve",
    "the number 20241301, 1234567 and 99999999",
    "W12 of 2024, week 12",
]
AGES = [
    ("a 91-year-old man", "91"),
    ("93yo M", "93"),
    ("aged 95", "95"),
    ("he is ninety-four years old", "ninety-four"),
    ("she just turned ninety-four", "ninety-four"),
    ("she is ninety-three and lives alone", "ninety-three"),
    ("a 92-y/o woman", "92"),
    ("aged ninety one", "ninety one"),
    ("93 y F with falls", "93"),
    ("93F with dyspnea", "93"),
    ("she's a 97 F with falls", "97"),
    ("a lady in her nineties", "nineties"),
    ("pt is in his late 90s", "90s"),
    ("a nonagenarian with falls", "nonagenarian"),
    ("her 95th birthday", "95th"),
    ("his ninety-second birthday", "ninety-second"),
    ("her hundredth birthday", "hundredth"),
    ("her mother died at 96", "96"),
    ("father lived to 98.", "98"),
    ("mother 94, alive and well", "94"),
    ('{"age": 94}', "94"),
    ("a hundred and two years old", "a hundred and two"),
    ("Rosa is 93", "93"),
    ("Rosa Delgado will be 91 next month", "91"),
    ("she will be 90 next month", "90"),
    ("Pt, 97, fell", "97"),
    ("Mr. Price, 97, fell", "97"),
    ("Age/Sex: 97/F", "97"),
]
NO_AGES = [
    "a 89-year-old man",
    "aged 45",
    "HR is 92",
    "she is 98 pounds",
    "BP 96/60",
    "she is 95% better",
    "92 mg/dL",
    "temp 97 F, 101F at noon, then 98.6 F; 94 kg and 97 F",
    "HR in her 90s, sats in the 90s, BP in her 90s over 60s",
    "ninety mg for ninety minutes, ninety-two patients and a hundred controls",
    "I'm a hundred miles away and one hundred percent sure; he is ninety feet from it",
    "in the nineties this drug was popular",
    "her 90th percentile weight",
    "glucose went to 94, he scored 92",
    "Sat is 93. MAP is 91. Peak is 95. Room, 97, clean. Temp, 98, normal. Sugar was 97.",
    "Glucose of Rosa, 97, was normal; scores of Rosa: 97, 98; Rosa is 93% done and was 95 percent better",
    "Patient, 67, fell; Age/Sex: 45/F; she will be 90 minutes late",
]


def values(text: str, kind: str) -> list[str]:
    return [
        text[span.start : span.end] for span in settle(text, [*dates.find(text), *ages.find(text)], ()) if span.type == kind
    ]


@pytest.mark.parametrize(("text", "value"), DAYS, ids=[f"{n}" for n in range(len(DAYS))])
def test_a_day_is_found_however_it_is_written(text: str, value: str) -> None:
    found = values(text, "DATE_TIME")

    assert found == [value]


@pytest.mark.parametrize("text", NO_DAYS, ids=[f"{n}" for n in range(len(NO_DAYS))])
def test_years_durations_and_fractions_are_no_days(text: str) -> None:
    found = values(text, "DATE_TIME")

    assert found == []


@pytest.mark.parametrize(("text", "value"), AGES, ids=[f"{n}" for n in range(len(AGES))])
def test_an_age_above_89_is_found(text: str, value: str) -> None:
    found = values(text, "AGE")

    assert found == [value]


@pytest.mark.parametrize("text", NO_AGES, ids=[f"{n}" for n in range(len(NO_AGES))])
def test_lower_ages_and_readings_are_let_stand(text: str) -> None:
    found = values(text, "AGE")

    assert found == []


@given(
    day=st.dates(date(1900, 1, 1), date(2039, 12, 31)),
    form=st.sampled_from(["%Y-%m-%d", "%m/%d/%Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y"]),
)
def test_a_day_is_read_as_it_was_written(day: date, form: str) -> None:
    written = day.strftime(form)

    read = day_forms.read(written)

    assert read == day
    assert values(f"seen {written} here", "DATE_TIME") == [written]
