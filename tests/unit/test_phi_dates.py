"""Dates more exact than a year, ages above 89; and what is neither."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.phi import dates
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
]
NO_DAYS = [
    "in 1984 he immigrated",
    "born in 1958, in school until 1931",
    "for 10 days, every 8 hours, 2 weeks ago, at 10:30",
    "you may 2 tablets, then march 10 miles",
    "strength 3/5, 2/6 systolic murmur, 120/80, pain 5/10",
    "Mar 10 mg",
    "Monday through Friday, every Sunday",
    "version 1.2.20 of the form",
]
AGES = [("a 91-year-old man", "91"), ("93yo M", "93"), ("aged 95", "95"), ("he is ninety-four years old", "ninety-four")]
NO_AGES = ["a 89-year-old man", "aged 45", "HR is 92", "she is 98 pounds", "BP 96/60", "she is 95% better", "92 mg/dL"]


def values(text: str, kind: str) -> list[str]:
    return [text[span.start : span.end] for span in settle(text, dates.find(text), ()) if span.type == kind]


@pytest.mark.parametrize(("text", "value"), DAYS)
def test_a_day_is_found_however_it_is_written(text: str, value: str) -> None:
    found = values(text, "DATE_TIME")

    assert found == [value]


@pytest.mark.parametrize("text", NO_DAYS)
def test_years_durations_and_fractions_are_no_days(text: str) -> None:
    found = values(text, "DATE_TIME")

    assert found == []


@pytest.mark.parametrize(("text", "value"), AGES)
def test_an_age_above_89_is_found(text: str, value: str) -> None:
    found = values(text, "AGE")

    assert found == [value]


@pytest.mark.parametrize("text", NO_AGES)
def test_lower_ages_and_readings_are_let_stand(text: str) -> None:
    found = values(text, "AGE")

    assert found == []


@given(
    day=st.dates(date(1900, 1, 1), date(2039, 12, 31)),
    form=st.sampled_from(["%Y-%m-%d", "%m/%d/%Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y"]),
)
def test_a_day_is_read_as_it_was_written(day: date, form: str) -> None:
    written = day.strftime(form)

    read = dates.read(written)

    assert read == day
    assert values(f"seen {written} here", "DATE_TIME") == [written]
