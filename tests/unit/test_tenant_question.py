"""What a tenant may ask: what is understood is written anew, and everything else is refused."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tidegate.processors.tenant_question import MAX_CHARACTERS, VIEWS, Question, QuestionRefused, question

HARBOR: Final = "harbor's own"
RANGE: Final = "since = '2026-11-01', until = '2026-12-01'"
COST: Final = f"cost_by(by = 'model', {RANGE})"


def asked(statement: str, **given: str) -> Question:
    return question(statement, given, HARBOR)


def spelled(statement: str, **given: str) -> str:
    """A question with its values put in their places, for people to read."""
    found = asked(statement, **given)
    return re.sub(r"\{(\w+):\w+\}", lambda match: repr(found.values[match[1]]), found.sql)


# ---- what is understood


def test_a_view_is_asked_for_the_tenant_of_the_token() -> None:
    found = asked(f"select * from {COST}")

    assert (
        found.sql == "SELECT * FROM cost_by(by = {v0:String}, since = {v1:String}, until = {v2:String}, tenant = {v3:String})"
    )
    assert found.values == {"v0": "model", "v1": "2026-11-01", "v2": "2026-12-01", "v3": HARBOR}


@pytest.mark.parametrize(
    ("statement", "spelling"),
    [
        (f"SELECT value, requests AS n FROM {COST}", "SELECT `value`, `requests` AS `n` FROM "),
        (f"SELECT (cost_usd - 2) * 3 / requests AS x FROM {COST}", "SELECT (`cost_usd` - 2) * 3 / `requests` AS `x` FROM "),
        (f"SELECT limit, from, select FROM {COST}", "SELECT `limit`, `from`, `select` FROM "),
    ],
)
def test_columns_are_names_and_sums_of_them(statement: str, spelling: str) -> None:
    assert spelled(statement).startswith(spelling)


@pytest.mark.parametrize(
    ("rest", "spelling"),
    [
        ("WHERE requests > 10 AND value != 'it''s'", 'WHERE `requests` > 10 AND `value` != "it\'s"'),
        ("WHERE value IS NOT NULL AND requests >= -1.5", "WHERE `value` IS NOT NULL AND `requests` >= -1.5"),
        ("ORDER BY cost_usd desc nulls last, value", "ORDER BY `cost_usd` DESC NULLS LAST, `value`"),
        ("LIMIT 10 OFFSET 20", "LIMIT 10 OFFSET 20"),
        (r"WHERE value = 'a\'b\\c' LIMIT 1", 'WHERE `value` = "a\'b\\\\c" LIMIT 1'),
    ],
)
def test_conditions_order_and_bounds_come_behind_the_view(rest: str, spelling: str) -> None:
    assert spelled(f"SELECT * FROM {COST} {rest}").endswith(f") {spelling}")


@pytest.mark.parametrize(
    ("moment", "spelling"),
    [
        ("toString(now() - INTERVAL 7 DAY)", "toString(now() - INTERVAL 7 DAY)"),
        ("today() + interval 1 month", "toString(today() + INTERVAL 1 MONTH)"),
        ("now()", "toString(now())"),
        ("1793491200", "'1793491200'"),
        ("{from:DateTime}", "'2026-11-01 08:00:00'"),
    ],
)
def test_a_range_may_be_told_by_the_clock(moment: str, spelling: str) -> None:
    sql = spelled(f"SELECT * FROM blocks(since = {moment}, until = '2026-12-01')", **{"from": "2026-11-01 08:00:00"})

    assert sql.startswith(f"SELECT * FROM blocks(since = {spelling}, until = '2026-12-01', tenant = ")


def test_parameters_are_taken_as_clickhouse_escapes_them() -> None:
    given = {"by": r"a\tb\\c\'d", "rows": "5"}

    text = asked("SELECT * FROM cost_by(by = {by:String}, since = '1', until = '2')", **given)
    number = asked("SELECT * FROM slowest_calls(since = '1', until = '2', rows = {rows:UInt8})", **given)

    assert text.values["v0"] == "a\tb\\c'd"
    assert number.values["v2"] == 5


def test_a_text_that_looks_like_a_statement_stays_a_text() -> None:
    found = asked(rf"SELECT * FROM cost_by(by = 'a\', tenant = ''*', {RANGE}) WHERE value = '*/ UNION ALL SELECT 1 --'")

    assert found.sql.endswith(", tenant = {v3:String}) WHERE `value` = {v4:String}")
    assert {"a', tenant = '*", "*/ UNION ALL SELECT 1 --", HARBOR} <= set(found.values.values())
    assert "UNION" not in found.sql


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_can_be_described(view: str) -> None:
    found = asked(f"DESCRIBE TABLE {view}")

    assert found.sql.startswith(f"DESCRIBE (SELECT * FROM {view}(")
    assert HARBOR in found.values.values()


@pytest.mark.parametrize("greeting", ["SELECT 1", "SELECT version(), timezone()", " select\n 1 ", "SHOW TABLES"])
def test_greetings_of_clients_are_answered_without_a_view(greeting: str) -> None:
    assert "FROM" not in asked(greeting).sql


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT requests + 1 AS n FROM {COST} WHERE n > 1",
        f"SELECT value, requests AS cost_usd FROM {COST} WHERE requests > 1 AND cost_usd > 1",
        f"SELECT requests / 0 AS value FROM {COST} WHERE value IS NULL",
        f"SELECT value AS value FROM {COST} WHERE value = 'a'",
    ],
)
def test_a_condition_names_nothing_that_was_named_with_as(statement: str) -> None:
    with pytest.raises(QuestionRefused, match="WHERE takes columns of the view") as refused:
        asked(statement)

    assert refused.value.code == 497


def test_the_order_may_be_by_what_was_named_with_as() -> None:
    found = asked(f"SELECT requests + 1 AS n FROM {COST} WHERE requests > 1 ORDER BY n")

    assert found.sql.endswith("WHERE `requests` > 1 ORDER BY `n`")


# ---- whose it is


def test_the_tenant_may_be_named_as_it_is() -> None:
    for name in ("'harbor''s own'", "{t:String}"):
        found = asked(f"SELECT * FROM blocks(tenant = {name}, {RANGE})", t=r"harbor\'s own")

        assert found.sql.count("tenant") == 1
        assert [value for value in found.values.values() if value == HARBOR] != []


@pytest.mark.parametrize("other", ["'hill'", "'*'", "''", "'HARBOR''S OWN'", "'harbor''s own '", "7", "{t:String}"])
def test_another_tenant_is_refused_and_not_named(other: str) -> None:
    with pytest.raises(QuestionRefused) as refused:
        asked(f"SELECT * FROM blocks(tenant = {other}, {RANGE})", t="hill")

    assert refused.value.code == 497
    assert "hill" not in str(refused.value)


# ---- everything else

HOSTILE: Final = [
    "",
    ";",
    "SELECT",
    "SELECT 2",
    "SELECT 1 FROM calls",
    "SELECT * FROM calls",
    "SELECT * FROM transcripts",
    "SELECT * FROM tidegate.calls",
    "SELECT * FROM system.tables",
    "SELECT * FROM system.query_log",
    "SELECT * FROM cost_by",
    "SELECT * FROM merge('tidegate', '.*')",
    "SELECT * FROM merge(tidegate, '^calls$')",
    "SELECT * FROM remote('127.0.0.1', tidegate.calls)",
    "SELECT * FROM url('http://127.0.0.1', 'LineAsString')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM view(SELECT * FROM calls)",
    "SELECT * FROM loop(calls)",
    f"SELECT * FROM usage_between(tenant = '*', {RANGE})",
    f"SELECT * FROM usage_between({RANGE})",
    f"SELECT * FROM usage_by(by = 'model', {RANGE})",
    f"SELECT * FROM tidegate.{COST}",
    f"SELECT * FROM `{COST}`",
    "SELECT * FROM `cost_by`(by = 'model', since = '1', until = '2')",
    "SELECT * FROM \"cost_by\"(by = 'model', since = '1', until = '2')",
    f"SELECT * FROM COST_BY(by = 'model', {RANGE})",
    f"SELECT * FROM {COST}, calls",
    f"SELECT * FROM {COST} AS a, calls AS b",
    f"SELECT * FROM {COST} a",
    f"SELECT * FROM {COST} JOIN calls ON 1",
    f"SELECT * FROM {COST} JOIN calls USING (tenant)",
    f"SELECT * FROM {COST} ARRAY JOIN [1]",
    f"SELECT * FROM {COST} UNION ALL SELECT * FROM calls",
    f"SELECT * FROM {COST} INTERSECT SELECT * FROM calls",
    f"SELECT * FROM {COST}; SELECT * FROM calls",
    f"SELECT * FROM calls; SELECT * FROM {COST}",
    f"SELECT * FROM {COST} SETTINGS readonly = 0",
    f"SELECT * FROM {COST} SETTINGS additional_table_filters = {{'calls': '1'}}",
    f"SELECT * FROM {COST} FINAL",
    f"SELECT * FROM {COST} SAMPLE 1",
    f"SELECT * FROM {COST} PREWHERE 1",
    f"SELECT * FROM {COST} INTO OUTFILE '/tmp/x'",
    f"SELECT * FROM {COST} FORMAT JSON FORMAT CSV",
    f"SELECT * FROM {COST} WHERE tenant IN (SELECT tenant FROM calls)",
    f"SELECT * FROM {COST} WHERE 1",
    f"SELECT * FROM {COST} WHERE value = 'a' OR 1",
    f"SELECT * FROM {COST} WHERE value = 'a' OR value = 'b'",
    f"SELECT * FROM {COST} WHERE throwIf(requests > 1)",
    f"SELECT * FROM {COST} WHERE requests / 0 > 1",
    f"SELECT * FROM {COST} WHERE value = value",
    f"SELECT * FROM {COST} WHERE value LIKE '%'",
    f"SELECT * FROM {COST} WHERE value = (SELECT 1)",
    f"SELECT * FROM {COST} HAVING 1",
    f"SELECT * FROM {COST} GROUP BY value",
    f"SELECT * FROM {COST} ORDER BY (SELECT 1)",
    f"SELECT * FROM {COST} ORDER BY rand()",
    f"SELECT * FROM {COST} LIMIT (SELECT 1)",
    f"SELECT * FROM {COST} LIMIT 1.5",
    f"SELECT * FROM {COST} LIMIT 1 BY value",
    f"SELECT * FROM {COST} -- calls",
    f"SELECT * FROM {COST} # calls",
    f"SELECT * /* calls */ FROM {COST}",
    f"SELECT value --\n, (SELECT 1) FROM {COST}",
    f"SELECT (SELECT count() FROM calls) FROM {COST}",
    f"SELECT count() FROM {COST}",
    f"SELECT file('/etc/passwd') FROM {COST}",
    f"SELECT getSetting('readonly') FROM {COST}",
    f"SELECT hostName() FROM {COST}",
    f"SELECT dictGet('d', 'a', 1) FROM {COST}",
    f"SELECT 'x' FROM {COST}",
    f"SELECT _table FROM {COST}",
    f"SELECT COLUMNS('.*') FROM {COST}",
    f"SELECT * EXCEPT (value) FROM {COST}",
    f"SELECT *, value FROM {COST}",
    f"SELECT value.1 FROM {COST}",
    f"SELECT cost_by.value FROM {COST}",
    f"SELECT value AS `x` FROM {COST}",
    f"SELECT value::String FROM {COST}",
    f"SELECT DISTINCT value FROM {COST}",
    f"SELECT {{x:Identifier}} FROM {COST}",
    f"SELECT - 1 FROM {COST}",
    f"SELECT * FROM {{view:Identifier}}(by = 'model', {RANGE})",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, tenant = {{tenant:Identifier}})",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, tenant = {{tenant:String}})",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, tenant = concat('h', 'ill'))",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, tenant = (SELECT '*'))",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, tenant = 'harbor''s own', tenant = '*')",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, `tenant` = '*')",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, TENANT = '*')",
    f"SELECT * FROM cost_by(by = 'model', {RANGE}, x = '*')",
    f"SELECT * FROM cost_by(by = 'model' || (SELECT 1), {RANGE})",
    f"SELECT * FROM cost_by(by = 'a\\x27', {RANGE})",
    f"SELECT * FROM cost_by({RANGE})",
    "SELECT * FROM cost_by(by = 'model')",
    "SELECT * FROM cost_by(by = 'model', since = (SELECT min(started_at) FROM calls), until = '2')",
    "SELECT * FROM cost_by(by = 'model', since = toString(yesterday()), until = '2')",
    "SELECT * FROM cost_by(by = 'model', since = now() - (SELECT 1), until = '2')",
    "SELECT * FROM cost_by(by = 'model', since = now(sleep(3)), until = '2')",
    "SELECT * FROM cost_by(by = 'model', since = toString(tenant), until = '2')",
    f"SELECT * FROM slowest_calls({RANGE}, rows = '1 OR 1')",
    f"SELECT * FROM slowest_calls({RANGE}, rows = 1.5)",
    f"WITH x AS (SELECT * FROM calls) SELECT * FROM {COST}",
    f"EXPLAIN SELECT * FROM {COST}",
    f"(SELECT * FROM {COST})",
    "DESCRIBE calls",
    "DESCRIBE (SELECT * FROM calls)",
    "DESCRIBE cost_by; SELECT 1",
    "SHOW TABLES FROM system",
    "SHOW CREATE VIEW cost_by",
    "SHOW PROCESSLIST",
    "EXISTS calls",
    "SELECT name, value, readonly FROM system.settings",
    "SELECT name, value, readonly FROM system.settings LIMIT 10000 UNION ALL SELECT tenant, user, 1 FROM calls",
    "SELECT version(), timezone(), (SELECT count() FROM calls)",
    "INSERT INTO calls SELECT 1",
    "SET readonly = 0",
    "KILL QUERY WHERE 1",
    "SYSTEM FLUSH LOGS",
    f"SELECT * FROM cоst_by(by = 'model', {RANGE})",  # a Cyrillic о
    f"SELECT\u00a0* FROM {COST}",
    f"SELECT * FROM {COST}\0",
    f"SELECT * FROM {COST} ＷＨＥＲＥ 1",
    f"SELECT {'(' * 21}value{')' * 21} FROM {COST}",
    f"SELECT {'value, ' * MAX_CHARACTERS}value FROM {COST}",
]


@pytest.mark.parametrize("statement", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_question_of_a_tenants_is_refused(statement: str) -> None:
    with pytest.raises(QuestionRefused):
        asked(statement, tenant="hill", view="calls", x="calls")


WORDS: Final = [
    *("SELECT", "FROM", "WHERE", "AND", "OR", "ORDER BY", "LIMIT", "UNION ALL", "JOIN", "SETTINGS", "AS", "IS NULL", "IN"),
    *(
        "*",
        "(",
        ")",
        ",",
        "=",
        "-",
        "/",
        ";",
        "--",
        "/*",
        "*/",
        "'",
        "''",
        "\\",
        "\\'",
        "`",
        '"',
        "{",
        "}",
        ".",
        "\n",
        "\0",
        "é",
    ),
    *("tenant = '*'", "tenant = 'hill'", "{tenant:String}", "{x:Identifier}", "calls", "transcripts", "merge('', '.*')", "1"),
    *("cost_by", "blocks", COST, f"blocks({RANGE})", f"SELECT * FROM {COST}", "value", "now()", "toString(", "INTERVAL 1 DAY"),
]
# All that a statement of ours is made of: words of ours, names in backticks, numbers and places of values.
OURS: Final = re.compile(
    r"""SELECT\ (?:\*|(?:`[A-Za-z]\w*`|[\d.]+|AS|[-+*/(),\ ])+)
        \ FROM\ (?P<view>[a-z_]+)
        \((?P<told>(?:[a-z]+\ =
            \ (?:\{v\d+:(?:String|Int64)\}|toString\((?:now|today)\(\)(?:\ [-+]\ INTERVAL\ \d+\ [A-Z]+)?\))(?:,\ )?)+)\)
        (?:\ |`[A-Za-z]\w*`|[\d.]+|\{v\d+:(?:String|Int64)\}
          |WHERE|AND|IS|NOT|NULL|ORDER\ BY|ASC|DESC|NULLS|FIRST|LAST|LIMIT|OFFSET|[-,<>=!])*""",
    re.ASCII | re.VERBOSE,
)


@given(
    words=st.lists(st.sampled_from(WORDS), max_size=8),
    start=st.sampled_from(["", f"SELECT * FROM {COST} ", f"SELECT value FROM blocks({RANGE}) WHERE "]),
)
@example(words=[], start=f"SELECT * FROM {COST}")
def test_whatever_is_put_together_is_refused_or_asks_one_view_for_one_tenant(words: list[str], start: str) -> None:
    _is_safe(start + " ".join(words))


@given(
    at=st.integers(0, 200),
    gone=st.integers(0, 12),
    put=st.text(alphabet="'\\`\"(){}:;,*=-/# \n\0aZ1_ı", max_size=6),
)
def test_a_question_that_is_bent_is_refused_or_asks_one_view_for_one_tenant(at: int, gone: int, put: str) -> None:
    right = f"SELECT value, requests + 1 AS n FROM {COST} WHERE value != 'a' AND requests > 1 ORDER BY value DESC LIMIT 5"

    _is_safe(right[:at] + put + right[at + gone :])


def _is_safe(statement: str) -> None:
    try:
        found = asked(statement, tenant="hill", x="calls")
    except QuestionRefused:
        return
    if "FROM" not in found.sql:
        assert statement.split()[0].upper() in ("SELECT", "SHOW")
        return
    shape = OURS.fullmatch(found.sql)
    assert shape is not None, found.sql
    assert shape["view"] in VIEWS
    told = dict(re.findall(r"(\w+) = \{(\w+):", shape["told"]))
    assert found.values[told["tenant"]] == HARBOR
    assert shape["told"].count("tenant") == 1
    assert set(re.findall(r"\{(\w+):", found.sql)) == set(found.values)
